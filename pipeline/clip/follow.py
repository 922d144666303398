"""Faces over the time of a film of any length: who is there, who is meant, and the boxes.

A few times a second a look finds all faces, told apart by where they were seen last. Pictures are
held, at most `HELD_BYTES`, until enough of what follows is known, and leave in blocks with the
boxes that `avb prep` would give them: in a film that is not held whole, the side of the box follows
the median of what is held. Where nobody is seen for long, boxes stay and the pictures are marked.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from avb.pipeline.clip.crop import SIDE, SMOOTH_S, places, square_boxes
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.clip.track import (
    MOST_FACES,
    faces_of,
    forget_faces,
    height,
    interpolate,
    middle,
    turns_upright,
)

#: Pictures a second; all networks are trained on so many.
FPS = 25

#: Luma held before it leaves.
HELD_BYTES = 200_000_000
#: At most so many pictures are held, a minute, and at least so many, two seconds.
MOST_HELD, LEAST_HELD = 60 * FPS, 2 * FPS
#: Pictures that leave together.
BLOCK = FPS
#: A face seen again within so many of its heights of where it was is the same one.
REACH = 1.0
#: Pictures without a box to follow leave together in such numbers.
STILL_BLOCK = 4 * FPS
#: A face missed for longer is gone; shorter gaps are interpolated.
GAP = FPS


@dataclass(frozen=True)
class Frame:
    """How a box lies round a face, in units of `crop.SIDE`: eye corners' distance, or height."""

    kind: str  # lips or face
    side: float  # of the box
    shift: tuple[float, float] = (0.0, 0.0)  # of its centre from that of `crop.places`, x and y

    @classmethod
    def of(cls, kind: str) -> Frame:
        """The box of corpora whose faces are tracked."""
        return cls(kind, SIDE[kind])


@dataclass
class Block:
    """Pictures [H, W] that follow each other."""

    frames: list[np.ndarray]
    boxes: dict[str, np.ndarray]  # float [n, 4] for each kind of crop, in their pixels
    seen: np.ndarray  # bool [n], whether somebody is there


def still(
    frames: Iterable[np.ndarray], boxes_of: Callable[[int, int], dict[str, np.ndarray]]
) -> Iterator[Block]:
    """Pictures [H, W] in blocks; `boxes_of` gives their boxes [1, 4] by height and width."""
    rest = iter(frames)
    while block := list(itertools.islice(rest, STILL_BLOCK)):
        boxes = boxes_of(*block[0].shape)
        repeated = {kind: np.repeat(box, len(block), axis=0) for kind, box in boxes.items()}
        yield Block(block, repeated, np.ones(len(block), bool))


@dataclass
class Person:
    """One face: landmarks [10, 2] by picture number, rising."""

    marks: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """When it was seen last."""
        return next(reversed(self.marks))

    def next(self, start: int) -> int:
        """When it is seen first from `start` on; it must be."""
        return next(at for at in self.marks if at >= start)

    def size(self, start: int) -> float:
        """Heights of all its looks from `start` on, added up: how large, and how often seen."""
        return sum(height(marks) for at, marks in self.marks.items() if at >= start)


