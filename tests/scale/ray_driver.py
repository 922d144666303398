"""Ray beside processes, and its driver alone.

python tests/scale/ray_driver.py engines RAW --jobs 2
python tests/scale/ray_driver.py driver --workers 1000 --units 2000
"""

import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from avb.pipeline.build.executor_ray import AHEAD, connect, run_tasks
from avb.pipeline.build.executors import Executor, Report
from avb.pipeline.build.plan import Plan, Unit, make_plan
from avb.pipeline.build.prep import EXECUTORS
from avb.pipeline.build.scheduler import run_units
from avb.pipeline.build.unit import Task
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora.inspect import recognise
from avb.pipeline.errors import UsageError
from avb.pipeline.settings import settings_for

ACTORS = 4  # processes that share the simulated workers


def engines(
    root: Path,
    corpus: str | None = None,
    clips: int = 200,
    jobs: int = 1,
    rounds: int = 5,
    address: str | None = None,
) -> dict[str, Any]:
    """Prepare a sample of clips on `local` and on `ray`, turn by turn, as many processes each.

    The clock starts when a first clip is through, so that starting workers is left out of the
    rates; the seconds until then are given as `start_s`, of the first round.

    Returns:
        `corpus clips jobs rounds`, `clips_per_s` and `start_s` of each engine, `ratio`: medians
        over the rounds.

    Raises:
        UsageError: no corpus is recognised.
    """
    corpora = load_corpora()
    name = corpus or recognise(root, corpora)
    if name not in corpora:
        raise UsageError(f"no corpus {name!r}; one of {', '.join(corpora)}")
    _as_nice_as_the_driver()
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    starts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, EXECUTORS["local"](None) as local:
        settings = settings_for(name, corpora[name], limit=clips, shard_clips=max(1, clips // 8))
        plan = make_plan(corpora[name], settings, root, Path(scratch) / "plan.parquet")
        with EXECUTORS["ray"](address) as ray:
            for number in range(rounds):
                for engine, run in (("local", local), ("ray", ray)):
                    folder = Path(scratch) / f"{engine}-{number}"
                    folder.mkdir()
                    start, rate = _time(run, plan, folder, jobs)
                    starts.setdefault(engine, round(start, 1))
                    rates[engine].append(rate)
    pairs = zip(rates["ray"], rates["local"], strict=True)
    return {
        "corpus": name,
        "clips": plan.listed,
        "jobs": jobs,
        "rounds": rounds,
        "clips_per_s": {k: round(statistics.median(v), 1) for k, v in rates.items()},
        "start_s": starts,
        "ratio": round(statistics.median(ray / local for ray, local in pairs), 3),
    }


def _time(run: Executor, plan: Plan, folder: Path, jobs: int) -> tuple[float, float]:
    """Seconds until the first clip was through, and clips a second from then on."""
    makes = [Task(plan.path, folder, unit.number) for unit in plan.units]
    waiting: deque[Task] = deque([Task(plan.path, folder, 0, range(1), retries=0), *makes])
    begun = first = time.perf_counter()
    for report in run(waiting, jobs):
        if report.state == "died":
            raise UsageError("a clip kills its worker; see avb prep")
        if report.task.clips is not None and report.state == "done":
            first = time.perf_counter()
    return first - begun, plan.listed / (time.perf_counter() - first)


def driver(workers: int = 1000, units: int = 2000, unit_s: float = 60.0) -> dict[str, Any]:
    """The driver of `avb prep --engine ray` alone: its units are sleeps on simulated workers.

    All of the driver is the real one: its loop, Ray's submission, waiting and results. The workers
    are slots in a few Ray actors on this machine, each of which can sleep many units at once: what
    is not in it is Ray's choice of a machine, which the machines of a cluster do.

    Returns:
        `workers units unit_s`, `ideal_s` and `wall_s` of all units, `overhead_percent`, and the
        driver's own time on a processor, `driver_ms` a unit.
    """
    _as_nice_as_the_driver()
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
        "workers": workers,
        "units": units,
        "unit_s": unit_s,
        "ideal_s": round(ideal, 2),
        "wall_s": round(wall, 2),
        "overhead_percent": round(100 * (wall / ideal - 1), 2),
        "driver_ms": round(1e3 * busy / units, 3),
    }


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


def _as_nice_as_the_driver() -> None:
    """Ray gives way to all other processes unless told otherwise."""
    os.environ.setdefault("RAY_worker_niceness", "0")


if __name__ == "__main__":
    app = typer.Typer(result_callback=lambda record: print(json.dumps(record, indent=1)))
    app.command()(engines)
    app.command()(driver)
    app()
