"""The vocabulary of the pipeline: what a listed clip is, and every way it can end."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from avb.pipeline.storage.store import Folder

#: One spoken word: what, start and end in seconds of the clip (None where not known).
Word = tuple[str, float | None, float | None]


#: A file of a clip: its name below the root, its bytes, its time of change in nanoseconds.
Source = tuple[str, int, int]


@dataclass(slots=True)
class Clip:
    """One listed input clip, as a corpus adapter finds it without opening it.

    `source`, `audio` and `text` are paths relative to the root in POSIX form: the video file or
    folder of pictures, the separate sound, the annotation.
    """

    name: str
    group: str
    source: str
    split: str | None = None
    speaker: str | None = None
    label: str | None = None
    audio: str | None = None
    text: str | None = None
    start: float | None = None  # in seconds of the source
    end: float | None = None  # None: to its end
    words: list[Word] = field(default_factory=list)
    status: str = ""  # of a clip that the listing alone refuses
    error: str = ""
    flags: list[str] = field(default_factory=list)
    sources: list[Source] | None = None  # files there when the plan was made; None: not known
    lag_ms: float | None = None  # the sound is so late, by the table of --sync; None: not sure


@dataclass
class Listing:
    """What discovery found; `clips` is consumed once, and only then `labels` is complete.

    Of several clips of one group and name all but the first are refused as `duplicate`, unless
    `twins_kept`: then those that differ in anything are clips like any other, each with a hash of
    its film and span, or of all that is said of it, behind its name: `name-1f3a9c2e`.
    """

    root: Folder
    layout: str  # in words
    clips: Iterator[Clip]
    labels: list[str]  # the classes, in label order
    notices: list[str] = field(default_factory=list)  # for the user
    twins_kept: bool = False
    met: bool = False  # whether it came upon the files of its clips, and does not only name them


#: What of a clip may come from names of files, which may be of any bytes.
TEXTS = ("name", "group", "source", "split", "speaker", "label", "audio", "text")


def refuse_name(clip: Clip) -> None:
    """Refuse a clip of a file whose name is no UTF-8, as what is stored of it has to be."""
    files = clip.source, clip.audio, clip.text
    odd = next((file for file in files if file and file != written_out(file)), clip.source)
    for name in TEXTS:
        setattr(clip, name, written_out(getattr(clip, name) or "") or None)
    clip.status = "bad_name"
    clip.error = f"{written_out(odd)}: a name that is no UTF-8; rename it"
    clip.sources = []


def written_out(text: str) -> str:
    """A name of a file, with its bytes that are no UTF-8 as backslash, x and two digits."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
