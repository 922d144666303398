"""One decoded clip: its pictures, its sound, and what was odd about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.video.plane import VideoPlane

from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.stopwatch import Clock

#: Luma deviation below this is a picture without content: a missing intra picture decodes to
#: 0.0 to 1.2 over its first two frames, a face to more than 30.
BLANK_STD = 2.0
#: Pictures with more pixels than this (the largest camera format) are refused: a decoder holds up
#: to 16 of them.
MAX_PIXELS = 8192 * 4320
#: Pictures longer than this are shrunk by a whole factor as they are read: a face in them is
#: large, and a second of 4K is 200 MB.
MAX_SIDE = 1920


@dataclass(frozen=True)
class Expected:
    """What a corpus promises of the pictures of its clips."""

    source: str  # the clip's file, for messages
    frames: int | None  # how many there are; None where any number will do
    one_may_lack: bool = False  # whether one fewer is kept, as `one_frame_short`
    refuse_blank: bool = False  # whether a picture without content refuses the clip

    def check(self, num_frames: int, blank: list[int], flags: set[str]) -> None:
        """Compare with what came; Refused: `blank_frames`, `short` or `long`."""
        if blank:
            first = f"{len(blank)} pictures without content, the first is {blank[0]}"
            raise Refused("blank_frames", f"{self.source}: {first}")
        if self.frames is None or num_frames == self.frames:
            return
        if self.one_may_lack and num_frames == self.frames - 1:
            flags.add("one_frame_short")
            return
        status, cause = "long", "another cut of the corpus?"
        if num_frames < self.frames:
            status, cause = "short", "truncated file?"
        counted = f"{num_frames} frames, expected {self.frames} ({cause})"
        raise Refused(status, f"{self.source}: {counted}")


@dataclass
class Media:
    """Pictures and sound of a clip."""

    # T pictures of luma, uint8 [H, W], of one size; an iterator can be read once
    frames: Iterable[np.ndarray]
    # Float32 [n], mono, about -1 to 1, at `rate` Hz; None where there is none. Of a film that is
    # read as it is used, it is there when the pictures are through.
    sound: np.ndarray | None = None
    rate: int = 0
    sound_start_s: float = 0.0  # where `sound` starts, in seconds after the first picture
    lag_s: float = 0.0  # by how much `sound` was moved towards the start already
    flags: set[str] = field(default_factory=set)  # what was odd, of `FLAGS`
    expected: Expected | None = None  # what the pictures are compared with

    def pictures(self, clock: Clock | None = None) -> Iterator[np.ndarray]:
        """The pictures one by one, timed as `decode`; Refused at the end if not as expected."""
        clock, frames = clock or Clock(), iter(self.frames)
        blank: list[int] = []
        count = 0
        while True:
            started = clock.timer()
            frame = next(frames, None)
            if frame is not None and self.expected and self.expected.refuse_blank:
                blank += [count] * is_blank(frame)
            clock.add("decode", started)
            if frame is None:
                break
            count += 1
            yield frame
        if self.expected:
            self.expected.check(count, blank, self.flags)

    def whole(self) -> Media:
        """The same with all pictures in a list."""
        self.frames = list(self.pictures())
        return self


def first_plane(frame: Any, kind: str = "u1") -> np.ndarray:
    """The first plane of PyAV's frame [H, W] without the padding of its rows, not copied."""
    plane: Any = VideoPlane(frame, 0)  # the frame's `planes` are made anew each time, all of them
    shape = frame.height, frame.width
    return np.ndarray(shape, kind, plane, strides=(plane.line_size, int(kind[-1])))


def fitted(picture: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """A picture in the size of the first; the first one, `shape` None, at most `MAX_SIDE` long."""
    if shape is None:
        shrink = -(-max(picture.shape[:2]) // MAX_SIDE)
        height, width = (max(1, side // shrink) for side in picture.shape[:2])
        shape = (height, width, *picture.shape[2:])
    if picture.shape == shape:
        return picture
    import cv2

    return np.asarray(cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA))


def is_blank(picture: np.ndarray) -> bool:
    """Whether a picture has no content, judged by every eighth pixel."""
    import cv2

    deviation = cv2.meanStdDev(np.ascontiguousarray(picture[::8, ::8]))[1]
    return bool(deviation[0, 0] < BLANK_STD)
