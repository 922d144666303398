"""`avb bench train`: the training step beside plain eager PyTorch on the same batches, in one run.

Up to three ways to train the same model take turns, round by round, so that whatever else the
machine does hits all alike:

    avb          the step of `avb train`: bfloat16 under autocast and a fused optimiser on a GPU,
                 weights channels last, convolutions tuned, torch.compile if asked for
    eager_fp32   float32 throughout, TF32 off, the rest as PyTorch makes and chooses it
    eager_tf32   the same with TF32 in convolutions and matrix products (GPU only)

All do everything that a step does: to the device, augmentation, forward, backward, update.
"""

import platform
import statistics
from pathlib import Path
from typing import Any

import torch

from avb.pipeline.errors import UsageError
from avb.pipeline.machine import revision
from avb.pipeline.storage.store import Folder
from avb.tools.bench.batches import Feed, blank_index
from avb.tools.bench.contenders import (
    Contender,
    as_eager,
    as_trained,
    clock_of,
    open_device,
    parts_ms,
    take_steps,
    while_it_fits,
    with_batch,
)
from avb.train.data import open_shards, resolve
from avb.train.device import free_bytes, peak_gib
from avb.train.flops import Cost, clip_cost, peak_flops, usual_frames
from avb.train.recipe import Recipe
from avb.train.recipe_file import load_recipe
from avb.train.tasks.task import find_task, scaling_of


