"""`avb train` between the flags and the loop: shards, recipe, split, device."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avb.pipeline.files import DISK_FAULTS
from avb.pipeline.machine import cores, revision
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.index import Index
from avb.tools.cli.console import FAILED, INTERRUPTED, PREEMPTED, say
from avb.train.data import fitted, open_shards, resolve, talkers_of, target_name, without_target
from avb.train.device import choose_device
from avb.train.recipe import Recipe, Task
from avb.train.split import Parts, split_rows, teachable, usable_rows
from avb.train.tasks import find_task


@dataclass(frozen=True)
class Options:
    """The flags of `avb train` as they were given; None means: as the recipe says."""

    task: Task
    data: Folder | None
    recipe: str
    overrides: list[str]
    unit: str | None
    split: str | None
    speakers: str | None
    split_file: Path | None
    per_talker: bool
    steps: int | None
    epochs: float | None
    seed: int | None
    device: str | None
    out: Path | None
    resume: bool
    compile_model: bool
    datasets: Path | None


def run(options: Options) -> int:
    """Train as the flags say; returns the exit code."""
    index, corpus = open_shards(options.data or find_task(options.task).data, options.datasets)
    recipe = resolve(
        options.task, index, corpus, options.recipe, options.overrides, options.unit,
        options.split, options.steps, options.seed,
    )  # fmt: skip
    index = index.of_unit(recipe.unit)
    speakers = options.speakers.split(",") if options.speakers else None
    usable = usable_rows(index, np.arange(len(index)), recipe)
    if not usable.size:
        raise without_target(index, recipe, f"{len(index)} clips")
    parts = split_rows(index, corpus, recipe.split, speakers, options.split_file, among=usable)
    out = options.out or Path("runs") / f"{options.task}-{recipe.corpus}-{options.recipe}"
    if not options.per_talker:
        return run_one(options, recipe, index, parts, out)
    for talker in talkers_of(index, parts):
        own = split_rows(index, corpus, recipe.split, [talker], options.split_file, among=usable)
        code = run_one(options, recipe, index, own, out / talker)
        if code:
            return code
    return 0


def run_one(options: Options, recipe: Recipe, index: Index, parts: Parts, out: Path) -> int:
    """One training run; returns the exit code."""
    import torch

    from avb.train.device import peer_lost
    from avb.train.trainer import Diverged, Preempted, train

    parts, left_out = fitted(parts, index, recipe)
    quiet = int(os.environ.get("RANK", 0)) > 0
    tell = (lambda text: None) if quiet else say
    parts = teachable(index, parts, recipe, tell)
    if options.epochs is not None:
        samples = len(parts.rows["train"])
        if recipe.unit == "word":
            samples = len(index.timed_words(parts.rows["train"])[1])
        steps = math.ceil(options.epochs * samples / recipe.batch_size)
        recipe = dataclasses.replace(recipe, steps=steps)
    device = choose_device(options.device)
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    counts = {part: len(rows) for part, rows in parts.rows.items()}
    if not quiet:
        whose = f" of {', '.join(parts.speakers)}" if parts.speakers else ""
        say(f"split {parts.name}{whose} ({parts.source}): {counts} clips; test is not looked at")
        if left_out:
            say(f"left out: {left_out} clips without {target_name(recipe)}")
        if parts.absent:
            empty = "".join(f"; {part} is empty" for part, count in counts.items() if not count)
            say(f"talkers without a clip here: {', '.join(parts.absent)}{empty}")
    facts = {
        "counts": counts,
        "device": device,
        "revision": revision(),
        "torch": str(torch.__version__),
        "settings": index.dataset["settings"],  # how other films must be cut for this model
    }
    if options.resume and not quiet and not (out / "last.pt").exists():
        say(f"{out}: no run to resume; it begins")
    try:
        record = train(
            recipe, index, parts, out, device=device, resume=options.resume,
            compile_model=options.compile_model, facts=facts,
            say=tell,
        )  # fmt: skip
    except Preempted as stop:
        say(f"avb: {stop}")
        return INTERRUPTED if stop.by == signal.SIGINT else PREEMPTED
    except KeyboardInterrupt:
        kept = (out / "last.pt").exists()
        go_on = "go on from its last checkpoint with --resume" if kept else "nothing was saved yet"
        raise KeyboardInterrupt(f"{out}: stopped at once; {go_on}") from None
    except Diverged as stop:
        say(f"avb: {stop}")
        return FAILED
    except OSError as error:
        if not out.is_dir():
            say(f"avb: {out}: is gone, removed while it was trained; start again: nothing is left")
            return FAILED
        if error.errno not in DISK_FAULTS:
            raise
        say(f"avb: {out}: {error.strerror}; checkpoints are as they were, --resume when mended")
        return FAILED
    except RuntimeError as error:
        if not peer_lost(error):
            raise
        say(f"avb: another process of this run is gone; start all again with --resume: {out}")
        return FAILED
    if not quiet:
        say(f"done at step {record['step']}, best validation {record['best']:.4f}; {out}")
    return 0
