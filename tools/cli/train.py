"""`avb train`: all tasks, the judge of words and the vocoder."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from avb.pipeline.errors import UsageError
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, INTERRUPTED, PREEMPTED, App, fail, log, refuse_unused, say
from avb.tools.cli.evaluate import interval

if TYPE_CHECKING:
    import torch

    from avb.pipeline.config import Corpus
    from avb.pipeline.stream.index import Index
    from avb.train.recipe import Recipe
    from avb.train.split import Parts
    from avb.train.teacher import Teacher

app = App(help="Train on shards, one GPU or many (torchrun -m avb train ...).")


def train(
    context: typer.Context,
    task: Literal["lip", "l2s", "sync", "asr", "vocos"],
    data: o.Shards = None,
    recipe: o.RecipeName = "paper",
    overrides: o.Overrides = None,
    unit: o.Unit = None,
    tokens: o.Tokens = "word",
    split: o.SplitName = None,
    speakers: o.Talkers = None,
    split_file: o.SplitFile = None,
    per_talker: Annotated[
        bool, Option("--per-talker", help="One model for each talker, in OUT/<talker>.")
    ] = False,
    steps: o.Steps = None,
    epochs: Annotated[float | None, Option(min=0.001, help="Its length in epochs instead.")] = None,
    seed: Annotated[
        int | None, Option(help="Weights, order, augmentation.", show_default="per recipe")
    ] = None,
    device: o.Device = None,
    out: Annotated[
        Path | None, Option(help="The run's folder.", show_default="runs/<task>-<corpus>-<recipe>")
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Go on with the run in --out, if there is one.")
    ] = False,
    init: Annotated[
        Path | None,
        Option(help="A run or checkpoint whose weights it begins with, where they fit."),
    ] = None,
    teacher: Annotated[
        Path | None, Option(help="A run of avb train asr, whose features it is led to.")
    ] = None,
    compile_model: o.Compile = False,
) -> None:
    """Train as the flags say."""
    from avb.train.data import open_shards, resolve, talkers_of
    from avb.train.recipe_file import load_recipe, of_unit
    from avb.train.tasks.task import find_task
    from avb.train.teacher import open_teacher, taught

    if tokens == "char" and unit != "sentence":
        raise UsageError("--tokens char: letters are of sentences; give --unit sentence too")
    if epochs is not None:
        refuse_unused(context, "with --epochs", "steps")
    if split_file is not None:
        refuse_unused(context, "with --split-file", "split")
    recipe = of_unit(recipe, unit)
    if data is None:
        data = find_task(load_recipe(task, recipe, overrides).task).data
    index, corpus = open_shards(data, context.obj)
    what = "characters" if tokens == "char" else unit
    wanted = resolve(task, index, corpus, recipe, overrides or [], what, split, steps, seed)
    taught_by = None if teacher is None else open_teacher(teacher, index.of_unit(wanted.unit))
    wanted = taught(wanted, taught_by)
    index, parts = divided(wanted, index, corpus, speakers, split_file)
    out = out or Path("runs") / f"{task}-{wanted.corpus}-{Path(recipe).stem}"
    runs = {out: parts}
    if per_talker:
        runs = {
            out / talker: divided(wanted, index, corpus, [talker], split_file)[1]
            for talker in talkers_of(index, parts)
        }
    for folder, parts in runs.items():
        train_one(
            wanted, index, parts, folder, epochs, device, resume, compile_model, init, taught_by
        )


def divided(
    recipe: Recipe, index: Index, corpus: Corpus, talkers: list[str] | None, file: Path | None
) -> tuple[Index, Parts]:
    """The clips as a recipe has them, whole or by word, and its split of them."""
    import numpy as np

    from avb.train.split import split_rows, without_target
    from avb.train.tasks.task import find_task

    index = index.of_unit(recipe.unit)
    usable = find_task(recipe.task).usable_rows(index, np.arange(len(index)), recipe)
    if not usable.size:
        raise without_target(index, recipe, f"{len(index)} clips")
    return index, split_rows(index, corpus, recipe.split, talkers, file, among=usable)


def train_one(
    recipe: Recipe, index: Index, parts: Parts, out: Path, epochs: float | None,
    device: str | None, resume: bool, compile_model: bool, init: Path | None = None,
    teacher: Teacher | None = None,
) -> None:  # fmt: skip
    """One training run."""
    import torch

    from avb.pipeline.files import DISK_FAULTS
    from avb.pipeline.machine import cores, revision
    from avb.train import data, trainer
    from avb.train.device import choose_device, use_threads
    from avb.train.distributed import peer_lost
    from avb.train.split import target_name, teachable
    from avb.train.tasks.task import find_task

    if int(os.environ.get("RANK") or 0) > 0:
        log.setLevel(logging.ERROR)
    parts, left_out = teachable(index, parts, recipe)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, steps=data.steps_in(epochs, index, parts, recipe))
    device = choose_device(device)
    use_threads(cores())
    counts = {part: len(rows) for part, rows in parts.rows.items()}
    whose = f" of {', '.join(parts.speakers)}" if parts.speakers else ""
    say(f"split {parts.name}{whose} ({parts.source}): {counts} clips; test is not looked at")
    if left_out:
        say(f"left out: {left_out} clips without {target_name(recipe)}")
    if parts.absent:
        empty = "".join(f"; {part} is empty" for part, count in counts.items() if not count)
        say(f"talkers without a clip here: {', '.join(parts.absent)}{empty}")
    if resume and not (out / "last.pt").exists():
        say(f"{out}: no run to resume; it begins")
    facts = {
        "counts": counts,
        "device": device,
        "revision": revision(),
        "torch": str(torch.__version__),
        "settings": index.dataset["settings"],  # how other films must be cut for this model
    }
    how = "by the same command" if resume else "with --resume"
    try:
        record = trainer.train(
            recipe, index, parts, out, device=device, resume=resume, compile_model=compile_model,
            facts=facts, init=init, teacher=teacher,
        )  # fmt: skip
    except trainer.Preempted as stop:
        fail(f"{stop}; go on {how}", INTERRUPTED if stop.by == signal.SIGINT else PREEMPTED)
    except KeyboardInterrupt:
        kept = (out / "last.pt").exists()
        go_on = f"go on from its last checkpoint {how}" if kept else "nothing was saved yet"
        raise KeyboardInterrupt(f"{out}: stopped at once; {go_on}") from None
    except OSError as error:
        if not out.is_dir():
            fail(f"{out}: is gone, removed while it was trained; start again: nothing is left",
                 FAILED)  # fmt: skip
        if error.errno not in DISK_FAULTS:
            raise
        fail(f"{out}: {error.strerror}; checkpoints are as they were: mend it, go on {how}", FAILED)
    except RuntimeError as error:
        if not peer_lost(error):
            raise
        fail(f"another process of this run is gone; start all again {how}: {out}", FAILED)
    task = find_task(recipe.task)
    best = f"{task.score_name} {task.score_text(record['best'])}"
    say(f"done at step {record['step']}, best validation {best}; {out}")


app.variant(
    "lip", train, "Lip reading: which word, or what sentence, a silent mouth speaks.", task="lip"
)
app.variant(
    "l2s", train, "Lip to speech: the speech that belongs to a silent face.",
    task="l2s", unit=None, tokens="word", teacher=None,
)  # fmt: skip
app.variant(
    "sync", train, "Sync: by how much sound comes before or after the lips; see avb sync.",
    task="sync", unit=None, tokens="word", teacher=None,
)  # fmt: skip
app.variant(
    "asr", train, "Words from sound: a reader that can teach the lip reader.",
    task="asr", tokens="word", teacher=None,
)  # fmt: skip
app.variant(
    "vocos", train,
    "A vocoder that makes sound of mels by itself: hours of a GPU, from shards with --keep-audio.",
    task="vocos", unit=None, tokens="word", teacher=None,
)  # fmt: skip


@app.command()
def judge(
    context: typer.Context,
    data: o.Shards = "shards/grid",
    split: o.SplitName = None,
    speakers: o.Talkers = None,
    split_file: o.SplitFile = None,
    epochs: Annotated[
        int | None,
        Option(min=1, help="Passes over clips and Griffin-Lim copies.", show_default="30"),
    ] = None,
    seed: Annotated[int, Option(min=0, help="Weights, order, augmentation.")] = 0,
    device: o.Device = None,
    out: Annotated[Path, Option(help="The file to write.")] = Path("runs/judge.pt"),
) -> None:
    """A small recogniser of GRID's words, for the word error of `avb eval l2s`."""
    from avb.train.evaluate.words import training as judge
    from avb.train.evaluate.words.trained import Training

    index, parts, where = open_parts(context, data, split, speakers, split_file, device, out)
    training = Training(epochs=epochs or judge.EPOCHS, seed=seed)
    state = judge.train(index, parts, training, where)
    keep(out, state, where)
    for name in ("real", "griffin_lim", "other_sentence"):
        rate: dict[str, Any] = state["val"][name]["wer"]
        if rate["value"] is not None:
            say(
                f"word error on {name} of {state['val']['clips']} validation clips:"
                f" {rate['value']:.2%} [{rate['low']:.2%}, {rate['high']:.2%}]"
            )
    say(f"{out}: hash {state['hash'][:12]}")


