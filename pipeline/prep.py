"""`avb prep`: plan, run the units that are missing, account for every clip."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avb.pipeline.account import write_dataset, write_manifest
from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.plan import Plan, Settings, make_plan, read_plan
from avb.pipeline.unit import finished, rows_path


class PrepError(Exception):
    """The run could not go on; finished shards are kept, and the line says what to do (exit 1)."""


@dataclass(frozen=True)
class Summary:
    """The outcome of a run, as `--json` prints it."""

    corpus: str
    listed: int
    ok: int
    status: dict[str, int]
    flags: dict[str, int]
    seconds: float
    clips_per_s: float
    out: str
    made: int
    notices: list[str]


def prep(
    corpus: Corpus,
    settings: Settings,
    root: Path,
    out: Path,
    *,
    jobs: int = 1,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> Summary:
    """Make what is missing of `out/<corpus>/` and account for every listed clip.

    Args:
        progress: called with (clips done, refused, to do) about four times a second.

    Raises:
        UsageError: nothing is found, the folder holds other settings, or another run holds it.
        PrepError: a worker died or the disk refused; what is finished is kept.
    """
    start = time.perf_counter()
    folder = out / settings.corpus
    with _held(folder):
        plan = _settle(corpus, settings, root, folder, overwrite)
        todo = _missing(folder, plan, retry_failed)
        if todo or not (folder / "dataset.json").is_file():
            # dataset.json says "complete", so it goes first and comes back last.
            (folder / "dataset.json").unlink(missing_ok=True)
            _clean(folder, plan)
            made = _run(plan, folder, todo, jobs, progress)
            write_manifest(folder, plan)
            record = write_dataset(folder, plan, corpus, time.perf_counter() - start)
        else:
            made = 0
            record = json.loads((folder / "dataset.json").read_text())
    seconds = time.perf_counter() - start
    counts = record["counts"]
    return Summary(
        corpus=settings.corpus,
        listed=counts["listed"],
        ok=counts["ok"],
        status=counts["status"],
        flags=counts["flags"],
        seconds=round(seconds, 2),
        clips_per_s=round(made / seconds, 2),
        out=str(folder),
        made=made,
        notices=plan.notices,
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the output folder against a second run; the lock goes with the process."""
    hidden = folder / ".avb"
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        lock = (hidden / "lock").open("w")
    except OSError as error:
        raise PrepError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PrepError(f"{folder}: another run is writing here; wait for it") from None
        yield


def _settle(corpus: Corpus, settings: Settings, root: Path, folder: Path, overwrite: bool) -> Plan:
    """A fresh plan for the folder, refused if the folder was made with other settings."""
    path = folder / ".avb" / "plan.parquet"
    if overwrite:
        _empty(folder)
    elif path.is_file():
        difference = settings.difference(read_plan(path).settings)
        if difference:
            raise UsageError(
                f"{folder} was made with other settings ({'; '.join(difference)});"
                " give them again, another --out, or --overwrite"
            )
    elif any(folder.glob("*.tar")):
        raise UsageError(f"{folder}: holds shards but no plan of this tool; give another --out")
    return make_plan(corpus, settings, root, path)


def _empty(folder: Path) -> None:
    """Remove what an earlier run made; other files are left alone."""
    (folder / "dataset.json").unlink(missing_ok=True)
    (folder / "manifest.parquet").unlink(missing_ok=True)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    shutil.rmtree(folder / ".avb" / "rows", ignore_errors=True)
    (folder / ".avb" / "plan.parquet").unlink(missing_ok=True)


def _missing(folder: Path, plan: Plan, retry_failed: bool) -> list[int]:
    """Numbers of the units to make: those not finished, with `retry_failed` those with refusals."""
    todo = []
    for unit in plan.units:
        done = finished(folder, unit)
        if done is None or (retry_failed and set(done["statuses"]) - {"ok", "duplicate"}):
            todo.append(unit.number)
    return todo


