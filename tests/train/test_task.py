"""How a batch reaches the network."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import recipe
from torch import nn

from avb.models.postnet import Mels
from avb.models.speech import SpeechOutput
from avb.models.vocos import VocosOutput
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train import tasks
from avb.train.batches import at_once
from avb.train.data import resolve
from avb.train.recipe_file import load_recipe, make_recipe
from avb.train.tasks.task import Evaluation, Inputs, Scaling, Task, all_tasks, find_task, scaling_of

CPU = torch.device("cpu")


def test_shrink_averages_squares_of_pixels(lrw: Index) -> None:
    plain, shrunk = recipe("lip"), recipe("lip", shrink=2)
    scaling = scaling_of(lrw, plain)
    pictures, small = (
        next(Evaluation(nn.Identity(), r, scaling, lrw, np.arange(2), CPU).batches())[1].video_BCTHW
        for r in (plain, shrunk)
    )
    corners = [pictures[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    torch.testing.assert_close(small, torch.stack(corners).mean(dim=0))


def test_crops_are_not_shifted_out_of_their_margin_and_shrunk_for_speech_too(
    lrw: Index, grid: Index
) -> None:
    assert scaling_of(lrw, recipe("lip", augment={"jitter": 4})).margin == 4
    with pytest.raises(UsageError, match="jitter 5: these crops were stored with a margin of 4"):
        scaling_of(lrw, recipe("lip", augment={"jitter": 5}))
    shrunk = recipe("l2s", shrink=2)
    model = find_task(shrunk.task).build(shrunk, scaling_of(grid, shrunk))
    assert model.encoder.side == 48


def test_mels_of_other_bins_are_refused_where_they_are_heard(lrw: Index) -> None:
    mel = lrw.dataset["mel"] | {"n_mels": 40}
    other = dataclasses.replace(lrw, dataset=lrw.dataset | {"mel": mel})
    with pytest.raises(UsageError, match="these mels have 40 bins"):
        scaling_of(other, load_recipe("lip", "tiny"))
    assert scaling_of(other, load_recipe("lip", "tiny", ["model.slots=0"]))


def test_a_third_task_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirrored.py").write_text(
        "from avb.train.tasks.lip import LipReading\n"
        "class Mirrored(LipReading):\n    name = 'mirrored'\nTASK = Mirrored()\n"
    )
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    all_tasks.cache_clear()
    try:
        assert set(all_tasks()) == {"lip", "sentence", "l2s", "sync", "asr", "vocos", "mirrored"}
        recipe = make_recipe("mirrored", {"model": {"width": 4}}, "test")
        with torch.device("meta"):
            find_task(recipe.task).build(recipe, Scaling(128, 40, -11, 4, 4, 112, 5))
    finally:
        monkeypatch.undo()
        all_tasks.cache_clear()
        sys.modules.pop("avb.train.tasks.mirrored", None)
    with pytest.raises(UsageError, match="no task 'mirrored'; one of asr, lip, sentence, l2s"):
        find_task("mirrored")


def test_every_task_says_all_that_a_task_says() -> None:
    for task in all_tasks().values():
        for name in Task.__annotations__:
            assert hasattr(task, name), f"{task.name} has no {name}"


@pytest.mark.parametrize(
    ("sizes", "device", "world", "clips"),
    [
        ({"batch_size": 320, "accumulate": 5}, "cuda", 1, 64),
        ({"batch_size": 320}, "cuda", 1, 320),
        ({"batch_size": 320}, "cpu", 2, 128),
        ({"batch_size": 4, "accumulate": 4}, "cpu", 2, 2),  # a clip for each
    ],
)
def test_what_is_not_learnt_from_comes_in_the_parts_of_a_step(
    sizes: Any, device: str, world: int, clips: int
) -> None:
    assert at_once(recipe("lip", **sizes), torch.device(device), world) == clips


def test_validation_takes_the_parts_of_a_step(lrw: Index) -> None:
    plan = recipe("lip", batch_size=6, accumulate=3)
    given = Evaluation(nn.Identity(), plan, scaling_of(lrw, plan), lrw, np.arange(5), CPU)
    assert [len(batch) for batch, _ in given.batches()] == [2, 2, 1]


def test_a_reader_of_sound_is_given_no_pictures(lrw: Index) -> None:
    plan = recipe("asr", model={}, shrink=4, augment={"mask_bins": 9, "mask_columns": 9})
    task, scaling = find_task("asr"), scaling_of(lrw, plan)
    options: dict[str, Any] = {"batch_size": 4, "workers": 0, "once": True}
    without = next(iter(Stream(lrw, crops=task.crops(plan), **options)))
    seen = next(iter(Stream(lrw, **options)))
    assert without.video == {} and "lips" in seen.video
    for train in (True, False):
        one, two = (task.prepare(b, plan, scaling, CPU, train) for b in (without, seen))
        assert one.video_BCTHW.shape == two.video_BCTHW.shape == (4, 1, 29, 0, 0)
        assert torch.equal(one.mel_BFM, two.mel_BFM) and torch.equal(one.labels, two.labels)
    batch, _ = next(Evaluation(nn.Identity(), plan, scaling, lrw, np.arange(2), CPU).batches())
    assert batch.video == {}


@pytest.mark.parametrize("name", ["asr", "vocos"])
def test_who_sees_nothing_takes_shards_of_any_crop(grid: Index, name: str) -> None:
    dataset = grid.dataset | {"crops": {"face": grid.dataset["crops"]["face"]}}
    faces, corpus = dataclasses.replace(grid, dataset=dataset), load_corpora()["grid"]
    plan = resolve(name, faces, corpus, "tiny", [])
    assert scaling_of(faces, plan).size == 96
    assert resolve(name, grid, corpus, "tiny", []).crop == "lips"
    with pytest.raises(UsageError, match="holds face, no lips"):
        resolve("lip", faces, corpus, "tiny", [])


def test_padding_is_no_part_of_the_distance_of_sounds() -> None:
    """What a vocoder makes behind the end of a clip; of its own samples nothing is wrong."""
    lengths, samples = torch.tensor([20, 12]), torch.arange(640 * 20)
    true = torch.randn(2, 640 * 20).where(samples < 640 * lengths[:, None], 0)
    noise = torch.randn(2, 640 * 20).where(samples >= 640 * lengths[:, None], 0)
    louder = torch.tensor([[1.0], [2.0]])
    video, mel = torch.zeros(2, 1, 20, 0, 0), torch.zeros(2, 80, 80)
    inputs = Inputs(video, mel, lengths, lengths, sound_BS=true, ragged=True)
    plan, task = load_recipe("vocos", "tiny"), find_task("vocos")

    def made(sound: torch.Tensor) -> Any:
        return lambda *_: VocosOutput(sound)

    assert not task.losses(made(true + noise), inputs, plan)[1].any()
    whole, short = task.losses(made(louder * true + noise), inputs, plan)[1]
    assert whole == 0 and short == pytest.approx(np.log(2), rel=1e-3)


def test_speech_of_a_short_clip_tells_its_lag_alone_as_beside_a_longer_one() -> None:
    made, true, lengths = torch.randn(2, 80, 80), torch.randn(2, 80, 80), torch.tensor([20, 15])
    scaling = Scaling(128, 40, -11, 4, 4, 112, 2)

    def logits(*clips: int) -> torch.Tensor:
        rows, own = list(clips), lengths[list(clips)]
        columns, ragged = slice(4 * int(own.max())), len(rows) > 1
        video = torch.zeros(len(rows), 1, int(own.max()), 0, 0)
        inputs = Inputs(video, true[rows, :, columns], own, own, ragged=ragged)
        mels = Mels(made[rows, :, columns], made[rows, :, columns])
        return find_task("l2s").shift_logits(lambda *_: SpeechOutput(mels, None, None, None),
                                             inputs, scaling)  # fmt: skip

    torch.testing.assert_close(logits(0, 1)[1:, :15], logits(1))
    torch.testing.assert_close(logits(0, 1)[:1], logits(0))
