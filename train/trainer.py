"""The training loop, for both tasks, on one process or many. Read it from `train` down.

What a step does depends on (recipe, shards, step) alone: the stream's order, the augmentation and
the dropout are all drawn from the seed and the step. So resuming needs no more than weights,
optimiser and the number of steps done, and any number of processes sees the same global batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avb.models.memory import Losses
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.train.device import autocast, global_sum, held, join_processes, peak_gib, stop_signals
from avb.train.flops import check_room, seconds_at_peak
from avb.train.log import Pace
from avb.train.network import Evaluation
from avb.train.recipe import Recipe
from avb.train.sounds import open_stream, readable
from avb.train.split import Parts
from avb.train.state import Run, learning_rate, open_log, progress, restore, save, seed_step, start
from avb.train.tasks import Inputs, Task

LOG_EVERY = 20  # steps between two lines of metrics

Say = Callable[[str], None]
Before = tuple[dict[str, Tensor], list[str]]  # numbers of a step, and the keys of its batch


class Preempted(Exception):
    """A signal asked to stop, and the run is saved (exit 75, after Ctrl-C 130).

    Attributes:
        by: the number of the signal; 0 if only another process got one.
    """

    def __init__(self, text: str, by: int) -> None:
        super().__init__(text)
        self.by = by


class Diverged(Exception):
    """The loss or its gradient is not finite; the last good checkpoint is kept (exit 1)."""


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
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Train a recipe on the training part of `index`; returns the last validation's record.

    With `resume`, the run in `out` goes on, if there is one: a cluster that pre-empts or restarts
    types the same command again.

    `out` gets `recipe.yaml metrics.jsonl last.pt best.pt` and TensorBoard files.

    Raises:
        UsageError: `out` holds another run, or shards are not there.
        RunError: another training holds `out`.
        Preempted: SIGTERM, SIGUSR1, SIGHUP or Ctrl-C came; the run was saved.
        Diverged: the loss or its gradient is not finite; the keys of its batch are named.
    """
    index.check_shards(np.concatenate([parts.rows["train"], parts.rows["val"]]))
    rank, world = join_processes(device)
    with held(out) if rank == 0 else contextlib.nullcontext():
        run = start(recipe, index, out, device, rank, world)
        return _go_on(run, index, parts, out, resume, compile_model, facts or {}, say)


def _go_on(
    run: Run, index: Index, parts: Parts, out: Path, resume: bool, compile_model: bool,
    facts: dict[str, Any], say: Say,
) -> dict[str, Any]:  # fmt: skip
    """`train` from the state that `out` holds, to the end."""
    recipe, rank, world = run.recipe, run.rank, run.world
    lengths = index.num_frames[parts.rows["train"]]
    check_room(recipe, run.scaling, lengths, run.device, world)
    identity = {
        "labels": index.labels,
        "fingerprint": index.dataset["fingerprint"],
        "split": parts.name,
        "split_source": parts.source,
        "speakers": parts.speakers,
        "listed": parts.listed,
    } | facts
    if (out / "last.pt").exists():
        if not resume:
            raise UsageError(f"{out}: holds a run; --resume it, or choose another --out")
        restore(run, out / "last.pt", identity)
    metrics = open_log(run, out, identity) if rank == 0 else None
    network: nn.Module = torch.compile(run.model) if compile_model else run.model  # type: ignore[assignment]
    if world > 1:
        network = nn.parallel.DistributedDataParallel(network)
    stream = open_stream(
        index, rows=parts.rows["train"], batch_size=recipe.batch_size, crops=(recipe.crop,),
        unit=recipe.unit, seed=recipe.seed, buffer=recipe.buffer, rank=rank, world=world,
        pin_memory=run.device.type == "cuda", position=run.step,
    )  # fmt: skip
    at_peak = seconds_at_peak(recipe, run.scaling, lengths, run.device, world)
    pace = Pace(recipe.steps, recipe.batch_size, at_peak)
    record: dict[str, Any] = {}
    before: Before | None = None
    with stop_signals() as stopped:
        leave = Leave(stopped, run)
        batches = readable(stream)
        while run.step < recipe.steps:
            asked = time.perf_counter()
            batch = next(batches)
            pace.waited(time.perf_counter() - asked)
            seed_step(run)
            values = one_step(run, network, batch)
            # What the step before found is known by now: looking at it makes nothing wait.
            check(before)
            before = ({"loss": values["loss"], "gradient": values["grad_norm"]}, batch.keys)
            run.step += 1
            last = run.step == recipe.steps
            if run.step % LOG_EVERY == 0 or last:
                means = global_sum(torch.stack(list(values.values())), world) / world
                line: dict[str, Any] = dict(zip(values, means.tolist(), strict=True))
                line = {name: round(value, 6) for name, value in line.items()}
                line |= pace.look(run.step % LOG_EVERY or LOG_EVERY, run.step)
                line |= {"lr": learning_rate(run), "peak_gib": peak_gib(run.device)}
                if metrics is not None:
                    metrics.write(run.step, line)
                    say(progress_line(run, line))
            if run.step % recipe.validate_every == 0 or last:
                check(before)
                record = validate(run, index, parts.rows["val"])
                better = progress(run, record["score"])
                if metrics is not None:
                    metrics.write(run.step, {"val_" + k: v for k, v in record.items()})
                    say(f"step {run.step}: validation {record['score']:.4f}, best {run.best:.4f}")
                    save(run, out, identity, better)
                if recipe.patience and run.waited >= recipe.patience:
                    say(f"stopped early: no progress in {run.waited} validations")
                    break
            if leave.now() and not last:
                check(before)
                if rank == 0:
                    save(run, out, identity, better=False)
                global_sum(torch.zeros((), device=run.device), world)  # until it is saved
                raise Preempted(
                    f"saved at step {run.step} in {out}; go on with --resume", stopped()
                )
    if metrics is not None:
        metrics.close()
    return {"step": run.step, "best": run.best} | record


