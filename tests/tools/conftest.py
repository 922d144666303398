"""Shared by the tests of `avb ui`: small random models, and a clip of a drawn talker."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.tools.synth import face
from avb.train import checkpoint
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, find_task

MODEL = {"width": 8, "blocks": 0, "audio_dim": 16, "audio_width": 8, "hidden": 16}
SPEECH = {"decoder": "synchronous", "decoder_sizes": {"width": 16, "units": 1, "post_width": 16}}
LABELS = ["about", "bin", "now", "two"]
NAMES = ("lip", "l2s", "none")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random models of GRID: words, speech, and words without memory; and a judge."""
    folder, corpus = tmp_path_factory.mktemp("checkpoints"), load_corpora()["grid"]
    spec = corpus.crops["lips"]
    scaling = Scaling(130.0, 30.0, -11.5, 3.5, spec.margin, spec.size, len(LABELS))
    for name in NAMES:
        kind = "l2s" if name == "l2s" else "lip"
        model = MODEL | {"slots": 4 * (name != "none")} | (SPEECH if kind == "l2s" else {})
        raw = {"corpus": "grid", "shrink": 4, "model": model}
        recipe = make_recipe(kind, raw, "test")  # type: ignore[arg-type]
        torch.manual_seed(1)
        state = {
            "recipe": recipe.as_dict(), "scaling": dataclasses.asdict(scaling), "ema": None,
            "model": find_task(recipe.task).build(recipe, scaling).state_dict(),
            "data": {"labels": LABELS, "settings": settings_for("grid", corpus).as_dict()},
        }  # fmt: skip
        checkpoint.save(folder / f"{name}.pt", state)
    checkpoint.save(folder / "judge.pt", {"task": "judge", "weights": {}})
    return {name: folder / f"{name}.pt" for name in (*NAMES, "judge")}


@pytest.fixture(scope="session")
def talker_clip(tmp_path_factory: pytest.TempPathFactory, film: Callable[..., Path]) -> Path:
    """A drawn talker of 1.6 s, with a tone."""
    opening = 0.5 - 0.5 * np.cos(2 * math.pi * 2 * np.arange(40) / 25)
    track = np.stack([opening, np.zeros(40)], axis=1)
    drawn = face.film(face.Identity.from_seed(3), track, (360, 288), (184, 202), 50, 3)
    tone = 0.2 * np.sin(np.arange(25600) * 2 * math.pi * 300 / 16000)
    pictures = [np.ascontiguousarray(picture[..., 1]) for picture in drawn]
    path = tmp_path_factory.mktemp("films") / "talker.mp4"
    return film(path, pictures, np.arange(40) / 25, tone)
