"""What a task decides, and what it decides by: inputs, scaling, the clips of an evaluation."""

from __future__ import annotations

import importlib
import math
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avb.models.frontends import normalise_clip
from avb.models.memory import Losses
from avb.pipeline.config import Crop
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.train import augment
from avb.train.batches import at_once, open_stream
from avb.train.recipe import Recipe, check_arguments

Makes = Literal["word", "sentence", "speech", "lag", "sound"]

#: Fixed range to which the speech mel is mapped, as in the published speech samples.
SPEECH_RANGE = 4.0
#: Bins of the mels that networks hear and make.
MEL_BINS = 80


@dataclass(frozen=True)
class Inputs:
    """A batch as the network takes it: B clips, 1 channel, T frames; M = 4 T mel columns.

    `ragged` says whether clips differ in length: only then do networks look at lengths.
    """

    video_BCTHW: Tensor
    mel_BFM: Tensor
    lengths_B: Tensor
    labels: Tensor
    boundary_BT: Tensor | None = None
    frames_BT: Tensor | None = None  # class of each frame, -1 where it is not known
    taught_BTD: Tensor | None = None  # a teacher's features
    sound_BS: Tensor | None = None  # of a task that hears, padding 0
    ragged: bool = False

    @property
    def ragged_lengths(self) -> Tensor | None:
        """The lengths where they differ, None where all clips are whole."""
        return self.lengths_B if self.ragged else None


@dataclass(frozen=True)
class Scaling:
    """What turns stored values into the network's, from the shards a model was trained on.

    Attributes:
        pixel_mean, pixel_std: of the stored pixels, 0 to 255.
        mel_low, mel_high: the range of the log-mel that is mapped to -4 to 4 (speech).
        margin: stored pixels round the crop.
        size: side of the crop.
        classes: words in the label map.
    """

    pixel_mean: float
    pixel_std: float
    mel_low: float
    mel_high: float
    margin: int
    size: int
    classes: int

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (self.pixel_mean, self.pixel_std)))
        ranges = self.pixel_std > 0 and -1e6 < self.mel_low < self.mel_high < 1e6
        if not (finite and ranges and self.classes >= 0 < self.size and self.margin >= 0):
            raise ValueError("a scaling with a value that is not finite, or outside its range")
        Crop(self.size, self.margin)

    def to_speech_range(self, mel: Tensor) -> Tensor:
        """One fixed, invertible affine map of the log-mel to -4 to 4 (speech)."""
        unit = (mel - self.mel_low) / (self.mel_high - self.mel_low)
        return (2 * unit - 1) * SPEECH_RANGE

    def from_speech_range(self, mel: Tensor) -> Tensor:
        """The inverse of `to_speech_range`."""
        unit = (mel / SPEECH_RANGE + 1) / 2
        return unit * (self.mel_high - self.mel_low) + self.mel_low


def scaling_of(index: Index, recipe: Recipe) -> Scaling:
    """The scaling that the shards call for.

    UsageError: their margin is too small for shifts, or they have other mels than networks hear.
    """
    dataset, task = index.dataset, find_task(recipe.task)
    bins = dataset["mel"]["n_mels"]
    if bins != MEL_BINS and task.needs_sound(recipe) and not task.hears:
        raise UsageError(f"these mels have {bins} bins (n_mels); networks hear {MEL_BINS}")
    crop, pixels = dataset["crops"][recipe.crop], dataset["pixels"][recipe.crop]
    if recipe.augment.jitter > crop["margin"]:
        raise UsageError(
            f"augment.jitter {recipe.augment.jitter}: these crops were stored with a margin of"
            f" {crop['margin']} pixels; jitter less"
        )
    low = float(dataset["mel"]["offset"])
    return Scaling(
        pixels["mean"], pixels["std"], low, low + 255 * float(dataset["mel"]["scale"]),
        crop["margin"], crop["size"], len(index.labels),
    )  # fmt: skip


