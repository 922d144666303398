"""The command line: parse, call one library function, say what happened.

Nothing heavy is imported at the top: `avb --help` must not wait for torch, cv2 or mediapipe.
Exit codes: 0 done and nothing refused, 1 failed, 2 wrong usage, 3 finished but some clips were
refused, 75 saved and stopped on a signal, 130 Ctrl-C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

FAILED, USAGE, REFUSED, PREEMPTED, INTERRUPTED = 1, 2, 3, 75, 130

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
train = typer.Typer(
    help="Train on shards, one GPU or many (torchrun -m avb train ...).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
evaluation = typer.Typer(
    help="Measure a checkpoint on a part of its split.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")
app.add_typer(evaluation, name="eval")
app.add_typer(train, name="train")


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


def show(record: dict[str, Any], as_json: bool) -> None:
    """A result on stdout: one JSON object, or one `name  value` line each."""
    import json

    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    for name, value in record.items():
        if isinstance(value, dict):
            shown = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items()]
            more = f", and {len(shown) - 40} more" if len(shown) > 40 else ""
            value = (", ".join(shown[:40]) or "-") + more
        elif isinstance(value, list):
            value = "; ".join(map(str, value)) or "-"
        elif isinstance(value, int):
            value = f"{value:,}"
        typer.echo(f"{name:>14}  {value}")


@app.command()
@guarded
def inspect(
    context: typer.Context,
    corpus: Annotated[str | None, typer.Argument(help="lrw, lrw1000, grid or table.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the raw corpus lies.")] = None,
    as_json: Json = False,
) -> None:
    """Which layout a raw corpus has, its counts, and how far they are from the published ones."""
    import dataclasses

    from avb.pipeline.config import UsageError, corpus_root, load_corpora
    from avb.pipeline.inspect import inspect as count
    from avb.pipeline.inspect import recognise

    corpora = load_corpora(context.obj)
    if corpus is None:
        if root is None:
            raise UsageError("give a corpus, or --root and it is recognised")
        corpus = recognise(root, corpora)
    if corpus not in corpora:
        raise UsageError(f"no corpus {corpus!r}; one of {', '.join(corpora)}")
    found = count(corpus, corpora[corpus], corpus_root(corpus, corpora[corpus], root))
    show(dataclasses.asdict(found), as_json)


@app.command()
@guarded
def verify(
    folder: Annotated[Path, typer.Argument(help="OUT/<corpus>, or OUT for all in it.")],
    as_json: Json = False,
) -> None:
    """Check shards against their manifest and hashes, and that every sample decodes."""
    from tqdm import tqdm

    from avb.pipeline.verify import dataset_folders
    from avb.pipeline.verify import verify as check

    with tqdm(unit="sample", disable=as_json or None) as bar:
        verdicts = [check(path, bar.update) for path in dataset_folders(folder)]
    faults = [f"{v.folder}: {fault}" for v in verdicts for fault in v.faults]
    shards, samples = sum(v.shards for v in verdicts), sum(v.samples for v in verdicts)
    if as_json:
        show({"ok": not faults, "shards": shards, "samples": samples, "faults": faults}, True)
    else:
        for fault in faults:
            say(fault)
        outcome = f"{len(faults)} faults" if faults else "nothing wrong"
        say(f"{shards:,} shards, {samples:,} samples: {outcome}")
    if faults:
        raise typer.Exit(FAILED)


@app.command()
@guarded
def stats(
    folder: Annotated[Path, typer.Argument(help="OUT/<corpus>, or OUT for all in it.")],
    as_json: Json = False,
) -> None:
    """Counts, hours, lengths, bytes and milliseconds of prepared shards."""
    from avb.pipeline.stats import stats as count
    from avb.pipeline.verify import dataset_folders

    found = [count(path) for path in dataset_folders(folder)]
    if as_json:
        show(found[0] if len(found) == 1 else {r["corpus"]: r for r in found}, True)
    else:
        for record in found:
            show(record, False)
            typer.echo("")


@app.command()
@guarded
def preview(
    folder: Annotated[Path, typer.Argument(help="OUT/<corpus>.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 8,
) -> None:
    """A contact sheet: crops over time with the mouth marked, the mel, the words."""
    from avb.tools.preview import preview as draw

    say(draw(folder, out, clips))


@app.command()
@guarded
def synth(
    corpus: Annotated[str, typer.Argument(help="lrw, lrw1000 or grid.")],
    out: Annotated[Path, typer.Option(help="Where the raw corpus is written.")],
    clips: Annotated[int | None, typer.Option(min=1, help="How many clips [small].")] = None,
    odd: Annotated[bool, typer.Option("--odd", help="Add one clip of every known fault.")] = False,
    from_grid: Annotated[
        Path | None, typer.Option(help="Re-cut real GRID clips instead of drawing faces.")
    ] = None,
    layout: Annotated[str, typer.Option(help="For lrw1000: A or B.")] = "A",
    seed: Annotated[int, typer.Option(help="Another seed, other clips.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw talking faces that speak, in the raw layout of a corpus."""
    from avb.pipeline.config import UsageError
    from avb.tools.synth import make

    try:
        made = make(
            corpus, out, clips=clips, odd=odd, from_grid=from_grid, seed=seed, layout=layout
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    show(made, as_json)


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Everything goes here.")] = Path("demo"),
) -> None:
    """The whole pipeline on drawn and spoken corpora, in about a minute."""
    from avb.tools.demo import demo as run

    code = run(out)
    if code:
        raise typer.Exit(code)


