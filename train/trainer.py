"""The training loop, for all tasks, on one process or many. Read it from `train` down.

What a step does depends on (recipe, shards, step) alone: the stream's order, the augmentation and
the dropout are all drawn from the seed and the step. So resuming needs no more than weights,
optimiser and the number of steps done, and any number of processes sees the same global batches.
"""

import contextlib
import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from avb.pipeline.errors import RunError, UsageError
from avb.pipeline.stream.index import Index
from avb.train.batches import open_stream
from avb.train.device import autocast, peak_gib
from avb.train.distributed import global_sum, join_processes, take_from_first
from avb.train.flops import check_room, seconds_at_peak, usual_frames
from avb.train.log import Pace, held
from avb.train.origin import open_origin
from avb.train.recipe import Recipe
from avb.train.run import Run, open_log, progress, restore, save, seed_step, start
from avb.train.signals import Leave, Preempted, stop_signals
from avb.train.split import Parts
from avb.train.tasks.task import Evaluation, Inputs, find_task
from avb.train.teacher import Teacher

log = logging.getLogger(__name__)
LOG_EVERY = 20  # steps between two lines of metrics

Before = tuple[dict[str, Tensor], list[str]]  # numbers of a step, and the keys of its batch


class Diverged(RunError):
    """The loss or its gradient is not finite; a checkpoint from before is kept (exit 1)."""


