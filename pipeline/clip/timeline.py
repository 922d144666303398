"""When each picture and each block of sound stands: one clock for both readers, `prep` and `infer`.

A film's stamps are what a player goes by, and some are wrong: recordings joined end to end start
again, damaged ones jump by years, AVI has none for pictures that were coded out of order. Here they
become times that run on, in seconds, and pictures are laid at an exact rate by them.
"""

from __future__ import annotations

import heapq
from collections import deque
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
            start = end or 0.0
        else:
            start = stamp + self._shifts[self._at]
            if end is not None and not -BACK_S <= start - end <= TOGETHER_S:
                self._at = self._recording(stamp, end)
                start = stamp + self._shifts[self._at]
        if not duration:
            step = 0.0 if end is None else start - self._start
            duration = self._duration = step if 0 < step < TOGETHER_S else self._duration
        self._before, self._start, self._end = end, start, start + duration
        return start

    def _recording(self, stamp: float, end: float) -> int:
        """Number of the recording that a stamp belongs to which does not follow what came last."""
        shifts, time = self._shifts, stamp + self._shifts[self._at]
        if time < end and self._before is not None and _follows(time, self._before):
            return self._at  # what came last was wrong
        for number, shift in enumerate(shifts):
            if _follows(stamp + shift, end):
                return number
        if not -BACK_S <= time - end <= LONGEST_S:
            shifts.append(end - stamp)
            return len(shifts) - 1
        return self._at


def _follows(time: float, end: float) -> bool:
    return -BACK_S <= time - end <= TOGETHER_S


class CodedOrder:
    """Gives pictures, which come as they are shown, the stamps of their coding in that order.

    The n-th gets the n-th smallest of them. They count from when the decoder could begin, up to
    DEPTH periods before it gave the first one; that one stands at 0.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._waiting: deque[Any] = deque()
        self._shift: float | None = None

    def add(self, time: float, picture: Any) -> list[Timed]:
        """Take one picture; those whose times are known now."""
        heapq.heappush(self._times, time)
        self._waiting.append(picture)
        return [self._next()] if len(self._waiting) > DEPTH else []

    def end(self) -> list[Timed]:
        """The pictures that are left."""
        return [self._next() for _ in range(len(self._waiting))]

    def _next(self) -> Timed:
        first = heapq.heappop(self._times)
        self._shift = -first if self._shift is None else self._shift
        return first + self._shift, self._waiting.popleft()


class RisingOrder:
    """Makes the stamps of pictures rise, which come in the order in which they are shown.

    Of two that do not, the one that does not fit its neighbours is wrong; it is put halfway
    between them.
    """

    def __init__(self) -> None:
        self._before: float | None = None  # time of the last one given
        self._held: Timed | None = None

    def add(self, time: float, picture: Any) -> list[Timed]:
        """Take one picture; the one before it, whose time is known now."""
        ready = self._fit(time)
        self._held = (time, picture)
        return ready

    def end(self) -> list[Timed]:
        """The picture that is left."""
        return self._fit(None)

    def _fit(self, coming: float | None) -> list[Timed]:
        if self._held is None:
            return []
        time, picture = self._held
        before, self._held = self._before, None
        if before is not None:
            high = coming is not None and time >= coming > before
            if (time <= before or high) and coming is not None and coming > before:
                time = (before + coming) / 2
            elif time <= before:
                time = before
        self._before = time
        return [(time, picture)]


class Rate:
    """Lays pictures at an exact rate; those that tremble by less than half a period as they are."""

    def __init__(self, fps: int) -> None:
        self.first_s = 0.0
        self.kept = True
        self._fps = fps
        self._steps: list[float] = []
        self._last_s: float | None = None
        self._given = self._met = 0  # pictures

    def add(self, time: float) -> int:
        """Take the time of the next picture; how often the one before it is given."""
        count, last = 0, self._last_s
        if last is None:
            self.first_s = time
        else:
            self._steps.append(time - last)
            until = max((time + last) / 2, time - EARLY_S) - self.first_s
            while (self._given + count) / self._fps <= until + 1e-9:
                count += 1
            self.kept = self.kept and count == 1
        self._given += count
        self._met += 1
        self._last_s = time
        return count

    def end(self) -> int:
        """How often the last picture is given: until it has stood."""
        if self._last_s is None:
            return 0
        period = float(np.median(self._steps)) if self._steps else 1 / self._fps
        total = max(1, round((self._last_s - self.first_s + period) * self._fps))
        self.kept = self.kept and (total == self._met or not self._steps)
        return max(0, total - self._given)
