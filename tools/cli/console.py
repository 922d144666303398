"""What every command shares: lines for a person, results, faults as one line, exit codes.

Exit codes: 0 done and nothing refused, 1 failed, 2 wrong usage, 3 finished but some clips were
refused, 75 saved and stopped on a signal, 130 Ctrl-C (training is saved then too).
"""

import contextlib
import functools
import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from avb.pipeline.errors import RunError, StorageError, UsageError, one_line
from avb.pipeline.files import DISK_FAULTS

FAILED, USAGE, REFUSED, PREEMPTED, INTERRUPTED = 1, 2, 3, 75, 130
log = logging.getLogger("avb")


class Readable(logging.Formatter):
    """No letter commands a terminal, and of what names in files make endless ends are left."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        lines = super().format(record).split("\n")
        ends = [x if len(x) <= 700 else f"{x[:400]} ... {x[-250:]}" for x in lines]
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in ends)


class Terminal(logging.Handler):
    """Bare lines on stderr, also where nobody is left to read it; stdout is for results."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with contextlib.suppress(OSError):
            typer.echo(self.format(record), err=True)


def start_log(context: typer.Context, file: Path | None) -> None:
    """Lines of avb's loggers go to the terminal, and with time and level to `file` too."""
    log.setLevel(logging.INFO)
    if not log.handlers:
        terminal = Terminal()
        terminal.setFormatter(Readable())
        log.addHandler(terminal)
    if file is None:
        return
    try:
        handler = logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        fail(f"--log-file {file}: cannot be written ({error.strerror})", USAGE)
    handler.setFormatter(Readable("%(asctime)s %(levelname)s %(message)s"))
    logging.raiseExceptions = False  # a full disk of the log does not fill the terminal
    log.addHandler(handler)

    @context.call_on_close
    def _stop() -> None:
        log.removeHandler(handler)
        handler.close()


def before_command(datasets: Path | None) -> list[str]:
    """The options that were typed before a command, for the commands that it runs."""
    top = ["--datasets", str(datasets)] if datasets else []
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            top += ["--log-file", handler.baseFilename]
    return top


def say(text: str) -> None:
    """One line for a person, on stderr."""
    log.info(text)


def fail(text: str, code: int) -> NoReturn:
    """One clear line, and out."""
    log.error("avb: %s", text)
    raise typer.Exit(code)


class Commands(TyperGroup):
    """All commands: what goes wrong and a user can mend is one line and the right exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            more = f" ({error.ctx.command_path} --help)" if error.ctx else ""
            fail(error.format_message().replace("Value error, ", "") + more, USAGE)
        except UsageError as error:
            fail(str(error), USAGE)
        except (RunError, StorageError) as error:
            fail(str(error), FAILED)
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise
            where = error.filename or "stdout, or a temporary file"
            fail(f"{where}: {error.strerror}", FAILED)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            fail(f"a process that decodes was lost ({one_line(error)}): was memory short? Run again"
                 " when there is more; a training goes on with --resume", FAILED)  # fmt: skip
        except KeyboardInterrupt as stop:
            fail(str(stop) or "stopped", INTERRUPTED)


class App(typer.Typer):
    """A group of commands."""

    def __init__(self, **given: Any) -> None:
        super().__init__(no_args_is_help=True, **given)

    def command(self, name: str | None = None, **given: Any) -> Any:
        """As `typer.Typer.command`; paths that are addresses and endless numbers are refused."""
        add = super().command(name, **given)

        def register(function: Callable[..., None]) -> Callable[..., None]:
            @functools.wraps(function)
            def run(*context: Any, **options: Any) -> None:
                for option, value in options.items():
                    refuse_addresses(value)
                    if isinstance(value, float) and not math.isfinite(value):
                        flag = "--" + option.replace("_", "-")
                        raise UsageError(f"{flag} {value}: expected a number that has an end")
                function(*context, **options)

            add(run)
            return function

        return register

    def variant(self, name: str, function: Callable[..., None], text: str, /, **fixed: Any) -> None:
        """A command `name` with the options of `function` but those that are `fixed`."""
        signature = inspect.signature(function, eval_str=True)
        left = [one for one in signature.parameters.values() if one.name not in fixed]

        def run(**given: Any) -> None:
            function(**given, **fixed)

        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        self.command(name, help=text)(run)


def refuse_unused(context: typer.Context, why: str, *names: str) -> None:
    """Refuse those of these options that were typed; `why` says what they have no effect with."""
    for option in context.command.params:
        source = option.name in names and context.get_parameter_source(option.name)
        if source and source.name == "COMMANDLINE":
            raise UsageError(f"{option.opts[0]}: has no effect {why}; leave it out")


def refuse_addresses(given: Any) -> None:
    """Refuse a path, or paths in lists, that is an address: it is one, not an absent file."""
    if isinstance(given, list | tuple):
        for value in given:
            refuse_addresses(value)
    # A path has lost one of the two slashes.
    elif isinstance(given, Path) and re.match("[a-z][a-z0-9+.-]+:/", str(given)):
        address = str(given).replace(":/", "://", 1)
        raise UsageError(
            f"{address}: an address, where a file or folder of this machine is wanted; copy it"
            " here and give its path"
        )


def to_json(record: dict[str, Any]) -> str:
    """One line of JSON; the name of a file in it may be no text."""
    text = json.dumps(record, ensure_ascii=False, default=float)
    return text.encode("utf-8", "replace").decode()


def print_json(record: dict[str, Any]) -> None:
    """A record on stdout."""
    typer.echo(to_json(record))


def show(record: dict[str, Any], as_json: bool, lines: Iterable[str] | None = None) -> None:
    """A result on stdout: one JSON object, or `lines`, else one `name  value` line each."""
    if as_json:
        print_json(record)
        return
    for line in fields(record) if lines is None else lines:
        typer.echo(line)


def fields(record: dict[str, Any]) -> Iterator[str]:
    """A line for each value of a record."""
    for name, value in record.items():
        if isinstance(value, dict):
            shown = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items()]
            more = f", and {len(shown) - 40} more" if len(shown) > 40 else ""
            value = (", ".join(shown[:40]) or "-") + more
        elif isinstance(value, list):
            value = "; ".join(map(str, value)) or "-"
        elif isinstance(value, int):
            value = f"{value:,}"
        yield f"{name:>14}  {value}"
