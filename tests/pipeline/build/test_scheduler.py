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

#: How a task ends that runs beside so many others, if not well.
Fate = Callable[[Any, int], Report | None]


def positions(task: Any) -> set[int]:
    """The clips of a unit that a task opens."""
    if task.clips is not None:
        return set(task.clips)
    return set(range(CLIPS[task.number])) - task.crashed


class Workers:
    """An engine of four workers that runs nothing, and takes down what it was given."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.ran: list[Any] = []
        self.made: dict[int, frozenset[int]] = {}
        self.refused: dict[int, frozenset[int]] = {}

    def __call__(self, waiting: deque[Task], jobs: int | None) -> Iterator[Report]:
        while waiting:
            tasks = [waiting.popleft() for _ in range(min(jobs or 4, len(waiting)))]
            for task in tasks:
                self.ran.append(task)
                yield Report(task, 1, 0)
                if ended := self.fate(task, len(tasks) - 1):
                    yield ended
                    continue
                if task.clips is None:
                    self.made[task.number], self.refused[task.number] = task.crashed, task.hung
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


def dies(when: Callable[[Any, int], object]) -> Fate:
    return lambda task, others: Report(task, 0, 0, "died") if when(task, others) else None


def of_a_clip(*guilty: tuple[int, int]) -> Fate:
    return dies(lambda task, _: any(n == task.number and at in positions(task) for n, at in guilty))


def hangs(*slow: tuple[int, int], fate: Fate = of_a_clip()) -> Fate:
    """Stops at the first clip that hangs; those that kill their worker kill it."""

    def found(task: Any, others: int) -> Report | None:
        stuck = {at for n, at in slow if n == task.number} & positions(task) - task.hung
        return Report(task, min(stuck), 0, "hung") if stuck else fate(task, others)

    return found


def cannot_read(*units: int) -> Fate:
    fault = "/corpus/{}: gone".format
    return lambda task, _: (
        Report(task, 0, 0, "failed", fault(task.number)) if task.number in units else None
    )


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
    workers = Workers(dies(lambda task, others: others > 0 and of_a_clip((0, 5))(task, others)))
    run(workers)
    assert workers.made == {0: set(), 1: set(), 2: set()}
    fell: list[Task] = []
    workers = Workers(dies(lambda task, _: not fell and not fell.append(task)))
    run(workers)
    assert workers.made == {0: set(), 1: set(), 2: set()}


def test_a_unit_that_dies_of_no_single_clip_stops_the_run_and_is_named() -> None:
    workers = Workers(dies(lambda task, _: task.number == 0 and len(positions(task)) > 7))
    with pytest.raises(RunError, match=r"unit-0: .*of no single clip.*finished shards are kept"):
        run(workers)
    assert workers.made == {1: set(), 2: set()}


def test_workers_that_cannot_live_blame_no_clip() -> None:
    workers = Workers(dies(lambda *_: True))
    with pytest.raises(RunError, match="before their first clip"):
        run(workers)
    assert len(workers.ran) < 10


def test_many_deaths_speak_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_CRASHES", 5)
    workers = Workers(dies(lambda task, _: len(positions(task)) > 0))
    with pytest.raises(RunError, match="more than 5 clips killed their worker"):
        run(workers)


def test_progress_ends_at_the_number_of_clips_and_never_beyond() -> None:
    for guilty in ([], [(0, 5), (2, 3)]):
        told = run(Workers(of_a_clip(*guilty)))
        assert told[-1] == max(told) == sum(CLIPS)


def test_clips_that_hang_are_left_out_and_told_from_those_that_crash() -> None:
    workers = Workers(hangs((0, 3), (0, 11), (2, 0)))
    run(workers)
    assert workers.refused == {0: {3, 11}, 1: set(), 2: {0}}
    assert len(workers.ran) == 3 + 3  # once for each unit, and once more for each clip
    workers = Workers(hangs((0, 3), (0, 11), fate=of_a_clip((0, 4), (0, 12))))
    run(workers)
    assert workers.refused[0] == {3, 11} and workers.made[0] == {4, 12}


def test_a_silent_disk_is_not_blamed_on_every_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_CRASHES", 3)
    every = [(n, at) for n, clips in enumerate(CLIPS) for at in range(clips)]
    with pytest.raises(RunError, match="more than 3 clips took longer"):
        run(Workers(hangs(*every)))


def test_a_unit_that_cannot_be_read_ends_the_run_when_the_others_are_made() -> None:
    workers = Workers(cannot_read(0, 1))
    with pytest.raises(RunError, match=r"^/corpus/0: gone \(and so 1 more shards\).*are kept"):
        run(workers)
    assert [task.number for task in workers.ran] == [0, 1, 2]


def test_a_corpus_that_is_gone_ends_the_run_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.build.scheduler.MOST_FAULTS", 2)
    workers = Workers(cannot_read(0, 1, 2))
    with pytest.raises(RunError, match="gone"):
        run(workers)
    assert len(workers.ran) == 2
