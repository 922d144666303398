"""When each picture and each block of sound stands: one clock for both readers, `prep` and `infer`.

A film's stamps are what a player goes by, and some are wrong: recordings joined end to end start
again, damaged ones jump by years, AVI has none for pictures that were coded out of order. Here they
become times that run on, in seconds, and pictures are laid at an exact rate by them.
"""

import heapq
import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

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


class Timeline:
    """The times of one stream, from its stamps in the order of delivery.

    `shifts` are the seconds to add to the stamps of each recording joined into one film, so that
    they run on. All streams of the film share the list: where one crosses into the next recording
    first, the others follow by the same amount and stay in step.
    """

    def __init__(self, shifts: list[float] | None = None) -> None:
        self._shifts = [0.0] if shifts is None else shifts
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
            if end is not None and not _follows(start, end):
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


def coded_order(pictures: Iterable[Timed]) -> Iterator[Timed]:
    """Give pictures, which come as they are shown, the stamps of their coding in that order.

    The n-th gets the n-th smallest of them. They count from when the decoder could begin, up to
    DEPTH periods before it gave the first one; that one stands at 0.
    """
    times: list[float] = []
    waiting: deque[Any] = deque()
    zero: float | None = None
    for time, picture in itertools.chain(pictures, [(math.inf, None)] * DEPTH):
        heapq.heappush(times, time)
        waiting.append(picture)
        if len(waiting) > DEPTH:
            first = heapq.heappop(times)
            zero = first if zero is None else zero
            yield first - zero, waiting.popleft()


def rising_order(pictures: Iterable[Timed]) -> Iterator[Timed]:
    """Make the stamps of pictures rise, which come in the order in which they are shown.

    Of two that do not, the one that does not fit its neighbours is wrong; it is put halfway
    between them.
    """
    before: float | None = None  # time of the last one given
    end = -math.inf, None
    for (time, picture), (coming, _) in itertools.pairwise(itertools.chain(pictures, [end])):
        if before is not None:
            if before < coming and not before < time < coming:
                time = (before + coming) / 2
            time = max(time, before)
        before = time
        yield time, picture


class Rate:
    """Lays pictures at an exact rate; those that tremble by less than half a period as they are."""

    def __init__(self, fps: int) -> None:
        self.first_s = 0.0  # the time of the first picture
        self.kept = True  # whether each picture was given once
        self._fps = fps

    def lay(self, timed: Iterable[Timed]) -> Iterator[Any]:
        """Each picture as often as it is shown, the last one until it has stood."""
        steps: list[float] = []
        met = given = 0  # pictures
        last_s, shown = 0.0, None
        for time, picture in timed:
            if met == 0:
                self.first_s = time
            else:
                steps.append(time - last_s)
                until = max((time + last_s) / 2, time - EARLY_S) - self.first_s
                before = given
                while given / self._fps <= until + 1e-9:
                    given += 1
                    yield shown
                self.kept = self.kept and given == before + 1
            last_s, shown, met = time, picture, met + 1
        if met == 0:
            return
        period = statistics.median(steps) if steps else 1 / self._fps  # NumPy's takes .03 ms
        total = max(1, round((last_s - self.first_s + period) * self._fps))
        self.kept = self.kept and (total == met or not steps)
        for _ in range(total - given):
            yield shown