def bench_train(
    task: str, recipe: str = "paper", overrides: list[str] | None = None, *,
    data: Folder | None = None, device: str | None = None, batch_size: int | None = None,
    steps: int | None = None, rounds: int | None = None, compile_model: bool = False,
    datasets: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure the training step of a recipe; speech with either decoder.

    Args:
        data: shards to stream; None: drawn batches that lie in host memory.
        batch_size: clips a step; None: the recipe's, on the CPU 8 (lip) or 2 (l2s).
        steps: timed in a round; None: 24, on the CPU 1, or 6 from shards.
        rounds: turns of each contender; None: 5, on the CPU 3.

    Returns:
        The circumstances and `summary`; for speech that of the recipe's own decoder, and that of
        each under `decoders`.
    """
    where = open_device(device)
    cpu = where.type == "cpu"
    kind = find_task(task)
    wanted, index = open_recipe(task, recipe, overrides or [], data, datasets)
    asked = batch_size or (kind.cpu_batch if cpu else wanted.batch_size)
    plans = kind.variants(with_batch(wanted, asked))
    scaling, frames = scaling_of(index, wanted), usual_frames(wanted, index.num_frames)
    costs = {name: clip_cost(plan, scaling, frames) for name, plan in plans.items()}
    if cpu:
        size = affordable(asked, list(costs.values()), free_bytes(torch.device("cpu")))
        plans = {name: with_batch(plan, size) for name, plan in plans.items()}
    own = next(iter(plans))
    usual = (1 if data is None else 6) if cpu else 24  # six batches come from a block of words
    steps, rounds, warmup = steps or usual, rounds or (3 if cpu else 5), 1 if cpu else 5
    feed = Feed(plans[own], index, pin_memory=not cpu)
    groups = {
        name: gather(plan, index, where, feed, warmup, compile_model)
        for name, plan in plans.items()
    }
    everyone = [one for group in groups.values() for one in group]
    for number in range(rounds):  # every other one in reverse: none always follows the same
        for one in everyone[:: -1 if number % 2 else 1]:
            while_it_fits(one, measure, feed, steps)
    summaries = {name: summary(group, costs[name], feed, steps) for name, group in groups.items()}
    record = {
        "task": task, "recipe": recipe, "overrides": overrides or [], "data": data and str(data),
        **circumstances(where, feed), "compile": compile_model, "steps": steps, "rounds": rounds,
        "warmup": warmup, "note": " ".join(remarks(everyone, asked, wanted.batch_size, where)),
    }  # fmt: skip
    return record | summaries[own] | ({"decoder": own, "decoders": summaries} if own else {})


def open_recipe(
    task: str, recipe: str, overrides: list[str], data: Folder | None, datasets: Path | None
) -> tuple[Recipe, Any]:
    """The recipe, and the index of the shards it is measured on or a `Blank` for them."""
    if data is None:
        plan = load_recipe(task, recipe, overrides)
        return plan, blank_index(plan, datasets)
    index, corpus = open_shards(data, datasets)
    plan = resolve(task, index, corpus, recipe, overrides)
    return plan, index.of_unit(plan.unit)


def affordable(size: int, costs: list[Cost], free: float) -> int:
    """The batch, halved until its step leaves a quarter of `free` bytes of host memory.

    Estimated beforehand: a CPU's memory that runs out kills the process, and others.
    """
    # Two contenders a model, each with weights, gradients and two moments. A clip was measured to
    # take 1.1 to 1.25 times what is saved for its backward pass.
    models = sum(2 * 4 * cost.weight_bytes for cost in costs)
    clip = 1.5 * max(cost.saved_bytes for cost in costs)
    while models + size * clip > 0.75 * free:
        if size == 1:
            raise UsageError(
                f"a clip takes about {(models + clip) / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB"
                " are free; take a smaller recipe"
            )
        size //= 2
    return size


def gather(
    plan: Recipe, index: Any, where: torch.device, feed: Feed, warmup: int, compile_model: bool
) -> list[Contender]:
    """The contenders for one model, `avb` first, each warmed up with a batch that fits."""
    cuda = where.type == "cuda"
    contenders = []
    for name in ("avb", "eager_fp32", "eager_tf32")[: 3 if cuda else 2]:
        held = torch.cuda.memory_allocated(where) / 2**30 if cuda else 0.0
        if cuda:
            torch.cuda.reset_peak_memory_stats(where)
        if name == "avb":
            one = as_trained(plan, index, where, compile_model)
        else:
            one = as_eager(name, plan, index, where)
        while_it_fits(one, take_steps, feed, warmup)
        one.peak_gib = peak_gib(where) - held
        contenders.append(one)
    return contenders


def measure(one: Contender, feed: Feed, steps: int) -> None:
    """One round of one contender."""
    if one.name == "avb" and feed.ahead:
        # From an empty queue to its steady state; the others are given the full one.
        feed.drain()
        take_steps(one, feed, feed.ahead)
    feed.waited_s, clock = 0.0, clock_of(one.run.device, feed)
    begun = clock()
    take_steps(one, feed, steps)
    passed = clock() - begun
    one.rates.append(steps * one.batch_size / passed)
    one.waits.append(feed.waited_s / passed)


def summary(group: list[Contender], cost: Cost, feed: Feed, steps: int) -> dict[str, Any]:
    """What was measured of one model; null is what does not apply or is not known.

    Medians of the rounds, shares from 0 to 1; `data_wait` is null on drawn batches, `parts_ms` a
    pass of its own, `peak_gib` that of `avb` after its warm-up (on the CPU of the whole process),
    `spread` (most - least) / median.
    """
    by_name = {one.name: one for one in group}
    ours = by_name["avb"]
    speed = {name: statistics.median(one.rates) for name, one in by_name.items()}
    peak = peak_flops(ours.run.device)

    def against(name: str) -> dict[str, Any]:
        there = name in by_name
        return {
            f"{name}_clips_per_s": round(speed[name], 3) if there else None,
            f"{name}_batch": by_name[name].batch_size if there else None,
        }

    return {
        "clips_per_s": round(speed["avb"], 3),
        "data_wait": round(statistics.median(ours.waits), 4) if feed.streams else None,
        "mfu": None if peak is None else round(speed["avb"] * cost.step / peak, 4),
        **against("eager_fp32"),
        **against("eager_tf32"),
        "ratio": round(speed["avb"] / speed["eager_fp32"], 3),
        "ratio_tf32": (
            round(speed["avb"] / speed["eager_tf32"], 3) if "eager_tf32" in speed else None
        ),
        "batch_size": ours.batch_size,
        "step_ms": round(1e3 * ours.batch_size / speed["avb"], 2),
        "parts_ms": {part: round(ms, 2) for part, ms in parts_ms(ours, feed, steps).items()},
        "peak_gib": round(ours.peak_gib or 0.0, 3),
        "gflop_per_clip": round(cost.step / 1e9, 2),
        "gflop_forward": round(cost.forward / 1e9, 2),
        "spread": {
            n: round((max(o.rates) - min(o.rates)) / speed[n], 3) for n, o in by_name.items()
        },
        "rounds_clips_per_s": {n: [round(r, 3) for r in o.rates] for n, o in by_name.items()},
    }


def circumstances(where: torch.device, feed: Feed) -> dict[str, Any]:
    """The machine, the clock by which seconds are counted, and the versions."""
    if where.type == "cuda":
        name = torch.cuda.get_device_name(where)
    else:
        about = Path("/proc/cpuinfo")
        lines = about.read_text().splitlines() if about.is_file() else []
        named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        name = next(named, platform.machine())
    return {
        "device": where.type, "device_name": name, "threads": torch.get_num_threads(),
        "clock": clock_of(where, feed).__name__, "torch": str(torch.__version__),
        "revision": revision(),
    }  # fmt: skip


def remarks(everyone: list[Contender], asked: int, wanted: int, where: torch.device) -> list[str]:
    """What a reader of the figures has to know."""
    notes = []
    if where.type == "cpu":
        notes.append("On the CPU avb trains in float32 too: only the layout of weights differs.")
    if asked != wanted:
        notes.append(f"The batch is {asked}; the recipe's is {wanted}.")
    for one in everyone:
        if one.batch_size < asked:
            decoder = one.run.recipe.model.get("decoder", "")
            name = f"{one.name} {decoder}".strip()
            notes.append(f"{name}: {asked} clips do not fit, measured with {one.batch_size}.")
    return notes
