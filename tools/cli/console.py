"""What every command shares: lines for a person, results, faults as one line, exit codes.

Exit codes: 0 done and nothing refused, 1 failed, 2 wrong usage, 3 finished but some clips were
refused, 75 saved and stopped on a signal, 130 Ctrl-C (training is saved then too).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import typer

FAILED, USAGE, REFUSED, PREEMPTED, INTERRUPTED = 1, 2, 3, 75, 130


def say(text: str) -> None:
    """One line for a person, on stderr; stdout is for results.

    Work goes on where nobody is left to read it: the terminal was closed, or `2>&1 | head` ended.
    """
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def fail(text: str, code: int) -> NoReturn:
    """One clear line, and out."""
    say(f"avb: {text}")
    raise typer.Exit(code)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Turn the faults a user can mend into one line and the right exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        from avb.pipeline.errors import RunError, StorageError, UsageError

        try:
            refuse_addresses(kwargs.values())
            function(*args, **kwargs)
        except UsageError as error:
            fail(str(error), USAGE)
        except (RunError, StorageError) as error:
            fail(str(error), FAILED)
        except KeyboardInterrupt as stop:
            fail(str(stop) or "stopped", INTERRUPTED)

    return run


def refuse_addresses(given: Iterable[Any]) -> None:
    """An address typed where a file of this machine is wanted is said to be one, not absent.

    Raises:
        UsageError: there is one among the paths.
    """
    from avb.pipeline.errors import UsageError

    for value in given:
        if isinstance(value, list):
            refuse_addresses(value)
        # A path has lost one of the two slashes.
        elif isinstance(value, Path) and re.match("[a-z][a-z0-9+.-]+:/", str(value)):
            address = str(value).replace(":/", "://", 1)
            raise UsageError(
                f"{address}: an address, where a file or folder of this machine is wanted; copy it"
                " here and give its path"
            )


def show(record: dict[str, Any], as_json: bool) -> None:
    """A result on stdout: one JSON object, or one `name  value` line each."""
    import json

    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    for name, value in record.items():
        if isinstance(value, dict):
            shown = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items()]
            more = f", and {len(shown) - 40} more" if len(shown) > 40 else ""
            value = (", ".join(shown[:40]) or "-") + more
        elif isinstance(value, list):
            value = "; ".join(map(str, value)) or "-"
        elif isinstance(value, int):
            value = f"{value:,}"
        typer.echo(f"{name:>14}  {value}")
