"""A reader of words from sound that teaches a lip reader: distillation of features."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avb.models.asr import AudioReader
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index
from avb.train import augment
from avb.train.evaluate.stored_mels import front_end, other_mels
from avb.train.kept import sample_rate
from avb.train.origin import Origin, open_origin
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

TASK = "asr"  # of the teacher


@dataclass(frozen=True)
class Teacher:
    """A frozen network in evaluation mode, which no optimiser and no checkpoint of a run knows."""

    origin: Origin
    network: AudioReader

    def features(self, batch: Batch, recipe: Recipe, device: torch.device) -> Tensor:
        """f_a [B x T x D] of a training batch: its mels unmasked, and mixed where clips are."""
        assert batch.mel is not None
        mel_BFM, columns_B = batch.mel.to(device).float(), batch.mel_lengths.to(device)
        mel_BFM = find_task(TASK).scale_mel(mel_BFM, columns_B, self.origin.loaded.scaling)
        if recipe.augment.mixup:
            weights = augment.mix_weights(batch, recipe.augment.mixup, recipe.seed)
            mel_BFM = augment.mix(mel_BFM, weights, columns_B, 2)
        ragged = bool((batch.lengths != batch.lengths[0]).any())
        with torch.no_grad():
            return self.network.features(mel_BFM, batch.lengths.to(device) if ragged else None)


def open_teacher(path: Path, index: Index) -> Teacher:
    """The teacher of a run or checkpoint, for clips of `index`.

    UsageError: it is of another task, reads other words, or hears other mels.
    """
    origin = open_origin(path, TASK)
    data, network = origin.loaded.data, origin.loaded.model
    assert isinstance(network, AudioReader)
    if data["labels"] != index.labels:
        raise UsageError(
            f"{origin.path}: reads other words ({len(data['labels'])} labels) than those of"
            f" {index.folder} ({len(index.labels)}); train the teacher on these shards"
        )
    settings: dict[str, Any] = data.get("settings") or {}
    mel, rate = settings.get("mel"), settings.get("sample_rate")
    if differ := other_mels(mel, rate, front_end(index), sample_rate(index)):
        raise UsageError(
            f"{origin.path}: hears other log-mels than those of {index.folder}: {differ}; train the"
            " teacher on these shards: avb train asr"
        )
    return Teacher(origin, network.eval().requires_grad_(False))


def taught(recipe: Recipe, teacher: Teacher | None) -> Recipe:
    """The recipe of a lip reader with a teacher of that width, or with none.

    UsageError: it is to have a teacher, and there is none; or it is no reader of words.
    """
    if teacher is None:
        if recipe.model.get("teacher_dim"):
            raise UsageError("model.teacher_dim is of a run with a teacher: give it with --teacher")
        return recipe
    if recipe.task != "lip":
        raise UsageError("--teacher leads a reader of words; sentences: --init with such a reader")
    model = recipe.model | {"teacher_dim": teacher.network.audio.dim}
    return dataclasses.replace(recipe, model=model)
