"""LRW: 500 English words of BBC television, 29 frames of 256 x 256 each, the word in the middle.

Expected tree: `lipread_mp4/WORD/{train,val,test}/WORD_00001.mp4` with a twin `.txt`; the folder
`lipread_mp4` may have another name, be the root itself, or be there several times.
488,766 / 25,000 / 25,000 clips.

Known defects and how they end: missing or odd `.txt` (kept, `no_boundary`), a word longer than
the clip (kept, `boundary_clamped`), truncated files (`short`, `bad_decode`), stray folders beside
the words (reported, never numbered). The sound is AAC: a full decode gives 19,456 samples after
its priming is skipped, of which the first 18,560 belong to the 29 pictures.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from avb.pipeline.clip.media import Expected, Media
from avb.pipeline.config import Corpus
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.corpora.leftover import LITTER, left_out, with_leftovers
from avb.pipeline.corpora.loading import load_film
from avb.pipeline.errors import UsageError
from avb.pipeline.settings import Settings

SPLITS = ("train", "val", "test")
PATTERN = "WORD/{train,val,test}/WORD_00001.mp4"
DURATION = re.compile(r"^\s*Duration\s*:\s*([-+\d.eE]+)", re.M)


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every mp4 below WORD/{train,val,test} in one or more places, from listings alone."""
    bases = _find_bases(root)
    if not bases:
        met = left_out(root) if root.is_dir() else ""
        raise UsageError(
            f"{root}: no LRW found; looked for {PATTERN} in it and two folders down"
            f" (give the folder that holds the word folders with --root){met and '; met '}{met}"
        )
    folders: list[Path] = []
    strays: list[str] = []
    foreign: set[str] = set()
    words: set[str] = set()
    for base in bases:
        for entry in sorted(os.scandir(base), key=lambda e: e.name):
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and entry.name not in LITTER and _splits(path):
                folders.append(path)
                known = _word_in(path) in (None, entry.name)  # also where its clips are gone
                (words if known else foreign).add(entry.name)
            else:
                strays.append(path.relative_to(bases[0] if len(bases) == 1 else root).as_posix())
    foreign -= words
    notices = [f"not word folders, left out: {', '.join(strays)}"] if strays else []
    if foreign:
        notices.append(f"clips of other words inside, not numbered: {', '.join(sorted(foreign))}")
    places = [base.relative_to(root).as_posix() for base in bases]
    layout = ", ".join(f"{'' if where == '.' else where + '/'}{PATTERN}" for where in places)
    clips = _clips(root, sorted(folders, key=lambda path: path.name))
    clips = with_leftovers(clips, root, notices)
    return Listing(root, layout, clips, sorted(words), notices, met=True)


def _splits(folder: Path) -> dict[str, Path]:
    """The folders train, val and test in a folder, however they are written."""
    folders = {
        entry.name.lower(): Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()
    }
    return {split: folders[split] for split in SPLITS if split in folders}


def _is_film(name: str) -> bool:
    return name.lower().endswith(".mp4") and not name.startswith(".")


def _word_in(folder: Path) -> str | None:
    """The word that clips in a folder are called after: its own, or another one, or None."""
    word = None
    for _, inside in reversed(_splits(folder).items()):
        # The small parts first: one entry is all that is wanted.
        with os.scandir(inside) as entries:
            for name in (e.name for e in entries if _is_film(e.name)):
                if (word := _word_of(name)) == folder.name:
                    return word
    return word


def _word_of(name: str) -> str:
    return PurePosixPath(name).stem.rsplit("_", 1)[0]


def _find_bases(root: Path) -> list[Path]:
    """Every folder that holds word folders: the root, or any that are one or two further down."""
    bases, level = [], [root] if root.is_dir() else []
    for _ in range(3):
        below: list[Path] = []
        for folder in level:
            inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
            inside = [p for p in sorted(inside) if p.name not in LITTER and p.name[0] != "."]
            if any(_word_in(path) is not None for path in inside):
                bases.append(folder)
            else:
                below += inside
        level = below
    return bases


def _clips(root: Path, words: list[Path]) -> Iterator[Clip]:
    for word in words:
        for split, folder in _splits(word).items():
            shown = folder.relative_to(root).as_posix()
            files = {entry.name for entry in os.scandir(folder)}
            texts = {name.lower(): name for name in files if name.lower().endswith(".txt")}
            for name in sorted(filter(_is_film, files)):
                stem = name[: -len(".mp4")]
                text = texts.get(f"{stem}.txt".lower())
                clip = Clip(
                    name=stem.replace(".", "_"),
                    group=split,
                    split=split,
                    label=word.name,
                    source=f"{shown}/{name}",
                    text=text and f"{shown}/{text}",
                )
                if _word_of(name) != word.name:
                    clip.status = "bad_name"
                    clip.error = f"{name} lies in the folder of {word.name}"
                yield clip


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """The clip's 29 pictures and its sound."""
    media = load_film(root / clip.source, settings)
    media.expected = Expected(clip.source, settings.frames)
    return media


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The word with its boundary in seconds."""
    text = (root / clip.text).read_bytes() if clip.text else b""
    boundary = _boundary(text, num_frames / settings.fps, flags)
    return [(clip.label or "", *boundary)]


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
