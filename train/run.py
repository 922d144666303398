"""The state of a run: made from a recipe, saved in checkpoints, restored from them."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel

from avb.models.layout import channels_last
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.files import write_atomic
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.device import keep_freed_memory
from avb.train.log import Metrics
from avb.train.network import BAD_STATE, Counters, saved
from avb.train.optimizer import learning_rate, load_optimizer, make_optimizer
from avb.train.origin import Origin, describe, take_over
from avb.train.recipe import Recipe
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, Task, find_task, scaling_of
from avb.train.teacher import Teacher


@dataclass
class Run:
    """Everything that a step needs, and that a checkpoint saves."""

    recipe: Recipe
    scaling: Scaling
    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    device: torch.device
    rank: int
    world: int
    step: int = 0
    best: float = -math.inf
    waited: int = 0  # validations without progress
    factor: float = 1.0  # of the learning rate, for the schedules that look at validation
    bad: int = 0  # validations without progress since the factor last changed
    teacher: Teacher | None = None  # its weights are in no checkpoint of this run

    @property
    def learning_rate(self) -> float:
        """The rate of the coming step."""
        return learning_rate(self.recipe, self.step, self.factor)

    @property
    def stopped_early(self) -> bool:
        """Whether so many validations brought no progress that it is over."""
        return 0 < self.recipe.patience <= self.waited

    @property
    def task(self) -> Task:
        """What is trained."""
        return find_task(self.recipe.task)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated: the averaged ones where there are some."""
        return self.ema.module if self.ema is not None else self.model


def start(
    recipe: Recipe, index: Index, out: Path, device: str, rank: int, world: int,
    origin: Origin | None = None,
) -> Run:  # fmt: skip
    """A run at step 0, with weights drawn from the seed, or those of `origin` where they fit."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    scaling = scaling_of(index, recipe)
    where = torch.device(device)
    model = find_task(recipe.task).build(recipe, scaling)
    if origin is not None:
        take_over(model, origin, recipe.task, index.labels)
    model = channels_last(model.to(where))
    if where.type == "cuda":
        # Not for matrix products: TF32 would reach the addressing, which stays float32.
        torch.backends.cudnn.allow_tf32 = True
    else:
        keep_freed_memory()
    ema = AveragedModel(model, use_buffers=True) if recipe.ema else None
    return Run(recipe, scaling, model, make_optimizer(recipe, model), ema, where, rank, world)


def progress(run: Run, score: float) -> bool:
    """Count a validation; whether it is the best so far."""
    better = score > run.best
    run.best = max(run.best, score)
    run.waited = 0 if better else run.waited + 1
    run.bad = 0 if better else run.bad + 1
    halves = run.recipe.schedule in ("plateau", "released")
    if halves and 0 < run.recipe.patience_lr <= run.bad:
        run.factor, run.bad = run.factor / 2, 0
    return better


def save(run: Run, out: Path, identity: dict[str, Any], better: bool) -> None:
    """Write `best.pt` if this is the best, and `last.pt`.

    In this order: `last.pt` knows how good the best one is, so a run that goes on from it would
    never again write one that was lost.
    """
    state = {
        "recipe": run.recipe.as_dict(),
        "scaling": dataclasses.asdict(run.scaling),
        "model": run.model.state_dict(),
        "ema": None if run.ema is None else run.ema.module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "counters": {f.name: getattr(run, f.name) for f in dataclasses.fields(Counters)},
        "data": identity,
    }
    if better:
        checkpoint.save(out / "best.pt", state | {"optimizer": None})
    checkpoint.save(out / "last.pt", state)


def restore(run: Run, path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Go on from a checkpoint as if nothing had happened.

    Returns `identity`, with what the run began with, which need not be told again. UsageError: the
    checkpoint is damaged, or was made with another recipe or on other shards.
    """
    state = checkpoint.load(path, run.recipe.task)
    parts = saved(state, path)
    began = _check_origins(state["data"], identity)
    # Keys that came since then are as they are by default.
    theirs = make_recipe(run.recipe.task, state["recipe"], str(path)).as_dict()
    mine = run.recipe.as_dict()
    differ = [k for k in mine if mine[k] != theirs.get(k) and k != "steps"]
    if differ:
        shown = "; ".join(f"{k}: {theirs.get(k)} there, {mine[k]} now" for k in differ)
        raise UsageError(f"the run to resume has another recipe ({shown})")
    if parts.data.fingerprint != identity["fingerprint"]:
        raise UsageError("the run to resume was trained on other shards (fingerprints differ)")
    theirs, mine = state["data"], identity
    clips = ("split", "speakers", "listed", *["rule"] * bool(theirs.get("rule")))
    differ = [k for k in clips if theirs.get(k) != mine[k]]
    if differ:
        names = ", ".join(differ)
        raise UsageError(f"the run to resume was trained on other clips ({names} differ)")
    try:
        run.model.load_state_dict(state["model"])
        load_optimizer(run.optimizer, state["optimizer"])
        if run.ema is not None:
            run.ema.module.load_state_dict(state["ema"])
            run.ema.n_averaged.fill_(1)
    except BAD_STATE as error:
        raise UsageError(f"{path}: not a whole checkpoint ({one_line(error)})") from None
    for name, value in vars(parts.counters).items():
        setattr(run, name, value)
    if run.step > run.recipe.steps:
        raise UsageError(
            f"the run to resume has made {run.step} steps, more than the {run.recipe.steps} asked"
            " for; choose another --out"
        )
    return identity | began


def _check_origins(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """What the run began with; refuse to begin anew, and another teacher."""
    began, told = theirs.get("init"), mine.get("init")
    if told and told != began:
        raise UsageError(
            f"the run to resume began with other weights (--init: {describe(began)} there,"
            f" {describe(told)} now); it goes on without --init"
        )
    before, now = theirs.get("teacher"), mine.get("teacher")
    if before != now:
        raise UsageError(
            f"the run to resume has another teacher (--teacher: {describe(before)} there,"
            f" {describe(now)} now)"
        )
    return {"init": began} if began else {}


def open_log(run: Run, out: Path, identity: dict[str, Any]) -> Metrics:
    """Save the resolved recipe and open the log where the run goes on.

    What a training that was killed left half-written is removed: the folder is held.
    """
    for name in ("last.pt", "best.pt", "recipe.yaml", "metrics.jsonl"):
        for path in out.glob(f"{name}.*.tmp"):
            path.unlink(missing_ok=True)
    data = {k: v for k, v in identity.items() if k not in ("listed", "keys")}  # long
    text = yaml.safe_dump({"recipe": run.recipe.as_dict(), "data": data}, sort_keys=False)
    write_atomic(out / "recipe.yaml", text.encode())
    return Metrics(out, run.step + 1)


def seed_step(run: Run) -> None:
    """Make dropout a function of (seed, step, process), so that a resumed run draws the same."""
    torch.manual_seed((run.recipe.seed << 40) + (run.step << 10) + run.rank)
