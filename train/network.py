"""A checkpoint as a network that works: what it says of itself is checked before it is believed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.parse import Range, checked
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate.stored_mels import front_end, other_mels
from avb.train.kept import sample_rate
from avb.train.recipe import Recipe
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, all_tasks, command_of, find_task

#: In so many ways constructors and torch say that values and weights do not go together.
BAD_STATE = (KeyError, TypeError, AttributeError, ValueError, RuntimeError, IndexError)


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, on the CPU, and what its checkpoint says of it.

    Attributes:
        data: of the shards it was trained on: `labels fingerprint split split_source`, and more.
        step: of its training.
        averaged: whether the weights are those that `ema` averages.
    """

    model: nn.Module
    recipe: Recipe
    scaling: Scaling
    data: dict[str, Any]
    step: int
    averaged: bool


@dataclass(frozen=True)
class Data:
    """What a checkpoint says of the shards it was trained on; there may be more."""

    labels: list[str]
    fingerprint: str = ""
    split: str = ""
    split_source: str = ""
    speakers: list[str] | None = None
    listed: dict[str, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    init: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    zero_ms: Annotated[float, Range(-1e4, 1e4)] = 0.0  # the lag that a network of sync calls 0

    def __post_init__(self) -> None:
        texts = [*self.labels, self.fingerprint, self.split]
        if not all(text.isprintable() and len(text) <= 255 for text in texts):
            raise ValueError("a label or name that cannot be printed")


@dataclass(frozen=True)
class Counters:
    """Where a run stands, as `run.Run` has it."""

    step: int = 0
    best: float = 0.0
    waited: int = 0
    factor: float = 1.0
    bad: int = 0

    def __post_init__(self) -> None:
        if min(self.step, self.waited, self.bad) < 0 or not 0 < self.factor <= 1:
            raise ValueError("numbers that no run counts")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint of a run must hold; there may be more."""

    recipe: dict[str, Any]
    scaling: Scaling
    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    data: Data
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        if len(self.data.labels) != self.scaling.classes:
            raise ValueError(f"{len(self.data.labels)} labels, {self.scaling.classes} classes")


def saved(state: dict[str, Any], path: Path) -> Saved:
    """The parts of a checkpoint; UsageError: one is missing, or is not of its type."""
    found: Saved = checked(Saved, state, str(path), strict=False)
    return found


def load_network(path: Path, kind: str | None = None) -> Loaded:
    """The network of a checkpoint of a task, such as `lip` or `l2s`; None: of any.

    One that is missing, damaged, or another task's is a `UsageError`, which says which.
    """
    tasks = (name for name in all_tasks() if kind in (name, command_of(name)))
    return built(checkpoint.load(path, *tasks), path)


def built(state: dict[str, Any], path: Path) -> Loaded:
    """`load_network` of a checkpoint that was read."""
    if "recipe" not in state:
        what = "a vocoder" if state["task"] == "vocoder" else "a judge of words"
        raise UsageError(f"{path}: {what}, no lip reader or speech model")
    parts = saved(state, path)
    recipe = make_recipe(parts.recipe["task"], parts.recipe, str(path))
    weights = state["ema"] or state["model"]
    model = _fitted(recipe, parts.scaling, weights, path)
    data = {"fingerprint": "", "split": "", "split_source": ""} | state["data"]
    averaged = recipe.ema > 0  # an export has no others, and no "ema"
    return Loaded(model.eval(), recipe, parts.scaling, data, parts.counters.step, averaged)


def check_shards(path: Path, loaded: Loaded, index: Index) -> None:
    """UsageError: shards have other crops than the network of `path` takes, or other log-mels.

    Log-mels count where it cannot do without; checkpoints of before do not say theirs.
    """
    scaling, task, name = loaded.scaling, find_task(loaded.recipe.task), loaded.recipe.crop
    stored = index.dataset["crops"].get(name)
    taken = {"size": scaling.size, "margin": scaling.margin}
    if task.sees and stored and any(stored[key] != taken[key] for key in taken):
        raise UsageError(
            f"{path}: takes {name} of {scaling.size} pixels with a margin of {scaling.margin}, and"
            f" those of {index.folder} have {stored['size']} with {stored['margin']}; give shards"
            " that are made as those it was trained on"
        )
    made = loaded.data.get("settings")
    if not made or not task.needs_target_sound:
        return
    there = front_end(index), sample_rate(index)
    if differ := other_mels(made.get("mel"), made.get("sample_rate"), *there):
        does = "makes" if task.makes == "speech" else "hears"
        raise UsageError(f"{path}: {does} other log-mels than those of {index.folder}: {differ}")


def _fitted(recipe: Recipe, scaling: Scaling, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """The model of a recipe with these weights."""
    task = find_task(recipe.task)
    try:
        # First without memory: a recipe may ask for more than there is, of weights that are small.
        with torch.device("meta"):
            task.build(recipe, scaling).load_state_dict(weights, assign=True)
        model = task.build(recipe, scaling)
        model.load_state_dict(weights)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except BAD_STATE as error:
        raise UsageError(f"{path}: not a whole checkpoint ({one_line(error)})") from None
    if not all(bool(w.isfinite().all()) for w in model.state_dict().values()):
        raise UsageError(f"{path}: weights that are not numbers; its training diverged")
    return model


def finite(found: Tensor) -> Tensor:
    """What a network makes, as it is; UsageError: some of it is no number."""
    if not bool(found.isfinite().all()):
        raise UsageError("what this network makes is not finite; its training diverged")
    return found