@app.command()
def vocoder(
    context: typer.Context,
    data: o.Shards = "shards/grid",
    split: o.SplitName = None,
    speakers: o.Talkers = None,
    split_file: o.SplitFile = None,
    steps: Annotated[int, Option(min=1, help="Batches of 16 excerpts.")] = 300,
    seed: Annotated[int, Option(min=0, help="Weights, order, excerpts.")] = 0,
    device: o.Device = None,
    out: Annotated[Path, Option(help="The file to write.")] = Path("runs/vocoder.pt"),
) -> None:
    """Better sound from mels: a network before Griffin-Lim, from shards with --keep-audio."""
    from avb.train.vocoder import training as refiner
    from avb.train.vocoder.file import Training

    index, parts, where = open_parts(context, data, split, speakers, split_file, device, out)
    state = refiner.train(index, parts, Training(steps=steps, seed=seed), where)
    keep(out, state, where)
    val = state["val"]
    say(f"true mels of {val['clips']} validation clips, best at step {val['step']}:")
    for name in refiner.SHOWN:
        plain, refined = (
            f"none ({figure['reason']})" if figure["value"] is None else interval(figure)
            for figure in (val[signal][name] for signal in ("griffin_lim", "refined"))
        )  # fmt: skip
        say(f"{name:>12}: Griffin-Lim {plain}, refined {refined}")
    say(f"{out}: hash {state['hash'][:12]}")


