"""What differs between the two tasks: the model, how a batch reaches it, losses and validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.lip import LipReader, lip_losses
from avb.models.memory import Losses
from avb.models.speech import SpeechReconstructor, speech_losses
from avb.pipeline.config import Crop
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.pipeline.stream.stream import Stream
from avb.train import augment
from avb.train.recipe import Recipe
from avb.train.sounds import open_stream

#: Fixed range to which the speech mel is mapped, as in the published speech samples.
SPEECH_RANGE = 4.0


@dataclass(frozen=True)
class Inputs:
    """A batch as the network takes it: B clips, 1 channel, T frames; M = 4 T mel columns.

    `ragged` says whether clips really differ in length: only then do networks look at lengths.
    """

    video_BCTHW: Tensor
    mel_BFM: Tensor
    lengths_B: Tensor
    labels: Tensor
    boundary_BT: Tensor | None = None
    ragged: bool = False


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
            raise ValueError("a scaling that cannot be")
        Crop(self.size, self.margin)


def scaling_of(index: Index, recipe: Recipe) -> Scaling:
    """The scaling that the shards call for.

    Raises:
        UsageError: the recipe shifts crops by more than the margin they were stored with.
    """
    dataset = index.dataset
    crop, pixels, mel = (
        dataset["crops"][recipe.crop],
        dataset["pixels"][recipe.crop],
        dataset["mel"],
    )
    if recipe.augment.jitter > crop["margin"]:
        raise UsageError(
            f"augment.jitter {recipe.augment.jitter}: these crops were stored with a margin of"
            f" {crop['margin']} pixels; jitter less"
        )
    low = float(mel["offset"])
    return Scaling(
        pixels["mean"], pixels["std"], low, low + 255 * float(mel["scale"]),
        crop["margin"], crop["size"], len(index.labels),
    )  # fmt: skip


def one_pass(
    index: Index, recipe: Recipe, rows: Ints, audio: bool = False, rank: int = 0, world: int = 1
) -> Stream:
    """Every row once, in a fixed order; of several processes, each its share."""
    return open_stream(
        index, rows=rows, batch_size=recipe.batch_size, crops=(recipe.crop,), unit=recipe.unit,
        once=True, audio=audio, rank=rank, world=world, workers=0,
    )  # fmt: skip


def build_model(recipe: Recipe, scaling: Scaling) -> nn.Module:
    """The model of a recipe, with freshly drawn weights.

    Raises:
        UsageError: its arguments do not go together, or not with the crops.
    """
    side = scaling.size // recipe.shrink
    if not side:
        raise UsageError(f"shrink {recipe.shrink}: the crops have {scaling.size} pixels a side")
    try:
        if recipe.task == "lip":
            return LipReader(scaling.classes, **recipe.model)
        return SpeechReconstructor(channels=1, side=side, **recipe.model)
    except ValueError as error:
        raise UsageError(f"the recipe's model: {one_line(error)}") from None


def normalise_clip(mel_BFM: Tensor, lengths_B: Tensor) -> Tensor:
    """Each bin of each clip to mean 0 and deviation 1 over its real columns (lip reading).

    paper.md 2.1: unbiased deviation + 1e-10; padded columns become 0.
    """
    real = torch.arange(mel_BFM.shape[2], device=mel_BFM.device) < lengths_B[:, None]
    weights = real[:, None, :]
    count = lengths_B[:, None, None].to(mel_BFM.dtype)
    mean = mel_BFM.where(weights, 0).sum(2, keepdim=True) / count
    centred = (mel_BFM - mean).where(weights, 0)
    deviation = (centred.square().sum(2, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return centred / (deviation + 1e-10)


def to_speech_range(mel_BFM: Tensor, scaling: Scaling) -> Tensor:
    """One fixed, invertible affine map of the log-mel to -4 to 4 (speech)."""
    unit = (mel_BFM - scaling.mel_low) / (scaling.mel_high - scaling.mel_low)
    return (2 * unit - 1) * SPEECH_RANGE


def from_speech_range(mel_BFM: Tensor, scaling: Scaling) -> Tensor:
    """The inverse of `to_speech_range`."""
    unit = (mel_BFM / SPEECH_RANGE + 1) / 2
    return unit * (scaling.mel_high - scaling.mel_low) + scaling.mel_low


def scale_pixels(video: Tensor, recipe: Recipe, scaling: Scaling) -> Tensor:
    """Stored grey levels, 0 to 255 in any shape, as the network of a task takes them."""
    if recipe.task == "lip":
        return (video.float() - scaling.pixel_mean) / scaling.pixel_std
    return video.float() / 255


def shrink_pixels(pixels_BTHW: Tensor, recipe: Recipe) -> Tensor:
    """Pictures averaged over as many pixels a side as the recipe says."""
    return functional.avg_pool2d(pixels_BTHW, recipe.shrink) if recipe.shrink > 1 else pixels_BTHW


def network_video(stored_BTHW: Tensor, recipe: Recipe, scaling: Scaling) -> Tensor:
    """What `prepare` gives a network in evaluation, [B x 1 x T x H x W], of crops alone.

    Args:
        stored_BTHW: uint8 crops with their margin, on the network's device.
    """
    video = augment.crop_center(stored_BTHW, scaling.margin)
    return shrink_pixels(scale_pixels(video, recipe, scaling), recipe)[:, None]


def prepare(
    batch: Batch, recipe: Recipe, scaling: Scaling, device: torch.device, train: bool
) -> Inputs:
    """Move a batch to the device as uint8 and do everything else there."""
    draws = None
    if train:
        assert batch.mel is not None
        bins = batch.mel.shape[1]
        draws = augment.draw(batch, recipe.augment, scaling.size, bins, recipe.seed)
    ragged = bool((batch.lengths != batch.lengths[0]).any())  # while they are on the CPU
    batch = batch.to(device)
    assert batch.mel is not None
    stored = batch.video[recipe.crop]
    if draws is None:
        video = augment.crop_center(stored, scaling.margin)
    else:
        video = augment.crop_drawn(stored, draws, scaling.margin)
    mel = batch.mel.float()
    pixels = scale_pixels(video, recipe, scaling)
    if recipe.task == "lip":
        mel = normalise_clip(mel, batch.mel_lengths)
    else:
        mel = to_speech_range(mel, scaling)
    if draws is not None:
        plan = recipe.augment
        pixels = augment.erase(pixels, draws, plan.erase)
        if plan.mask_frames:
            still = pixels.mean(dim=1, keepdim=True)
            pixels = augment.mask_span(pixels, draws.first_frame, draws.num_frames, 1, still)
        if recipe.task == "lip":  # the speech mel is the target, and stays whole
            mel = augment.mask_span(mel, draws.first_bin, draws.num_bins, 1)
            mel = augment.mask_span(mel, draws.first_column, draws.num_columns, 2)
    pixels = shrink_pixels(pixels, recipe)
    labels = batch.label_id
    if draws is not None and recipe.task == "lip" and recipe.augment.mixup:
        weights = augment.mix_weights(batch, recipe.augment.mixup, recipe.seed)
        pixels, mel = augment.mix(pixels, weights), augment.mix(mel, weights)
        labels = augment.mix(functional.one_hot(labels, scaling.classes).float(), weights)
    boundary = None
    if recipe.task == "lip" and recipe.model.get("word_boundary"):
        middle = (torch.arange(pixels.shape[1], device=device) + 0.5) / 25
        boundary = (middle >= batch.boundary[:, :1]) & (middle < batch.boundary[:, 1:])
        boundary = boundary.float()
    return Inputs(pixels[:, None], mel, batch.lengths, labels, boundary, ragged)


def forward(model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
    """Losses and output of one pass with audio."""
    lengths = inputs.lengths_B if inputs.ragged else None
    if recipe.task == "lip":
        output = model(inputs.video_BCTHW, inputs.mel_BFM, lengths, inputs.boundary_BT)
        return lip_losses(output, inputs.labels, recipe.label_smoothing), output
    ratio = recipe.teacher_ratio if model.training else None
    output = model(inputs.video_BCTHW, inputs.mel_BFM, lengths, ratio)
    return speech_losses(output, inputs.mel_BFM), output


def score(output: Any, inputs: Inputs, recipe: Recipe) -> Tensor:
    """Per clip, the higher the better: right or wrong (lip), minus the L1 of the mel (speech)."""
    if recipe.task == "lip":
        return (output.logits.argmax(dim=1) == inputs.labels).float()
    columns = torch.arange(inputs.mel_BFM.shape[2], device=inputs.mel_BFM.device)
    real = (columns < 4 * inputs.lengths_B[:, None])[:, None, :]
    error = (output.mels.after.float() - inputs.mel_BFM).abs().where(real, 0)
    return -error.sum((1, 2)) / (4 * inputs.lengths_B * inputs.mel_BFM.shape[1])
