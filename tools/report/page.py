"""A report: sections of tables, pictures and sounds, and one file that holds all of them."""

import base64
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import avb
from avb.pipeline.clip.codec import encode_video
from avb.pipeline.clip.flac import encode_flac
from avb.tools.report import figures, published, tables, verdict
from avb.tools.report.runs import Result, Run
from avb.tools.report.style import drawing, svg
from avb.tools.report.tables import Table
from avb.train.tasks.task import command_of, find_task

log = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("page.html")
TASKS = ("lip", "sentence", "l2s")
SOUNDS = {
    "real": "real",
    "griffin_lim": "Griffin-Lim of the true mel (the ceiling)",
    "model": "the model, from video alone",
}


@dataclass(frozen=True)
class Picture:
    """An SVG element with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Sounds:
    """Players side by side: name and `data:` address of each; the moving crops first."""

    players: list[tuple[str, str]]
    film: str = ""


@dataclass(frozen=True)
class Fold:
    """What is shown when asked for."""

    title: str
    blocks: list[Any]


@dataclass
class Section:
    """A heading and what stands below: a text is a paragraph, a list of texts one with bullets."""

    title: str
    blocks: list[Any] = field(default_factory=list)

    def draw(self, make: Callable[..., Any], caption: str, *given: Any) -> None:
        """Add a figure, or a line that says why there is none."""
        try:
            with drawing():
                figure = make(*given)
        except ValueError as reason:
            self.blocks.append(f"{caption}: left out, {reason}.")
            return
        self.blocks.append(Picture(svg(figure), caption))


def build(runs: Sequence[Run], examples: dict[str, Any], clips: int) -> list[Section]:
    """The sections of a report; without a run's `Examples` its clips are left out."""
    pairs = verdict.pairs(runs)
    found = [verdict.figure(run) for run in runs] + verdict.gains(pairs)
    first = Section("In short", [found, "What to distrust:", verdict.doubts(runs)])
    sections = [first, _trained(runs), _curves(runs)]
    for task in TASKS:
        own = [run for run in runs if run.task == task]
        if own:
            sections += [_numbers(task, own), _words(task, own)]
    sections += [_memory(runs), _paired(pairs)]
    for run in runs:
        log.info(f"{run.name}: clips and features")
        sections.append(_seen(run, examples.get(run.name), clips))
    return sections


def _trained(runs: Sequence[Run]) -> Section:
    section = Section("What was trained on what", [tables.facts_table(runs)])
    for run in runs:
        rows = run.differences()
        table = Table(f"{run.name}: recipe", ["setting", "here", "default"], rows)
        title = f"{run.name}: {len(rows)} settings that differ from the defaults"
        section.blocks.append(Fold(title, [table]))
    return section


def _curves(runs: Sequence[Run]) -> Section:
    section = Section("Training")
    for task in TASKS:
        own = [run for run in runs if run.task == task and run.log]
        if own:
            caption = f"{find_task(task).title}: loss terms and validation over the steps"
            section.draw(figures.curves, caption, own)
    section.blocks += [
        f"{run.name}: metrics.jsonl is missing or empty." for run in runs if not run.log
    ]
    return section


def _numbers(task: str, runs: Sequence[Run]) -> Section:
    section = Section(f"{find_task(task).title}: numbers")
    section.blocks += [
        f"{run.name}: not evaluated. avb eval {command_of(task)} --ckpt"
        f" {shlex.quote(str(run.folder))} --data SHARDS"
        for run in runs
        if not run.results
    ]
    for result in _results(runs):
        fold = Fold(f"{result.title}: every flag", [tables.flags_table(result)])
        section.blocks += [tables.metrics_table(result), fold]
    for corpus in dict.fromkeys(run.recipe["corpus"] for run in runs):
        of_corpus = _results([run for run in runs if run.recipe["corpus"] == corpus])
        if not of_corpus or task not in tables.PUBLISHED_COLUMNS:
            continue
        table, fits = tables.published_table(of_corpus, corpus)
        marks = "; ".join(f"{mark}: {text}" for mark, text in published.load().marks.items())
        blocks: list[Any] = [f"Rows with other flags are not ranked. Marks: {marks}."]
        for result in of_corpus:
            if why := published.own_reasons(result.record, corpus):
                blocks.append(f"{result.title} is comparable with no row: {'; '.join(why)}.")
        blocks.append(table)
        none = "Published rows; none of them is comparable"
        section.blocks += blocks if fits else [Fold(none, blocks)]
    return section


def _results(runs: Sequence[Run]) -> list[Result]:
    return [result for run in runs for result in run.results]


