"""The command line: parse, call one library function, say what happened.

Nothing heavy is imported at the top: `avb --help` must not wait for torch, cv2 or mediapipe.
Exit codes: 0 done and nothing refused, 1 failed, 2 wrong usage, 3 finished but some clips were
refused, 130 Ctrl-C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    help="Raw LRW, LRW-1000 and GRID video to sharded WebDataset, and what reads it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bench = typer.Typer(
    help="Measure, side by side in one run.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of `avb` and `python -m avb`."""
    app(prog_name="avb")


def say(text: str) -> None:
    """One line for a person, on stderr; stdout is for results."""
    typer.echo(text, err=True)


def fail(text: str, code: int) -> NoReturn:
    """One clear line, and out."""
    say(f"avb: {text}")
    raise typer.Exit(code)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Turn the faults a user can mend into one line and the right exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        from avb.pipeline.config import UsageError

        try:
            function(*args, **kwargs)
        except UsageError as error:
            fail(str(error), USAGE)
        except KeyboardInterrupt:
            fail("stopped; run the same command again to go on", INTERRUPTED)

    return run


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    datasets: Annotated[
        Path | None, typer.Option(help="Your overrides of datasets.yaml, only what differs.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of every command."""
    if version:
        import avb

        typer.echo(avb.__version__)
        raise typer.Exit
    context.obj = datasets


CorpusName = Annotated[str, typer.Argument(help="lrw, lrw1000, grid or table.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


@app.command()
@guarded
def prep(
    context: typer.Context,
    corpus: CorpusName,
    table: Annotated[Path | None, typer.Argument(help="For `table`: the CSV or Parquet.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where the raw corpus lies; else AVB_<CORPUS>_ROOT, else datasets.yaml."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Shards go to OUT/<corpus>/.")] = Path("shards"),
    name: Annotated[str | None, typer.Option(help="For `table`: name of the corpus.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes [one a core].")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only this many clips, a repeatable sample.")
    ] = None,
    speakers: Annotated[
        str | None, typer.Option(help="Take only these talkers, such as s1,s2.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(help="What to cut: lips, face or lips,face [per corpus].")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="How: fixed, tracked or whole [per corpus].")
    ] = None,
    codec: Annotated[str, typer.Option(help="mp4, h264 (bare stream) or jpeg.")] = "mp4",
    crf: Annotated[
        int | None, typer.Option(min=0, max=51, help="Quality of the crops, lower is better.")
    ] = None,
    decoder: Annotated[str, typer.Option(help="pyav (in process), or ffmpeg (program).")] = "pyav",
    mel_dtype: Annotated[str, typer.Option(help="float16 or uint8 (half the bytes).")] = "float16",
    keep_audio: Annotated[
        bool | None,
        typer.Option("--keep-audio/--no-keep-audio", help="Store 16 kHz FLAC [per corpus]."),
    ] = None,
    face_every: Annotated[
        int | None, typer.Option(min=1, help="Look for the face every N frames [per corpus].")
    ] = None,
    shard_clips: Annotated[
        int | None, typer.Option(min=1, help="Listed clips a shard [per corpus].")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take refused clips again.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace shards made with other settings.")
    ] = False,
    max_failures: Annotated[
        str | None, typer.Option(help="Exit 1 if more are refused: N or P% [no limit].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List and plan, decode and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Raw video to shards, and an account of every clip.

    Running it again completes what is missing.
    """
    from avb.tools import prep_command

    options = prep_command.Options(
        corpus=corpus, table=table, root=root, out=out, name=name, jobs=jobs, limit=limit,
        speakers=speakers, crop=crop, box=box, codec=codec, crf=crf, decoder=decoder,
        mel_dtype=mel_dtype, keep_audio=keep_audio, face_every=face_every, shard_clips=shard_clips,
        retry_failed=retry_failed, overwrite=overwrite, max_failures=max_failures,
        dry_run=dry_run, as_json=as_json, datasets=context.obj,
    )  # fmt: skip
    code = prep_command.run(options)
    if code:
        raise typer.Exit(code)
