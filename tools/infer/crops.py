"""The crops of a film for a model: which box, laid how, cut by the code of `avb prep`.

A box means the same as in training. A fixed one (LRW) has no meaning in another film; there it is
laid round the tracked face, as many times the distance between the outer eye corners as it has in
LRW's own pictures. Pictures that were mouths already and taken whole (LRW-1000) get the lips box.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from avb.pipeline.clip import crop
from avb.pipeline.clip.container import Head
from avb.pipeline.clip.follow import Block, Follower, Frame, still
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.errors import UsageError
from avb.tools.infer.model import Trained
from avb.tools.infer.video import FPS, BadVideo, pictures

#: LRW's mean face in its 256 x 256 pictures: outer eye corners 74.16 px apart, middle of the mouth
#: corners at (129.7, 157.1) (mpc001/Lipreading_using_Temporal_Convolutional_Networks,
#: preprocessing/20words_mean_face.npy, points 36, 45, 48 and 54).
LRW_PICTURE = 256
LRW_EYES_PX = 74.16
LRW_MOUTH_PX = (129.68, 157.09)
#: Looks a second at a film that is no clip of the corpus: its people may walk.
LOOKS_A_SECOND = 5
#: Of pictures that come in real time: from look to look, and how many wait for the next one.
LIVE_EVERY, LIVE_HELD = 3, 2

#: The one kind of crop that a model takes.
CROP = "crop"

BOXES = ("auto", "fixed", "tracked", "whole")


class Piece(NamedTuple):
    """Crops of pictures that follow each other."""

    crops: np.ndarray  # uint8 [n, stored, stored]
    seen: np.ndarray  # bool [n], whether somebody is there


@dataclass
class Cutter:
    """Cuts one film for one model, and keeps what there is to tell about it."""

    video: Head
    trained: Trained
    box: str = "auto"  # auto, fixed, tracked or whole; after cutting, what it was
    every: int | None = None  # pictures from one look at the faces to the next; None: as asked for
    which: int = 1  # whose face, 1 for the largest and steadiest
    clock: Clock = field(default_factory=Clock)  # of decode, track and crop
    size: tuple[int, int] = (0, 0)  # height and width of the pictures
    faces: int = 0  # the most seen at a time
    turns: int = 0  # quarter turns that the pictures needed
    # What was cut, float [T, 4], x0 y0 x1 y1 in the pixels of the pictures; where somebody is, [T].
    boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    seen: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def pieces(self) -> Iterator[Piece]:
        """The crops of the whole film, in order; BadVideo: it is none, or nobody is in it."""
        frames = self._decoded()
        own, frames = self._is_own(frames)
        if self.box == "auto":
            lay = self.trained.settings.box
            self.box = "tracked" if lay == "tracked" or not own else lay
        blocks = self._tracked(frames, own) if self.box == "tracked" else self._fixed(frames)
        for block in blocks:
            self.size = block.frames[0].shape  # type: ignore[assignment]
            self.boxes = np.concatenate([self.boxes, block.boxes[CROP]])
            self.seen = np.concatenate([self.seen, block.seen])
            with self.clock("crop"):
                crops = crop.cut(block.frames, block.boxes[CROP], self.trained.crop)
            yield Piece(crops, block.seen)
        if not self.seen.any():
            crop_already = " (is it a crop already? then --box whole)"
            raise nobody(self.video.name, self.faces, self.which, crop_already)

    def _decoded(self) -> Iterator[np.ndarray]:
        source = pictures(self.video)
        while True:
            with self.clock("decode"):
                picture = next(source, None)
            if picture is None:
                return
            yield picture

    def _is_own(self, frames: Iterator[np.ndarray]) -> tuple[bool, Iterator[np.ndarray]]:
        """Whether the film is like a clip of the corpus: its picture, and its length.

        No film is one of LRW-1000, whose clips are folders of pictures of mouths.
        """
        settings = self.trained.settings
        wanted, length = settings.picture, settings.frames
        held = list(itertools.islice(frames, (length or 0) + 1))
        own = bool(held) and wanted is not None and list(held[0].shape[::-1]) == wanted
        if settings.box != "tracked":
            own = own and (length is None or len(held) == length)
        unknown = wanted is None and settings.corpus != "lrw1000"
        return own or unknown, itertools.chain(held, frames)

    def _tracked(self, frames: Iterator[np.ndarray], own: bool) -> Iterator[Block]:
        every = self.every or (self.trained.settings.face_every if own else FPS // LOOKS_A_SECOND)
        follower = Follower(every, {CROP: frame_of(self.trained)}, self.which, self.clock)
        for block in follower.follow(frames):
            self.faces, self.turns = follower.most, follower.turns
            yield block

    def _fixed(self, frames: Iterator[np.ndarray]) -> Iterator[Block]:
        """Boxes that do not follow anybody."""
        fixed, wanted = self.trained.settings.fixed_box, self.trained.settings.picture
        if self.box == "fixed" and (fixed is None or wanted is None):
            raise UsageError("--box fixed: this model was not trained with a fixed box; tracked?")

        def boxes(height: int, width: int) -> dict[str, np.ndarray]:
            if self.box == "whole":
                return {CROP: crop.whole_boxes(height, width)}
            assert fixed is not None and wanted is not None
            return {CROP: crop.fixed_boxes(fixed, wanted, height, width)}

        return still(frames, boxes)

    def facts(self) -> dict[str, Any]:
        """What a record says of how the film was cut."""
        return {
            "box": self.box,
            "faces": self.faces,
            "turned": -90 * self.turns % 360,
            "absent": absent_spans(self.seen),
        }


def frame_of(trained: Trained) -> Frame:
    """How boxes lie round a tracked face."""
    box, picture = trained.settings.fixed_box, trained.settings.picture
    if trained.settings.box != "fixed" or box is None or picture is None:
        return Frame.of(trained.recipe.crop)
    unit = LRW_EYES_PX * picture[0] / LRW_PICTURE
    mouth = np.array(LRW_MOUTH_PX) * picture[0] / LRW_PICTURE
    x, y = (np.array([box[0] + box[2], box[1] + box[3]]) / 2 - mouth) / unit
    return Frame("lips", (box[2] - box[0]) / unit, (float(x), float(y)))


def nobody(name: str, faces: int, which: int, more: str = "") -> BadVideo:
    """What is wrong with a film where the face that was asked for is in no picture."""
    what = (
        f"no face number {which}; {faces} found (--face)" if faces else f"no face was found{more}"
    )
    return BadVideo(f"{name}: {what}")


def live_pieces(
    frames: Iterator[np.ndarray], trained: Trained, which: int = 1, film: str | None = None
) -> Iterator[Piece]:
    """The crops of pictures as they come, 0.2 s after them at the latest.

    BadVideo: they are all of `film`, and nobody is in it.
    """
    follower = Follower(LIVE_EVERY, {CROP: frame_of(trained)}, which, held=LIVE_HELD)
    anybody = False
    for block in follower.follow(frames):
        anybody |= bool(block.seen.any())
        yield Piece(crop.cut(block.frames, block.boxes[CROP], trained.crop), block.seen)
    if film is not None and not anybody:
        raise nobody(film, follower.most, which)


class Window(NamedTuple):
    """A span of the film: its first picture, crops [n, stored, stored] and seen [n]."""

    start: int
    crops: np.ndarray
    seen: np.ndarray


def slide(pieces: Iterator[Piece], size: int, stride: int) -> Iterator[Window]:
    """Windows of `size` pictures every `stride`, the last ending with the film; few are held."""
    crops = np.empty((0, 0, 0), np.uint8)
    seen = np.empty(0, bool)
    first = start = covered = 0  # number of the first picture held, of the next window, done
    for piece in pieces:
        crops = np.concatenate([crops, piece.crops]) if len(crops) else piece.crops
        seen = np.concatenate([seen, piece.seen])
        while start + size <= first + len(crops):
            at = start - first
            yield Window(start, crops[at : at + size], seen[at : at + size])
            covered, start = start + size, start + stride
        drop = max(0, min(start - first, len(crops) - size))  # the tail's window may begin earlier
        crops, seen, first = crops[drop:], seen[drop:], first + drop
    num_frames = first + len(crops)
    if covered < num_frames:
        at = max(0, len(crops) - size)
        yield Window(first + at, crops[at:], seen[at:])


def absent_spans(seen: np.ndarray) -> list[tuple[float, float]]:
    """Start and end in seconds of each stretch in which nobody is seen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~seen, [False]]).astype(int)))
    return [(float(a) / FPS, float(b) / FPS) for a, b in edges.reshape(-1, 2)]
