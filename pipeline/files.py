"""Files that are written whole or not at all, and what a disk says when it cannot."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: What a disk says; any other OSError is a fault of the program and shows itself as one.
DISK_FAULTS = {
    getattr(errno, name) for name in "ENOSPC EDQUOT EACCES EPERM EROFS EIO EFBIG".split()
}


#: There is no such file, whatever the disk is like.
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


def write_atomic(path: str | Path, data: bytes | bytearray | memoryview) -> None:
    """Write a file that is either the old one or all of `data`, whatever happens meanwhile."""
    with open_atomic(path) as file:
        file.write(data)


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
