"""Promise: every recipe that is shipped trains: its losses stay finite, and fall (make slow)."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from importers import importer
from torch import Tensor

from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, load_index
from avb.pipeline.stream.stream import Stream
from avb.train import trainer
from avb.train.flops import check_room, usual_frames
from avb.train.recipe_file import load_recipe, names
from avb.train.run import Run
from avb.train.tasks.task import all_tasks, find_task

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
        frames=None if batch.frames is None else batch.frames[:, :frames],
        audio=None if batch.audio is None else batch.audio[:, : 640 * frames],
        audio_lengths=None if batch.audio is None else batch.audio_lengths.clamp(max=640 * frames),
    )


def take_steps(index: Index, out: Path, task: Any, name: str, steps: int, frames: int) -> None:
    """Steps of the whole network as shipped, with small batches of small pictures."""
    shipped = load_recipe(task, name)
    words, sentences = find_task(shipped.task).makes == "word", shipped.task == "sentence"
    shrink = 4 if words or sentences else 2
    shrink = 1 if name == "released" else shrink  # its pooling needs four pixels of the last map
    unit = "word" if words and index.dataset["corpus"] == "grid" else "clip"
    unit = shipped.unit if sentences else unit
    sets = ["batch_size=2", f"shrink={shrink}", f"unit={unit}"]
    recipe = load_recipe(task, name, sets)
    run = trainer.start(recipe, index, out, "cpu", 0, 1)
    stream = Stream(index, batch_size=2, crops=(recipe.crop,), audio=run.task.hears,
                    unit=recipe.unit, seed=0, workers=0)  # fmt: skip
    for batch in itertools.islice(stream, steps):
        take_step(run, cut(batch, frames))


def take_step(run: Run, batch: Batch) -> dict[str, Tensor]:
    """What a step finds, all of it finite."""
    trainer.seed_step(run)
    values = trainer.one_step(run, run.model, batch)
    run.step += 1
    found = {key: values[key] for key in ("loss", "grad_norm")}
    trainer.check((found, [f"step {run.step}"]), Path("last.pt"))
    return values


@pytest.mark.parametrize(("task", "name"), SHIPPED)
@pytest.mark.parametrize(
    ("steps", "frames"), [(5, 5), pytest.param(50, 29, marks=pytest.mark.slow)]
)
def test_a_shipped_recipe_stays_finite(
    request: pytest.FixtureRequest, tmp_path: Path, task: str, name: str, steps: int, frames: int
) -> None:
    kind = load_recipe(task, name).task
    index = request.getfixturevalue("lrw" if find_task(kind).makes == "word" else "grid")
    # Of fewer there is nothing to shift, and no room for six words.
    frames = 29 if kind in ("sync", "sentence") else frames
    take_steps(index, tmp_path, task, name, steps, frames)


@pytest.fixture(scope="module")
def real_words(real_grid: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Eight real sentences of GRID."""
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    out = tmp_path_factory.mktemp("real")
    importer("grid", real_grid, limit=8).prep(out)
    return load_index(out / "grid")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), SHIPPED)
def test_a_shipped_recipe_learns_a_batch_of_real_clips(
    real_words: Index, tmp_path: Path, task: str, name: str
) -> None:
    """As shipped, but for the size of pictures and of the batch, to which the rate is scaled.

    Of thirty other batches so small none would say whether a loss falls: one batch is learnt.
    """
    shipped = load_recipe(task, name)
    words = find_task(shipped.task).makes == "word"
    size = 8 if words else 4
    scale = size / shipped.batch_size
    rate = shipped.lr * (scale if shipped.optimizer == "sgd" else scale**0.5)
    shrink = 1 if name == "released" else 4 if shipped.crop == "lips" else 2
    sets = {"batch_size": size, "lr": rate, "warmup": 0, "shrink": shrink, "corpus": "grid"}
    sets |= {"unit": "word" if words else shipped.unit}
    if task == "l2s":  # a second of each: Tacotron's steps are one after the other
        sets |= {"window": 25}
    recipe = load_recipe(task, name, [f"{k}={v}" for k, v in sets.items()])
    run = trainer.start(recipe, real_words, tmp_path, "cpu", 0, 1)
    options: dict[str, Any] = {"crops": run.task.crops(recipe), "audio": run.task.hears}
    index, unit = real_words.of_unit(recipe.unit), recipe.unit
    check_room(recipe, run.scaling, usual_frames(recipe, index.num_frames), run.device)
    batch = next(iter(Stream(index, batch_size=size, unit=unit, seed=0, workers=0, **options)))
    terms: dict[str, list[float]] = {}
    for _ in range(30):
        values = take_step(run, batch)
        for term in {"recalled", "real"} & values.keys():
            terms.setdefault(term, []).append(float(values[term]))
    assert terms and "recalled" in terms
    for term, found in terms.items():
        assert sum(found[-6:]) < 0.97 * sum(found[:6]), (term, found)
