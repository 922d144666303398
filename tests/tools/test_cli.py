"""The command line as it is typed: lines and their log file, faults, help, completion."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner, Result

from avb.tools.cli import app


def avb(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_log_file_has_the_lines_of_the_terminal_with_time_and_level(tmp_path: Path) -> None:
    log = tmp_path / "avb.log"
    for _ in range(2):
        done = avb("--log-file", log, "stats", tmp_path / "none")
        assert done.exit_code == 2 and done.stderr == f"avb: {tmp_path}/none: no such folder\n"
    first, second = log.read_text().splitlines()
    assert re.fullmatch(r"[-\d]+ [:,\d]+ ERROR avb: .*/none: no such folder", first)
    assert second.endswith(" ERROR " + done.stderr[:-1])


def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = avb("--log-file", tmp_path, "stats", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"avb: --log-file {tmp_path}: cannot be written (Is a directory)\n"
