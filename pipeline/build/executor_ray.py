"""Units on a Ray cluster: retries, lost machines and their replacement are Ray's."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import avb
from avb.pipeline.build.executors import Executor, Report, Worker, workers
from avb.pipeline.build.unit import Task
from avb.pipeline.errors import RunError, StorageError, UsageError
from avb.pipeline.machine import cores

#: An address that nobody answers would cost ray.init two minutes and as many lines.
ANSWER_S = 13.0

TRY = """
import ray, sys
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""

#: Tasks in flight for each processor, so that the next one is there when one ends.
AHEAD = 2

#: How often the size of the cluster is asked for: it may grow and shrink.
LOOK_S = 10.0


@contextmanager
def cluster(address: str | None) -> Iterator[Executor]:
    """A connection to a Ray cluster, and the executor that runs tasks on it, one a processor.

    `address` is `host:port` of its head, or `auto` for the one of this machine; else what
    RAY_ADDRESS says; else one is started here until the end. UsageError without Ray; RunError:
    nobody answers.
    """
    ray = connect(address or os.environ.get("RAY_ADDRESS"))
    try:
        remote = ray.remote(num_cpus=1)(_work)

        def submit(task: Task) -> Any:
            return remote.options(max_retries=task.retries).remote(task, avb.__version__)

        yield lambda waiting, jobs: run_tasks(ray, submit, waiting, jobs)
    finally:
        ray.shutdown()


#: What Ray reads from the environment when it is imported, and nowhere else.
RAY_HABITS = {
    "RAY_task_oom_retries": "3",  # else a task that takes all the memory is tried for ever
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a paragraph on stdout for every worker that dies
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(address: str | None) -> Any:
    """The module `ray`, connected; see `cluster`."""
    for name, value in RAY_HABITS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError("ray is not installed: pip install ray") from None
    start: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        start |= {"num_cpus": cores(), "include_dashboard": False}
    elif address == "auto" or re.fullmatch(r"[^:/]+:\d+", address):
        _look_for(address)
    else:
        raise UsageError(f"--address {address}: host:port of a Ray head, or auto")
    at_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address or "local", **start)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray's own ends in an abort
    return ray


def _look_for(address: str) -> None:
    """Connect in a process of its own first, which can be given up."""
    attempt = [sys.executable, "-c", TRY, address]
    try:
        subprocess.run(attempt, check=True, capture_output=True, timeout=ANSWER_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (error.stderr or b"").decode(errors="replace").strip().rpartition("\n")[2]
        said = re.sub(r"^\[.*?\] \S+: ", "", last) or "silence"
        raise RunError(
            f"--address {address}: no Ray cluster to work with: {said} (ray start begins one, and"
            " takes this machine into it; RAY_AUTH_MODE=token where it wants a token)"
        ) from None


def run_tasks(
    ray: Any, submit: Callable[[Task], Any], waiting: deque[Task], jobs: int | None
) -> Iterator[Report]:
    """Keep tasks in flight until none is left, `jobs` or twice the processors of the cluster."""
    running: dict[Any, Task] = {}
    width, looked = jobs or 0, -LOOK_S
    try:
        while waiting or running:
            if jobs is None and time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                width = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 0)))
            while waiting and len(running) < width:
                task = waiting.popleft()
                running[submit(task)] = task
            for ref in ray.wait(list(running), num_returns=len(running), timeout=0.2)[0]:
                yield _ended(ray, ref, running.pop(ref))
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _ended(ray: Any, ref: Any, task: Task) -> Report:
    faults = ray.exceptions
    try:
        report: Report = ray.get(ref)
        return report
    except (faults.WorkerCrashedError, faults.OutOfMemoryError, faults.NodeDiedError):
        return Report(task, 0, 0, "died")
    except faults.RayTaskError as error:
        if isinstance(error.cause, RunError | OSError | StorageError):
            raise error.cause from None
        if "No module named 'avb" in str(error):
            raise RunError(
                f"a machine of the cluster has no avb: install {avb.__version__} on every one"
            ) from None
        raise
    except faults.RayError as error:
        raise RunError(f"Ray: {' '.join(str(error).split())}") from None


# In a worker of Ray: the process of its own that takes its tasks, so that one can be stopped at a
# clip that hangs, and a clip that kills its decoder leaves the worker to Ray.
_idle: list[Worker] = []


def _work(task: Task, version: str) -> Report:
    """On a worker: how a task ended."""
    if avb.__version__ != version:
        raise RunError(
            f"{socket.gethostname()} has avb {avb.__version__}, not {version}: the same on all"
            " machines, or the bytes differ"
        )
    *_, last = workers(deque([task]), 1, _idle)
    return last
