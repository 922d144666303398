"""Units through an engine to their end: what becomes of one whose worker dies.

A unit that kills its worker is halved, and the halves that kill theirs again, until single clips
are left. Each of those is tried alone, with nothing else running, so that no clip is blamed for
memory that others took. Then the unit is made without opening the ones that die alone too.

A clip that takes too long is `timeout` at once, and its unit is made again without it.

A unit that cannot read the corpus is left, and the run ends when the others are made.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from avb.pipeline.build.executors import Executor, Report
from avb.pipeline.build.plan import Plan
from avb.pipeline.build.unit import Task
from avb.pipeline.errors import RunError
from avb.pipeline.storage.store import Store

#: More clips that die than this, and than 1 % of all, speak of the machine and not of the clips.
MOST_CRASHES = 100

#: So many units one after the other that could not read the corpus: it is not there.
MOST_FAULTS = 10

KEPT = "finished shards are kept: run the same command again"

#: Called with the clips done, how many of them were refused, and how many there are to do.
Progress = Callable[[int, int, int], None]


def run_units(
    executor: Executor,
    plan: Plan,
    folder: Path,
    todo: list[int],
    jobs: int | None,
    progress: Progress | None = None,
    store: Store | None = None,
    clip_timeout_s: float | None = None,
) -> None:
    """Make the units `todo` of a plan in `folder`, or the store it is for, at most `jobs` at once.

    A clip that takes longer than `clip_timeout_s` is refused, where workers can be stopped.
    RunError where workers die of no single clip, or the corpus cannot be read; what is finished is
    kept.
    """
    counter = _Counter(progress, sum(plan.units[number].clips for number in todo))
    faults = _Faults()

    def counted(waiting: deque[Task], jobs: int | None) -> Iterator[Report]:
        for report in executor(waiting, jobs):
            counter.add(report)
            faults.add(report)
            yield report

    # Absolute, since a worker elsewhere has its own working directory.
    plan_path, folder = plan.path.absolute(), folder.absolute()
    lost = [Task(plan_path, folder, n, store=store, limit_s=clip_timeout_s) for n in todo]
    # What is lost again goes with fewer at once, and then one by one: memory may be short.
    for width in (jobs, jobs and max(1, jobs // 4), 1):
        lost, crashes = _one_pass(counted, plan, lost, width)
        if not lost:
            faults.end()
            return
        crashed = _crashing_alone(executor, crashes)
        lost = [replace(t, crashed=t.crashed | _in_unit(t, crashed)) for t in lost]
    names = ", ".join(plan.units[task.number].name for task in lost[:3])
    raise RunError(
        f"{names}: the worker died each time, though of no single clip; {KEPT}, with fewer --jobs"
        " if memory was short"
    )


def _one_pass(
    executor: Executor, plan: Plan, tasks: list[Task], jobs: int | None
) -> tuple[list[Task], list[Task]]:
    """Units that were lost, and probes of single clips of theirs of which a worker died."""
    waiting = deque(tasks)
    most = max(MOST_CRASHES, sum(plan.units[task.number].clips for task in tasks) // 100)
    lost: list[Task] = []
    crashes: list[Task] = []
    hung: set[tuple[int, int]] = set()  # unit and position
    for report in executor(waiting, jobs):
        task = report.task
        if report.state == "hung":
            hung.add((task.number, report.clips))
            waiting.appendleft(replace(task, hung=task.hung | {report.clips}))
            if len(hung) > most:
                raise RunError(
                    f"more than {most} clips took longer than {task.limit_s:g} s, which is hardly"
                    f" theirs to answer for (a disk that does not answer?); {KEPT}"
                )
        if report.state != "died":
            continue
        if task.clips is None:
            if not lost:  # Does a worker live at all? If not, all clips would be to blame.
                waiting.appendleft(replace(task, clips=range(0), retries=3))
            lost.append(task)
            every = range(plan.units[task.number].clips)
            waiting.extend(_halves(replace(task, clips=every, retries=0)))
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
    return [replace(task, hung=task.hung | _in_unit(task, hung)) for task in lost], crashes


def _halves(probe: Task) -> list[Task]:
    clips = probe.clips or range(0)
    middle = (len(clips) + 1) // 2
    return [replace(probe, clips=part) for part in (clips[:middle], clips[middle:]) if part]


def _crashing_alone(executor: Executor, crashes: list[Task]) -> set[tuple[int, int]]:
    """Unit and position of the clips of which a worker dies with nothing else running."""
    # Once more, should the machine be taken away at that moment.
    waiting = deque(replace(probe, retries=1) for probe in crashes)
    died = [report.task for report in executor(waiting, 1) if report.state == "died"]
    return {(probe.number, probe.clips[0]) for probe in died if probe.clips}


def _in_unit(task: Task, clips: set[tuple[int, int]]) -> set[int]:
    """Positions of those clips, each a unit and a position, that are in the task's unit."""
    return {position for number, position in clips if number == task.number}


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
            if self._in_a_row == MOST_FAULTS or report.task.clips is not None:
                self.end()

    def end(self) -> None:
        """Raise RunError if there was one."""
        if self._said:
            more = f" (and so {len(self._said) - 1} more shards)" if self._said[1:] else ""
            raise RunError(f"{self._said[0]}{more}; tried again in vain. When it is mended, {KEPT}")


class _Counter:
    """Counts clips of the units that are done and of those at work; a lost one starts again."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._clips = self._refused = 0
        self._running: dict[Task, Report] = {}

    def add(self, report: Report) -> None:
        if report.task.clips is not None or self._progress is None:
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
            self._total,
        )