# Options that the commands of both tasks share.
RecipeName = Annotated[str, typer.Option(help="A recipe's name, or a file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the recipe; repeatable.")
]
Talkers = Annotated[str | None, typer.Option(help="Only these talkers, s1,s2.")]
SplitFile = Annotated[
    Path | None, typer.Option(help="A list of part/talker/clip instead of a named split.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Length of the training.")]
Epochs = Annotated[float | None, typer.Option(help="Its length in epochs instead.")]
Seed = Annotated[int | None, typer.Option(help="Weights, order, augmentation.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda [cuda if there].")]
RunFolder = Annotated[Path | None, typer.Option(help="[runs/<task>-<corpus>-<recipe>]")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from last.pt.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile.")]
Checkpoint = Annotated[Path, typer.Option(help="best.pt or last.pt of a run.")]
Shards = Annotated[Path, typer.Option(help="Shards.")]
Part = Annotated[str, typer.Option(help="test, val, train or all.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many clips; flagged.")]
Record = Annotated[Path | None, typer.Option(help="Write the whole record here.")]


def _train(context: typer.Context, **given: Any) -> None:
    from avb.tools import train_command

    overrides = given.pop("overrides") or []
    options = train_command.Options(overrides=overrides, datasets=context.obj, **given)
    code = train_command.run(options)
    if code:
        raise typer.Exit(code)


@train.command("lip")
@guarded
def train_lip(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Shards [shards/lrw].")] = None,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    unit: Annotated[str | None, typer.Option(help="clip, or word of a sentence.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="A named split [per recipe]."),
    ] = None,
    speakers: Talkers = None,
    split_file: SplitFile = None,
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
        unit=unit, split=split, speakers=speakers, split_file=split_file, steps=steps,
        epochs=epochs, seed=seed, device=device, out=out, resume=resume,
        compile_model=compile_model,
    )  # fmt: skip


@train.command("l2s")
@guarded
def train_l2s(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Shards [shards/grid].")] = None,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(help="speaker-dependent, speaker-independent or a named split [per recipe]."),
    ] = None,
    speakers: Talkers = None,
    split_file: SplitFile = None,
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
        unit=None, split=split, speakers=speakers, split_file=split_file, steps=steps,
        epochs=epochs, seed=seed, device=device, out=out, resume=resume,
        compile_model=compile_model,
    )  # fmt: skip


@evaluation.command("lip")
@guarded
def eval_lip(
    context: typer.Context,
    ckpt: Checkpoint,
    data: Shards,
    part: Part = "test",
    device: Device = None,
    limit: Limit = None,
    out: Record = None,
    as_json: Json = False,
) -> None:
    """Accuracy, confusions, the audio path and the mirrored test."""
    from avb.tools.eval_command import run

    run("lip", ckpt, data, part, device, limit, out, as_json, context.obj)


@evaluation.command("l2s")
@guarded
def eval_l2s(
    context: typer.Context,
    ckpt: Checkpoint,
    data: Shards,
    part: Part = "test",
    device: Device = None,
    limit: Limit = None,
    out: Record = None,
    as_json: Json = False,
) -> None:
    """STOI, ESTOI, PESQ and word error beside ceiling and floors."""
    from avb.tools.eval_command import run

    run("l2s", ckpt, data, part, device, limit, out, as_json, context.obj)


@bench.command("prep")
@guarded
def bench_prep_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A raw corpus.")],
    corpus: Annotated[str | None, typer.Option(help="Which one [recognised].")] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many clips, a repeatable sample.")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Times each clip is measured.")] = 3,
    codec: Annotated[str, typer.Option(help="mp4, h264 or jpeg.")] = "mp4",
    mel_dtype: Annotated[str, typer.Option(help="float16 or uint8.")] = "float16",
    as_json: Json = False,
) -> None:
    """Preparing a clip against decoding its picture and sound alone, on one core."""
    from avb.tools.bench_prep import bench_prep

    show(bench_prep(folder, corpus, clips, rounds, codec, mel_dtype, context.obj), as_json)


@bench.command("read")
@guarded
def bench_read_command(
    folder: Annotated[Path, typer.Argument(help="Shards, OUT/<corpus>.")],
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 300,
    as_json: Json = False,
) -> None:
    """Reading shards against plain webdataset and PyAV on the same clips, on one core."""
    from avb.tools.bench_read import bench_read

    show(bench_read(folder, clips), as_json)
