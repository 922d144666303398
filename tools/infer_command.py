"""`avb infer` between the flags and the library: several films, what is printed and written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.errors import UsageError
from avb.tools.cli.console import FAILED, fail, say
from avb.tools.infer import crops, lip, speech
from avb.tools.infer.model import Trained, load_trained
from avb.tools.infer.show import draw_boxes, mux
from avb.tools.infer.video import FPS, BadVideo, probe
from avb.train.checkpoint import best_of
from avb.train.device import choose_device

STAGES = ("decode", "track", "crop", "network", "vocoder")


@dataclass(frozen=True)
class Options:
    """The flags of `avb infer` as they were given; `out` and `mux` are for speech alone."""

    task: str
    videos: list[str]
    ckpt: Path
    device: str | None
    face: int
    face_every: int | None
    box: str
    track: Path | None
    allow_url: bool
    as_json: bool
    datasets: Path | None
    top: int = 5
    out: Path | None = None
    mux: Path | None = None


def run(options: Options) -> int:
    """Read or speak every film; returns 1 if one failed, with the others done."""
    if options.box not in crops.BOXES:
        raise UsageError(f"--box {options.box}: one of {', '.join(crops.BOXES)}")
    device = choose_device(options.device)
    targets = {
        "out": _targets(options, options.out or Path("."), ".wav"),
        "mux": _targets(options, options.mux, ".mp4"),
        "track": _targets(options, options.track, ".mp4"),
    }
    try:
        trained = load_trained(options.task, best_of(options.ckpt), device, options.datasets)
    except UsageError as error:
        fail(str(error), FAILED)
    if options.box == "fixed" and trained.fixed_box is None:
        raise UsageError(f"--box fixed: {options.ckpt} was not trained with a fixed box")
    if trained.recipe.model.get("word_boundary"):
        say("note: this model was told where the word lies; here the middle of a window is read")
    records = []
    for number, place in enumerate(options.videos):
        paths = {name: found[number] for name, found in targets.items() if found}
        try:
            record = _one(place, trained, options, paths)
        except (BadVideo, OSError) as error:
            say(f"avb: {error}")
            record = {"video": place, "error": str(error)}
        records.append(record)
        if not options.as_json and "error" not in record:
            _show(record)
    if options.as_json:
        typer.echo(json.dumps({"task": options.task, "videos": records}, ensure_ascii=False))
    return FAILED if any("error" in record for record in records) else 0


def _targets(options: Options, given: Path | None, suffix: str) -> list[Path]:
    """Where each film's file goes: the file given, or for several films, or a folder, inside it.

    Raises:
        UsageError: two films would share a file, or one would be written over.
    """
    if given is None:
        return []
    names = [Path(place.split("?")[0]).stem + suffix for place in options.videos]
    if len(names) > 1 and given.suffix and not given.is_dir():
        raise UsageError(f"{given}: several videos need a folder, not one file")
    if len(names) == 1 and not given.is_dir() and given.suffix:
        found = [given]
    else:
        found = [given / name for name in names]
    if len(set(found)) < len(found):
        raise UsageError("two of the videos have the same name; run them one after the other")
    # Not Path.resolve: it raises where a link leads to itself, which is one video's fault.
    inputs = {os.path.realpath(place) for place in options.videos}
    for path in found:
        if os.path.realpath(path) in inputs:
            raise UsageError(f"{path}: is one of the videos, and would be written over")
    return found


def _one(place: str, trained: Trained, options: Options, paths: dict[str, Path]) -> dict[str, Any]:
    """Everything for one film; returns its record."""
    clock = Clock()
    cutter = crops.Cutter(
        probe(place, options.allow_url), trained, options.box, options.face_every, options.face,
        clock,
    )  # fmt: skip
    found: dict[str, Any] = {}
    if options.task == "lip":
        readings = list(lip.read_words(cutter.pieces(), trained, clock))
        mean = lip.overall(readings)
        found["words"] = mean.ranked(trained.labels, options.top) if mean else []
        found["windows"] = [r.record(trained.labels, options.top) for r in readings]
    else:
        paths["out"].parent.mkdir(parents=True, exist_ok=True)
        mels = speech.make_mels(cutter.pieces(), trained, clock)
        speech.write_wav(paths["out"], speech.make_sound(mels, trained, clock), trained.sample_rate)
        found["out"] = str(paths["out"])
        if "mux" in paths:
            paths["mux"].parent.mkdir(parents=True, exist_ok=True)
            # To ffmpeg, "a:b.mp4" is a protocol called a; an absolute path is none.
            mux(cutter.video, paths["out"].absolute(), paths["mux"].absolute())
            found["mux"] = str(paths["mux"])
    if "track" in paths:
        paths["track"].parent.mkdir(parents=True, exist_ok=True)
        draw_boxes(cutter, paths["track"].absolute())
        found["track"] = str(paths["track"])
    return {
        "video": place,
        "duration": len(cutter.seen) / FPS,
        "box": cutter.box,
        "faces": cutter.faces,
        "turned": -90 * cutter.turns % 360,
        "absent": crops.absent_spans(cutter.seen),
        **found,
        "seconds": {stage: round(clock.ms.get(stage, 0.0) / 1e3, 3) for stage in STAGES},
    }


def _show(record: dict[str, Any]) -> None:
    """The result of one film for people: what was found on stdout, the rest on stderr."""
    others = f", {record['faces']} faces (--face)" if record["faces"] > 1 else ""
    turned = f", turned by {record['turned']} degrees" if record["turned"] else ""
    say(f"{record['video']}: {record['duration']:.2f} s, box {record['box']}{turned}{others}")
    for start, end in record["absent"]:
        say(f"nobody is seen from {start:.2f} to {end:.2f} s")
    for window in record.get("windows", []):
        typer.echo(f"{window['start']:7.2f} {window['end']:7.2f}  {_words(window['words'])}")
    if len(record.get("windows", [])) > 1:
        typer.echo(f"{'all':>15}  {_words(record['words'])}")
    for name in ("out", "mux", "track"):
        if name in record:
            typer.echo(record[name]) if name == "out" else say(f"{name}: {record[name]}")
    spent = ", ".join(f"{stage} {s:.1f}" for stage, s in record["seconds"].items() if s)
    say(f"seconds: {spent}")


def _words(words: list[dict[str, Any]]) -> str:
    return "  ".join(f"{w['word']} {w['probability']:.2f}" for w in words) or "-"
