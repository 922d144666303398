"""Raw video to shards, and a look at both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avb.tools.cli.console import FAILED, App, say, show
from avb.tools.cli.options import CorpusName, Json

app = App()


@app.command()
def prep(
    context: typer.Context,
    corpus: CorpusName,
    table: Annotated[str | None, typer.Argument(help="For `table`: the CSV or Parquet.")] = None,
    root: Annotated[
        str | None,
        typer.Option(help="Where the raw corpus lies; else AVB_<CORPUS>_ROOT, else datasets.yaml."),
    ] = None,
    out: Annotated[str, typer.Option(help="Shards go to OUT/<corpus>/.")] = "shards",
    name: Annotated[str | None, typer.Option(help="For `table`: name of the corpus.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes [one a core; ray: all it has].")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local (processes of this machine), or ray (a cluster).")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="For ray: HOST:PORT of its head, or auto [RAY_ADDRESS, or its own]."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="I/N: only this share, for job arrays; a last run without completes."),
    ] = None,
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
    tracker: Annotated[
        str, typer.Option(help="litert, or mediapipe's own runtime (Python 3.11 and 3.12).")
    ] = "litert",
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
    max_seconds: Annotated[
        float | None, typer.Option(min=0.04, help="Refuse longer clips as long [60].")
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(help="required, or optional: films without sound become pictures alone."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take refused clips again.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace shards made with other settings.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Let finished clips go that are no longer listed.")
    ] = False,
    clip_timeout: Annotated[
        float, typer.Option(min=10, help="Seconds for one clip, else `timeout`.")
    ] = 300.0,
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
    from avb.pipeline.storage.store import place
    from avb.tools import prep_command

    options = prep_command.Options(
        corpus=corpus, table=place(table) if table else None, root=place(root) if root else None,
        out=place(out), name=name, jobs=jobs, engine=engine,
        address=address, part=part, limit=limit, speakers=speakers, crop=crop, box=box,
        codec=codec, crf=crf, decoder=decoder, tracker=tracker, mel_dtype=mel_dtype,
        keep_audio=keep_audio, face_every=face_every, shard_clips=shard_clips,
        max_seconds=max_seconds, audio=audio, retry_failed=retry_failed, overwrite=overwrite,
        prune=prune, clip_timeout=clip_timeout, max_failures=max_failures,
        dry_run=dry_run, as_json=as_json, datasets=context.obj,
    )  # fmt: skip
    try:
        code = prep_command.run(options)
    except KeyboardInterrupt:
        rest = " without --overwrite" if overwrite else ""
        again = f"; run the same command again{rest} to go on"
        raise KeyboardInterrupt("stopped" + ("" if dry_run else again)) from None
    if code:
        raise typer.Exit(code)


@app.command()
def inspect(
    context: typer.Context,
    corpus: Annotated[str | None, typer.Argument(help="lrw, lrw1000, grid or table.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the raw corpus lies.")] = None,
    as_json: Json = False,
) -> None:
    """Which layout a raw corpus has, its counts, and how far they are from the published ones."""
    import dataclasses

    from avb.pipeline.config import corpus_root, load_corpora
    from avb.pipeline.corpora.inspect import inspect as count
    from avb.pipeline.corpora.inspect import recognise
    from avb.pipeline.corpora.stored import listed_tree
    from avb.pipeline.errors import UsageError
    from avb.pipeline.storage.store import place

    corpora = load_corpora(context.obj)
    if corpus is None:
        if root is None:
            raise UsageError("give a corpus, or --root and it is recognised")
        with listed_tree(place(root)) as here:
            corpus = recognise(here, corpora)
    if corpus not in corpora:
        raise UsageError(f"no corpus {corpus!r}; one of {', '.join(corpora)}")
    with listed_tree(corpus_root(corpus, corpora[corpus], root)) as here:
        found = count(corpus, corpora[corpus], here)
    show(dataclasses.asdict(found), as_json)


@app.command()
def verify(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="OUT/<corpus>, or OUT for all in it.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes [one a core].")] = None,
    sample: Annotated[
        str | None, typer.Option(help="Only P% of the samples of each shard, and no hashes [all].")
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Compare with the corpus too: names, sizes, times.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check shards against their manifest and hashes, and that every sample decodes."""
    from tqdm import tqdm

    from avb.pipeline.build.verify_sources import source_faults
    from avb.pipeline.config import load_corpora
    from avb.pipeline.machine import cores
    from avb.pipeline.shards.dataset import dataset_folders
    from avb.pipeline.shards.verify import parse_share
    from avb.pipeline.shards.verify import verify as check
    from avb.pipeline.storage.store import place

    share = parse_share(sample)
    jobs = jobs or cores()
    folders = dataset_folders(place(folder))
    with tqdm(unit="sample", disable=as_json or None) as bar:
        verdicts = [check(path, bar.update, jobs, share) for path in folders]
    if sources:
        corpora = load_corpora(context.obj)
        for path, verdict in zip(folders, verdicts, strict=True):
            verdict.faults += source_faults(path, corpora)
    faults = [f"{v.folder}: {fault}" for v in verdicts for fault in v.faults]
    shards, samples, stored = (
        sum(getattr(v, name) for v in verdicts) for name in ("shards", "samples", "stored")
    )
    if as_json:
        found = {"ok": not faults, "shards": shards, "samples": samples, "stored": stored}
        show(found | {"sample": sample, "faults": faults}, True)
    else:
        for fault in faults:
            say(fault)
        outcome = f"{len(faults)} faults" if faults else "nothing wrong"
        some = (
            ""
            if share == 1
            else f" of {stored:,} (--sample {sample}: the rest and the hashes were not looked at)"
        )
        say(f"{shards:,} shards, {samples:,} samples{some}: {outcome}")
    if faults:
        raise typer.Exit(FAILED)


@app.command()
def stats(
    folder: Annotated[str, typer.Argument(help="OUT/<corpus>, or OUT for all in it.")],
    as_json: Json = False,
) -> None:
    """Counts, hours, lengths, bytes and milliseconds of prepared shards."""
    from avb.pipeline.shards.dataset import dataset_folders
    from avb.pipeline.shards.stats import stats as count
    from avb.pipeline.storage.store import place

    found = [count(path) for path in dataset_folders(place(folder))]
    if as_json:
        show(found[0] if len(found) == 1 else {r["corpus"]: r for r in found}, True)
    else:
        for record in found:
            show(record, False)
            typer.echo("")


@app.command()
def preview(
    folder: Annotated[str, typer.Argument(help="OUT/<corpus>.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 8,
) -> None:
    """A contact sheet: crops over time with the mouth marked, the mel, the words."""
    from avb.pipeline.storage.store import place
    from avb.tools.preview import preview as draw

    say(draw(place(folder), out, clips))


@app.command()
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
    from avb.pipeline.errors import UsageError
    from avb.tools.synth import make

    try:
        made = make(
            corpus, out, clips=clips, odd=odd, from_grid=from_grid, seed=seed, layout=layout
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    show(made, as_json)
