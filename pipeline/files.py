"""Files that are written whole or not at all, locks, and what a disk says when it cannot."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from avb.pipeline.errors import RunError

#: What a disk says, also one of a network; any other OSError is a fault of the program and shows
#: itself as one.
DISK_FAULTS = {
    getattr(errno, name)
    for name in (
        "ENOSPC EDQUOT EACCES EPERM EROFS EIO EFBIG"
        " ESTALE ENOTCONN ESHUTDOWN ETIMEDOUT EREMOTEIO ENODEV ENXIO"
    ).split()
    if hasattr(errno, name)
}

#: There is no such file, whatever the disk is like.
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


def write_atomic(path: str | Path, data: bytes | bytearray | memoryview) -> None:
    """Write a file that is either the old one or all of `data`, whatever happens meanwhile."""
    with open_atomic(path) as file:
        file.write(data)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON for people and programs, whole or not at all."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode())


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path`, synced, when the block ends well."""
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            sync(file)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """A name of this process alone: the last worker of a killed run may still be writing."""
    return path.with_name(f"{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")


def sync(file: BinaryIO) -> None:
    """Bring what was written to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def publish(temporary: Path, path: Path) -> None:
    """Rename and make the rename itself durable."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Hold a lock file alone, as soon as nobody else does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(
    path: Path,
    guarded: object,
    busy: str,
    lock: Callable[[Any, int], None] = fcntl.flock,
    shared: bool = False,
) -> Iterator[TextIO]:
    """Hold a lock file, or share it; the lock goes with the process.

    RunError where it cannot be written, or another process holds it: `busy` is said of `guarded`,
    with what that one wrote into it as `{holder}`. `fcntl.lockf` is a lock that no child inherits.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise RunError(f"{guarded}: cannot be written ({error.strerror})") from None
    with file:
        try:
            lock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            file.seek(0)
            holder = file.read(200).strip()
            raise RunError(f"{guarded}: {busy.format(holder=holder)}") from None
        except OSError as error:
            raise RunError(f"{guarded}: cannot be locked ({error.strerror})") from None
        yield file
