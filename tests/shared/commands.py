"""Commands of avb in this process, and how they and calls end."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from avb.pipeline.errors import UsageError
from avb.tools.cli import app


class Done(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def avb(*words: object) -> Done:
    """Run one; what is no end of a command but a fault of the program is raised."""
    run = CliRunner().invoke(app, [str(word) for word in words])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return Done(run.exit_code, run.stdout, run.stderr)


def did(*words: object) -> Done:
    """How one ended that has to succeed."""
    done = avb(*words)
    assert done.exit_code == 0, done.output
    return done


def refused(*words: object, code: int = 2) -> str:
    """The one line in which a command says why it ends with this code."""
    done = avb(*words)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    [line] = done.stderr.splitlines()
    assert line.startswith("avb: "), line
    return line


def fault(call: Callable[..., object], *given: Any, **more: Any) -> str:
    """The one line in which a call says that what was asked for cannot be."""
    with pytest.raises(UsageError) as raised:
        call(*given, **more)
    line = str(raised.value)
    assert line.isprintable() and len(line) < 600, line
    return line