class Follower:
    """Follows the faces of one film, `which` 1 being the largest and steadiest, 2 the next one."""

    def __init__(
        self,
        every: int,
        frames: Mapping[str, Frame],
        which: int = 1,
        clock: Clock | None = None,
        *,
        others: bool = True,
        turn: bool = True,
        held: int | None = None,
    ):
        """Begin, with a look every `every` pictures, and boxes laid as `frames` says.

        `clock` gets the time of all this under `track`; without `others` only the face in front is
        looked for; `turn`: try whether the pictures lie on their side, as where a telephone's tag
        was lost; `held`: pictures that wait for what follows, of a film that is seen as it happens
        (then a block leaves with every look).
        """
        self._live = held
        self.every, self.frames, self.which = every, frames, which
        self.clock = clock or Clock()
        self.most = 0  # the largest number of faces in one look
        self.turns = 0  # quarter turns that bring the pictures upright, for `numpy.rot90`
        self.looks = self.misses = 0  # how often it looked, and how often it saw nobody
        self._others, self._turn = others, turn
        self._gap = max(GAP, 2 * every)
        self._people: list[Person] = []
        self._met = False  # only until then are pictures tried sideways
        self._held: deque[np.ndarray] = deque()
        self._first = 0  # number of the first picture held
        self._chosen: Person | None = None
        self._since = 0  # from when on it is the chosen one
        self._last: dict[str, np.ndarray] = {}  # last box of each kind

    def follow(self, frames: Iterable[np.ndarray]) -> Iterator[Block]:
        """The pictures again, upright, in blocks with boxes; the last block may be any size."""
        forget_faces()  # makes the graphs, which is not counted: once in a process, seconds
        if self._others:
            forget_faces(MOST_FACES)
        count = 0
        for picture in frames:
            with self.clock("track"):
                self._held.append(np.rot90(picture, self.turns) if self.turns else picture)
                if count % self.every == 0:
                    self._look(count)
                count += 1
                held = min(MOST_HELD, max(LEAST_HELD, HELD_BYTES // picture.nbytes))
                around, block = held, BLOCK
                if self._live is not None:
                    held, around, block = self._live, LEAST_HELD, self.every
                ready = len(self._held) >= held + block
            if ready:
                yield from self._leave(block, around)
        if count and (count - 1) % self.every:
            with self.clock("track"):
                self._look(count - 1)
        if self._held:
            yield from self._leave(len(self._held), MOST_HELD)

    def require_face(self) -> None:
        """Refuse as `no_face` a film that was looked at in vain more often than not."""
        if self.misses * 2 > self.looks:
            raise Refused(
                "no_face",
                f"no face in {self.misses} of {self.looks} looks (mouth crops already? then --box"
                " whole)",
            )

    def _look(self, number: int) -> None:
        """Look at the picture held last, and give each face to its person."""
        if self._turn and not self._met and (turns := turns_upright(self._held[-1])):
            self.turns = (self.turns + turns) % 4
            self._held = deque(np.rot90(picture, turns) for picture in self._held)
        # Where one person is alone, a look for others once a second will do: it costs more.
        present = [p for p in self._people if p.last >= number - self._gap]
        others = len(present) > 1 or number % FPS < self.every
        faces = faces_of(self._held[-1], self._others and others)
        self.looks += 1
        self.misses += not faces
        self.most = max(self.most, len(faces))
        self._met = self._met or bool(faces)
        for marks in sorted(faces, key=height, reverse=True):
            self._person_at(marks, number).marks[number] = marks

    def _person_at(self, marks: np.ndarray, number: int) -> Person:
        """Whose face it is: that of the nearest who has none yet in this picture, or a new one.

        Whoever comes after a gap is new: another person, or the same one in another place.
        """

        def apart(person: Person) -> float:
            return float(np.linalg.norm(middle(person.marks[person.last]) - middle(marks)))

        free = [p for p in self._people if number - self._gap <= p.last < number]
        near = min(free, key=apart, default=None)
        if near is None or apart(near) > REACH * height(marks):
            near = Person()
            self._people.append(near)
        return near

    def _leave(self, count: int, around: int) -> Iterator[Block]:
        """The first `count` pictures held, with their boxes; a block for each one followed."""
        stop = self._first + count
        while self._first < stop:
            with self.clock("track"):
                start = self._first
                end = min(stop, self._choose(start, start + len(self._held)))
                frames = [self._held.popleft() for _ in range(end - start)]
                self._first = end
                boxes, seen = self._boxes(start, end, around, frames[0].shape)
                self._last = {kind: box[-1:] for kind, box in boxes.items()}
                self._forget(start - 2 * MOST_HELD)
            yield Block(frames, boxes, seen)

    def _choose(self, start: int, known: int) -> int:
        """Stay with the one who is followed, take the next when they are gone; until which picture.

        Of those who are there when the first of them is, or soon after, the largest and steadiest
        comes first.
        """
        if self._chosen is None or self._chosen.last < start - self._gap // 2:
            coming = {id(p): p.next(start) for p in self._people if p.last >= start}
            first = min(coming.values(), default=known)
            soon = [p for p in self._people if coming.get(id(p), math.inf) <= first + self._gap]
            soon.sort(key=lambda p: p.size(start), reverse=True)
            self._chosen = soon[self.which - 1] if len(soon) >= self.which else None
            self._since = start
        if self._chosen is None:
            return start + BLOCK
        gone = self._chosen.last + self._gap < known
        return self._chosen.last + self._gap // 2 + 1 if gone else known

    def _boxes(
        self, start: int, stop: int, around: int, shape: tuple[int, ...]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Boxes [n, 4] of the pictures from start to stop, and whether somebody is there [n]."""
        num_frames, known = stop - start, stop + len(self._held)
        if self._chosen is None:
            rows, columns = shape
            half = min(rows, columns) / 4  # nothing was seen yet: the middle of the picture
            middle = np.array([[columns / 2, rows / 2] * 2]) + half * np.array([-1, -1, 1, 1])
            last = {kind: self._last.get(kind, middle) for kind in self.frames}
            boxes = {kind: np.repeat(box, num_frames, axis=0) for kind, box in last.items()}
            return boxes, np.zeros(num_frames, bool)
        marks_at = {at: m for at, m in self._chosen.marks.items() if at >= self._since}
        low, high = max(self._since, start - around), min(known, stop + around)
        points = interpolate(marks_at, low, high)
        boxes = {}
        for kind, frame in self.frames.items():
            centre, unit = places(points, frame.kind)
            size = float(np.median(unit))
            # Smoothing reaches four deviations to each side.
            reach = int(4 * SMOOTH_S * FPS + 0.5)
            first = max(low, start - reach)
            part = centre[first - low : stop + reach - low]
            if any(frame.shift):
                part = part + size * np.array(frame.shift)
            laid = square_boxes(part, frame.side * size, FPS)
            boxes[kind] = laid[start - first :][:num_frames]
        return boxes, self._seen(np.array(list(marks_at)), start, stop)

    def _seen(self, at: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Whether each picture lies in no long gap between looks that found the chosen one."""
        half = self._gap // 2
        edges = np.array([-np.inf, at[0] - half, *at, at[-1] + half, np.inf])
        numbers = np.arange(start, stop)
        before = edges[np.searchsorted(edges, numbers, side="right") - 1]
        return edges[np.searchsorted(edges, numbers)] - before <= self._gap

    def _forget(self, before: int) -> None:
        """Drop people that no box depends on any more, and the old looks at the others."""
        if before > 0:
            for person in self._people:
                last = person.last
                person.marks = {a: m for a, m in person.marks.items() if a >= before or a == last}
            chosen = self._chosen
            self._people = [p for p in self._people if p is chosen or p.last >= before]
