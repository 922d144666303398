"""One film to its record: words or speech, and the files that were asked for."""

import logging
import os
from pathlib import Path
from typing import Any

from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.tools.infer import crops, lip, sentence, speech
from avb.tools.infer.model import Trained
from avb.tools.infer.show import draw_boxes, mux
from avb.tools.infer.video import FPS, BadVideo, probe

log = logging.getLogger(__name__)
STAGES = ("decode", "track", "crop", "network", "vocoder")


def targets(videos: list[str], given: Path | None, suffix: str) -> list[Path]:
    """Where each film's file goes: the file given, or for several films, or a folder, inside it."""
    if given is None:
        return []
    names = [Path(place.split("?")[0] if "://" in place else place).stem for place in videos]
    names = [name + suffix for name in names]
    if given.suffix and not given.is_dir():
        if len(names) > 1:
            raise UsageError(f"{given}: several videos need a folder, not one file")
        if suffix == ".wav" != given.suffix.lower():
            raise UsageError(f"{given}: the speech is a WAV file; call it .wav, or name a folder")
        paths = [given]
    else:
        paths = [given / name for name in names]
    if len(set(paths)) < len(paths):
        raise UsageError("two of the videos have the same name; run them one after the other")
    # Not Path.resolve: it raises where a link leads to itself, which is one video's fault.
    inputs = {os.path.realpath(place) for place in videos}
    for path in paths:
        if os.path.realpath(path) in inputs:
            raise UsageError(f"{path}: is one of the videos, and would be written over")
    return paths


def check_apart(targets: dict[str, list[Path]]) -> None:
    """Refuse two options that would write one file: the first one's would be lost."""
    owners: dict[str, str] = {}
    for option, paths in targets.items():
        for path in paths:
            other = owners.setdefault(os.path.realpath(path), option)
            if other != option:
                both = f"--{other} and --{option}"
                raise UsageError(f"{path}: {both} would both write it; give them other places")


def infer(
    video: str, trained: Trained, paths: dict[str, Path], box: str, face: int,
    face_every: int | None, top: int, allow_url: bool,
) -> dict[str, Any]:  # fmt: skip
    """The record of one film; `paths` are files to write, `out mux track srt`."""
    clock = Clock()
    film = probe(video, allow_url)
    cutter = crops.Cutter(film, trained, box, face_every, face, clock)
    made: dict[str, Any] = {}
    captions = []
    if trained.task.makes == "sentence":
        try:
            spoken = sentence.read_sentences(cutter.pieces(), trained, clock)
        except UsageError as error:  # it is too long for the grammar
            raise BadVideo(f"{video}: {error}") from None
        made = sentence.record(spoken)
        captions = sentence.subtitles(spoken)
        if "srt" in paths:
            write_atomic(paths["srt"], sentence.srt(spoken).encode())
    elif trained.task.makes == "word":
        readings = list(lip.read_words(cutter.pieces(), trained, clock))
        mean = lip.overall(readings)
        made["words"] = mean.ranked(trained.labels, top) if mean else []
        made["windows"] = [r.record(trained.labels, top) for r in readings]
    else:
        mels = speech.make_mels(cutter.pieces(), trained, clock)
        sound = speech.make_sound(mels, trained, clock)
        speech.write_wav(paths["out"], sound, trained.settings.sample_rate)
    # To ffmpeg, "a:b.mp4" is a protocol called a; an absolute path is none.
    if "mux" in paths:
        mux(cutter.video, paths["out"].absolute(), paths["mux"].absolute())
    if "track" in paths:
        if not all(text.isascii() for *_, text in captions):
            log.info("note: --track writes ASCII alone, other letters as ?; --srt writes all")
        draw_boxes(cutter, paths["track"].absolute(), captions)
    return {
        "video": video,
        "duration": len(cutter.seen) / FPS,
        **cutter.facts(),
        **made,
        **{name: str(path) for name, path in paths.items()},
        "seconds": {stage: round(clock.ms.get(stage, 0.0) / 1e3, 3) for stage in STAGES},
    }
