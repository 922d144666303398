"""Killed at random moments: no half file under a final name, and in the end the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avb.tools.synth import make

KILLS = 50


def run(raw: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["prep", "lrw", "--root", raw, "--out", out, "--shard-clips", "6", "--jobs", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "avb", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def hashes(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("lrw/*.tar")}


@pytest.mark.slow
def test_fifty_kills_leave_nothing_half_and_change_no_byte(tmp_path: Path) -> None:
    raw, calm, out = tmp_path / "raw", tmp_path / "calm", tmp_path / "out"
    make("lrw", raw, clips=120)
    start = time.monotonic()
    assert run(raw, calm).wait() == 0
    whole_run = time.monotonic() - start
    wanted = hashes(calm)
    rng = random.Random(0)
    kills = completed = 0
    seen_partial = False
    while kills < KILLS:
        process = run(raw, out)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * whole_run)
            completed += 1
            assert hashes(out) == wanted
            shutil.rmtree(out)
            continue
        except subprocess.TimeoutExpired:
            kills += 1
        if rng.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # only the parent: its workers must not go on writing into the next run
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        found = hashes(out)
        seen_partial |= 0 < len(found) < len(wanted)
        assert all(wanted[name] == value for name, value in found.items())
        for path in out.glob("lrw/dataset.json"):
            json.loads(path.read_text())
    assert seen_partial, "no kill fell into the work; the test proves nothing"
    assert run(raw, out).wait() == 0
    assert hashes(out) == wanted
    assert not list((out / "lrw").rglob("*.tmp"))
