"""What a checkpoint says: the model, and how pictures must be cut for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avb.pipeline.config import Crop, Mel, load_corpora
from avb.pipeline.parse import checked
from avb.pipeline.settings import Settings
from avb.train.network import load_network
from avb.train.recipe import Recipe
from avb.train.tasks.task import Scaling, Task, find_task


@dataclass(frozen=True)
class Trained:
    """A model that is ready, and what its shards were made with."""

    path: Path
    model: nn.Module
    recipe: Recipe
    scaling: Scaling
    crop: Crop  # the picture it takes, with its margin
    box: str  # how boxes were laid in training: fixed, tracked or whole
    fixed_box: list[int] | None  # x0 y0 x1 y1 in pictures of size `picture`, for a fixed one
    picture: list[int] | None  # width and height of the corpus's pictures; None: of any size
    frames: int | None  # pictures of one of its clips; None: of any length
    face_every: int  # pictures from one look at the face to the next
    mel: Mel
    sample_rate: int
    labels: list[str]  # words, in the order of the classes
    device: torch.device

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return find_task(self.recipe.task)

    def network_video(self, stored_BTHW: torch.Tensor) -> torch.Tensor:
        """Stored crops, uint8 on the model's device, as it takes them: [B x 1 x T x H x W]."""
        return self.task.network_video(stored_BTHW, self.recipe, self.scaling)


def load_trained(
    kind: str, path: Path, device: str = "cpu", datasets: Path | None = None
) -> Trained:
    """Read a checkpoint of a task; settings that it has not are those of `datasets.yaml`."""
    loaded = load_network(path, kind)
    recipe, scaling = loaded.recipe, loaded.scaling
    given = _settings(loaded.data.get("settings"), recipe, datasets)
    settings: Settings = checked(Settings, given, f"{path}: settings", strict=False)
    return Trained(
        path, loaded.model.to(device), recipe, scaling, Crop(scaling.size, scaling.margin),
        settings.box, settings.fixed_box, settings.picture, settings.frames,
        settings.face_every, settings.mel, settings.sample_rate, loaded.data["labels"],
        torch.device(device),
    )  # fmt: skip


def _settings(
    stored: dict[str, Any] | None, recipe: Recipe, datasets: Path | None
) -> dict[str, Any]:
    """The settings of the shards it was trained on, as far as they are known."""
    from avb.pipeline.settings import settings_for

    corpora = load_corpora(datasets)
    corpus = corpora.get(recipe.corpus, corpora["table"])
    usual = settings_for(recipe.corpus, corpus).as_dict()
    return usual | (stored or {})
