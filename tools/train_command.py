"""`avb train` between the flags and the loop: shards, recipe, split, device."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.config import Corpus, load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.machine import cores
from avb.pipeline.shards.dataset import check_dataset
from avb.pipeline.shards.tar import DISK_FAULTS
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.index import Index, load_index
from avb.tools.cli.console import FAILED, INTERRUPTED, PREEMPTED, say
from avb.train.recipe import Recipe, Task, load_recipe, make_recipe
from avb.train.split import Parts, default_split, split_rows, teachable, usable_rows

DEFAULT_DATA = {"lip": Path("shards/lrw"), "l2s": Path("shards/grid")}


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
    index, corpus = open_shards(options.data or DEFAULT_DATA[options.task], options.datasets)
    recipe = resolve(options, index, corpus)
    index = index.of_unit(recipe.unit)
    speakers = options.speakers.split(",") if options.speakers else None
    usable = usable_rows(index, np.arange(len(index)), recipe)
    if not usable.size:
        raise _without_target(index, recipe, f"{len(index)} clips")
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


def talkers_of(index: Index, parts: Parts) -> list[str]:
    """Talkers with clips to train on.

    Raises:
        UsageError: the shards do not say who speaks.
    """
    found = {index.row(i).speaker for i in parts.rows["train"]} - {None}
    if not found:
        raise UsageError(f"{index.folder}: no clip has a talker; --per-talker needs them")
    return sorted((str(talker) for talker in found), key=lambda name: (len(name), name))


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
            say(f"left out: {left_out} clips without {_target(recipe)}")
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


def fitted(parts: Parts, index: Index, recipe: Recipe) -> tuple[Parts, int]:
    """The parts less the clips without what the recipe learns, and how many these are.

    Raises:
        UsageError: none is left to train on, or to validate with.
    """
    rows = {part: usable_rows(index, found, recipe) for part, found in parts.rows.items()}
    for part in ("train", "val"):
        if len(parts.rows[part]) and not len(rows[part]):
            raise _without_target(index, recipe, f"{len(parts.rows[part])} clips of {part}")
    left_out = sum(map(len, parts.rows.values())) - sum(map(len, rows.values()))
    return dataclasses.replace(parts, rows=rows), left_out


def _without_target(index: Index, recipe: Recipe, which: str) -> UsageError:
    return UsageError(
        f"{index.folder}: none of {which} has {_target(recipe)}; --unit clip learns labels,"
        " --unit word words with their times ([word, start, end])"
    )


def _target(recipe: Recipe) -> str:
    return "a word with its times" if recipe.unit == "word" else "a label"


def open_shards(folder: Folder, datasets: Path | None = None) -> tuple[Index, Corpus]:
    """The index of a folder of shards, and the entry of its corpus.

    Raises:
        UsageError: there are no finished shards; it names `prep` and `synth`.
    """
    try:
        index = load_index(folder)
        check_dataset(index.dataset, str(folder / "dataset.json"), account=True)
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{error} (make shards with avb prep, or try without a corpus: avb synth, avb demo)"
        ) from None
    corpora = load_corpora(datasets)
    name = index.dataset["corpus"]
    return index, corpora.get(name, corpora["table"])


def resolve(options: Options, index: Index, corpus: Corpus) -> Recipe:
    """The recipe with the flags over it, fitted to the corpus that is there."""
    recipe = load_recipe(options.task, options.recipe, options.overrides)
    name = index.dataset["corpus"]
    changes: dict[str, Any] = {
        "corpus": name,
        "unit": options.unit or fitting_unit(recipe, index),
        "split": options.split or default_split(index, corpus, recipe.split),
        "steps": options.steps,
        "seed": options.seed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    recipe = make_recipe(options.task, recipe.as_dict() | changes, "--recipe " + options.recipe)
    if recipe.crop not in index.dataset["crops"]:
        held = ", ".join(index.dataset["crops"])
        raise UsageError(f"{index.folder}: holds {held}, no {recipe.crop}; avb prep --crop")
    return recipe


def fitting_unit(recipe: Recipe, index: Index) -> str:
    """The recipe's unit, or the other one of a lip reader where the clips have only that."""
    labelled = bool((index.label_id >= 0).any())
    everything = np.arange(len(index))
    timed = bool(len(index.of_unit("word").timed_words(everything)[1]))
    if recipe.task == "lip" and labelled != timed:
        return "word" if timed else "clip"
    return recipe.unit


def choose_device(wanted: str | None) -> str:
    """The device asked for, or the accelerator if there is one.

    Raises:
        UsageError: an accelerator was asked for and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if wanted is None:
        return "cuda" if there else "cpu"
    if wanted.startswith("cuda") and not there:
        raise UsageError(f"--device {wanted}: no CUDA device here (torch {torch.__version__})")
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device {wanted}: cpu or cuda")
    return wanted


def revision() -> str | None:
    """The git revision of the checkout this runs from, with + if it was changed; None outside."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if git("status", "--porcelain") else "")
