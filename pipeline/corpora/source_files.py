"""The files of a clip: what was there when it was listed, and what a disk does to them later.

The rule: a file that was there when the plan was made and cannot be read when its clip's turn comes
is a fault of the disk or the network, never one of the clip. A file that was not there then is a
row of its clip, which is taken again when the file is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avb.pipeline.clip.status import Refused
from avb.pipeline.corpora.clip import Clip, Source
from avb.pipeline.errors import RunError
from avb.pipeline.files import ABSENT
from avb.pipeline.storage.store import Folder

#: What a disk or a network says of a file; any other OSError is a fault of the program.
FAULTS = ABSENT | {
    getattr(errno, name)
    for name in (
        "EACCES EPERM EIO ESTALE ENXIO ENODEV EREMOTEIO EUCLEAN ENOMEDIUM EBADMSG EHWPOISON"
        " ENOTCONN ESHUTDOWN ETIMEDOUT ECONNRESET ECONNABORTED ECONNREFUSED EPIPE"
        " EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET"
    ).split()
    if hasattr(errno, name)
}

#: Endings and flags that a failing disk can bring about as well as the clip itself.
DOUBTFUL = {
    *("bad_decode", "missing_audio", "missing_frames", "no_audio", "short", "unreadable"),
    *("damaged", "filled_frames", "one_frame_short"),
}

#: Of a larger file only so much at either end is read to see whether the disk gives it.
LOOK_BYTES = 32 << 20


class SourceFault(RunError):
    """A file that was there cannot be read: a fault of the unit, which is made again."""


def sources_of(root: Path, clip: Clip, met: bool = False) -> list[Source]:
    """Name, size and time of change of every file of a clip that is there.

    Where `met`, the listing came upon these files, and does not only name them: one that is gone
    now, and no link to nowhere either, went in between. SourceFault: so it is, or the disk does not
    say.
    """
    sources: list[Source] = []
    for name in filter(None, (clip.source, clip.audio, clip.text)):
        try:
            sources.append((name, *_stamp(root / name, whole=clip.start is None)))
        except ValueError:  # a name that no file has
            continue
        except OSError as error:
            if error.errno not in ABSENT or (met and not os.path.lexists(root / name)):
                raise SourceFault(f"{root / name}: {error.strerror} while it was listed") from None
    return sources


def _stamp(path: Path, whole: bool) -> tuple[int, int]:
    """Bytes and time of change; of a folder of which a clip is all, also those of its pictures.

    Folders that clips share, as in LRW-1000, hold too many: there it is the folder's own time.
    """
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, status.st_mtime_ns
    inside = []
    for entry in os.scandir(path) if whole else ():
        with contextlib.suppress(FileNotFoundError):  # a link to nowhere
            inside.append(entry.stat())
    times = (status.st_mtime_ns, *(entry.st_mtime_ns for entry in inside))
    return sum(entry.st_size for entry in inside), max(times)


def attempts(clip: Clip, root: Path) -> Iterator[Attempt]:
    """Contexts to prepare a clip in, one after another, until the disk had no part in its ending.

    An ending that a disk can bring about is believed when all files of the clip could be read after
    it and it comes again. A context raises what its body raised, but Refused where the first file
    that cannot be opened was none when listed, SourceFault where one that was there cannot be read.
    """
    for last in (False, True):
        attempt = Attempt(clip, root, last)
        yield attempt
        if not attempt.again:
            return


class Attempt:
    """One attempt; the body says what was odd in `flags`."""

    def __init__(self, clip: Clip, root: Path, last: bool) -> None:
        self.flags: list[str] = []
        self.again = False
        self._clip, self._root, self._last = clip, root, last

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        signs = set(self.flags)
        if isinstance(error, Refused):
            signs = {error.status}
        elif isinstance(error, OSError) and error.errno in FAULTS:
            signs = {"unreadable"}
        elif error is not None:
            return False
        if signs & DOUBTFUL and not self._last:
            _read(self._clip, self._root)
            self.again = True
            return True
        if isinstance(error, OSError):
            listed = any(name == self._clip.source for name, *_ in self._clip.sources or ())
            status = "bad_decode" if listed else "unreadable"
            raise Refused(status, f"{self._clip.source}: {error.strerror or error}") from None
        return False


def _read(clip: Clip, root: Path) -> None:
    """Read what was there of a clip when it was listed; SourceFault where that is not possible."""
    for name, *_ in clip.sources or ():
        try:
            where = root / name
            inside = where.is_dir()
            for path in filter(Path.is_file, where.iterdir()) if inside else (where,):
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
                    continue
                with path.open("rb") as file:
                    while file.read(1 << 20):
                        left = os.fstat(file.fileno()).st_size - file.tell()
                        if file.tell() >= LOOK_BYTES and left > LOOK_BYTES:
                            file.seek(-LOOK_BYTES, os.SEEK_END)
        except OSError as error:
            if error.errno not in FAULTS:
                raise
            where = error.filename or root / name
            raise SourceFault(
                f"{where}: {error.strerror}, though it was there when it was listed"
            ) from None


@contextmanager
def listing_faults_named(root: Folder) -> Iterator[None]:
    """Turn what the disk says of a corpus into one line: half a listing is none."""
    try:
        yield
    except OSError as error:
        if error.errno not in FAULTS:
            raise
        raise SourceFault(
            f"{error.filename or root}: {error.strerror}; {root} cannot be listed whole, and"
            " nothing was changed: mend it, or take it out of there"
        ) from None
