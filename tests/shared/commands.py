"""Commands of avb in this process."""

from typing import NamedTuple

from typer.testing import CliRunner

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
