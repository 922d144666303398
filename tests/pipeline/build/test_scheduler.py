"""A unit whose worker dies: only clips that die alone are left out, and each of them is."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avb.pipeline.build.executors import Report
from avb.pipeline.build.scheduler import run_units
from avb.pipeline.build.unit import Task
from avb.pipeline.errors import RunError

CLIPS = [13, 1, 8]

#: Whether a worker dies of a task that runs beside so many others.
Dies = Callable[[Task, int], bool]


def positions(task: Any) -> set[int]:
    """The clips of a unit that a task opens."""
    if task.clips is not None:
        return set(task.clips)
    return set(range(CLIPS[task.number])) - task.crashed


class Workers:
    """An engine of four workers that runs nothing, and takes down what it was given."""

    def __init__(self, dies: Dies) -> None:
        self.dies = dies
        self.ran: list[Any] = []
        self.made: dict[int, frozenset[int]] = {}

    def __call__(self, waiting: deque[Task], jobs: int | None) -> Iterator[Report]:
        while waiting:
            tasks = [waiting.popleft() for _ in range(min(jobs or 4, len(waiting)))]
            for task in tasks:
                self.ran.append(task)
                yield Report(task, 1, 0)
                if self.dies(task, len(tasks) - 1):
                    yield Report(task, 0, 0, "died")
                else:
                    if task.clips is None:
                        self.made[task.number] = task.crashed
                    yield Report(task, CLIPS[task.number], 0, "done")


def run(workers: Workers, jobs: int = 4) -> list[int]:
    """Make all units; what the progress was told."""
    units = [SimpleNamespace(clips=n, name=f"unit-{i}") for i, n in enumerate(CLIPS)]
    told: list[int] = []
    run_units(
        workers,
        SimpleNamespace(path=Path("plan"), units=units),  # type: ignore[arg-type]
        Path("out"), [0, 1, 2], jobs, lambda clips, *_: told.append(clips),
        clip_timeout_s=300,
    )  # fmt: skip
    return told


def of_a_clip(*guilty: tuple[int, int]) -> Dies:
    return lambda task, others: any(n == task.number and at in positions(task) for n, at in guilty)


def test_clips_that_kill_their_worker_are_found_wherever_they_lie() -> None:
    for guilty in ([(0, 0)], [(0, 12)], [(1, 0)], [(0, 5), (0, 6), (2, 3)]):
        workers = Workers(of_a_clip(*guilty))
        run(workers)
        assert workers.made == {n: {at for m, at in guilty if m == n} for n in range(3)}


def test_what_runs_well_is_made_once_and_tried_no_more() -> None:
    workers = Workers(of_a_clip((0, 5)))
    run(workers)
    makes = Counter(task.number for task in workers.ran if task.clips is None)
    probes = Counter(task.number for task in workers.ran if task.clips is not None)
    assert makes == {0: 2, 1: 1, 2: 1}
    # Two halves at each of four levels, the clip alone, and whether a worker lives at all.
    assert list(probes) == [0] and probes[0] <= 2 * 4 + 2


def test_what_dies_once_or_only_beside_others_is_not_refused() -> None:
    workers = Workers(lambda task, others: others > 0 and of_a_clip((0, 5))(task, others))
    run(workers)
    assert workers.made == {0: set(), 1: set(), 2: set()}
    fell: list[Task] = []

    def dies(task: Task, others: int) -> bool:
        return not fell and not fell.append(task)

    workers = Workers(dies)
    run(workers)
    assert workers.made == {0: set(), 1: set(), 2: set()}


def test_a_unit_that_dies_of_no_single_clip_stops_the_run_and_is_named() -> None:
    workers = Workers(lambda task, others: task.number == 0 and len(positions(task)) > 7)
    with pytest.raises(RunError, match=r"unit-0: .*of no single clip.*finished shards are kept"):
        run(workers)
    assert workers.made == {1: set(), 2: set()}


def test_workers_that_cannot_live_blame_no_clip() -> None:
    workers = Workers(lambda task, others: True)
    with pytest.raises(RunError, match="before their first clip"):
        run(workers)
    assert len(workers.ran) < 10


def test_many_deaths_speak_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_CRASHES", 5)
    workers = Workers(lambda task, others: len(positions(task)) > 0)
    with pytest.raises(RunError, match="more than 5 clips killed their worker"):
        run(workers)


def test_progress_ends_at_the_number_of_clips_and_never_beyond() -> None:
    for guilty in ([], [(0, 5), (2, 3)]):
        told = run(Workers(of_a_clip(*guilty)))
        assert told[-1] == max(told) == sum(CLIPS)


class Hanging(Workers):
    """Stops at the first clip that hangs; those that kill their worker kill it."""

    def __init__(self, hangs: set[tuple[int, int]], dies: Dies) -> None:
        super().__init__(dies)
        self.hangs = hangs
        self.refused: dict[int, frozenset[int]] = {}

    def __call__(self, waiting: deque[Task], jobs: int | None) -> Iterator[Report]:
        while waiting:
            task = waiting.popleft()
            self.ran.append(task)
            stuck = {at for n, at in self.hangs if n == task.number}
            stuck &= positions(task) - task.hung
            if stuck:
                yield Report(task, min(stuck), 0, "hung")
            elif self.dies(task, 0):
                yield Report(task, 0, 0, "died")
            else:
                if task.clips is None:
                    self.made[task.number], self.refused[task.number] = task.crashed, task.hung
                yield Report(task, CLIPS[task.number], 0, "done")


def test_clips_that_hang_are_left_out_and_told_from_those_that_crash() -> None:
    workers = Hanging({(0, 3), (0, 11), (2, 0)}, of_a_clip())
    run(workers)
    assert workers.refused == {0: {3, 11}, 1: set(), 2: {0}}
    assert len(workers.ran) == 3 + 3  # once for each unit, and once more for each clip
    workers = Hanging({(0, 3), (0, 11)}, of_a_clip((0, 4), (0, 12)))
    run(workers)
    assert workers.refused[0] == {3, 11} and workers.made[0] == {4, 12}


def test_a_silent_disk_is_not_blamed_on_every_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_CRASHES", 3)
    every = {(n, at) for n, clips in enumerate(CLIPS) for at in range(clips)}
    with pytest.raises(RunError, match="more than 3 clips took longer"):
        run(Hanging(every, of_a_clip()))


class Failing(Workers):
    """Units that cannot read the corpus, by number."""

    def __init__(self, failing: set[int]) -> None:
        super().__init__(of_a_clip())
        self.failing = failing

    def __call__(self, waiting: deque[Task], jobs: int | None) -> Iterator[Report]:
        while waiting:
            task = waiting.popleft()
            self.ran.append(task)
            if task.number in self.failing:
                yield Report(task, 0, 0, "failed", f"/corpus/{task.number}: gone")
            else:
                yield Report(task, 1, 0, "done")


def test_a_unit_that_cannot_be_read_ends_the_run_when_the_others_are_made() -> None:
    workers = Failing({0, 1})
    with pytest.raises(RunError, match=r"^/corpus/0: gone \(and so 1 more shards\).*are kept"):
        run(workers)
    assert [task.number for task in workers.ran] == [0, 1, 2]


def test_a_corpus_that_is_gone_ends_the_run_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_FAULTS", 2)
    workers = Failing({0, 1, 2})
    with pytest.raises(RunError, match="gone"):
        run(workers)
    assert len(workers.ran) == 2
