"""Killed at random moments: no half file under a final name, and in the end the same bytes."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from prepared import hashes, rows, start

from avb.tools.synth import make

KILLS = 50


def run(raw: Path, out: Path) -> subprocess.Popen[str]:
    words = ("prep", "lrw", "--root", raw, "--out", out, "--shard-clips", 6, "--jobs", 2)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return start(*words, **quiet, start_new_session=True)


@pytest.mark.slow
def test_fifty_kills_leave_nothing_half_and_change_no_byte(tmp_path: Path) -> None:
    raw, calm, out = tmp_path / "raw", tmp_path / "calm", tmp_path / "out"
    make("lrw", raw, clips=120)
    begun = time.monotonic()
    assert run(raw, calm).wait() == 0
    whole_run = time.monotonic() - begun
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


RUN = """
import os, traceback
from avb.pipeline.build import unit
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import RunError, UsageError
from avb.pipeline.build.prep import prep
from avb.pipeline.settings import settings_for

unit.WAITS_S = (0.1, 0.2, 0.4)
corpus = load_corpora()["lrw"]
code = 0
try:
    prep(corpus, settings_for("lrw", corpus, shard_clips=4), raw, out)
except (UsageError, RunError) as error:
    code = 2 if isinstance(error, UsageError) else 1
except Exception:
    code = 99
    said.write_text(traceback.format_exc())
os._exit(code)
"""


@pytest.fixture
def forked() -> Callable[[Path, Path, Path], BaseProcess]:
    """Starts a run in a process that need not import anything, for a hundred of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avb.pipeline.build.unit", "torch", "cv2", "pyarrow.parquet"])

    def start(raw: Path, out: Path, said: Path) -> BaseProcess:
        process = context.Process(target=exec, args=(RUN, {"raw": raw, "out": out, "said": said}))
        process.start()
        return process

    return start


def ended(process: BaseProcess, within_s: float) -> int | None:
    """The exit code of a process that ends in time."""
    process.join(within_s)
    return process.exitcode


def complete(out: Path) -> dict[str, tuple[str, bool]]:
    """Of a folder that says it is complete: ending of each clip, and whether its word has times."""
    if not (out / "lrw" / "dataset.json").is_file():
        return {}
    return {row["key"]: (row["status"], row["words"] and row["words"][0]["start"] is not None)
            for row in rows(out)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_with_sources_that_disappear_lose_nothing(
    tmp_path: Path, forked: Any, seed: int
) -> None:
    """Something of the corpus goes before or while it is listed or read; some of it comes back."""
    raw, calm, out, said = (tmp_path / name for name in ("raw", "calm", "out", "said"))
    make("lrw", raw, clips=24)
    start = time.monotonic()
    assert ended(forked(raw, calm, said), 600) == 0, said.read_text()
    whole_run = time.monotonic() - start
    wanted, finished = hashes(calm), complete(calm)
    assert len(finished) == 24 and set(finished.values()) == {("ok", True)}
    rng = random.Random(seed)
    films = sorted(raw.rglob("*.mp4"))
    kills, codes = 0, Counter[int]()
    while kills < 25:
        film = rng.choice(films)
        path = rng.choice([film, film.with_suffix(".txt"), *film.parents[:3], raw])
        hidden = path.with_name(f".{path.name}.away")
        comes_back = rng.random() < 0.5
        before = complete(out)
        process = forked(raw, out, said)
        code = ended(process, rng.uniform(0, 0.7) * whole_run)
        path.rename(hidden)
        if code is None:
            code = ended(process, rng.uniform(0.02, 0.4) * whole_run)
        if comes_back:
            hidden.rename(path)
        if code is None:
            code = ended(process, rng.uniform(0, 0.6) * whole_run)
        if code is None:
            process.kill()
            process.join()
            kills += 1
        else:
            codes[code] += 1
            assert code in (0, 1, 2), said.read_text()
        if not comes_back:
            hidden.rename(path)
        now = complete(out)
        # Once complete, no clip goes; and no row says that a clip is at fault for a disk. A text
        # that was not there when the corpus was listed is one that the clip has not got.
        assert not now or now.keys() >= before.keys()
        odd = {key for key, row in now.items() if row not in (("ok", True), before.get(key))}
        assert not odd or (path.suffix == ".txt" and odd == {f"{film.parent.name}/{film.stem}"})
        if code == 0 and hashes(out) == wanted:
            shutil.rmtree(out)
    assert ended(forked(raw, out, said), 600) == 0, said.read_text()
    assert hashes(out) == wanted and complete(out) == finished
    assert not list((out / "lrw").rglob("*.tmp"))
    print(f"{kills} kills; ended by themselves, by exit code: {dict(codes)}")  # noqa: T201
