"""Lip reading: which word a silent mouth speaks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.frontends import COLUMNS_PER_FRAME
from avb.models.lip import LipConfig, LipReader, distillation_loss, lip_losses
from avb.models.masks import frame_mask
from avb.models.memory import Losses
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.train import augment
from avb.train.recipe import Recipe
from avb.train.tasks.task import Evaluation, Inputs, Makes, Scaling, Task


class LipReading(Task):
    """`LipReader` on word labels: cross entropy, scored by hits."""

    name = "lip"
    title = "Lip reading"
    summary = "Reads one word from silent pictures of a mouth; speech is recalled from its memory."
    config: type = LipConfig
    data = Path("shards/lrw")
    makes: Makes = "word"
    needs_target_sound = False
    output = ("logits", "logits [batch x words]")
    loss, score_name = "cross entropy (nats)", "accuracy"
    figures: tuple[str, ...] = ("top1",)

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return LipReader(scaling.classes, LipConfig(**recipe.model))

    def augment_mel(self, mel_BFM: Tensor, draws: augment.Draws) -> Tensor:
        mel_BFM = augment.mask_span(mel_BFM, draws.first_bin, draws.num_bins, 1)
        return augment.mask_span(mel_BFM, draws.first_column, draws.num_columns, 2)

    def complete(
        self, inputs: Inputs, batch: Batch, recipe: Recipe, scaling: Scaling, train: bool
    ) -> Inputs:
        """With the frames that are inside the word, and with clips mixed in pairs."""
        video, mel, labels = inputs.video_BCTHW, inputs.mel_BFM, inputs.labels
        boundary = None
        if recipe.model.get("word_boundary"):
            middle = (torch.arange(video.shape[2], device=video.device) + 0.5) / 25
            inside = (middle >= batch.boundary[:, :1]) & (middle < batch.boundary[:, 1:])
            boundary = inside.float()
        if train and recipe.augment.mixup:
            weights = augment.mix_weights(batch, recipe.augment.mixup, recipe.seed)
            frames_B = inputs.ragged_lengths
            columns_B = None if frames_B is None else COLUMNS_PER_FRAME * frames_B
            video = augment.mix(video, weights, frames_B, 2)
            mel = augment.mix(mel, weights, columns_B, 2)
            boundary = None if boundary is None else augment.mix(boundary, weights, frames_B, 1)
            labels = augment.mix(functional.one_hot(labels, scaling.classes).float(), weights)
        return dataclasses.replace(
            inputs, video_BCTHW=video, mel_BFM=mel, labels=labels, boundary_BT=boundary
        )

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        output = model(
            inputs.video_BCTHW, inputs.mel_BFM, inputs.ragged_lengths, inputs.boundary_BT
        )
        losses = lip_losses(output, inputs.labels, recipe.label_smoothing)
        if inputs.taught_BTD is not None:
            mask_BT = frame_mask(inputs.ragged_lengths, inputs.taught_BTD.shape[1])
            distilled = distillation_loss(output.led, inputs.taught_BTD, mask_BT)
            losses = dataclasses.replace(losses, distilled=distilled)
        return losses, output

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        """Right or wrong."""
        return (output.logits.argmax(dim=1) == inputs.labels).float()

    def usable_rows(self, index: Index, rows: Ints, recipe: Recipe) -> Ints:
        """Those with a label, or with words that have times."""
        if recipe.unit == "word":
            return rows[np.diff(index.timed_words(rows)[0]) > 0]
        return rows[index.label_id[rows] >= 0]

    def needs_sound(self, recipe: Recipe) -> bool:
        """Without memory, audio term and teacher there is no audio to learn from."""
        heard = recipe.model.get("audio_term") or recipe.model.get("teacher_dim")
        return recipe.model.get("slots") != 0 or bool(heard)

    def fitting_unit(self, recipe: Recipe, labelled: bool, timed: bool) -> str:
        if labelled == timed or self.makes != "word":
            return recipe.unit
        return "word" if timed else "clip"

    def measure(self, evaluation: Evaluation, extras: Any) -> dict[str, Any]:
        from avb.train.evaluate import lip

        return lip.measure(evaluation, extras)

    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        return _Graph(model, recipe.shrink, scaling)

    def graph_inputs(self, recipe: Recipe, clips: int, frames: int) -> dict[str, Tensor]:
        return {"boundary": torch.ones(clips, frames)} if recipe.model.get("word_boundary") else {}


class _Graph(nn.Module):
    """Pictures of a mouth to the logits of its word, from video and recalled audio."""

    def __init__(self, model: nn.Module, shrink: int, scaling: Scaling) -> None:
        super().__init__()
        self.model, self.shrink, self.scaling = model, shrink, scaling

    def forward(self, video: Tensor, boundary: Tensor | None = None) -> Tensor:
        """Logits [B x K] of uint8 [B x T x S x S]; `boundary` [B x T]: 1 inside the word."""
        pixels = TASK.network_pixels(video, self.shrink, self.scaling)
        return self.model(pixels[:, None], None, None, boundary).logits


TASK = LipReading()
