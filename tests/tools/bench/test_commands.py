"""A fault that a user can mend is one line and exit 1 in every `avb bench`, as in `avb prep`."""

import importlib
from typing import Any
from unittest.mock import Mock

import pytest
from commands import avb

from avb.pipeline.errors import RunError
from avb.tools.bench.prep import bench_prep
from avb.tools.cli import bench

COMMANDS = {
    "prep": ("prep", "bench_prep", ["raw"]),
    "read": ("read", "bench_read", ["shards"]),
    "hours": ("prep", "bench_hours", ["raw"]),
    "train": ("train", "bench_train", ["lip"]),
}


def test_every_command_is_tried() -> None:
    known = {command.name for command in bench.app.registered_commands}
    assert known | {group.name for group in bench.app.registered_groups} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_cannot_go_on_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, words = COMMANDS[name]
    fail = Mock(side_effect=RunError("out of room; make some"))
    monkeypatch.setattr(importlib.import_module(f"avb.tools.bench.{module}"), function, fail)
    run = avb("bench", name, *words)
    assert (run.exit_code, run.stdout, run.stderr) == (1, "", "avb: out of room; make some\n")


def test_a_clip_that_cannot_be_decoded_is_refused_and_stops_nothing(drawn_grid: Any) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    record = bench_prep(drawn_grid.root, "grid", clips=40, rounds=1)
    assert record["clips"] >= 4 and record["refused"] >= 3
    assert 0 < record["decode_ms"] < record["prep_ms"]


def test_folders_of_pictures_are_decoded_alone_too(drawn_lrw1000: Any) -> None:
    record = bench_prep(drawn_lrw1000.root, "lrw1000", clips=1, rounds=1)
    assert record["clips"] == 1 and 0 < record["decode_ms"] < record["prep_ms"]
