"""Where units run: an executor maps tasks to reports, a bounded number of them in flight.

What follows from a worker's death is for `scheduler` to decide, the same for every executor.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from avb.pipeline.build.unit import Task, run_unit
from avb.pipeline.corpora.source_files import SourceFault
from avb.pipeline.machine import follow_parent, settle_process


@dataclass(frozen=True)
class Report:
    """How a task stands: clips taken and how many of them were refused."""

    task: Task
    clips: int
    refused: int
    # Or "done", "died"; "failed": could not read the corpus; "hung": stopped at the clip that
    # `clips` counts up to.
    state: str = "running"
    said: str = ""  # of a task that failed: which file


#: Takes tasks from the queue, of which others may join between two reports, until none is left;
#: at most so many at once (None: as many as there are workers).
Executor = Callable[[deque[Task], int | None], Iterator[Report]]

#: Clips taken, how many of them were refused, and the number of the present try, 0 between clips.
Counts = tuple[int, int, int]


def work(task: Task) -> Iterator[Counts]:
    """Run a task in this process; its counts whenever a clip begins and ends."""
    settle_process()
    clips = refused = tries = 0
    for ok in run_unit(task):
        if ok is None:
            tries += 1
        else:
            clips, refused = clips + 1, refused + (not ok)
        yield clips, refused, tries if ok is None else 0


@contextmanager
def local(address: str | None = None) -> Iterator[Executor]:
    """Worker processes of this machine; without a number of them, this process itself.

    In this process nothing is started and nothing needs a `__main__` guard, but a clip that crashes
    its decoder ends it, and one that hangs is waited for: `limit_s` is kept by workers alone.
    """
    idle: list[Worker] = []
    try:
        yield lambda waiting, jobs: _here(waiting) if jobs is None else workers(waiting, jobs, idle)
    finally:
        for worker in idle:
            worker.kill()


def _here(waiting: deque[Task]) -> Iterator[Report]:
    while waiting:
        task = waiting.popleft()
        clips = refused = 0
        try:
            for clips, refused, _ in work(task):
                yield Report(task, clips, refused)
        except SourceFault as fault:
            yield Report(task, 0, 0, "failed", str(fault))
        else:
            yield Report(task, clips, refused, "done")


class Worker:
    """One process, alone in its pool: when it dies, it is clear of what."""

    def __init__(self) -> None:
        # Forked from a server that has imported everything and run nothing, so that a fresh one
        # after a death takes 0.05 s and not 4; a live mediapipe graph and fork do not go together.
        context = multiprocessing.get_context("forkserver")
        preload = ["avb.pipeline.build.unit", "torch", "cv2", "pyarrow.parquet"]
        context.set_forkserver_preload(preload)
        self.counts = context.RawArray("q", 3)  # of the present task
        self.pool = ProcessPoolExecutor(1, context, _start_worker, (self.counts,))

    def submit(self, task: Task) -> Future[None]:
        """Begin a task."""
        self.counts[:] = (0, 0, 0)
        self._watch = _Watch()
        return self.pool.submit(_work, task)

    def report(self, task: Task) -> Report:
        """How it stands with a task that is running; one that hangs is stopped."""
        counts: Counts = tuple(self.counts)  # type: ignore[assignment]
        processes = (self.pool._processes or {}).values()
        queued_s = sum(queued(process.pid) for process in processes)
        if task.limit_s is None or self._watch.seconds(counts, queued_s) <= task.limit_s:
            return Report(task, *counts[:2])
        for process in processes:
            _kill_children(process)
        self.kill()
        return Report(task, *counts[:2], "hung")

    def kill(self) -> None:
        """End the process."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def _kill_children(process: BaseProcess) -> None:
    """End the programs that a process waits for; of one that lives, since numbers come again."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split() if process.is_alive() else ():
            os.kill(int(child), signal.SIGKILL)


def queued(pid: int | None) -> float:
    """Seconds in which a process was ready to run while others did; 0 where the system tells no."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class _Watch:
    """How long a worker has been at one clip, as far as the one who watches was awake."""

    def __init__(self) -> None:
        self._last: Counts = (0, 0, 0)
        self._looked = self._queued = self._seconds = 0.0

    def seconds(self, counts: Counts, queued_s: float = 0.0) -> float:
        """Since its present clip began, or was tried again; 0 between clips.

        `queued_s`, all that the worker has waited for a processor, is not the clip's.
        """
        now = time.monotonic()
        # No clip is to blame for a machine that slept, or a run that was stopped for a while.
        passed = max(min(now - self._looked, 1.0) - (queued_s - self._queued), 0.0)
        self._looked, self._queued = now, queued_s
        same = counts == self._last and counts[2]
        self._last, self._seconds = counts, self._seconds + passed if same else 0.0
        return self._seconds


def workers(waiting: deque[Task], jobs: int, idle: list[Worker]) -> Iterator[Report]:
    """Run tasks in `jobs` processes, taken from `idle` and left there; dead ones are replaced."""
    running: dict[Future[None], tuple[Task, Worker]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                worker = idle.pop() if idle else Worker()
                try:
                    running[worker.submit(waiting[0])] = (waiting[0], worker)
                    waiting.popleft()
                except BrokenProcessPool:  # killed while it had nothing to do
                    worker.kill()
            for future in wait(running, timeout=0.25, return_when=FIRST_COMPLETED).done:
                task, worker = running.pop(future)
                yield _ended(task, worker, future, idle)
            for future, (task, worker) in list(running.items()):
                report = worker.report(task)
                if report.state == "hung":
                    del running[future]
                yield report
    finally:
        for _, worker in running.values():
            worker.kill()


def _ended(task: Task, worker: Worker, future: Future[None], idle: list[Worker]) -> Report:
    try:
        future.result()
    except BrokenProcessPool:
        worker.kill()
        return Report(task, 0, 0, "died")
    except SourceFault as fault:
        idle.append(worker)
        return Report(task, 0, 0, "failed", str(fault))
    idle.append(worker)
    clips, refused, _ = worker.counts
    return Report(task, clips, refused, "done")


# In a worker: counts that the process that started it reads.
_counts: Any = None


def _start_worker(counts: Any) -> None:
    global _counts
    _counts = counts
    follow_parent()


def _work(task: Task) -> None:
    """Run a task in a process that may be lost; one without memory is as good as dead."""
    try:
        for counts in work(task):
            _counts[:] = counts
    except MemoryError:
        os._exit(1)
