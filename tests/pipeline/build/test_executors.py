"""Worker processes of this machine: what one of them dies of costs one row, and no byte beside."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import prepared
import pytest
from prepared import hashes, rewrite, rows, running, wait_for

from avb.pipeline.build import executors
from avb.pipeline.build.unit import Task, run_unit
from avb.pipeline.errors import RunError


@pytest.fixture(scope="module")
def calm(good_lrw: Path, faults: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calm")
    assert prep(good_lrw, out, faults).returncode == 0
    return out


def words(raw: Path, out: Path, *more: str) -> list[object]:
    return ["prep", "lrw", "--root", raw, "--out", out, "--shard-clips", 6, "--jobs", 2, *more]


def prep(raw: Path, out: Path, faults: Any, *more: str) -> subprocess.CompletedProcess[str]:
    return prepared.run(*words(raw, out, *more), env=faults.environment)


@pytest.mark.parametrize(
    ("faulty", "status", "says"),
    [
        (("segfault", "no-memory"), "crashed", "its worker died"),
        pytest.param(("hang", "hang"), "timeout", "--clip-timeout", marks=pytest.mark.slow),
    ],
)
def test_a_clip_that_kills_its_decoder_or_hangs_is_one_row_and_changes_no_other_byte(
    good_lrw: Path, calm: Path, faults: Any, tmp_path: Path,
    faulty: tuple[str, str], status: str, says: str,
) -> None:  # fmt: skip
    bad = ("val/ABOUT_00001", "train/BUSINESS_00001")
    for fault, key in zip(faulty, bad, strict=True):
        faults.at(fault, key)
    faults.environment["AVB_TEST_HANG"] = tmp_path.name
    run = prep(good_lrw, tmp_path, faults, "--clip-timeout", "10")
    faults.table.write_text("")
    assert run.returncode == 3, run.stderr
    ended = {row["key"]: row for row in rows(tmp_path)}
    assert len(rows(tmp_path)) == len(rows(calm)) == len(ended)
    left = {key for key, row in ended.items() if row["status"] == status}
    assert left == set(bad) and all(says in ended[key]["error"] for key in bad)
    (tmp_path / "without" / "lrw").mkdir(parents=True)
    rewrite(calm / "lrw", tmp_path / "without" / "lrw",
            lambda row, members: row["key"] in left and members.clear())  # fmt: skip
    assert hashes(tmp_path) == hashes(tmp_path / "without")
    assert not list((tmp_path / "lrw").rglob("*.tmp"))
    assert not running("environ", f"AVB_TEST_HANG={tmp_path.name}")
    # Mended, they are taken again.
    assert prep(good_lrw, tmp_path, faults, "--retry-failed").returncode == 0
    assert hashes(tmp_path) == hashes(calm)


def test_a_machine_that_does_not_see_the_folders_says_so_and_refuses_no_clip(
    good_lrw: Path, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avb.pipeline.build.unit.WAITS_S", ())
    folder = calm / "lrw"
    plan = folder / ".avb" / "plan.arrow"
    before = hashes(calm)
    with pytest.raises(RunError, match="nowhere is not there on .* every machine must see"):
        list(run_unit(Task(tmp_path / "nowhere", folder, 0)))
    good_lrw.rename(good_lrw.with_name("away"))
    try:
        with pytest.raises(RunError, match=f"{good_lrw} is not there on "):
            list(run_unit(Task(plan, folder, 0)))
    finally:
        good_lrw.with_name("away").rename(good_lrw)
    assert hashes(calm) == before and all(run_unit(Task(plan, folder, 0)))


def test_a_clip_is_not_blamed_for_a_machine_that_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds count from one look to the next: where somebody looked, and the clip could run."""
    now = [100.0]
    monkeypatch.setattr(executors.time, "monotonic", lambda: now[0])
    watch = executors._Watch()

    def seconds(passed: float, *counts: int, queued: float = 0.0) -> float:
        now[0] += passed
        return watch.seconds((counts[0], 0, counts[1]), queued)

    assert seconds(0, 0, 1) == 0
    assert [seconds(0.5, 0, 1) for _ in range(4)] == [0.5, 1, 1.5, 2]
    assert seconds(3600, 0, 1) == 3  # nobody looked
    assert seconds(0.5, 0, 2) == 0 and seconds(0.5, 0, 2) == 0.5  # tried again
    assert seconds(0.5, 1, 3) == 0 and seconds(0.5, 1, 3) == 0.5  # the next one
    assert seconds(0.5, 2, 0) == seconds(0.5, 2, 0) == 0  # between clips, as when a shard is sent
    assert seconds(0.5, 3, 4) == 0 and seconds(0.5, 3, 4, queued=0.25) == 0.25
    assert seconds(0.5, 3, 4, queued=0.75) == 0.25  # others had the processor


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell")
def test_a_process_waits_while_another_has_its_processor() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    core = str(min(os.sched_getaffinity(0)))
    words = ["taskset", "-c", core, sys.executable, "-c", spin]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen(words, **pipes) for _ in range(2)]
    for process in both:
        process.stdout.read(1)  # type: ignore[union-attr]
    waited = [executors.queued(process.pid) for process in both]
    for process in both:
        process.communicate(b"\n")
    # Both began before either had its .3 s.
    assert max(waited) > 0.1 and executors.queued(both[0].pid) == 0


def test_a_clip_is_not_blamed_for_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of units of one clip each, the counts of two that follow each other are the same."""
    now = itertools.count(100.0)
    monkeypatch.setattr(executors.time, "monotonic", lambda: next(now))
    worker = executors.Worker()
    worker.pool = Mock(_processes={})
    for number in range(3):
        task = Task(Path("plan"), Path("out"), number, limit_s=5)
        worker.submit(task)
        worker.counts[:] = (0, 0, 1)
        assert [worker.report(task).state for _ in range(6)] == ["running"] * 6
    assert worker.report(task).state == "hung"


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    good_lrw: Path, calm: Path, faults: Any, tmp_path: Path
) -> None:
    faults.at("once", "train/ABOUT_00001")
    for jobs in ("1", "2"):
        fell = Path(f"{faults.table}.fell")
        run = prep(good_lrw, tmp_path / jobs, faults, "--jobs", jobs)
        assert fell.is_dir(), "no worker was killed; the test proves nothing"
        fell.rmdir()
        assert run.returncode == 0, run.stderr
        assert hashes(tmp_path / jobs) == hashes(calm)
    faults.table.write_text("")


@pytest.mark.slow
def test_nothing_outlives_a_run_that_is_stopped(
    good_lrw: Path, faults: Any, tmp_path: Path
) -> None:
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)):
        mark = f"AVB_TEST_RUN={tmp_path.name}-{sent}"
        name, value = mark.split("=")
        faults.environment[name] = value
        out = tmp_path / str(sent)
        process = prepared.start(*words(good_lrw, out), env=faults.environment)
        wait_for(lambda at=out: list(at.glob("lrw/*.tmp")), 120)  # a worker is at its first shard
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)  # a worker left alone would hold the pipe
        assert process.returncode == code
        assert sent != signal.SIGINT or "stopped; run the same command again" in errors
        wait_for(lambda run=mark: not running("environ", run))
