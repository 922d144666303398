"""`avb train`: both tasks, and the judge of words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from avb.tools.cli.console import App
from avb.tools.cli.options import (
    Compile,
    Device,
    Epochs,
    Overrides,
    PerTalker,
    RecipeName,
    Resume,
    RunFolder,
    Seed,
    SplitFile,
    Steps,
    Talkers,
)

app = App(
    help="Train on shards, one GPU or many (torchrun -m avb train ...).",
)


def _train(context: typer.Context, **given: Any) -> None:
    from avb.pipeline.storage.store import place
    from avb.tools import train_command

    overrides = given.pop("overrides") or []
    data = given.pop("data")
    options = train_command.Options(
        overrides=overrides, data=place(data) if data else None, datasets=context.obj, **given
    )
    code = train_command.run(options)
    if code:
        raise typer.Exit(code)


@app.command("lip")
def train_lip(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help="Shards [shards/lrw].")] = None,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    unit: Annotated[str | None, typer.Option(help="clip, or word of a sentence.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="A named split [per recipe]."),
    ] = None,
    speakers: Talkers = None,
    split_file: SplitFile = None,
    per_talker: PerTalker = False,
    steps: Steps = None,
    epochs: Epochs = None,
    seed: Seed = None,
    device: Device = None,
    out: RunFolder = None,
    resume: Resume = False,
    compile_model: Compile = False,
) -> None:
    """Lip reading: which word a silent mouth speaks."""
    _train(
        context, task="lip", data=data, recipe=recipe, overrides=overrides,
        unit=unit, split=split, speakers=speakers, split_file=split_file,
        per_talker=per_talker, steps=steps, epochs=epochs, seed=seed, device=device,
        out=out, resume=resume, compile_model=compile_model,
    )  # fmt: skip


@app.command("l2s")
def train_l2s(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help="Shards [shards/grid].")] = None,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(help="speaker-dependent, speaker-independent or a named split [per recipe]."),
    ] = None,
    speakers: Talkers = None,
    split_file: SplitFile = None,
    per_talker: PerTalker = False,
    steps: Steps = None,
    epochs: Epochs = None,
    seed: Seed = None,
    device: Device = None,
    out: RunFolder = None,
    resume: Resume = False,
    compile_model: Compile = False,
) -> None:
    """Lip to speech: the speech that belongs to a silent face."""
    _train(
        context, task="l2s", data=data, recipe=recipe, overrides=overrides,
        unit=None, split=split, speakers=speakers, split_file=split_file,
        per_talker=per_talker, steps=steps, epochs=epochs, seed=seed, device=device,
        out=out, resume=resume, compile_model=compile_model,
    )  # fmt: skip


@app.command("judge")
def train_judge(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="Shards of GRID.")] = "shards/grid",
    split: Annotated[str | None, typer.Option(help="A named split [grid-hash].")] = None,
    speakers: Talkers = None,
    split_file: SplitFile = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over clips and Griffin-Lim copies [30].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Weights, order, augmentation.")] = 0,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("runs/judge.pt"),
) -> None:
    """A small recogniser of GRID's words, for the word error of `avb eval l2s`."""
    from avb.pipeline.storage.store import place
    from avb.tools import judge_command

    options = judge_command.Options(
        data=place(data), split=split, speakers=speakers, split_file=split_file, epochs=epochs,
        seed=seed, device=device, out=out, datasets=context.obj,
    )  # fmt: skip
    judge_command.run(options)
