"""`avb demo`: the commands that it types."""

import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
from commands import did
from importers import touch


def test_each_command_has_the_options_before_it_and_its_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Mock(return_value=Mock(returncode=0))
    monkeypatch.setattr(subprocess, "run", run)
    out, datasets, log = (tmp_path / name for name in ("a[1] *", "own.yaml", "demo.log"))
    films = touch(out / "raw/unseen", "s1/b.mpg", "s2/a.mpg")
    did("--datasets", datasets, "--log-file", log, "demo", "--out", out)
    typed = [call.args[0][3:] for call in run.call_args_list]
    assert len(typed) > 10
    for words in typed:
        assert words[:4] == ["--datasets", str(datasets), "--log-file", str(log)]
    read = [words[4:8] for words in typed if words[4] == "infer"]
    clips = [str(films / name) for name in ("s1/b.mpg", "s2/a.mpg")]
    assert read == [["infer", "lip", *clips], ["infer", "l2s", *clips]]
