"""Promise: a checkpoint that does not hold together is one line, before it costs memory or time."""

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fault
from networks import LIP, SPEECH, same

from avb.train import checkpoint
from avb.train.network import finite, load_network
from avb.train.optimizer import load_optimizer
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, find_task

State = dict[str, Any]


def whole(kind: str = "lip") -> State:
    """A small random checkpoint as training saves it."""
    model = LIP | (SPEECH if kind == "l2s" else {})
    recipe = make_recipe(kind, {"shrink": 4, "model": model}, "test")  # type: ignore[arg-type]
    scaling = Scaling(130.0, 30.0, -11.5, 3.5, 4, 112, 2)
    return {
        "recipe": recipe.as_dict(), "scaling": dataclasses.asdict(scaling), "ema": None,
        "model": find_task(recipe.task).build(recipe, scaling).state_dict(),
        "counters": {"step": 3, "best": -math.inf, "waited": 0, "factor": 1.0, "bad": 0},
        "data": {"labels": ["no", "yes"], "fingerprint": "f", "split": "s", "split_source": "o"},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["lip", "l2s"])
def test_a_whole_one_is_a_network(tmp_path: Path, kind: str) -> None:
    state = whole(kind)
    checkpoint.save(tmp_path / "x.pt", state)
    loaded = load_network(tmp_path / "x.pt", kind)
    assert not loaded.model.training and loaded.step == 3 and not loaded.averaged
    assert loaded.recipe.task == kind and loaded.data == state["data"]
    assert same(loaded.model.state_dict(), state["model"])


def changed(state: State, *path: str, to: Any = None) -> None:
    for name in path[:-1]:
        state = state[name]
    if to is None:
        del state[path[-1]]
    else:
        state[path[-1]] = to


WEIGHT = "visual.stages.1.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: changed(s, "ema"), "the key 'ema' is missing"),
        (lambda s: changed(s, "ema", to=3), "ema: expected a mapping, found 3"),
        (lambda s: changed(s, "scaling", "mel_low"), "scaling: the key 'mel_low' is missing"),
        (lambda s: changed(s, "scaling", "pixel_std", to=0), "a scaling with a value"),
        (lambda s: changed(s, "scaling", "margin", to=torch.zeros(0)), "where plain values belong"),
        (lambda s: changed(s, "data", "labels", to=["no"]), "1 labels, 2 classes"),
        (lambda s: changed(s, "data", "labels", to=["no", "\0"]), "cannot be printed"),
        (lambda s: changed(s, "data", "counts", to=[]), "data.counts: expected a mapping"),
        (lambda s: changed(s, "data", "zero_ms", to="5"), "data.zero_ms: expected float"),
        (lambda s: changed(s, "data", "zero_ms", to=1e9), "data.zero_ms: expected -10000"),
        (lambda s: changed(s, "counters", "step", to="x"), "counters.step: expected int"),
        (lambda s: changed(s, "counters", "step", to=-1), "numbers that no run counts"),
        (lambda s: changed(s, "recipe", "model", "hidden", to=10**7), "not a whole checkpoint"),
        (lambda s: changed(s, "model", WEIGHT), f"Missing key.*{WEIGHT}"),
        (lambda s: changed(s, "model", WEIGHT, to=1.0), "expected Tensor, found 1.0"),
        (lambda s: changed(s, "model", WEIGHT, to=torch.zeros(1).expand(3, 5)),
         f"size mismatch for {WEIGHT}"),
        (lambda s: changed(s, "scaling", "size", to=10**6), "no picture of 1000000 pixels"),
        (lambda s: changed(s, "scaling", "margin", to=10**6), "a margin of 1000000"),
        (lambda s: changed(s, "recipe", "shrink", to=10**6), "shrink 1000000: the crops have 112"),
        (lambda s: changed(s, "recipe", "model", "blocks", to=10**6), "10+: expected 0 to 100"),
        (lambda s: changed(s, "recipe", "steps", to=10**500), r"steps 10+\.\.\.0+: expected"),
        (lambda s: changed(s, "recipe", "split", to="\x1b[2J"), "that cannot be printed"),
        (lambda s: changed(s, "data", "split", to="\x1b[2J"), "that cannot be printed"),
        (lambda s: changed(s, "data", "labels", to=["a", "x" * 10**6]), "that cannot be printed"),
        (lambda s: changed(s, "data", "labels", to=["a", "a\u202eb"]), "that cannot be printed"),
        (lambda s: s["model"][WEIGHT].fill_(torch.nan), "not numbers; its training diverged"),
    ],
)  # fmt: skip
def test_what_does_not_hold_together_is_one_line(
    tmp_path: Path, change: Callable[[State], None], said: str
) -> None:
    state, path = whole(), tmp_path / "x.pt"
    change(state)
    checkpoint.save(path, state)
    line = fault(load_network, path, "lip")
    assert re.search(said, line) and str(path) in line and len(line) < 400


def test_a_judge_is_no_network(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x.pt", {"task": "judge", "weights": {}})
    assert "a judge of words" in fault(load_network, tmp_path / "x.pt")


def test_an_optimizer_takes_only_its_own_state() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    mine = torch.optim.AdamW([weight])
    weight.sum().backward()
    mine.step()
    state = mine.state_dict()
    load_optimizer(torch.optim.AdamW([weight]), state)
    wrong = state | {"state": {0: state["state"][0] | {"exp_avg": torch.zeros(2)}}}
    with pytest.raises(ValueError, match=r"exp_avg of shape \(2,\)"):
        load_optimizer(torch.optim.AdamW([weight]), wrong)
    for one in ({}, {k: v for k, v in state["state"][0].items() if k != "exp_avg"}):
        wrong = state | {"state": {0: one}}
        with pytest.raises(ValueError, match="not of every weight"):
            load_optimizer(torch.optim.AdamW([weight]), wrong)
    both, other = torch.optim.SGD([weight, torch.ones(2)], momentum=0.9), torch.ones(3)
    half = both.state_dict() | {"state": {0: {"momentum_buffer": other}}}
    with pytest.raises(ValueError, match="not of every weight"):
        load_optimizer(both, half)
    with pytest.raises(ValueError, match="another optimizer"):
        load_optimizer(torch.optim.SGD([weight], momentum=0.9), state)


def test_a_file_does_not_change_the_settings_of_an_optimizer() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    mine = torch.optim.AdamW([weight], betas=(0.8, 0.9))
    weight.sum().backward()
    mine.step()
    state = mine.state_dict()
    [group] = state["param_groups"]
    group |= {"maximize": torch.zeros(3), "betas": (0.5, 2.0)}
    del group["eps"]  # as of another version of torch
    fresh = torch.optim.AdamW([weight], betas=(0.8, 0.9))
    load_optimizer(fresh, state)
    assert fresh.param_groups[0] == mine.param_groups[0]
    torch.testing.assert_close(fresh.state_dict()["state"], mine.state_dict()["state"])


def test_what_is_no_number_is_not_passed_on() -> None:
    assert finite(torch.ones(2)).sum() == 2
    assert "diverged" in fault(finite, torch.tensor([1.0, torch.inf]))
