"""What is seen to before hours are spent: modules, folders, room on the disk."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avb.pipeline.errors import UsageError

_ROOM = 1 << 16  # bytes that a disk must have left for a result
_PACKAGES = {"sklearn": "scikit-learn"}  # modules that are called otherwise on the index


def need(*modules: str) -> None:
    """See that modules of an extra are there before hours are spent; UsageError if not."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        packages = " ".join(_PACKAGES.get(name, name) for name in absent)
        raise UsageError(f"{' and '.join(absent)} not installed: pip install {packages}")


def make_folder(folder: Path) -> None:
    """Make a folder for results, with those above it; UsageError: it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror})") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around the writing of a result; UsageError: the disk refuses it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


def check_writable(path: Path) -> None:
    """See that a result can be written, before the minutes it takes: its folder is made, and room.

    If not, the `UsageError` says what the disk says.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_ROOM))