def _words(task: str, runs: Sequence[Run]) -> Section:
    section = Section(f"{find_task(task).title}: words")
    for result in _results(runs):
        if by_slot := tables.slots_table(result):
            section.blocks.append(by_slot)
        section.draw(figures.confusion, f"{result.title}: words taken for others", result.record)
        if mistakes := figures.mistakes(figures.heard(result.record)):
            rows = [[said, word, str(count)] for (said, word), count in mistakes]
            caption = f"{result.title}: most confused"
            table = Table(caption, ["said", "understood", "times"], rows)
            section.blocks.append(Fold(caption, [table]))
    return section


def _memory(runs: Sequence[Run]) -> Section:
    section = Section("The memory: what its addresses mean")
    for result in _results(runs):
        if "source" not in result.addressing:
            section.blocks.append(f"{result.title}: left out, {result.addressing['reason']}.")
            continue
        caption = f"{result.title}: addresses of the same word and of others, beside null models"
        if figures.can_compare(result.addressing):
            section.draw(figures.similarity, caption, result.addressing)
        section.blocks.append(tables.verdict(result))
        first, *rest = tables.addressing_tables(result)
        section.blocks += [Fold(first.caption, [first]), *rest]
    return section


def _paired(pairs: Sequence[verdict.Pair]) -> Section:
    """Two runs of one task on the same clips, each pair."""
    section = Section("Runs compared on the same clips")
    for pair in pairs:
        one, other, record = pair.one[1], pair.other[1], pair.record
        if record is None:
            section.blocks.append(f"{one.title} and {other.title} not compared: {pair.reason}")
            continue
        section.blocks.append(tables.paired_table(record, one.title, other.title))
        notes = list(record["notes"])
        if "mcnemar" in record:
            notes.insert(0, tables.mcnemar_line(record["mcnemar"]))
        section.blocks.append("; ".join(notes) + ".")
    return section


def _seen(run: Run, examples: Any, clips: int) -> Section:
    """Clips with their addresses, mels and sounds, and the map of features."""
    section = Section(f"{run.name}: {'seen and heard' if run.task == 'l2s' else 'words seen'}")
    if examples is None:
        section.blocks.append(
            "Clips, sounds and the map of features need the shards: avb report --data SHARDS."
        )
        return section
    section.blocks += [f"{note}." for note in examples.notes]
    if not run.slots:
        section.blocks.append(
            "A model with 0 slots has no addresses and recalls nothing: both are left out."
        )
    for number, clip in enumerate(examples.clips(clips)):
        said = (": addresses under the frames and the sound they belong to", ": the mels")
        about = [clip.key + (text if number == 0 else "") for text in said]  # told once
        if run.slots:
            section.draw(figures.addressing, about[0], clip)
        if clip.made_db is not None:
            section.draw(figures.mels, about[1], clip)
        players = [(SOUNDS[name], data_uri(sound)) for name, sound in clip.sounds.items()]
        section.blocks.append(Sounds(players, film_uri(clip.frames, clip.fps)))
    if run.slots:
        _add_map(section, run, examples)
    return section


def _add_map(section: Section, run: Run, examples: Any) -> None:
    """The map of features, or why there is none."""
    try:
        features = examples.features()
    except ValueError as reason:
        section.blocks.append(f"Map of features: left out, {reason}.")
        return
    caption = (
        "t-SNE of frames inside words: a picture; the number is the probe's accuracy, 50 %"
        " where the two cannot be told apart"
    )
    section.draw(figures.tsne, caption, features, run.probes)
    seen, heard = (features[kind].shape[1] for kind in ("source_features", "target_features"))
    if seen != heard:
        section.blocks.append(
            f"Visual features have {seen} numbers and audio features {heard}: in the map each lies"
            " by its own principal components, and where they lie to each other says nothing."
        )


def data_uri(sound: Any) -> str:
    """A sound, float [n] at 16 kHz, as a FLAC file inside an address: half as long as WAV."""
    return "data:audio/flac;base64," + base64.b64encode(encode_flac(sound, 16000)).decode()


def film_uri(frames: Any, fps: float) -> str:
    """Crops, uint8 [T x H x W], as a film inside an address; of odd sides without the last line."""
    height, width = (side // 2 * 2 for side in frames.shape[1:])
    _, data = encode_video(frames[:, :height, :width], "mp4", crf=23, fps=round(fps))
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


def render(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    """The page as text; it refers to nothing outside of itself."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    shown = [section for section in sections if section.blocks]
    names = ", ".join(run.name for run in runs)
    template = environment.get_template(TEMPLATE.name)
    return template.render(
        title=verdict.headline(runs), names=names, sections=shown, version=avb.__version__
    )
