"""The ways to train one model that `avb bench train` compares, and how to take steps with them."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from avb.pipeline.errors import UsageError
from avb.pipeline.machine import cores
from avb.pipeline.stream.batch import Batch
from avb.tools.bench.batches import Feed
from avb.train.device import choose_device, use_threads
from avb.train.optimizer import make_optimizer
from avb.train.recipe import Recipe
from avb.train.run import Run, seed_step, start
from avb.train.tasks.task import find_task, scaling_of
from avb.train.trainer import one_step


@dataclass
class Contender:
    """A way to train; of each round clips/s, and the share of it spent waiting for data."""

    name: str
    run: Run
    network: nn.Module
    step: Callable[[Contender, Batch], Tensor]
    # Of the device: TF32 in matrix products, in convolutions, and whether cuDNN tries all of its
    # algorithms for each shape. In float32 that takes minutes and is not PyTorch's own choice.
    modes: tuple[bool, bool, bool]
    peak_gib: float | None = None
    rates: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """Clips a step: fewer than asked for where those did not fit."""
        return self.run.recipe.batch_size


def open_device(wanted: str | None) -> torch.device:
    """The device to time on; as many threads of the CPU as cores, if none are asked for."""
    where = torch.device(choose_device(wanted))
    use_threads(cores())
    return where


def as_trained(plan: Recipe, index: Any, where: torch.device, compile_model: bool) -> Contender:
    """What `avb train` does."""
    with tempfile.TemporaryDirectory() as unused:
        run = start(plan, index, Path(unused), str(where), 0, 1)
    network = cast(nn.Module, torch.compile(run.model)) if compile_model else run.model
    # As in the loop: TF32 in convolutions that autocast leaves alone, not in matrix products.
    return Contender("avb", run, network, trained_step, modes=(False, True, True))


def as_eager(name: str, plan: Recipe, index: Any, where: torch.device) -> Contender:
    """The same model as anybody would train it, in float32; `eager_tf32` with TF32 throughout."""
    torch.manual_seed(plan.seed)
    scaling = scaling_of(index, plan)
    model = find_task(plan.task).build(plan, scaling).to(where)
    optimizer = make_optimizer(plan, model)
    for group in optimizer.param_groups:
        group["fused"] = None  # PyTorch's own choice, which is not the fused one
    run = Run(plan, scaling, model, optimizer, None, where, rank=0, world=1)
    tf32 = name == "eager_tf32"
    return Contender(name, run, model, eager_step, modes=(tf32, tf32, False))


def trained_step(one: Contender, batch: Batch) -> Tensor:
    """The step of the training loop; returns the loss, without waiting for it."""
    seed_step(one.run)
    return one_step(one.run, one.network, batch)["loss"]


def eager_step(one: Contender, batch: Batch) -> Tensor:
    """The same step without any of the loop's care; returns the loss, without waiting for it."""
    run = one.run
    one.network.train()
    inputs = run.task.prepare(batch, run.recipe, run.scaling, run.device, train=True)
    losses, _ = run.task.losses(one.network, inputs, run.recipe)
    loss = losses.total(run.recipe.saving_weight, run.recipe.bridging_weight)
    run.optimizer.zero_grad()
    loss.backward()
    if run.recipe.clip_norm:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    return loss.detach()


def with_batch(plan: Recipe, size: int) -> Recipe:
    """A recipe with another batch, in as many of its parts as still come out even."""
    parts = math.gcd(plan.accumulate, size)
    return dataclasses.replace(plan, batch_size=size, accumulate=parts)


def while_it_fits(one: Contender, action: Callable[..., None], *given: Any) -> None:
    """`action(one, ...)`; whenever memory runs out, again with half the batch, down to one clip."""
    while True:
        try:
            return action(one, *given)
        except torch.OutOfMemoryError:
            pass  # left first: until then the error holds all tensors of the step
        if one.batch_size == 1:
            raise UsageError(f"{one.name}: not even one clip fits into the device's memory")
        one.run.recipe = with_batch(one.run.recipe, one.batch_size // 2)
        one.run.optimizer.zero_grad(set_to_none=True)
        one.rates, one.waits = [], []
        gc.collect()
        if one.run.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(one.run.device)


def take_steps(one: Contender, feed: Feed, steps: int) -> None:
    """Train for `steps` steps, and wait for the last to end."""
    before: Tensor | None = None
    with device_modes(*one.modes):
        for _ in range(steps):
            loss = one.step(one, feed.next(one.batch_size))
            if before is not None:
                float(before)  # the loop looks at the loss of the step before
            before = loss
            one.run.step += 1
        finish(one.run.device)


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def device_modes(matrix: bool, convolution: bool, tuned: bool) -> Iterator[None]:
    """What `Contender.modes` says; afterwards as before."""
    product, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = product.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    product.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = matrix, convolution, tuned
    try:
        yield
    finally:
        product.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def clock_of(device: torch.device, feed: Feed) -> Callable[[], float]:
    """CPU seconds where one thread of this process does it all: other work then counts little."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1 and not feed.streams
    return time.process_time if alone else time.perf_counter


def parts_ms(one: Contender, feed: Feed, steps: int) -> dict[str, float]:
    """Mean milliseconds of the parts of a step, with a wait after each: the sum may be more."""
    clock = clock_of(one.run.device, feed)
    ms = dict.fromkeys(("prepare", "forward", "backward", "optimiser"), 0.0)
    last = 0.0
    started = False

    def mark(part: str) -> None:
        nonlocal last, started
        finish(one.run.device)
        now = clock()
        ms[part] += (now - last) * 1e3 / steps
        last, started = now, True

    hooks = [
        # With `accumulate`, what lies before a later forward pass is the backward pass of another.
        one.network.register_forward_pre_hook(
            lambda *_: mark("backward" if started else "prepare")
        ),
        one.network.register_forward_hook(lambda *_: mark("forward")),
        one.run.optimizer.register_step_pre_hook(lambda *_: mark("backward")),
    ]
    with device_modes(*one.modes):
        for _ in range(steps):
            batch = feed.next(one.batch_size)
            finish(one.run.device)
            last, started = clock(), False
            one.step(one, batch)
            mark("optimiser")
            one.run.step += 1
    for hook in hooks:
        hook.remove()
    return ms
