"""What a long command says of how far it is."""

import io
import sys
from unittest.mock import Mock

import pytest

from avb.tools import progress as told


def test_a_log_gets_lines_and_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A carriage return would make one endless line of a log file."""
    monkeypatch.setattr(told, "PACE", 0)
    for terminal in (False, True):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda seen=terminal: seen)
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(told.progress("clip", 3, over="abc")) == ["a", "b", "c"]
        text = stream.getvalue()
        assert ("\r" in text) == terminal
        if not terminal:
            lines = text.splitlines()
            assert all(lines) and "3/3" in lines[-1] and "clip/s" in lines[-1]


def test_nobody_left_to_read_it_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Mock(isatty=lambda: False, write=Mock(side_effect=BrokenPipeError))
    monkeypatch.setattr(told, "PACE", 0)
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(told.progress("clip", 3, over="abc")) == ["a", "b", "c"]
    assert stream.write.called


def test_a_quick_command_logs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line comes after ten seconds."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert sum(1 for _ in told.progress("clip", 3, over=range(3))) == 3
    assert stream.getvalue() == ""
