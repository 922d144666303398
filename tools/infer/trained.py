"""What a checkpoint says: the model, and how pictures must be cut for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avb.pipeline.config import Crop, Mel, UsageError, build, load_corpora
from avb.train import checkpoint, task
from avb.train.recipe import Recipe, make_recipe


@dataclass(frozen=True)
class Trained:
    """A model that is ready, and what its shards were made with.

    Attributes:
        crop: the picture it takes, with its margin.
        box: how boxes were laid in training: fixed, tracked or whole.
        fixed_box: x0 y0 x1 y1 in pictures of size `picture`, for a fixed one.
        picture: width and height of the corpus's pictures; None: of any size.
        frames: pictures of one of its clips; None: of any length.
        face_every: pictures from one look at the face to the next.
        labels: words, in the order of the classes.
    """

    path: Path
    model: nn.Module
    recipe: Recipe
    scaling: task.Scaling
    crop: Crop
    box: str
    fixed_box: list[int] | None
    picture: list[int] | None
    frames: int | None
    face_every: int
    mel: Mel
    sample_rate: int
    labels: list[str]
    device: torch.device


def load_trained(
    kind: str, path: Path, device: str = "cpu", datasets: Path | None = None
) -> Trained:
    """Read a checkpoint of a task (`lip` or `l2s`).

    One that holds no settings of its shards gets those of `datasets.yaml` for its corpus.

    Raises:
        UsageError: it is missing, damaged, or another task's.
    """
    state = checkpoint.load(path, kind)
    try:
        recipe = make_recipe(kind, state["recipe"], path.name)  # type: ignore[arg-type]
        scaling = task.Scaling(**state["scaling"])
        data = state["data"]
        settings = _settings(data.get("settings"), recipe, datasets)
        model = task.build_model(recipe, scaling)
        model.load_state_dict(state["ema"] or state["model"])
        labels = [str(label) for label in data["labels"]]
        mel = build(Mel, settings["mel"], f"{path.name}: mel")
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["?"])[0][:120]
        raise UsageError(f"{path}: not a whole checkpoint ({reason})") from None
    return Trained(
        path, model.eval().to(device), recipe, scaling, Crop(scaling.size, scaling.margin),
        settings["box"], settings["fixed_box"], settings["picture"], settings["frames"],
        settings["face_every"], mel, settings["sample_rate"], labels, torch.device(device),
    )  # fmt: skip


def _settings(stored: Any, recipe: Recipe, datasets: Path | None) -> dict[str, Any]:
    """The settings of the shards it was trained on, as far as they are known."""
    from avb.tools.prep_command import settings_for

    corpora = load_corpora(datasets)
    corpus = corpora.get(recipe.corpus, corpora["table"])
    usual = settings_for(recipe.corpus, corpus).as_dict()
    return usual | (dict(stored) if isinstance(stored, Mapping) else {})
