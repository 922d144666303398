"""Units through an engine to their end: what becomes of one whose worker dies.

A unit that kills its worker is halved, and the halves that kill theirs again, until single clips
are left. Each of those is tried alone, with nothing else running, so that no clip is blamed for
memory that others took. Then the unit is made without opening the ones that die alone too.

A clip that takes too long is `timeout` at once, and its unit is made again without it.

A unit that cannot read the corpus is left, and the run ends when the others are made.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from avb.pipeline.build.executors import Executor, Make, Probe, Report, Task
from avb.pipeline.build.plan import Plan
from avb.pipeline.errors import RunError
from avb.pipeline.storage.store import Store

#: More clips that die than this, and than 1 % of all, speak of the machine and not of the clips.
MOST_CRASHES = 100

#: So many units one after the other that could not read the corpus: it is not there.
MOST_FAULTS = 10

KEPT = "finished shards are kept: run the same command again"

#: Called with the clips done and refused so far.
Progress = Callable[[int, int], None]


def run_units(
    executor: Executor,
    plan: Plan,
    folder: Path,
    todo: list[int],
    jobs: int | None,
    progress: Progress,
    store: Store | None = None,
    clip_timeout_s: float | None = None,
) -> None:
    """Make the units `todo` of a plan in `folder`, or the store it is for, at most `jobs` at once.

    A clip that takes longer than `clip_timeout_s` is refused, where workers can be stopped.

    Raises:
        RunError: workers die of something else than single clips, or files of the corpus cannot
            be read; what is finished is kept.
    """
    counter = _Counter(progress)
    faults = _Faults()
    # Absolute, since a worker elsewhere has its own working directory.
    make = functools.partial(
        Make, plan.path.absolute(), folder.absolute(), store=store, limit_s=clip_timeout_s
    )
    lost = [make(number) for number in todo]
    # What is lost again goes with fewer at once, and then one by one: memory may be short.
    for width in (jobs, jobs and max(1, jobs // 4), 1):
        lost, crashes = _one_pass(executor, plan, lost, width, counter, faults)
        if not lost:
            faults.end()
            return
        confirmed = _crashing_alone(executor, crashes)
        crashed = {(probe.number, probe.clips[0]) for probe in confirmed}
        lost = [_without(make, crashed=crashed) for make in lost]
    names = ", ".join(plan.units[make.number].name for make in lost[:3])
    raise RunError(
        f"{names}: the worker died each time, though of no single clip; {KEPT}, with fewer --jobs"
        " if memory was short"
    )


def _one_pass(
    executor: Executor,
    plan: Plan,
    makes: list[Make],
    jobs: int | None,
    counter: _Counter,
    faults: _Faults,
) -> tuple[list[Make], list[Probe]]:
    """Units that were lost, and clips of theirs of which a worker died."""
    waiting: deque[Task] = deque(makes)
    most = max(MOST_CRASHES, sum(plan.units[make.number].clips for make in makes) // 100)
    lost: list[Make] = []
    crashes: list[Probe] = []
    hung: set[tuple[int, int]] = set()  # unit and position
    for report in executor(waiting, jobs):
        counter.add(report)
        faults.add(report)
        task = report.task
        if report.state == "hung":
            hung.add((task.number, report.clips))
            waiting.appendleft(dataclasses.replace(task, hung=task.hung | {report.clips}))
            if len(hung) > most:
                raise RunError(
                    f"more than {most} clips took longer than {task.limit_s:g} s, which is hardly"
                    f" theirs to answer for (a disk that does not answer?); {KEPT}"
                )
        if report.state != "died":
            continue
        if isinstance(task, Make):
            if not lost:  # Does a worker live at all? If not, all clips would be to blame.
                waiting.appendleft(_probe(task, range(0), retries=3))
            lost.append(task)
            waiting.extend(_halves(_probe(task, range(plan.units[task.number].clips))))
        elif len(task.clips) > 1:
            waiting.extend(_halves(task))
        elif task.clips:
            crashes.append(task)
        else:
            raise RunError(f"workers die before their first clip (see avb doctor); {KEPT}")
        if len(crashes) > most:
            raise RunError(
                f"more than {most} clips killed their worker, which is hardly theirs to answer for"
                f" (see avb doctor); {KEPT}, with fewer --jobs if memory was short"
            )
    return [_without(make, hung=hung) for make in lost], crashes


def _probe(make: Make, clips: range, retries: int = 0) -> Probe:
    return Probe(
        make.plan, make.folder, make.number, clips, retries, make.store, make.hung, make.limit_s
    )


def _halves(probe: Probe) -> list[Probe]:
    middle = (len(probe.clips) + 1) // 2
    parts = (probe.clips[:middle], probe.clips[middle:])
    return [dataclasses.replace(probe, clips=part) for part in parts if part]


def _crashing_alone(executor: Executor, crashes: list[Probe]) -> list[Probe]:
    """The clips of which a worker dies with nothing else running."""
    # Once more, should the machine be taken away at that moment.
    waiting: deque[Task] = deque(dataclasses.replace(probe, retries=1) for probe in crashes)
    ended = [report for report in executor(waiting, 1) if report.state == "died"]
    return [report.task for report in ended if isinstance(report.task, Probe)]


def _without(
    make: Make,
    crashed: Iterable[tuple[int, int]] = (),
    hung: Iterable[tuple[int, int]] = (),
) -> Make:
    """The same, with those of the clips, each a unit and a position, that are in its unit."""
    mine = [{at for number, at in clips if number == make.number} for clips in (crashed, hung)]
    return dataclasses.replace(make, crashed=make.crashed | mine[0], hung=make.hung | mine[1])


class _Faults:
    """Units that could not read the corpus: they end the run, though not before the others."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._in_a_row = 0

    def add(self, report: Report) -> None:
        if report.state == "done":
            self._in_a_row = 0
        elif report.state == "failed":
            self._said.append(report.said)
            self._in_a_row += 1
            if self._in_a_row == MOST_FAULTS or isinstance(report.task, Probe):
                self.end()

    def end(self) -> None:
        """Raise RunError if there was one."""
        if self._said:
            more = f" (and so {len(self._said) - 1} more shards)" if self._said[1:] else ""
            raise RunError(f"{self._said[0]}{more}; tried again in vain. When it is mended, {KEPT}")


class _Counter:
    """Counts clips of the units that are done and of those at work; a lost one starts again."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._clips = self._refused = 0
        self._running: dict[Task, Report] = {}

    def add(self, report: Report) -> None:
        if not isinstance(report.task, Make):
            return
        self._running.pop(report.task, None)
        if report.state == "running":
            self._running[report.task] = report
        elif report.state == "done":
            self._clips += report.clips
            self._refused += report.refused
        running = self._running.values()
        self._progress(
            self._clips + sum(r.clips for r in running),
            self._refused + sum(r.refused for r in running),
        )
