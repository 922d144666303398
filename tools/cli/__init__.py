"""The command line: `avb` and its commands.

Nothing heavy is imported at the top: `avb --help` must not wait for torch, cv2 or mediapipe.
"""

import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from avb.tools.cli import (
    ablate,
    bench,
    evaluate,
    export,
    infer,
    prep,
    report,
    reproduce,
    shards,
    sync,
    train,
)
from avb.tools.cli.console import App, Commands, start_log

app = App(
    cls=Commands,
    help="Raw LRW, LRW-1000 and GRID video to sharded WebDataset, and what learns from it.",
    rich_markup_mode="rich" if sys.stdout and sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PREPARE, LEARN, USE = "From video to shards", "Training and figures", "A trained model at work"
app.add_typer(prep.app, name="prep", rich_help_panel=PREPARE)
app.add_typer(shards.app, rich_help_panel=PREPARE)
app.add_typer(sync.app, rich_help_panel=PREPARE)
app.add_typer(train.app, name="train", rich_help_panel=LEARN)
app.add_typer(ablate.app, name="ablate", rich_help_panel=LEARN)
app.add_typer(evaluate.app)
app.add_typer(reproduce.app)
app.add_typer(report.app)
app.add_typer(infer.app)
app.add_typer(export.app)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of `avb` and `python -m avb`."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # a file would get its number, and what libraries say there
            setattr(sys, name, open(os.devnull, "w" if number else "r"))
            os.set_inheritable(number, True)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files may be of any bytes
    try:
        app(prog_name="avb")
    finally:  # an impatient Ctrl-C while the interpreter leaves is no traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    datasets: Annotated[
        Path | None, Option(help="Your overrides of datasets.yaml, only what differs.")
    ] = None,
    cache: Annotated[
        str | None,
        Option(
            help="Where shards of an address are kept on this machine.",
            envvar="AVB_CACHE",
            show_default="~/.cache/avb",
        ),
    ] = None,
    cache_gb: Annotated[
        float | None,
        Option(
            help="How much of them at most, in gigabytes.", envvar="AVB_CACHE_GB", show_default="20"
        ),
    ] = None,
    log_file: Annotated[
        Path | None,
        Option(help="Append every line that is told to this file, with time and level."),
    ] = None,
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of every command."""
    start_log(context, log_file)
    if version:
        import avb

        typer.echo(avb.__version__)
        raise typer.Exit
    # To every process that reads, whoever starts it.
    os.environ.update({"AVB_CACHE": cache} if cache else {})
    os.environ.update({"AVB_CACHE_GB": str(cache_gb)} if cache_gb is not None else {})
    context.obj = datasets
