"""Ray's driver alone.

python tests/scale/ray_driver.py --workers 1000 --units 2000
"""

import asyncio
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from avb.pipeline.build.executor_ray import AHEAD, connect, run_tasks
from avb.pipeline.build.executors import Report
from avb.pipeline.build.plan import Unit
from avb.pipeline.build.scheduler import run_units
from avb.pipeline.build.unit import Task

ACTORS = 4  # processes that share the simulated workers


def driver(workers: int, units: int, unit_s: float) -> dict[str, Any]:
    """The driver of `avb prep --engine ray` alone: its units are sleeps on simulated workers.

    All of the driver is the real one: its loop, Ray's submission, waiting and results. The workers
    are slots in a few Ray actors on this machine, each of which can sleep many units at once: what
    is not in it is Ray's choice of a machine, which the machines of a cluster do.

    Returns:
        `workers units unit_s`, `ideal_s` and `wall_s` of all units, `overhead_percent`, and the
        driver's own time on a processor, `driver_ms` a unit.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")  # or Ray gives way to all other processes
    ray = connect(None)
    try:
        actors = [
            ray.remote(num_cpus=0, max_concurrency=units)(_Sleepers).remote(slots, unit_s)
            for slots in (len(range(i, workers, ACTORS)) for i in range(min(ACTORS, workers)))
        ]
        ray.get([actor.ready.remote() for actor in actors])
        turn = itertools.cycle(actors)

        def run(waiting: deque[Task], jobs: int | None) -> Iterator[Any]:
            return run_tasks(ray, lambda task: next(turn).sleep.remote(task), waiting, jobs)

        begun, busy = time.perf_counter(), time.process_time()
        run_units(run, _plan(units), Path(), list(range(units)), AHEAD * workers)
        wall, busy = time.perf_counter() - begun, time.process_time() - busy
    finally:
        ray.shutdown()
    ideal = -(-units // workers) * unit_s
    return {
        "workers": workers, "units": units, "unit_s": unit_s,
        "ideal_s": round(ideal, 2), "wall_s": round(wall, 2),
        "overhead_percent": round(100 * (wall / ideal - 1), 2),
        "driver_ms": round(1e3 * busy / units, 3),
    }  # fmt: skip


class _Sleepers:
    """Simulated workers: so many units sleep at once, the others queue."""

    def __init__(self, slots: int, unit_s: float) -> None:
        self.slots, self.unit_s = asyncio.Semaphore(slots), unit_s

    async def ready(self) -> None:
        """Return when there is something to return to."""

    async def sleep(self, task: Task) -> Report:
        """A unit."""
        async with self.slots:
            await asyncio.sleep(self.unit_s)
        return Report(task, 512, 0, "done")


def _plan(units: int) -> Any:
    """As much of a plan as the driver looks at."""
    made = [Unit(n, f"unit-{n:06d}", 512, "") for n in range(units)]
    return SimpleNamespace(path=Path("plan"), units=made)


def main(workers: int = 1000, units: int = 2000, unit_s: float = 60.0) -> None:
    """Print the record."""
    print(json.dumps(driver(workers, units, unit_s), indent=1))


if __name__ == "__main__":
    typer.run(main)
