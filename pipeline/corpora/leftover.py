"""What lies below a root and was not taken: nothing is left out in silence.

Counted by folder and ending, so that memory does not grow with the clips.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from avb.pipeline.corpora.clip import Clip

VIDEOS = set(
    ".3gp .asf .avi .divx .dv .f4v .flv .m1v .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf"
    " .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv".split()
)
SOUNDS = set(".aac .aif .aiff .flac .m4a .mp2 .mp3 .oga .ogg .opus .wav .wma".split())
PICTURES = set(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
ARCHIVES = set(".7z .bz2 .gz .rar .tar .tbz .tgz .txz .xz .z .zip .zst".split())
#: A piece of an archive that was cut: lrw-v1-partaa, corpus.zip.001, s1.z01.
PIECE = re.compile(r"(?:[-_.]part[-_.]?(?:[a-z]{2}|\d+)|\.z?\d{2,3})$", re.I)
#: Folders of archivers and systems, some of which nobody may open; so are those with a dot.
LITTER = {"__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir"}


def walk(
    root: Path, skip: Collection[str] = ()
) -> Iterator[tuple[PurePosixPath, list[str], list[str]]]:
    """As `os.walk`, in order, once through links and not into `skip`; paths below the root."""

    def fails(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fails):
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        real = os.path.realpath(folder)
        if real in seen or str(here) in skip:  # a link back up, or a second one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if f not in LITTER and not f.startswith("."))
        yield here, folders, sorted(file for file in files if not file.startswith("."))


def with_leftovers(
    clips: Iterable[Clip],
    root: Path,
    notices: list[str],
    known: Callable[[PurePosixPath], bool] = lambda path: False,
    skip: Collection[str] = (),
) -> Iterator[Clip]:
    """The clips, then a notice of the media files that are none of them, nor `known` otherwise."""
    taken: Counter[tuple[str, str]] = Counter()
    for clip in clips:
        source = PurePosixPath(clip.source)
        taken[str(source.parent), source.suffix.lower()] += 1
        yield clip
    left = left_out(root, taken, known, skip)
    if left:
        notices.append(f"not taken: {left}")


def left_out(
    root: Path,
    taken: Counter[tuple[str, str]] | None = None,
    known: Callable[[PurePosixPath], bool] = lambda path: False,
    skip: Collection[str] = (),
) -> str:
    """Media files that are more than were taken in their folder with their ending, in a line."""
    by_kind: dict[str, Counter[str]] = {}
    taken = taken or Counter()
    for folder, _, files in walk(root, skip):
        kinds = Counter(kind for f in files if (kind := _kind(f)) and not known(folder / f))
        for kind, count in kinds.items():
            more = count - taken[str(folder), kind]
            if more > 0:
                by_kind.setdefault(kind, Counter())[str(folder)] += more
    parts = []
    for kind, folders in sorted(by_kind.items(), key=lambda item: -item[1].total()):
        first, others = min(folders), len(folders) - 1
        where = first + (f" and {others} more folders" if others else "")
        parts.append(f"{folders.total():,} {kind} in {where}")
    return "; ".join(parts)


def _kind(name: str) -> str:
    """The ending of a media file in small letters, "" of any other."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in VIDEOS | SOUNDS | PICTURES | ARCHIVES:
        return suffix
    return "piece of an archive" if PIECE.search(name) else ""
