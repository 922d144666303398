"""`avb bench train`: all contenders do the same work, in turns, each in its own precision.

No test looks at how long anything takes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from commands import did, refused

from avb.pipeline.errors import UsageError
from avb.tools.bench import batches, train
from avb.tools.bench import contenders as bench_contenders
from avb.train import trainer
from avb.train.device import free_bytes
from avb.train.flops import Cost
from avb.train.recipe_file import load_recipe
from avb.train.tasks.lip import LipReading
from avb.train.tasks.task import find_task, scaling_of

CPU = torch.device("cpu")
SMALL = [
    "unit=clip", "shrink=4", "model.slots=4", "model.width=4", "model.blocks=1",
    "model.audio_dim=8", "model.audio_width=4", "model.hidden=8", "model.dropout=0",
]  # fmt: skip
LIP = [*SMALL, "model.back_dropout=0", "model.fusion_dropout=0"]
SPEECH = [*SMALL[1:], "model.decoder_sizes={}"]


def words(overrides: list[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOP takes seconds, and is tested elsewhere."""
    monkeypatch.setattr(train, "clip_cost", lambda *_: Cost(10**9, 3 * 10**9, 1000, 1000))


def contenders(*names: str) -> tuple[Any, dict[str, Any]]:
    plan, index = train.open_recipe("lip", "tiny", LIP, None, None)
    plan = bench_contenders.with_batch(plan, 2)
    made = {n: bench_contenders.as_eager(n, plan, index, CPU) for n in names}
    made["avb"] = bench_contenders.as_trained(plan, index, CPU, False)
    return batches.Feed(plan, index, pin_memory=False), made


def test_the_command_prints_one_record() -> None:
    flags = ["--recipe", "tiny", *words(LIP), "--batch-size", "2", "--rounds", "2", "--json"]
    record = json.loads(did("bench", "train", "lip", "--device", "cpu", *flags).stdout)
    for name in ("clips_per_s", "eager_fp32_clips_per_s", "ratio", "peak_gib", "gflop_per_clip"):
        assert isinstance(record[name], float) and record[name] > 0, name
    for name in ("data_wait", "mfu", "eager_tf32_clips_per_s", "data"):
        assert record[name] is None, name
    assert set(record["parts_ms"]) == {"prepare", "forward", "backward", "optimiser"}
    assert all(ms > 0 for ms in record["parts_ms"].values())
    assert record["batch_size"] == record["eager_fp32_batch"] == record["rounds"] == 2
    assert record["gflop_per_clip"] == 3.0 and record["gflop_forward"] == 1.0
    rounds = {name: len(rates) for name, rates in record["rounds_clips_per_s"].items()}
    assert rounds == {"avb": 2, "eager_fp32": 2}
    assert "float32" in record["note"] and record["torch"] == torch.__version__
    assert {"device_name", "threads", "spread", "warmup", "steps", "recipe"} <= set(record)


def test_contenders_take_turns_and_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def step(one: Any, batch: Any) -> torch.Tensor:
        seen.append(one.name)
        return torch.ones(())

    monkeypatch.setattr(bench_contenders, "trained_step", step)
    monkeypatch.setattr(bench_contenders, "eager_step", step)
    train.bench_train("lip", "tiny", LIP, device="cpu", batch_size=1, steps=2, rounds=2)
    a, b = ["avb"], ["eager_fp32"]
    assert seen == [*a, *b, *a, *a, *b, *b, *b, *b, *a, *a, *a, *a]  # warm-up, rounds, parts


