"""`avb ablate`: a grid of trainings, its table and its figure."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.pipeline.files import open_atomic, write_atomic
from avb.tools.cli import options as o
from avb.tools.cli.console import App, refuse_unused, say, show, to_json
from avb.tools.cli.train import divided, train_one

if TYPE_CHECKING:
    from avb.pipeline.config import Corpus
    from avb.pipeline.stream.index import Index
    from avb.tools.ablate import Trial
    from avb.train.recipe import Recipe
    from avb.train.split import Parts

app = App(help="Train a grid of settings and seeds; a table and a figure of all.")


def ablate(
    context: typer.Context,
    task: Literal["lip", "l2s"],
    grid: Annotated[
        list[str] | None,
        Argument(metavar="KEY=V1,V2,...", help="Values of --set, each with each."),
    ] = None,
    slots: Annotated[
        str | None, Option(metavar="N1,N2,...", help="Short for model.slots=N1,N2,...")
    ] = None,
    seeds: o.Seeds = "0,1,2",
    data: o.Shards = None,
    recipe: o.RecipeName = "paper",
    overrides: o.Overrides = None,
    unit: o.Unit = None,
    split: o.SplitName = None,
    speakers: o.Talkers = None,
    split_file: o.SplitFile = None,
    steps: o.Steps = None,
    device: o.Device = None,
    out: Annotated[
        Path | None,
        Option(help="Folder of all runs.", show_default="runs/ablate-<task>-<corpus>-<recipe>"),
    ] = None,
    compile_model: o.Compile = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done.")] = False,
    as_json: o.Json = False,
) -> None:
    """Train what is not trained yet, resume what was begun, then read the test part once."""
    from avb.tools import ablate as grids
    from avb.tools.report.style import drawing
    from avb.train.checks import need
    from avb.train.data import open_shards, resolve
    from avb.train.recipe_file import load_recipe, of_unit
    from avb.train.tasks.task import find_task

    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("avb ablate is one process; torchrun is for avb train, a run at a time")
    if split_file is not None:
        refuse_unused(context, "with --split-file", "split")
    recipe = of_unit(recipe, unit)
    points = grids.parse_grid([*([f"model.slots={slots}"] if slots else []), *(grid or [])])
    index, corpus = open_shards(data or find_task(task).data, context.obj)
    name = f"ablate-{task}-{index.dataset['corpus']}-{Path(recipe).stem}"
    out = out or Path("runs") / name
    trials = []
    for arm in grids.arms(points):
        for seed in seeds:
            sets = (overrides or []) + arm.sets
            wanted = resolve(task, index, corpus, recipe, sets, unit, split, steps, seed)
            trials.append(grids.Trial(arm, wanted, out / arm.name / f"seed{seed}"))
        grids.check_arm(arm, load_recipe(task, recipe, sets), wanted, index)
    if len({find_task(trial.recipe.task).score_name for trial in trials}) > 1:
        raise UsageError("a grid of words and sentences: their scores are not to be ranked")
    if dry_run:
        lines = list(map(grids.describe, trials))
        show({"trials": lines}, as_json, lines)
        return
    need("matplotlib", *grids.NEEDS[trials[0].recipe.task])
    divide = partial(divided, index=index, corpus=corpus, talkers=speakers, file=split_file)
    _carry_out(trials, divide, corpus, device, compile_model)
    found = grids.result(points, trials)
    write_atomic(out / "ablation.json", (to_json(found) + "\n").encode())
    with drawing(), open_atomic(out / "ablation.png") as file:
        grids.figure(found).savefig(file, format="png", dpi=200)
    show(found, as_json, grids.table(found))
    if not as_json:
        say(f"* best on validation; {out / 'ablation.json'} and ablation.png hold all of it")


def _carry_out(
    trials: list[Trial], divide: Callable[[Recipe], tuple[Index, Parts]], corpus: Corpus,
    device: str | None, compile_model: bool,
) -> None:  # fmt: skip
    """Train all, also those that are trained, which must be these; then read the test part."""
    from avb.tools.ablate import RECORD, describe, is_read
    from avb.train.device import choose_device
    from avb.train.evaluate.evaluate import evaluate

    for trial in trials:
        say(describe(trial))
        index, parts = divide(trial.recipe)
        train_one(trial.recipe, index, parts, trial.folder, None, device, True, compile_model)
    for trial in trials:
        if not is_read(trial):
            say(f"{trial.folder}: reads the test part")
            task, best = trial.recipe.task, trial.folder / "best.pt"
            index, _ = divide(trial.recipe)
            record = evaluate(task, best, index, corpus, "test", choose_device(device))
            write_atomic(trial.folder / RECORD, (to_json(record) + "\n").encode())


app.variant("lip", ablate, "Lip reading: test accuracy of each.", task="lip")
app.variant("l2s", ablate, "Lip to speech: test ESTOI of each.", task="l2s", unit=None)
