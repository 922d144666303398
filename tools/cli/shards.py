"""Raw corpora and prepared shards looked at: `avb inspect|verify|stats|preview|synth`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, App, fields, print_json, say, show

app = App()


@app.command()
def inspect(
    context: typer.Context,
    corpus: Annotated[
        Literal["lrw", "lrw1000", "grid", "table"] | None,
        Argument(help="Which one.", show_default="recognised"),
    ] = None,
    root: o.Root = None,
    as_json: o.Json = False,
) -> None:
    """Which layout a raw corpus has, its counts, and how far they are from the published ones."""
    from avb.pipeline.config import corpus_root, load_corpora
    from avb.pipeline.corpora.inspect import inspect as count
    from avb.pipeline.corpora.inspect import recognise
    from avb.pipeline.corpora.stored import listed_tree

    corpora = load_corpora(context.obj)
    name: str | None = corpus
    if name is None:
        if root is None:
            raise UsageError("give a corpus, or --root and it is recognised")
        with listed_tree(root) as here:
            name = recognise(here, corpora)
    with listed_tree(corpus_root(name, corpora[name], root)) as here:
        inspection = count(name, corpora[name], here)
    show(inspection, as_json)


@app.command()
def verify(
    context: typer.Context,
    folder: o.ShardFolder,
    jobs: o.Jobs = None,
    sample: Annotated[
        str | None,
        Option(help="Only P% of the samples of each shard, and no hashes.", show_default="all"),
    ] = None,
    sources: Annotated[
        bool, Option("--sources", help="Compare with the corpus too: names, sizes, times.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Check shards against their manifest and hashes, and that every sample decodes."""
    from avb.pipeline.build.verify_sources import source_faults
    from avb.pipeline.config import load_corpora
    from avb.pipeline.machine import cores
    from avb.pipeline.shards.dataset import dataset_folders
    from avb.pipeline.shards.verify import parse_share
    from avb.pipeline.shards.verify import verify as check
    from avb.tools.progress import progress

    share = parse_share(sample)
    folders = dataset_folders(folder)
    corpora = load_corpora(context.obj) if sources else {}
    # First: it takes seconds, and where it cannot be said nobody waits for hours to hear so.
    changed = [source_faults(path, corpora) if sources else [] for path in folders]
    with progress("sample", quiet=as_json) as bar:
        verdicts = [check(path, bar.update, jobs or cores(), share) for path in folders]
    every = zip(verdicts, changed, strict=True)
    faults = [f"{v.folder}: {fault}" for v, more in every for fault in v.faults + more]
    total = {
        name: sum(getattr(v, name) for v in verdicts) for name in ("shards", "samples", "stored")
    }
    if as_json:
        print_json({"ok": not faults} | total | {"sample": sample, "faults": faults})
    else:
        for fault in faults:
            say(fault)
        some = f" (--sample {sample}: the rest and the hashes were not looked at)"
        stored = total["stored"]
        outcome = f"{len(faults)} faults" if faults else "nothing wrong"
        samples = f"{total['samples']:,} samples{'' if share == 1 else f' of {stored:,}{some}'}"
        say(f"{total['shards']:,} shards, {samples}: {outcome}")
    if faults:
        raise typer.Exit(FAILED)


@app.command()
def stats(
    folder: o.ShardFolder,
    refused: Annotated[
        bool, Option("--refused", help="Instead: every clip that was refused, and why.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Counts, hours, lengths, bytes and milliseconds of prepared shards."""
    from avb.pipeline.shards.dataset import dataset_folders
    from avb.pipeline.shards.stats import refused_clips
    from avb.pipeline.shards.stats import stats as count

    folders = dataset_folders(folder)
    if refused:
        # Keys of two corpora may be the same.
        rows = {
            f"{path.name}/{key}" if len(folders) > 1 else key: why
            for path in folders
            for key, why in refused_clips(path)
        }
        show(rows, as_json)
        return
    records = {path.name: count(path) for path in folders}
    whole = records if len(records) > 1 else records[folders[0].name]
    show(whole, as_json, (line for r in records.values() for line in [*fields(r), ""]))


@app.command()
def preview(
    folder: o.ShardFolder,
    out: Annotated[Path, Option(help="The picture to write.")] = Path("preview.png"),
    clips: Annotated[int, Option(min=1, help="How many clips.")] = 8,
) -> None:
    """A contact sheet: crops over time with the mouth marked, the mel, the words."""
    from avb.tools.preview import preview as draw

    say(draw(folder, out, clips))


@app.command()
def synth(
    corpus: Annotated[o.Corpus, Argument(help="Whose layout.")],
    out: Annotated[Path, Option(help="Where the raw corpus is written.")],
    clips: Annotated[
        int | None, Option(min=1, help="How many clips.", show_default="small")
    ] = None,
    odd: Annotated[bool, Option("--odd", help="Add one clip of every known fault.")] = False,
    from_grid: Annotated[
        Path | None, Option(help="Re-cut real GRID clips instead of drawing faces.")
    ] = None,
    layout: Annotated[Literal["A", "B"], Option(help="Of lrw1000.")] = "A",
    seed: Annotated[int, Option(min=0, help="Another seed, other clips.")] = 0,
    as_json: o.Json = False,
) -> None:
    """Draw talking faces that speak, in the raw layout of a corpus."""
    from avb.tools.synth import make
    from avb.train.checks import writing

    try:
        with writing(out):
            made = make(
                corpus, out, clips=clips, odd=odd, from_grid=from_grid, seed=seed, layout=layout
            )
    except ValueError as error:
        raise UsageError(str(error)) from None
    show(made, as_json)
