"""Promise: every recipe that is shipped trains: its losses and gradients stay finite."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train import trainer
from avb.train.recipe_file import load_recipe, names
from avb.train.tasks.task import all_tasks, find_task

SLOWLY = pytest.param(50, 29, marks=pytest.mark.slow)
SHIPPED = [(task, name) for task in all_tasks() for name in names(task)]


def cut(batch: Batch, frames: int) -> Batch:
    """The first frames of each clip."""
    assert batch.mel is not None
    return dataclasses.replace(
        batch,
        video={name: video[:, :frames] for name, video in batch.video.items()},
        mel=batch.mel[:, :, : 4 * frames],
        lengths=batch.lengths.clamp(max=frames),
        mel_lengths=batch.mel_lengths.clamp(max=4 * frames),
    )


def take_steps(index: Index, out: Path, task: Any, name: str, steps: int, frames: int) -> None:
    """Steps of the whole network as shipped, with small batches of small pictures."""
    words = find_task(task).classifies
    shrink = 4 if words else 2
    shrink = 1 if name == "released" else shrink  # its pooling needs four pixels of the last map
    unit = "word" if words and index.dataset["corpus"] == "grid" else "clip"
    sets = ["batch_size=2", f"shrink={shrink}", f"unit={unit}"]
    recipe = load_recipe(task, name, sets)
    run = trainer.start(recipe, index, out, "cpu", 0, 1)
    stream = Stream(index, batch_size=2, crops=(recipe.crop,), unit=recipe.unit, seed=0, workers=0)
    for batch in stream:
        trainer.seed_step(run)
        values = trainer.one_step(run, run.model, cut(batch, frames))
        run.step += 1
        shown = {key: values[key] for key in ("loss", "grad_norm")}
        trainer.check((shown, [f"step {run.step}"]))
        if run.step == steps:
            return


@pytest.mark.parametrize(("task", "name"), SHIPPED)
@pytest.mark.parametrize(
    ("steps", "frames"), [(5, 5), pytest.param(50, 29, marks=pytest.mark.slow)]
)
def test_a_shipped_recipe_stays_finite(
    request: pytest.FixtureRequest, tmp_path: Path, task: str, name: str, steps: int, frames: int
) -> None:
    index = request.getfixturevalue("lrw" if find_task(task).classifies else "grid")
    frames = 29 if task == "sync" else frames  # of fewer there is nothing to shift
    take_steps(index, tmp_path, task, name, steps, frames)
