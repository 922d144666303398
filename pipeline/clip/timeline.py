"""When each picture and each block of sound stands: one clock for both readers, `prep` and `infer`.

A film's stamps are what a player goes by, and some are wrong: recordings joined end to end start
again, damaged ones jump by years, AVI has none for pictures that were coded out of order. Here they
become times that run on, in seconds, and pictures are laid at an exact rate by them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: A stamp that steps back by more begins another recording; by less it is wrong or out of order.
BACK_S = 0.5
#: No picture stands longer, and no gap in the sound is longer: beyond, stamps are damaged.
LONGEST_S = 600.0
#: What stands within so much after the end of what came before follows it.
TOGETHER_S = 1.0
#: No picture is shown earlier before its time: where one stands for long, it stands until the next.
EARLY_S = 0.1
#: Pictures that a decoder may hold back to bring them into order (H.264 and HEVC: 16).
DEPTH = 16
#: Of containers that stamp pictures in the order in which they were coded, not shown.
CODED_ORDER = {"avi"}

Timed = tuple[float, Any]


@dataclass
class Recordings:
    """Seconds to add to the stamps of each recording joined into one film, so that they run on.

    All streams of the film share it: where one crosses into the next recording first, the others
    follow by the same amount and stay in step.
    """

    shifts: list[float] = field(default_factory=lambda: [0.0])


class Timeline:
    """The times of one stream, from its stamps in the order of delivery."""

    def __init__(self, recordings: Recordings) -> None:
        self._shifts = recordings.shifts
        self._at = 0  # number of the recording
        self._end: float | None = None  # of what came last
        self._before: float | None = None  # of what came before it
        self._start = self._duration = 0.0  # of what came last

    def time(self, stamp: float | None, duration: float) -> float:
        """When something with this stamp and duration, in seconds, stands.

        What has no stamp stands right after the last; what has no duration lasts as long as it.
        """
        end = self._end
        if stamp is None:
            found = end or 0.0
        else:
            found = stamp + self._shifts[self._at]
            if end is not None and not -BACK_S <= found - end <= TOGETHER_S:
                self._at = self._recording(stamp, end)
                found = stamp + self._shifts[self._at]
        if not duration:
            step = 0.0 if end is None else found - self._start
            duration = self._duration = step if 0 < step < TOGETHER_S else self._duration
        self._before, self._start, self._end = end, found, found + duration
        return found

    def _recording(self, stamp: float, end: float) -> int:
        """Number of the recording that a stamp belongs to which does not follow what came last."""
        shifts, found = self._shifts, stamp + self._shifts[self._at]
        if found < end and self._before is not None and _follows(found, self._before):
            return self._at  # what came last was wrong
        for number, shift in enumerate(shifts):
            if _follows(stamp + shift, end):
                return number
        if not -BACK_S <= found - end <= LONGEST_S:
            shifts.append(end - stamp)
            return len(shifts) - 1
        return self._at


def _follows(time: float, end: float) -> bool:
    return -BACK_S <= time - end <= TOGETHER_S


def in_coded_order(pictures: Iterable[Timed]) -> Iterator[Timed]:
    """Pictures, as they are shown, whose stamps are those of their coding.

    The n-th gets the n-th smallest of them. They count from when the decoder could begin, up to
    DEPTH periods before it gave the first one; that one stands at 0.
    """
    times: list[float] = []
    waiting: deque[Any] = deque()
    shift = None
    for time, picture in _and_end(pictures, DEPTH):
        if time is not None:
            heapq.heappush(times, time)
            waiting.append(picture)
        if len(waiting) > DEPTH or (time is None and waiting):
            first = heapq.heappop(times)
            shift = -first if shift is None else shift
            yield first + shift, waiting.popleft()


def rising(pictures: Iterable[Timed]) -> Iterator[Timed]:
    """Pictures in the order in which they are shown, with stamps that rise.

    Of two that do not, the one that does not fit its neighbours is wrong; it is put halfway
    between them.
    """
    before: float | None = None  # of the last one given
    held: Timed | None = None
    for time, picture in _and_end(pictures):
        if held is not None:
            mine, shown = held
            if before is not None:
                high = time is not None and mine >= time > before
                if (mine <= before or high) and time is not None and time > before:
                    mine = (before + time) / 2
                elif mine <= before:
                    mine = before
            yield mine, shown
            before = mine
        if time is not None:
            held = (time, picture)


def _and_end(pictures: Iterable[Timed], times: int = 1) -> Iterator[tuple[float | None, Any]]:
    """The pictures, and then `times` times nothing."""
    yield from pictures
    for _ in range(times):
        yield None, None


class Rate:
    """Lays timed pictures at an exact rate: for each time the one that stands nearest to it.

    Pictures whose stamps tremble by less than half a period are given as they are, each once.

    Attributes:
        first_s: when the first picture stands.
        kept: whether they were.
    """

    def __init__(self, fps: int) -> None:
        self.first_s = 0.0
        self.kept = True
        self._fps = fps

    def lay(self, pictures: Iterable[Timed]) -> Iterator[Any]:
        """A picture for each 1 / fps from the first one on, until the last one has stood."""
        steps: list[float] = []
        last: Timed | None = None
        count = number = 0  # pictures given, pictures met
        for time, picture in pictures:
            if last is None:
                self.first_s = time
            else:
                steps.append(time - last[0])
                until = max((time + last[0]) / 2, time - EARLY_S) - self.first_s
                given = count
                while count / self._fps <= until + 1e-9:
                    count += 1
                    yield last[1]
                self.kept = self.kept and count == given + 1
            number += 1
            last = (time, picture)
        if last is None:
            return
        period = float(np.median(steps)) if steps else 1 / self._fps
        total = max(1, round((last[0] - self.first_s + period) * self._fps))
        self.kept = self.kept and (total == number or not steps)
        for _ in range(count, total):
            yield last[1]