def test_each_contender_has_its_own_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where autocast says bfloat16 for `avb`, as on a GPU, the plain ones must not see it.

    Nor are their convolutions tuned: PyTorch does not do so unasked.
    """
    half = torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(trainer, "autocast", lambda device: half)
    seen: dict[str, tuple[bool, ...]] = {}
    losses = LipReading.losses
    current = ""

    def watched(*given: Any) -> Any:
        product, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
        halved = torch.is_autocast_enabled("cpu")
        tuned = convolution.benchmark
        seen[current] = (product.allow_tf32, convolution.allow_tf32, tuned, halved)
        return losses(*given)

    monkeypatch.setattr(LipReading, "losses", watched)
    feed, made = contenders("eager_fp32", "eager_tf32")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for name, one in made.items():
        current = name
        bench_contenders.take_steps(one, feed, 1)
    assert seen == {
        "eager_fp32": (False, False, False, False),
        "eager_tf32": (True, True, False, False),
        "avb": (False, True, True, True),
    }
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_the_plain_one_is_as_pytorch_makes_it() -> None:
    _, made = contenders("eager_fp32")
    plain, ours = made["eager_fp32"], made["avb"]
    assert all(group["fused"] is None for group in plain.run.optimizer.param_groups)
    inner = [one.run.model.visual.stages[1][0].conv2.weight for one in (plain, ours)]
    assert [w.is_contiguous() for w in inner] == [True, False]


def test_both_do_the_same_work() -> None:
    """Without dropout: one loss, and one gradient of every weight."""
    feed, made = contenders("eager_fp32")
    batch = feed.next(2)
    losses = [one.step(one, batch) for one in made.values()]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    plain, ours = (dict(one.run.model.named_parameters()) for one in made.values())
    for name, weight in plain.items():
        if weight.grad is not None:
            difference = (weight.grad - ours[name].grad).norm()
            assert difference <= 0.1 * weight.grad.norm() + 1e-4, name


@pytest.mark.parametrize("own", ["tacotron", "synchronous"])
def test_speech_is_measured_with_both_decoders_its_own_first(
    monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    speeds = {"tacotron": 3.0, "synchronous": 5.0}

    def measure(one: Any, feed: Any, steps: int) -> None:
        one.rates.append(speeds[one.run.recipe.model["decoder"]])
        one.waits.append(0.0)

    nothing = {"prepare": 1.0}
    monkeypatch.setattr(train, "take_steps", lambda *_: None)
    monkeypatch.setattr(train, "measure", measure)
    monkeypatch.setattr(train, "parts_ms", lambda *_: nothing)
    flags = [*SPEECH, f"model.decoder={own}"]
    record = train.bench_train("l2s", "tiny", flags, device="cpu", batch_size=1)
    assert record["decoder"] == own and record["clips_per_s"] == speeds[own]
    assert {n: r["clips_per_s"] for n, r in record["decoders"].items()} == speeds
    assert record["decoders"][own].items() <= record.items()


def test_flop_are_of_what_a_step_sees_of_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """GRID's clips have 75 frames; a recipe of windows trains on as many as it says."""
    cost = Mock(return_value=Cost(1, 1, 1, 1))
    monkeypatch.setattr(train, "clip_cost", cost)
    for window in ("window=20", "window=0"):
        flags = [*SPEECH, "model.decoder=synchronous", window]
        train.bench_train("l2s", "tiny", flags, device="cpu", batch_size=1, steps=1, rounds=1)
    seen = [call.args[2] for call in cost.call_args_list]
    assert {*seen[: len(seen) // 2]} == {20} and {*seen[len(seen) // 2 :]} == {75}


def test_a_decoder_s_sizes_are_not_given_to_the_other() -> None:
    plan = load_recipe("l2s", "paper", ["model.decoder_sizes={rnn_dim: 16}"])
    plans = find_task("l2s").variants(plan)
    assert list(plans) == ["tacotron", "synchronous"] and plans["tacotron"] is plan
    assert "decoder_sizes" not in plans["synchronous"].model


# Memory -------------------------------------------------------------------------------------------


def test_a_batch_too_large_is_halved_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def hungry(one: Any, batch: Any) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(())

    monkeypatch.setattr(bench_contenders, "trained_step", lambda *_: torch.ones(()))
    monkeypatch.setattr(bench_contenders, "eager_step", hungry)
    record = train.bench_train("lip", "tiny", LIP, device="cpu", batch_size=4, rounds=1)
    assert record["batch_size"] == 4 and record["eager_fp32_batch"] == 1
    assert sizes == [4, 2, 1, 1]
    assert "eager_fp32: 4 clips do not fit, measured with 1." in record["note"]


def test_a_clip_too_large_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    starved = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(bench_contenders, "trained_step", starved)
    with pytest.raises(UsageError, match="not even one clip"):
        train.bench_train("lip", "tiny", LIP, device="cpu", batch_size=2)


def test_the_cpu_s_memory_is_asked_first() -> None:
    cost = Cost(1, 3, saved_bytes=100, weight_bytes=10)  # 150 bytes a clip, 80 for the weights
    assert train.affordable(8, [cost], 2000.0) == 8
    assert train.affordable(8, [cost], 1200.0) == 4
    assert train.affordable(8, [cost, cost], 1000.0) == 2
    with pytest.raises(UsageError, match="smaller recipe"):
        train.affordable(8, [cost], 200.0)
    assert free_bytes(torch.device("cpu")) > 2**20


def test_a_smaller_batch_keeps_equal_parts() -> None:
    plan = load_recipe("lip", "tiny", ["accumulate=4", "batch_size=32"])
    assert bench_contenders.with_batch(plan, 16).accumulate == 4
    assert bench_contenders.with_batch(plan, 2).accumulate == 2


# Batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "crop", "pictures", "columns", "classes"),
    [("lip", "lips", (2, 29, 120, 120), 116, 500), ("l2s", "face", (2, 75, 104, 104), 300, 51)],
)
def test_drawn_batches_have_the_corpus_shape(
    kind: Any, crop: str, pictures: tuple[int, ...], columns: int, classes: int
) -> None:
    plan, index = train.open_recipe(kind, "paper", [], None, None)
    batch = batches.draw_batch(bench_contenders.with_batch(plan, 2), index, 0)
    assert batch.video[crop].shape == pictures and batch.video[crop].dtype == torch.uint8
    assert batch.mel is not None and batch.mel.shape == (2, 80, columns)
    assert len(index.labels) == classes and batch.label_id.max() < classes
    scaling = scaling_of(index, plan)
    ends = float(batch.mel.min()), float(batch.mel.max())
    assert ends == pytest.approx((scaling.mel_low, scaling.mel_high))
    one = batches.first_clips(batch, 1)
    assert len(one) == 1 and one.video[crop].shape[0] == len(one.epoch) == len(one.speakers) == 1
    assert batches.first_clips(batch, 2) is batch


def test_what_was_prepared_is_thrown_away_and_waits_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, blank = train.open_recipe("lip", "tiny", LIP, None, None)
    plan = bench_contenders.with_batch(plan, 1)
    read = 0

    def stream(*_: Any, **__: Any) -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield batches.draw_batch(plan, blank, read)

    monkeypatch.setattr(batches, "Stream", stream)
    monkeypatch.setattr(batches, "default_workers", lambda: 3)
    feed = batches.Feed(plan, SimpleNamespace(), pin_memory=False)  # type: ignore[arg-type]
    assert feed.streams and feed.ahead == 6
    feed.drain()
    assert read == 6 and feed.waited_s == 0.0
    assert feed.next(1).keys == ["drawn/7-0"] and feed.waited_s > 0


def test_shards_stream_and_waiting_is_a_share(drawn_lrw: Any, tmp_path: Path) -> None:
    drawn_lrw.importer().prep(tmp_path)
    flags = ["--recipe", "tiny", *words(LIP), "--data", str(tmp_path / "lrw"), "--json"]
    flags += ["--device", "cpu", "--batch-size", "2", "--steps", "1", "--rounds", "1"]
    record = json.loads(did("bench", "train", "lip", *flags).stdout)
    assert record["data"] == str(tmp_path / "lrw") and record["clock"] == "perf_counter"
    assert 0 < record["data_wait"] < 1 and record["clips_per_s"] > 0


def test_an_unknown_crop_or_corpus_is_one_line() -> None:
    for flag, message in (("crop=face", "no crop 'face'"), ("corpus=lrv", "no corpus 'lrv'")):
        assert message in refused("bench", "train", "lip", "--set", flag)
