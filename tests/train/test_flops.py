"""FLOP = what a calculation by hand and the public figures say; MFU = FLOP/s over the peak."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import learn, recipe
from torch import nn

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.train import flops, trainer
from avb.train.recipe_file import load_recipe
from avb.train.tasks.task import Scaling

CPU = torch.device("cpu")


def scaling(size: int = 112) -> Scaling:
    return Scaling(127.5, 74.0, -11.0, 4.0, 4, size, 500)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_cost_what_a_hand_counts(kind: type[nn.RNNBase], gates: int) -> None:
    clips, frames, wide, hidden, directions = 2, 5, 7, 11, 2
    with torch.device("meta"):
        network = kind(wide, hidden, 2, batch_first=True, bidirectional=True)
        x = torch.empty(clips, frames, wide, requires_grad=True)
    forward, step = flops.step_flops(lambda: network(x)[0].sum())
    each = 2 * clips * directions * gates * hidden  # FLOP of a frame, for each value that comes in
    by_hand = each * frames * ((wide + hidden) + (directions * hidden + hidden))
    assert forward == by_hand
    # Backward is twice that, but for the gradient of each layer's first state, which is constant.
    assert step == 3 * by_hand - 2 * each * hidden


def test_convolutions_and_products_cost_what_a_hand_counts() -> None:
    with torch.device("meta"):
        convolution, linear = nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.Linear(8, 6)
        x = torch.empty(2, 3, 12, 10)
    forward, step = flops.step_flops(
        lambda: linear(convolution(x).relu().mean((2, 3)).tanh()).square().sum()
    )
    first, second = 2 * (2 * 8 * 6 * 5) * (3 * 25), 2 * 2 * 8 * 6
    assert forward == first + second
    assert step == 2 * first + 3 * second  # the pictures need no gradient


@pytest.mark.parametrize(
    ("overrides", "forward", "step"),
    [([], 32.2, 93.6), (["model.back_end=mstcn", "model.slots=168"], 35.7, 104.2)],
)
def test_lip_readers_cost_what_is_known(overrides: list[str], forward: float, step: float) -> None:
    """The figures are of the authors' modules, counted with other code."""
    cost = flops.clip_cost(load_recipe("lip", "paper", overrides), scaling(), 29)
    assert cost.forward / 1e9 == pytest.approx(forward, rel=0.005)
    assert cost.step / 1e9 == pytest.approx(step, rel=0.005)


@pytest.mark.slow
def test_lip2wav_costs_what_is_publicly_known() -> None:
    recipe = load_recipe("l2s", "paper", ["model.slots=0"])
    cost = flops.clip_cost(recipe, scaling(96), 75)
    colour = 2 * (24 * 75 * 48 * 48) * (2 * 125)  # two more channels into the first convolution
    assert cost.forward + colour == pytest.approx(76.3e9, rel=0.005)
    assert cost.step + 2 * colour == pytest.approx(225.7e9, rel=0.005)


SMALL = ["unit=clip", "shrink=1", "model.width=8", "model.hidden=16", "model.audio_width=8"]


def test_a_cost_grows_with_the_clip_and_leaves_the_run_s_random_numbers_alone() -> None:
    recipe = load_recipe("lip", "tiny", SMALL)
    before = torch.get_rng_state()
    short, long = (flops.clip_cost(recipe, scaling(), frames) for frames in (4, 8))
    assert torch.equal(before, torch.get_rng_state())
    for name in ("forward", "step", "saved_bytes"):
        assert getattr(long, name) == pytest.approx(2 * getattr(short, name), rel=0.05)
    assert short.step > 2 * short.forward and long.weight_bytes == short.weight_bytes


def test_a_long_clip_is_counted_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("lip", "tiny", SMALL)
    monkeypatch.setattr(flops, "MOST_COUNTED", 4)
    short, long = (flops.clip_cost(recipe, scaling(), frames) for frames in (4, 4000))
    longer = {name: 1000 * value for name, value in vars(short).items()}
    assert vars(long) == longer | {"weight_bytes": short.weight_bytes}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Radeon Something", None),
    ],
)
def test_a_peak_is_known_by_the_device_s_name_or_not_at_all(name: str, peak: float | None) -> None:
    assert flops.named_peak(name) == peak


def test_seconds_at_peak_are_shared_by_the_processes_and_not_counted_without_a_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe("lip", "tiny")
    monkeypatch.setattr(flops, "clip_cost", lambda *_: pytest.fail("counted"))
    assert flops.seconds_at_peak(recipe, scaling(), 29, CPU) is None
    monkeypatch.setattr(flops, "clip_cost", lambda *_: flops.Cost(10, 30, 0, 0))
    monkeypatch.setattr(flops, "peak_flops", lambda device: 100.0)
    assert flops.seconds_at_peak(recipe, scaling(), 29, CPU) == pytest.approx(0.3)
    assert flops.seconds_at_peak(recipe, scaling(), 29, CPU, world=2) == pytest.approx(0.15)


@pytest.mark.parametrize(("sets", "frames"), [("unit=clip", 30), ("unit=word", 29)])
def test_a_sample_is_as_long_as_a_step_sees_of_it(sets: str, frames: int) -> None:
    assert flops.usual_frames(load_recipe("lip", "tiny", [sets]), np.array([20, 40])) == frames


def test_a_window_cuts_what_a_step_sees() -> None:
    speech = load_recipe("l2s", "tiny", ["window=30"])
    assert flops.usual_frames(speech, np.array([20, 40])) == 25


@pytest.mark.parametrize("at_peak", [None, 0.001])
def test_a_run_writes_and_says_its_mfu(
    lrw: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at_peak: float | None,
) -> None:
    caplog.set_level("INFO", logger="avb")
    if at_peak is not None:
        monkeypatch.setattr(trainer, "seconds_at_peak", lambda *_: at_peak)
    learn(recipe("lip", steps=1), lrw, tmp_path)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    expected = None if at_peak is None else pytest.approx(at_peak * line["clips_per_s"])
    assert line["mfu"] == expected
    assert any("MFU" in text for text in caplog.messages) == (at_peak is not None)


def test_bytes_alone_are_those_of_the_whole_cost() -> None:
    recipe = load_recipe("lip", "tiny")
    cost = flops.clip_cost(recipe, scaling(), 8)
    bytes_alone = dataclasses.replace(cost, forward=0, step=0)
    assert flops.clip_cost(recipe, scaling(), 8, count=False) == bytes_alone


def test_a_batch_that_cannot_fit_is_refused_with_what_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost = flops.Cost(0, 0, saved_bytes=100 << 20, weight_bytes=10 << 20)
    monkeypatch.setattr(flops, "clip_cost", lambda *_, count: cost)
    monkeypatch.setattr(flops, "free_bytes", lambda _: 1 << 30)
    recipe = load_recipe("l2s", "paper")  # 64 clips: 6.3 GiB
    with pytest.raises(UsageError, match=r"64 clips needs about 6 GiB, and 1 .* accumulate=8 "):
        flops.check_room(recipe, scaling(96), 75, CPU)
    flops.check_room(dataclasses.replace(recipe, accumulate=8), scaling(96), 75, CPU)
    flops.check_room(recipe, scaling(96), 75, CPU, world=8)  # eight clips a process