class Task(ABC):
    """What a task decides; everything else is the same for all of them.

    Attributes:
        name: in recipes, checkpoints and records.
        command: on the command line, `name` if None.
        title: for people.
        summary: what its model does, in a sentence.
        config: the dataclass of its model's arguments.
        data: shards that are trained on where none are named.
        cpu_batch: clips a step that a CPU is timed with.
        makes: what its output is; who reads words needs shards with its own label map.
        sees: whether the model looks at pictures; if not, none are read.
        hears: whether it is taught by the stored sound itself.
        needs_target_sound: whether a clip without a sound track can neither teach nor be measured.
        pixels: how stored grey levels x are scaled, in words.
        tolerance: largest difference of an exported graph that is accepted.
        output: name of the graph's output, and what it holds.
        any_length: whether the graph takes clips of any number of frames.
        loss, score_name: what its task loss and its score of validation are, in words.
        figures: of its records, that they are named by: the first that one has.
    """

    name: str
    command: str | None = None
    title: str
    summary: str
    config: type
    data: Path
    cpu_batch: int = 8
    makes: Makes
    sees: bool = True
    hears: bool = False
    needs_target_sound: bool = True
    pixels: str = "(x - pixel_mean) / pixel_std"
    tolerance: float = 1e-3
    output: tuple[str, str]
    any_length: bool = True
    loss: str
    score_name: str
    figures: tuple[str, ...] = ()

    @abstractmethod
    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        """The model of a recipe for pictures of `side` pixels."""

    @abstractmethod
    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        """Losses and output of one pass with audio."""

    @abstractmethod
    def score(self, output: Any, inputs: Inputs) -> Tensor:
        """Per clip, the higher the better."""

    def measure(self, evaluation: Evaluation, extras: Any) -> dict[str, Any]:
        """The task's part of an evaluation record."""
        raise UsageError(f"{self.title} is measured by its validation alone")

    @abstractmethod
    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        """From uint8 pictures [B x T x S x S], and what else `graph_inputs` gives, to the output.

        A model that is no single graph is a `UsageError`.
        """

    def check_model(self, arguments: dict[str, Any], where: str) -> None:
        """A `UsageError` for keys or values of a recipe's `model` that the model does not take."""
        check_arguments(self.config, arguments, "model", where)

    def scale_pixels(self, video: Tensor, scaling: Scaling) -> Tensor:
        """Stored grey levels, 0 to 255 in any shape, as the network takes them."""
        return (video.float() - scaling.pixel_mean) / scaling.pixel_std

    def scale_mel(self, mel_BFM: Tensor, lengths_B: Tensor, scaling: Scaling) -> Tensor:
        """Stored log-mels as the network takes them; `lengths_B` in columns."""
        return normalise_clip(mel_BFM, lengths_B)

    def needs_sound(self, recipe: Recipe) -> bool:
        """Whether clips without a mel teach the recipe nothing."""
        return True

    def augment_mel(self, mel_BFM: Tensor, draws: augment.Draws) -> Tensor:
        """The mel of a training batch; the same where it is the target."""
        return mel_BFM

    def complete(
        self, inputs: Inputs, batch: Batch, recipe: Recipe, scaling: Scaling, train: bool
    ) -> Inputs:
        """The inputs with what only this task adds to them."""
        return inputs

    def usable_rows(self, index: Index, rows: Ints, recipe: Recipe) -> Ints:
        """Those rows that have what the recipe learns."""
        return rows

    def shift_logits(self, model: nn.Module, inputs: Inputs, scaling: Scaling) -> Tensor:
        """How well each frame fits the sound at every shift, [B x T x K], for `avb sync`."""
        raise UsageError(f"{self.title} tells no lag; give a network of avb train sync or l2s")

    def main_figure(self, metrics: dict[str, Any]) -> str:
        """The name of the figure that says most of these of a record."""
        values = {n: v.get("value") if isinstance(v, dict) else v for n, v in metrics.items()}
        known = (name for name in self.figures if values.get(name) is not None)
        return next(known, self.figures[-1])

    def score_text(self, value: float) -> str:
        """A score of validation for people."""
        return f"{100 * value:.1f} %" if self.makes in ("word", "sentence") else f"{value:.4f}"

    def fitting_unit(self, recipe: Recipe, labelled: bool, timed: bool) -> str:
        """The recipe's unit, or the one that the clips have: labels, or words with times."""
        return recipe.unit

    def graph_inputs(self, recipe: Recipe, clips: int, frames: int) -> dict[str, Tensor]:
        """What the graph takes beside the pictures, by name."""
        return {}

    def variants(self, recipe: Recipe) -> dict[str, Recipe]:
        """The recipe with each of its decoders, its own first."""
        return {"": recipe}

    def build(self, recipe: Recipe, scaling: Scaling) -> nn.Module:
        """The model of a recipe, freshly drawn; UsageError: it cannot be, or not of these crops."""
        side = scaling.size // recipe.shrink
        if not side:
            raise UsageError(f"shrink {recipe.shrink}: the crops have {scaling.size} pixels a side")
        try:
            return self.network(recipe, scaling, side)
        except ValueError as error:
            raise UsageError(f"the recipe's model: {one_line(error)}") from None

    def network_video(self, stored_BTHW: Tensor, recipe: Recipe, scaling: Scaling) -> Tensor:
        """What a network is given in evaluation, [B x 1 x T x H x W], of uint8 crops as stored."""
        video = augment.crop_center(stored_BTHW, scaling.margin)
        return self.network_pixels(video, recipe.shrink, scaling)[:, None]

    def network_pixels(self, crops_BTHW: Tensor, shrink: int, scaling: Scaling) -> Tensor:
        """Grey levels of crops as the network takes them, in its size."""
        return self.scale_pixels(augment.shrink(crops_BTHW, shrink), scaling)

    def crops(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the pictures that batches need."""
        return (recipe.crop,) if self.sees else ()

    def prepare(
        self, batch: Batch, recipe: Recipe, scaling: Scaling, device: torch.device, train: bool
    ) -> Inputs:
        """Move a batch to the device as uint8 and do everything else there."""
        if train and recipe.window:
            batch = augment.window(batch, recipe.window, recipe.seed)
        assert batch.mel is not None
        bins, how = batch.mel.shape[1], recipe.augment
        draws = augment.draw(batch, how, scaling.size, bins, recipe.seed) if train else None
        ragged = bool((batch.lengths != batch.lengths[0]).any())  # while they are on the CPU
        batch = replace(batch.to(device), epoch=batch.epoch)  # of clips, for draws
        assert batch.mel is not None
        mel = self.scale_mel(batch.mel.float(), batch.mel_lengths, scaling)
        mel = mel if draws is None else self.augment_mel(mel, draws)
        if not self.sees:
            video_BCTHW = mel.new_empty(len(mel), 1, mel.shape[2] // 4, 0, 0)
        elif draws is None:
            video_BCTHW = self.network_video(batch.video[recipe.crop], recipe, scaling)
        else:
            video = augment.appearance(batch.video[recipe.crop], batch.lengths, draws, how)
            video = augment.crop_drawn(video, draws, scaling.margin)
            pixels = self.network_pixels(video, recipe.shrink, scaling)
            pixels = augment.erase(pixels, draws, how.erase, recipe.shrink)
            if how.mask_frames:
                still = augment.mean_picture(pixels, batch.lengths)
                pixels = augment.mask_span(pixels, draws.first_frame, draws.num_frames, 1, still)
            video_BCTHW = pixels[:, None]
        inputs = Inputs(
            video_BCTHW, mel, batch.lengths, batch.label_id, sound_BS=batch.audio, ragged=ragged
        )
        return self.complete(inputs, batch, recipe, scaling, train)


@dataclass(frozen=True)
class Evaluation:
    """A model in evaluation mode on `device`, as it was trained, and rows that it is given."""

    model: nn.Module
    recipe: Recipe
    scaling: Scaling
    index: Index
    rows: Ints
    device: torch.device
    left_out: int = 0  # clips that were asked for and cannot be measured

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return find_task(self.recipe.task)

    def batches(
        self, audio: bool = False, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Batch, Inputs]]:
        """Every row once, in a fixed order, as stored and as the model takes it.

        `audio`: with the stored sound, as what hears always has. Each of `world` processes has a
        share.
        """
        stream = open_stream(
            self.index, rows=self.rows, once=True, workers=0, rank=rank, world=world,
            batch_size=at_once(self.recipe, self.device, world), unit=self.recipe.unit,
            crops=self.task.crops(self.recipe), audio=audio or self.task.hears,
        )  # fmt: skip
        for batch in stream:
            inputs = self.task.prepare(batch, self.recipe, self.scaling, self.device, train=False)
            yield batch, inputs


@cache
def all_tasks() -> dict[str, Task]:
    """Every task by its name: the `TASK` of each module in this folder that has one."""
    names = [module.name for module in pkgutil.iter_modules(sys.modules[__package__].__path__)]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    return {m.TASK.name: m.TASK for m in modules if hasattr(m, "TASK")}


def command_of(name: str) -> str:
    """The task's name on the command line: of sentences too it is `lip`."""
    return find_task(name).command or name


def find_task(name: str) -> Task:
    """The task of that name; UsageError: there is none."""
    tasks = all_tasks()
    if name not in tasks:
        raise UsageError(f"no task {name!r}; one of {', '.join(tasks)}")
    return tasks[name]
