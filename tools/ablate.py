"""A grid of trainings over values of a recipe: what is to do, and the table when all is done."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avb.pipeline.errors import UsageError, shown
from avb.pipeline.stream.index import Index
from avb.tools.report.style import COLOURS, new
from avb.tools.report.tables import interval, number, style, titled
from avb.train import checkpoint
from avb.train.evaluate.compare import compare, one_side
from avb.train.evaluate.record import read_record
from avb.train.network import Counters, saved
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task, scaling_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = "test.json"
#: The figure that arms are set side by side with; of sentences wer_grammar where there is one.
METRIC = {"lip": "top1", "l2s": "estoi", "sentence": "wer_free"}
#: What has to be installed to measure it.
NEEDS = {"lip": (), "l2s": ("pystoi", "jiwer"), "sentence": ("jiwer",)}
#: Keys that shards or flags overrule, and what to do.
KEPT = {
    "seed": "choose with --seeds",
    "corpus": "it is that of the shards",
    "unit": "these clips have no other, or leave out --unit",
    "split": "these clips have no other, or leave out --split",
    "steps": "leave out --steps",
    "window": "these clips are seen whole",
}
Grid = dict[str, list[str]]


@dataclass(frozen=True)
class Arm:
    """One point of the grid: `values` as they were typed, by key."""

    values: dict[str, str]

    @property
    def name(self) -> str:
        """Of its folder, and in the table."""
        pairs = (f"{key.removeprefix('model.')}={value}" for key, value in self.values.items())
        return "+".join(re.sub(r"[^\w.=-]", "_", pair) for pair in pairs) or "recipe"

    @property
    def sets(self) -> list[str]:
        """As `--set` takes them."""
        return [f"{key}={value}" for key, value in self.values.items()]


@dataclass(frozen=True)
class Trial:
    """One training: an arm with a seed."""

    arm: Arm
    recipe: Recipe
    folder: Path


def parse_grid(texts: list[str]) -> Grid:
    """Values by key, of texts such as `model.slots=0,44`; UsageError: one is none, or twice."""
    grid: Grid = {}
    for text in texts:
        key, sign, values = text.partition("=")
        key = key.strip()
        # Not at the commas of a list or a mapping.
        found = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", values)]
        if not sign or not key or not all(found):
            raise UsageError(f"{text}: expected KEY=VALUE,VALUE,...")
        if key in grid or len(set(found)) < len(found):
            raise UsageError(f"{text}: a key or value twice")
        grid[key] = found
    return grid


def arms(grid: Grid) -> list[Arm]:
    """Every combination, the last key's values running fastest."""
    points = itertools.product(*grid.values())
    found = [Arm(dict(zip(grid, point, strict=True))) for point in points]
    names = [arm.name for arm in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{twice[0]}: two points of the grid would have this folder")
    return found


def check_arm(arm: Arm, asked: Recipe, recipe: Recipe, index: Index) -> None:
    """Refuse, before another arm has trained for hours, an arm that cannot be.

    One whose key shards or flags overrule (`asked` is without these), and a model that is none.
    """
    for key, value in arm.values.items():
        if "." not in key and (ruled := getattr(recipe, key)) != getattr(asked, key):
            why = KEPT.get(key, "leave it out")
            raise UsageError(f"{key}={value}: {key} would be {shown(ruled)} all the same; {why}")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        find_task(recipe.task).build(recipe, scaling_of(index, recipe))


def standing(trial: Trial) -> tuple[int, bool]:
    """Steps that a trial has made, and whether it is trained."""
    if not (trial.folder / "last.pt").exists():
        return 0, False
    counters = _counters(trial, "last.pt")
    patience = trial.recipe.patience
    early = patience > 0 and counters.waited >= patience
    return counters.step, early or counters.step >= trial.recipe.steps


def _counters(trial: Trial, name: str) -> Counters:
    path = trial.folder / name
    return saved(checkpoint.load(path, trial.recipe.task), path).counters


def describe(trial: Trial) -> str:
    """What is to be done for a trial."""
    step, done = standing(trial)
    what = "trained" if done else f"goes on at step {step}" if step else "begins"
    read = ", test read" if done and is_read(trial) else ""
    return f"{trial.folder}: {what} (of {trial.recipe.steps} steps){read}"


def is_read(trial: Trial) -> bool:
    """Whether the test part was read with a trial's best checkpoint."""
    record = trial.folder / RECORD
    if not record.exists():
        return False
    sha256 = hashlib.sha256((trial.folder / "best.pt").read_bytes()).hexdigest()
    return bool(read_record(record)["flags"].get("checkpoint_sha256") == sha256)


def result(grid: Grid, trials: list[Trial]) -> dict[str, Any]:
    """All arms beside the first one, of trials that are trained and measured.

    Returns:
        `task`, `metric`, `grid`, `seeds`, `chosen` (the arm that is best on validation) and
        `arms`: name, values, `validation` and `test` with the figure of `each` seed, and
        `difference` to the first arm, paired by clip, or the `reason` why there is none.
    """
    task = trials[0].recipe.task
    record = read_record(trials[0].folder / RECORD)
    metric = "wer_grammar" if "wer_grammar" in record["metrics"] else METRIC[task]
    by_arm: dict[str, list[Trial]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm.name, []).append(trial)
    sides = {n: ",".join(str(t.folder / RECORD) for t in own) for n, own in by_arm.items()}
    first = next(iter(by_arm))
    rows = []
    for name, own in by_arm.items():
        scores = [_counters(trial, "best.pt").best for trial in own]
        row: dict[str, Any] = {"name": name, "values": own[0].arm.values}
        row["validation"] = {"value": sum(scores) / len(scores), "each": scores}
        row["test"] = one_side(sides[name], metric)
        if name != first:
            try:
                pair = compare(sides[name], sides[first])
                row["difference"] = pair["metrics"][metric]["difference"]
            except UsageError as error:  # an arm that is measured in another way
                row["reason"] = str(error)
        rows.append(row)
    chosen = max(rows, key=lambda row: float(row["validation"]["value"]))["name"]
    seeds = [trial.recipe.seed for trial in by_arm[first]]
    return {"task": task, "metric": metric, "grid": grid, "seeds": seeds} | {
        "chosen": chosen, "arms": rows,
    }  # fmt: skip


def table(found: dict[str, Any]) -> list[str]:
    """A line an arm; the best on validation has a star."""
    metric, first = found["metric"], found["arms"][0]["name"]
    width = max(len(row["name"]) for row in found["arms"])
    score = find_task(found["task"]).score_name
    lines = [f"{'':>{width}}   validation ({score}), test {titled(metric)} [95 %], by seed"]
    for row in found["arms"]:
        star = "*" if row["name"] == found["chosen"] else " "
        each = " ".join(number(metric, value) for value in row["test"]["each"])
        shown = f"{row['validation']['value']:.4f}  {interval(metric, row['test'])}  ({each})"
        ahead = ""
        if "difference" in row:
            ahead = f"; less {first}: {interval(metric, row['difference'], sign=True)}"
        if "reason" in row:
            ahead = f"; not paired: {row['reason']}"
        lines.append(f"{row['name']:>{width}} {star} {shown}{ahead}")
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def figure(found: dict[str, Any]) -> Figure:
    """The test figure of each arm with its interval, over the first key, a line for the others."""
    metric, factor = found["metric"], style(found["metric"]).factor
    first, *others = found["grid"] or {"recipe": []}
    values = found["grid"].get(first, [""])
    numbers = _numbers(values)
    drawn, axes = new(3.6)
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in found["arms"]:
        label = ", ".join(f"{key.removeprefix('model.')} {row['values'][key]}" for key in others)
        lines.setdefault(label, []).append(row)
    for colour, (label, every) in zip(itertools.cycle(COLOURS), lines.items(), strict=False):
        rows = [row for row in every if row["test"]["value"] is not None]
        x = [numbers[row["values"].get(first, "")] for row in rows]
        test = [row["test"] for row in rows]
        y = [factor * one["value"] for one in test]
        # An interval that ends at its value may miss it by a rounding, which matplotlib refuses.
        spread = [[factor * max(0.0, one["value"] - one["low"]) for one in test],
                  [factor * max(0.0, one["high"] - one["value"]) for one in test]]  # fmt: skip
        axes.errorbar(x, y, spread, color=colour, marker="o", capsize=3, label=label or None)
        for place, one in zip(x, test, strict=True):
            each = [factor * value for value in one["each"]]
            axes.plot([place] * len(each), each, ".", color=colour, alpha=0.5, markersize=4)
    axes.set_xticks([numbers[value] for value in values], values)
    name = "N, slots of the memory" if first == "model.slots" else first
    axes.set(xlabel=name, ylabel=f"{titled(metric)}, test")
    if others:
        axes.legend()
    return drawn


def _numbers(values: list[str]) -> dict[str, float]:
    """Where each value stands: at itself where all are numbers, else in order."""
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return {value: float(place) for place, value in enumerate(values)}