def train(
    recipe: Recipe,
    index: Index,
    parts: Parts,
    out: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    compile_model: bool = False,
    facts: dict[str, Any] | None = None,
    init: Path | None = None,
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """Train a recipe on the training part of `index`; returns the last validation's record.

    With `resume`, the run in `out` goes on, if there is one: a cluster that pre-empts or restarts
    types the same command again. `init`, a run or its checkpoint, is whose weights it begins with;
    `teacher` is whose features a lip reader's are led to, as `teacher.taught` has its recipe.

    `out` gets `recipe.yaml metrics.jsonl last.pt best.pt` and TensorBoard files.

    Raises:
        UsageError: `out` holds another run, or shards are not there.
        RunError: another training holds `out`.
        Preempted: SIGTERM, SIGUSR1, SIGHUP or Ctrl-C came; the run was saved.
        Diverged: the loss or its gradient is not finite; the keys of its batch are named.
    """
    index.check_shards(np.concatenate([parts.rows["train"], parts.rows["val"]]))
    rank, world, device = join_processes(device)
    identity: dict[str, Any] = {
        "labels": index.labels, "fingerprint": index.dataset["fingerprint"],
        **parts.facts(), **(facts or {}),
    }  # fmt: skip
    origin = None if init is None else open_origin(init)
    if origin is not None:
        identity["init"] = origin.facts()
    if teacher is not None:
        identity["teacher"] = teacher.origin.facts()
    if find_task(recipe.task).hears:  # what a vocoder makes sound of it may know
        identity["keys"] = [index.key(row) for row in parts.rows["train"]]
    with held(out) if rank == 0 else contextlib.nullcontext():
        begun = (out / "last.pt").exists()
        run = start(recipe, index, out, device, rank, world, None if begun else origin)
        run.teacher = teacher
        if teacher is not None:
            teacher.network.to(run.device)
        frames = usual_frames(recipe, index.num_frames[parts.rows["train"]])
        check_room(recipe, run.scaling, frames, run.device, world)
        if begun:
            if not resume:
                raise UsageError(f"{out}: holds a run; --resume it, or choose another --out")
            identity = restore(run, out / "last.pt", identity)
        steps = global_sum(torch.tensor(run.step, device=run.device), world)
        if int(steps) != world * run.step:  # their weights would part
            raise UsageError(
                f"{out}: here the run is at step {run.step}, elsewhere it is not; it must lie where"
                " all processes see it"
            )
        return _Training(run, index, parts, out, identity, frames).steps(compile_model)


class _Training:
    """A run on its way through its steps; the first process writes and says what comes of them."""

    def __init__(
        self, run: Run, index: Index, parts: Parts, out: Path, identity: dict[str, Any], frames: int
    ) -> None:
        self.run, self.index, self.rows, self.out = run, index, parts.rows, out
        self.identity = identity
        self.metrics = open_log(run, out, identity) if run.rank == 0 else None
        at_peak = seconds_at_peak(run.recipe, run.scaling, frames, run.device, run.world)
        self.pace = Pace(run.recipe.steps, run.recipe.batch_size, at_peak, run.step)

    def steps(self, compile_model: bool) -> dict[str, Any]:
        """From the step that the run is at to its end; the record of the last validation."""
        run, recipe = self.run, self.run.recipe
        network: nn.Module = torch.compile(run.model) if compile_model else run.model  # type: ignore[assignment]
        if run.world > 1:
            network = nn.parallel.DistributedDataParallel(network)
        record: dict[str, Any] = {}
        before: Before | None = None
        kept = self.out / "last.pt"
        with stop_signals() as stopped:
            leave = Leave(stopped, run.world, run.device)
            batches = open_stream(
                self.index, rows=self.rows["train"], batch_size=recipe.batch_size,
                crops=run.task.crops(recipe), audio=run.task.hears, unit=recipe.unit,
                seed=recipe.seed, buffer=recipe.buffer, rank=run.rank, world=run.world,
                pin_memory=run.device.type == "cuda", position=run.step,
            )  # fmt: skip
            while run.step < recipe.steps and not run.stopped_early:
                asked = time.perf_counter()
                batch = next(batches)
                self.pace.waited += time.perf_counter() - asked
                seed_step(run)
                values = one_step(run, network, batch)
                # What the step before found is known by now: looking at it makes nothing wait.
                check(before, kept)
                before = ({"loss": values["loss"], "gradient": values["grad_norm"]}, batch.keys)
                run.step += 1
                last = run.step == recipe.steps
                if run.step % LOG_EVERY == 0 or last or run.step == 1:
                    self.log(values)
                if run.step % recipe.validate_every == 0 or last:
                    check(before, kept)
                    began = time.perf_counter()
                    record = self.validate_and_save()
                    self.pace.looked += time.perf_counter() - began  # no step was made
                    if run.stopped_early:
                        log.info(f"stopped early: no progress in {run.waited} validations")
                if leave.now() and not last:
                    check(before, kept)
                    self.save_and_leave(stopped())
        if self.metrics is not None:
            self.metrics.close()
        return {"step": run.step, "best": run.best} | record

    def log(self, values: dict[str, Tensor]) -> None:
        """Write what the last step found, and how fast steps are, and say it."""
        run = self.run
        means = global_sum(torch.stack(list(values.values())), run.world) / run.world
        named = zip(values, means.tolist(), strict=True)
        line: dict[str, Any] = {name: round(value, 6) for name, value in named}
        line |= self.pace.look(run.step)
        line |= {"lr": run.learning_rate, "peak_gib": peak_gib(run.device)}
        if self.metrics is not None:
            self.metrics.write(run.step, line)
            log.info(progress_line(run, line))

    def validate_and_save(self) -> dict[str, Any]:
        """The record of a validation; `best.pt` is of the best so far."""
        run = self.run
        # Of batch norm, each process has its own; those of the first are saved.
        take_from_first(run.evaluated.buffers(), run.world)
        record = validate(run, self.index, self.rows["val"])
        better = progress(run, record["score"])
        if self.metrics is not None:
            self.metrics.write(run.step, {"val_" + k: v for k, v in record.items()})
            score, best = (run.task.score_text(value) for value in (record["score"], run.best))
            name = run.task.score_name
            log.info(f"step {run.step}: validation {name} {score}, best {best}")
            save(run, self.out, self.identity, better)
        return record

    def save_and_leave(self, by: int) -> None:
        """Stop after a signal, as soon as the run is saved."""
        run = self.run
        if run.rank == 0:
            save(run, self.out, self.identity, better=False)
        global_sum(torch.zeros((), device=run.device), run.world)  # until it is saved
        raise Preempted(f"saved at step {run.step} in {self.out}", by)


def one_step(run: Run, network: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Forward, backward and update on one global batch, in `accumulate` parts."""
    recipe = dataclasses.replace(run.recipe, teacher_ratio=run.recipe.teacher_at(run.step))
    task = run.task
    inputs = task.prepare(batch, recipe, run.scaling, run.device, train=True)
    # Tuned for each shape anew, which takes seconds: clips of unlike lengths bring one every step.
    torch.backends.cudnn.benchmark = not inputs.ragged
    if run.teacher is not None:
        with autocast(run.device):
            features = run.teacher.features(batch, recipe, run.device)
        inputs = dataclasses.replace(inputs, taught_BTD=features)
    totals: dict[str, Tensor] = {}
    network.train()
    run.optimizer.zero_grad(set_to_none=True)
    pieces = split_inputs(inputs, recipe.accumulate)
    for number, piece in enumerate(pieces):
        final = number == len(pieces) - 1
        quiet = contextlib.nullcontext() if final or run.world == 1 else network.no_sync()  # type: ignore[operator]
        with quiet:
            with autocast(run.device):
                losses, _ = task.losses(network, piece, recipe)
            # Means over this part's clips become shares of the global batch's means; the factor
            # `world` undoes the mean that the processes take of their gradients.
            share = len(piece.labels) * run.world / recipe.batch_size
            weights = recipe.saving_weight, recipe.bridging_weight, recipe.distill_weight
            loss = share * losses.total(*weights)
            loss.backward()
        named = {"loss": loss} | {f: share * v for f, v in vars(losses).items() if v is not None}
        for name, value in named.items():
            value = value.detach()
            totals[name] = totals.get(name, torch.zeros((), device=run.device)) + value
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_norm or math.inf)
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate
    run.optimizer.step()
    if run.ema is not None:
        # A young average follows faster; a short run would be judged by the weights it began with.
        decay = min(recipe.ema, (1 + run.step) / (10 + run.step))
        run.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
        run.ema.update_parameters(run.model)
    return totals | {"grad_norm": norm}


def split_inputs(inputs: Inputs, parts: int) -> list[Inputs]:
    """The same batch in parts of one size, but for the last; fewer where its clips are few."""
    chunks = {n: v.chunk(parts) for n, v in vars(inputs).items() if isinstance(v, Tensor)}
    pieces = zip(*chunks.values(), strict=True)
    return [
        dataclasses.replace(inputs, **dict(zip(chunks, piece, strict=True))) for piece in pieces
    ]


@torch.no_grad()
def validate(run: Run, index: Index, rows: Any) -> dict[str, float]:
    """The mean score of the validation clips, each counted once over all processes."""
    recipe, task, model = run.recipe, run.task, run.evaluated.eval()
    evaluation = Evaluation(model, recipe, run.scaling, index, rows, run.device)
    sums = torch.zeros(2, dtype=torch.float64)
    for batch, inputs in evaluation.batches(rank=run.rank, world=run.world):
        with autocast(run.device):
            _, output = task.losses(model, inputs, recipe)
        scores = task.score(output, inputs)
        sums += torch.tensor([float(scores.sum()), len(batch)], dtype=torch.float64)
    total, count = global_sum(sums.to(run.device), run.world).tolist()
    return {"score": total / count, "clips": count}


def check(step: Before | None, kept: Path) -> None:
    """Stop at a loss or gradient that is not finite, before such weights are saved in `kept`."""
    values, keys = step or ({}, [])
    for name, value in values.items():
        if not math.isfinite(float(value)):
            shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
            found = f"the {name} became {float(value)} on the batch {shown}"
            rest = f"{kept.name} is kept" if kept.exists() else "before anything was saved"
            raise Diverged(f"{found}; {rest}")


def progress_line(run: Run, line: dict[str, Any]) -> str:
    """One line for a person."""
    parts = "recalled real saving bridging distilled critics".split()
    terms = [name for name in parts if name in line]
    shown = ["loss", *terms] if len(terms) > 1 else ["loss"]  # one alone is the loss
    losses = " ".join(f"{name} {line[name]:.3f}" for name in shown)
    speed = f"{line['clips_per_s']:.1f} clips/s, wait {line['data_wait']:.0%}"
    if line["mfu"] is not None:
        speed += f", {line['mfu']:.0%} MFU"
    rest = f"{line['peak_gib']:.1f} GiB, {line['left_s'] / 60:.0f} min left"
    return f"step {run.step}/{run.recipe.steps} {losses} | {speed}, {rest}"
