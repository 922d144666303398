"""Promise: cores and memory are counted where the system has other ways to say them."""

import os
import resource
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from commands import avb

from avb.pipeline import machine
from avb.pipeline.clip.facemodels import VARIABLE
from avb.pipeline.errors import UsageError
from avb.pipeline.storage.cache import the_cache


def test_cores_are_those_of_the_process_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert machine.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert before * unit <= machine.peak_bytes() < before * unit * 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is free")
@pytest.mark.parametrize(("limit", "free"), [("1000000", 700_000), ("max", None)])
def test_what_a_container_has_read_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, free: int | None
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nactive_file 200000\ninactive_file 400000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.free_memory() == free or (free is None and machine.free_memory() > 1e6)


@pytest.mark.parametrize(("quota", "most"), [("150000", 1), ("50000", 1), ("max", None)])
def test_a_container_has_the_cores_of_its_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, most: int | None
) -> None:
    here = machine.cores()
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.cores() == (most or here)


@pytest.mark.parametrize("where", ["~nosuchuser/cache", "~/cache"])
def test_the_home_of_a_user_that_is_not_here_is_one_line(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A container may run as a number that has no name, and so no home but what HOME says."""
    monkeypatch.setenv("AVB_CACHE", where)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError))
    for name in ("HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    run = avb("models", "fetch")
    assert run.exit_code == 2
    line = run.stderr.splitlines()[-1]
    assert f"{where}: no such user or home" in line and "set HOME" in line
    with pytest.raises(UsageError, match=f"{where}: no such user"):
        the_cache()
