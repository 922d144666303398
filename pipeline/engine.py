"""Where units run: in this process, or in spawned ones. Another engine is another such function."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from avb.pipeline.unit import run_unit

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of <malloc.h>

#: Called with the clips done and refused so far.
Report = Callable[[int, int], None]


class PrepError(Exception):
    """The run could not go on; finished shards are kept, and the line says what to do (exit 1)."""


def run_units(plan: Path, folder: Path, todo: list[int], jobs: int, report: Report) -> None:
    """Make the units `todo` of a plan file in `folder`, with `jobs` processes.

    Raises:
        PrepError: a worker died; what is finished is kept.
    """
    if jobs == 1 or len(todo) <= 1:
        _run_here(plan, folder, todo, report)
    else:
        _run_pool(plan, folder, todo, min(jobs, len(todo)), report)


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


def _run_here(plan: Path, folder: Path, todo: list[int], report: Report) -> None:
    settle_process()
    done = refused = 0

    def tick(ok: bool) -> None:
        nonlocal done, refused
        done, refused = done + 1, refused + (not ok)
        report(done, refused)

    for number in todo:
        run_unit(plan, number, folder, tick)


def _run_pool(plan: Path, folder: Path, todo: list[int], jobs: int, report: Report) -> None:
    # Spawned: a live mediapipe graph and fork do not go together.
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", [0, 0])
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (counts, os.getpid()))
    waiting = {pool.submit(_work, plan, folder, number) for number in todo}
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            report(counts[0], counts[1])
        pool.shutdown()
    except BrokenProcessPool:
        raise PrepError(
            "a worker died (out of memory, or a crash in a decoder); finished shards are kept:"
            " run the same command again, with fewer --jobs if memory was short"
        ) from None
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()


# In a worker: the shared counts of clips done and refused, and the process that started it.
_counts: Any = None
_parent = 0


def _start_worker(counts: Any, parent: int) -> None:
    global _counts, _parent
    _counts, _parent = counts, parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    settle_process()


def _work(plan: Path, folder: Path, number: int) -> None:
    run_unit(plan, number, folder, _tick)


def _tick(ok: bool) -> None:
    if os.getppid() != _parent:
        os._exit(1)  # the parent was killed, and a new run may already be at work
    with _counts.get_lock():
        _counts[0] += 1
        _counts[1] += not ok