class Leave:
    """Whether to stop after a step; all processes leave after the same one.

    A signal reaches them at different steps. So each step tells the others, and the answer is
    taken one step later, when it has long come.
    """

    def __init__(self, stopped: Callable[[], int], run: Run) -> None:
        self._stopped, self._run = stopped, run
        self._told: Tensor | None = None

    def now(self) -> bool:
        """Ask once after each step."""
        if self._run.world == 1:
            return bool(self._stopped())
        heard = self._told is not None and bool(self._told)
        mine = torch.tensor(float(self._stopped()), device=self._run.device)
        self._told = global_sum(mine, self._run.world)
        return heard


def one_step(run: Run, network: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Forward, backward and update on one global batch, in `accumulate` parts."""
    recipe = run.recipe
    task = run.task
    inputs = task.prepare(batch, recipe, run.scaling, run.device, train=True)
    totals: dict[str, Tensor] = {}
    network.train()
    run.optimizer.zero_grad(set_to_none=True)
    pieces = split_inputs(inputs, recipe.accumulate)
    frames_all = global_sum(inputs.lengths_B.sum(), run.world)
    for number, piece in enumerate(pieces):
        final = number == len(pieces) - 1
        quiet = contextlib.nullcontext() if final or run.world == 1 else network.no_sync()  # type: ignore[operator]
        with quiet:
            with autocast(run.device):
                losses, _ = task.losses(network, piece, recipe)
            # Means over this part's clips and frames become shares of the global batch's means;
            # the factor `world` undoes the mean that the processes take of their gradients.
            clips = len(piece.labels) * run.world / recipe.batch_size
            frames = piece.lengths_B.sum() * run.world / frames_all
            loss = weigh(losses, recipe, task, clips, frames)
            loss.backward()
        for name, value in terms(losses, loss, clips, frames).items():
            totals[name] = totals.get(name, torch.zeros((), device=run.device)) + value
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_norm or math.inf)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run)
    run.optimizer.step()
    if run.ema is not None:
        run.ema.update_parameters(run.model)
    return totals | {"grad_norm": norm}


def weigh(losses: Losses, recipe: Recipe, task: Task, clips: Any, frames: Any) -> Tensor:
    """Eq. 8 with the means of the global batch: task losses by clip (lip) or frame (speech)."""
    total = losses.task * task.task_share(clips, frames)
    if losses.saving is not None and losses.bridging is not None:
        memory = recipe.saving_weight * losses.saving + recipe.bridging_weight * losses.bridging
        total = total + memory * frames
    return total


def terms(losses: Losses, loss: Tensor, clips: Any, frames: Any) -> dict[str, Tensor]:
    """What is written of a step: the weighed total, each term; their mean over the processes."""
    named = {"recalled": losses.recalled, "real": losses.real}
    found = {k: v.detach() * clips for k, v in named.items() if v is not None}
    memory = {"saving": losses.saving, "bridging": losses.bridging}
    found |= {k: v.detach() * frames for k, v in memory.items() if v is not None}
    return {"loss": loss.detach()} | found


def split_inputs(inputs: Inputs, parts: int) -> list[Inputs]:
    """The same batch in equal parts."""
    if parts == 1:
        return [inputs]
    tensors = {
        f.name: v.chunk(parts)
        for f in dataclasses.fields(inputs)
        if isinstance(v := getattr(inputs, f.name), Tensor)
    }
    pieces: list[dict[str, Any]] = [{n: c[i] for n, c in tensors.items()} for i in range(parts)]
    return [dataclasses.replace(inputs, **piece) for piece in pieces]


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


def check(step: Before | None) -> None:
    """Stop at a loss or gradient that is not finite, before such weights are saved."""
    values, keys = step or ({}, [])
    for name, value in values.items():
        if not math.isfinite(float(value)):
            shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
            found = f"the {name} became {float(value)} on the batch {shown}"
            raise Diverged(f"{found}; last.pt is kept")


def progress_line(run: Run, line: dict[str, Any]) -> str:
    """One line for a person."""
    shown = ("loss", "recalled", "real", "saving", "bridging")
    losses = " ".join(f"{name} {line[name]:.3f}" for name in shown if name in line)
    speed = f"{line['clips_per_s']:.1f} clips/s, wait {line['data_wait']:.0%}"
    if line["mfu"] is not None:
        speed += f", {line['mfu']:.0%} MFU"
    rest = f"{line['peak_gib']:.1f} GiB, {line['left_s'] / 60:.0f} min left"
    return f"step {run.step}/{run.recipe.steps} {losses} | {speed}, {rest}"
