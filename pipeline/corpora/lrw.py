"""LRW: 500 English words of BBC television, 29 frames of 256 x 256 each, the word in the middle.

Expected tree: `lipread_mp4/WORD/{train,val,test}/WORD_00001.mp4` with a twin `.txt`; the folder
`lipread_mp4` may have another name or be the root itself. 488,766 / 25,000 / 25,000 clips.

Known defects and how they end: missing or odd `.txt` (kept, `no_boundary`), a word longer than
the clip (kept, `boundary_clamped`), truncated files (`short`, `bad_decode`), stray folders beside
the words (reported, never numbered). The sound is AAC: a full decode gives 19,456 samples after
its priming is skipped, of which the first 18,560 belong to the 29 pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.decode import Media, stream_video
from avb.pipeline.records import Clip, Listing, Refused, Word

if TYPE_CHECKING:
    from avb.pipeline.plan import Settings

SPLITS = ("train", "val", "test")
PATTERN = "WORD/{train,val,test}/WORD_00001.mp4"
DURATION = re.compile(r"^\s*Duration\s*:\s*([-+\d.eE]+)", re.M)


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every mp4 below WORD/{train,val,test}, from directory listings alone.

    Raises:
        UsageError: nothing below the root looks like LRW; it names the pattern tried.
    """
    base = _find_base(root)
    if base is None:
        raise UsageError(
            f"{root}: no LRW found; looked for {PATTERN} in it and two folders down"
            " (give the folder that holds the word folders with --root)"
        )
    folders, strays, foreign = [], [], []
    for entry in sorted(os.scandir(base), key=lambda e: e.name):
        if entry.is_dir() and any((Path(entry.path) / split).is_dir() for split in SPLITS):
            folders.append(entry.name)
            if _holds_another_word(Path(entry.path)):
                foreign.append(entry.name)
        elif not entry.name.startswith("."):
            strays.append(entry.name)
    words = [name for name in folders if name not in foreign]
    notices = [f"not word folders, left out: {', '.join(strays)}"] if strays else []
    if foreign:
        notices.append(f"clips of other words inside, not numbered: {', '.join(foreign)}")
    where = base.relative_to(root).as_posix()
    layout = f"{'' if where == '.' else where + '/'}{PATTERN}"
    return Listing(root, layout, _clips(root, base, folders), words, notices)


def _holds_another_word(folder: Path) -> bool:
    """Whether the first clip of a folder is called after another one, as in a backup's folders."""
    for split in reversed(SPLITS):  # the small parts first: one entry is all that is wanted
        if (folder / split).is_dir():
            with os.scandir(folder / split) as entries:
                names = (e.name for e in entries if e.name.endswith(".mp4") and e.name[0] != ".")
                if (first := next(names, None)) is not None:
                    return _word_of(first) != folder.name
    return False


def _word_of(name: str) -> str:
    return name.removesuffix(".mp4").rsplit("_", 1)[0]


def _find_base(root: Path) -> Path | None:
    level = [root]
    for _ in range(3):
        for folder in level:
            if any(True for _ in folder.glob("*/train/*_*.mp4")) or any(
                (child / split).is_dir() for child in _folders(folder) for split in SPLITS
            ):
                return folder
        level = [child for folder in level for child in _folders(folder)]
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")
        )
    except OSError:
        return []


def _clips(root: Path, base: Path, words: list[str]) -> Iterator[Clip]:
    for word in words:
        for split in SPLITS:
            folder = base / word / split
            if not folder.is_dir():
                continue
            shown = folder.relative_to(root).as_posix()
            found = {e.name for e in os.scandir(folder)}
            for name in sorted(name for name in found if name.endswith(".mp4")):
                if name.startswith("."):
                    continue
                stem = name[: -len(".mp4")]
                clip = Clip(
                    name=stem.replace(".", "_"),
                    group=split,
                    split=split,
                    label=word,
                    source=f"{shown}/{name}",
                    text=f"{shown}/{stem}.txt" if f"{stem}.txt" in found else None,
                )
                if _word_of(name) != word:
                    clip.status = "bad_name"
                    clip.error = f"{name} lies in the folder of {word}"
                yield clip


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """The clip's 29 pictures and its sound."""
    media = load_film(root / clip.source, settings)
    media.frames = checked(media.frames, clip, settings.frames)
    return media


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The word with its boundary in seconds.

    Raises:
        OSError: its text was listed and cannot be read, which says nothing of its content.
    """
    text = (root / clip.text).read_bytes() if clip.text else b""
    boundary = _boundary(text, num_frames / settings.fps, flags)
    return [(clip.label or "", *boundary)]


def load_film(
    path: Path, settings: Settings, start_s: float | None = None, end_s: float | None = None
) -> Media:
    """A film, or a span of it, as the settings want it read."""
    return stream_video(
        path, settings.fps, start_s, end_s, settings.decoder, settings.max_seconds,
        "optional" if settings.audio == "optional" else "required",
    )  # fmt: skip


def checked(frames: Iterable[np.ndarray], clip: Clip, wanted: int | None) -> Iterator[np.ndarray]:
    """The pictures of a clip; one with fewer or more of them than `wanted` is refused in the end.

    Raises:
        Refused: `short` or `long`.
    """
    found = 0
    for frame in frames:
        found += 1
        yield frame
    check_length(found, clip, wanted)


def check_length(found: int, clip: Clip, wanted: int | None) -> None:
    """Refuse a clip with fewer or more pictures than the corpus defines."""
    if wanted is not None and found != wanted:
        cause = "truncated file?" if found < wanted else "another cut of the corpus?"
        raise Refused(
            "short" if found < wanted else "long",
            f"{clip.source}: {found} frames, expected {wanted} ({cause})",
        )


def _boundary(
    text: bytes, clip_s: float, flags: set[str]
) -> tuple[float, float] | tuple[None, None]:
    """Start and end of the word, centred in the clip, from `Duration: 0.53 seconds`."""
    match = DURATION.search(text.decode("utf-8", "replace"))
    try:
        duration = float(match[1]) if match else -1.0
    except ValueError:
        duration = -1.0
    if b"\r\n" in text:
        flags.add("crlf")
    if not 0 < duration < 100:
        flags.add("no_boundary")
        return None, None
    if duration > clip_s:
        flags.add("boundary_clamped")
        duration = clip_s
    return round((clip_s - duration) / 2, 4), round((clip_s + duration) / 2, 4)
