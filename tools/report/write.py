"""The report of runs as one file, and one figure of it as another."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError
from avb.pipeline.files import open_atomic, write_atomic
from avb.pipeline.storage.store import Folder
from avb.tools.report import figures, lags, page, sounds
from avb.tools.report.examples import Examples, open_examples
from avb.tools.report.runs import Result, Run, load_run, load_runs
from avb.tools.report.style import drawing
from avb.train.checks import make_folder, need, writing
from avb.train.data import open_shards
from avb.train.device import choose_device
from avb.train.tasks.task import command_of

SUFFIXES = (".png", ".pdf")
log = logging.getLogger(__name__)


def report(
    folders: list[Path],
    data: Folder | None,
    out: Path,
    clips: int,
    device: str | None,
    datasets: Path | None,
) -> None:
    """Write the report of these runs to one file."""
    need("matplotlib", "jinja2", *(["sklearn"] if data else []))
    runs = load_runs(folders)
    examples: dict[str, Examples] = {}
    if data:
        where = choose_device(device)
        examples = {run.name: open_examples(run, data, where, datasets) for run in runs}
    sections = page.build(runs, examples, clips)
    if data and (about := lags.section(open_shards(data, datasets)[0])):
        sections.append(about)
    text = page.render(runs, sections)
    make_folder(out.parent)
    with writing(out):
        write_atomic(out, text.encode())
    evaluated = sum(len(run.results) for run in runs)
    log.info(f"{out}: {len(runs)} runs, {evaluated} evaluations, {len(text) / 1e6:.1f} MB")


def plot(
    folder: Path,
    figure: str,
    out: Path,
    data: Folder | None,
    clip: int,
    named: Sequence[str],
    device: str | None,
    datasets: Path | None,
) -> None:
    """Write one figure of a run as PNG or PDF; `named` are sounds as WORD:FRAMES."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: give a name that ends in {' or '.join(SUFFIXES)}")
    need("matplotlib", *(["sklearn"] if figure == "tsne" else []))
    run = load_run(folder)

    def examples() -> Examples:
        if data is None:
            raise UsageError(f"--figure {figure} runs the network on clips: give --data SHARDS")
        return open_examples(run, data, choose_device(device), datasets)

    make_folder(out.parent)
    try:
        with writing(out), drawing():
            drawn = _draw(run, figure, examples, clip, named)
            with open_atomic(out) as file:
                drawn.savefig(file, format=out.suffix[1:].lower(), dpi=200)
    except ValueError as reason:
        raise UsageError(f"{folder}: no figure {figure}: {reason}") from None
    log.info(f"{figure} of {run.name} drawn to {out}")


def _draw(
    run: Run, figure: str, examples: Callable[[], Examples], clip: int, named: Sequence[str]
) -> Any:
    if figure == "curves":
        return figures.curves([run])
    if figure == "confusion":
        return figures.confusion(_result(run).record)
    if figure == "similarity":
        addressing = _result(run).addressing
        if "source" not in addressing:
            raise ValueError(addressing["reason"])
        return figures.similarity(addressing)
    if figure == "tsne":
        return figures.tsne(examples().features(), run.probes)
    if figure in ("mouths", "pairs"):
        wanted = [sounds.Wanted.of(text) for text in named]
        if figure == "mouths" and len(wanted) < 2:
            return sounds.mouths(sounds.in_two_mouths(examples(), wanted[0] if wanted else None))
        if figure == "mouths" or len(wanted) < 2:
            raise ValueError("give --pair once at most for mouths, twice or more for pairs")
        return sounds.pairs(sounds.named(examples(), wanted))
    clips = examples().clips(clip)
    if len(clips) < clip:
        raise ValueError(f"--clip {clip}: the test part has {len(clips)}")
    return (figures.addressing if figure == "addressing" else figures.mels)(clips[clip - 1])


def _result(run: Run) -> Result:
    if not run.results:
        raise ValueError(
            f"it holds no record; avb eval {command_of(run.task)} --out {run.folder}/test.json"
        )
    return run.results[0]