def _clean(folder: Path, plan: Plan) -> None:
    """Clear temporary files of a killed run, and shards and rows that the plan does not have."""
    names = {unit.name for unit in plan.units}
    for path in (*folder.glob("*.tmp"), *(folder / ".avb").rglob("*.tmp")):
        path.unlink(missing_ok=True)
    for path in (*folder.glob("*.tar"), *(folder / ".avb" / "rows").glob("*.parquet")):
        if path.stem not in names:
            path.unlink()
    for unit in plan.units:
        if not rows_path(folder, unit).is_file():
            (folder / f"{unit.name}.tar").unlink(missing_ok=True)


# --- Workers -----------------------------------------------------------------------------------

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of <malloc.h>
_counters: Any = None  # in a worker: shared (done, refused)


def _start_worker(counters: Any, parent: int) -> None:
    """Settle a worker: one thread, no Ctrl-C of its own, gone when its parent is gone."""
    global _counters
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle_process()
    _Orphan.parent = parent


class _Orphan:
    parent: int | None = None


def settle_process() -> None:
    """Make this process a good worker: one thread, and memory that is used again.

    More threads inside one worker cost more than they give. Pictures are larger than glibc's
    128 KiB limit for fresh pages, which would be mapped, cleared and given back for each one:
    4 of 22 ms of decoding a GRID clip.
    """
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, 1 << 28)


def _tick(ok: bool) -> None:
    if _Orphan.parent is not None and os.getppid() != _Orphan.parent:
        os._exit(1)  # the parent was killed; a new run may already be at work
    with _counters.get_lock():
        _counters[0] += 1
        _counters[1] += not ok


def _work(plan_path: Path, folder: Path, number: int) -> None:
    from avb.pipeline.unit import run_unit

    run_unit(plan_path, number, folder, _tick)


def _run(
    plan: Plan,
    folder: Path,
    todo: list[int],
    jobs: int,
    progress: Callable[[int, int, int], None] | None,
) -> int:
    """Make the units `todo`, in this process or in `jobs` spawned ones; returns clips done."""
    global _counters
    # Spawned: a live mediapipe graph and fork do not go together.
    context = multiprocessing.get_context("spawn")
    _counters = counters = context.Array("q", [0, 0])
    total = sum(plan.units[n].clips for n in todo)
    work = functools.partial(_work, plan.path, folder)
    report = functools.partial(_report, counters, total, progress)
    if jobs == 1 or len(todo) <= 1:
        settle_process()
        _run_inline(work, todo, report)
    else:
        _run_pool(work, todo, min(jobs, len(todo)), context, counters, report)
    report()
    return total


def _report(counters: Any, total: int, progress: Callable[[int, int, int], None] | None) -> None:
    if progress is not None:
        progress(counters[0], counters[1], total)


def _run_inline(work: Callable[[int], None], todo: list[int], report: Callable[[], None]) -> None:
    import threading

    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            report()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for number in todo:
            work(number)
    except OSError as error:
        raise _disk_fault(error) from None
    finally:
        stop.set()
        watcher.join()


def _run_pool(
    work: Callable[[int], None],
    todo: list[int],
    jobs: int,
    context: Any,
    counters: Any,
    report: Callable[[], None],
) -> None:
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (counters, os.getpid()))
    waiting = {pool.submit(work, number) for number in todo}
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            report()
        pool.shutdown()
    except BrokenProcessPool:
        raise PrepError(
            "a worker died (out of memory, or a crash in a decoder); finished shards are kept:"
            " run the same command again, with fewer --jobs if memory was short"
        ) from None
    except OSError as error:
        raise _disk_fault(error) from None
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()


#: What a disk says; any other OSError is a fault of the program and shows itself as one.
DISK_FAULTS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
}


def _disk_fault(error: OSError) -> PrepError:
    if error.errno not in DISK_FAULTS:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return PrepError(
        f"{where}{error.strerror}; finished shards are kept, run again when it is mended"
    )