def open_parts(
    context: typer.Context, data: Any, split: str | None, speakers: list[str] | None,
    split_file: Path | None, device: str | None, out: Path,
) -> tuple[Index, Parts, torch.device]:  # fmt: skip
    """What a small network learns from, if `out` can be written, and the device."""
    import torch

    from avb.train.checks import check_writable
    from avb.train.data import open_shards
    from avb.train.device import choose_device
    from avb.train.recipe import Recipe
    from avb.train.split import default_split, split_rows, teachable

    if out.exists():
        raise UsageError(f"{out}: is there already; choose another --out, or delete it")
    check_writable(out)
    if split_file is not None:
        refuse_unused(context, "with --split-file", "split")
    index, corpus = open_shards(data, context.obj)
    split = split or default_split(index, corpus)
    parts = split_rows(index, corpus, split, speakers, split_file)
    parts, _ = teachable(index, parts, Recipe("l2s"))
    where = torch.device(choose_device(device))
    counts = {part: len(rows) for part, rows in parts.rows.items()}
    say(f"split {parts.name} ({parts.source}): {counts} clips; test is not looked at")
    return index, parts, where


def keep(out: Path, state: dict[str, Any], device: torch.device) -> None:
    """Write the file of a small network, with what it was made by."""
    import torch

    from avb.pipeline.machine import revision
    from avb.train import checkpoint
    from avb.train.checks import writing

    facts = {"revision": revision(), "torch": str(torch.__version__), "device": str(device)}
    with writing(out):
        checkpoint.save(out, state | facts)
