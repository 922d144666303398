"""How far a command is: a bar on a terminal, elsewhere a line every ten seconds."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tqdm import tqdm

PACE = 10.0  # seconds between the lines of a log, and before the first


class _Lines:
    """A file for tqdm, which begins each state with a carriage return: here each is a line."""

    def write(self, text: str) -> None:
        if state := text.strip():
            with suppress(OSError):  # nobody is left to read it
                sys.stderr.write(state + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    unit: str, total: int | None = None, quiet: bool = False, over: Iterable[Any] | None = None
) -> Any:
    """A tqdm on stderr: what is done, units a second, time left; `over` is iterated under it."""
    looks: dict[str, Any] = {"dynamic_ncols": True}
    if not sys.stderr.isatty():
        looks = {"file": _Lines(), "mininterval": PACE, "delay": PACE, "ncols": 0}
    return tqdm(over, unit=unit, total=total, disable=quiet, **looks)
