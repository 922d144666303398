"""Sentences as they are spoken: from a camera, or a film that is played in real time.

Pictures are read three at a time. Each time the network looks again at the last three seconds, and
all since the last pause is decoded anew; a word is told once it lies behind the decoder's edge, so
it is never taken back.
"""

import dataclasses
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from avb.pipeline.clip.pyav import luma_of
from avb.pipeline.errors import one_line
from avb.pipeline.machine import cores
from avb.tools.infer.crops import Piece, live_pieces
from avb.tools.infer.model import Trained
from avb.tools.infer.sentence import Floats, frame_log_probs
from avb.tools.infer.video import FPS, BadVideo
from avb.train.device import use_threads
from avb.train.evaluate.words.reading import Spoken

WINDOW = 75  # frames that the network looks at again
AHEAD = 6  # frames at its end that are not decoded yet: what follows may still change them
#: Frames at the beginning of a window that had more before them when they were looked at last.
BEHIND = 10
SETTLED = 2  # frames of something else after which a word is over
PAUSE = 50  # frames without a word that end a sentence, half of which may yet become one
LONGEST = 10 * FPS  # of what is decoded together, unless it is one word


@dataclass
class Listener:
    """Reads crops as they come; words are told once, with their frames since the beginning."""

    trained: Trained

    def __post_init__(self) -> None:
        self._crops = np.empty((0, 0, 0), np.uint8)  # of the last window
        self._seen = np.empty(0, bool)
        # Log-probabilities since the last pause, [n x K + 1].
        self._rows: Floats = np.empty((0, len(self.trained.labels) + 1), np.float32)
        self._first = 0  # number of its first frame
        self._frames = 0  # all that have come
        self._told = 0  # words of these rows
        self._reading = self.trained.reading(repeated=True)
        if grammar := self._reading.grammar:
            anywhere = np.ones_like(grammar.final)  # it is read while it is spoken
            grammar = dataclasses.replace(grammar, final=anywhere)
            self._reading = dataclasses.replace(self._reading, grammar=grammar)

    def push(self, piece: Piece) -> list[Spoken]:
        """Take the next crops; the words that are certain now."""
        crops = [self._crops, piece.crops] if self._frames else [piece.crops]
        self._crops = np.concatenate(crops)[-WINDOW:]
        self._seen = np.concatenate([self._seen, piece.seen])[-WINDOW:]
        self._frames += len(piece.crops)
        self._look(self._frames - len(self._crops))
        return self._certain(last=False)

    def end(self) -> list[Spoken]:
        """Nothing follows: the words that are left."""
        return self._certain(last=True)

    def _certain(self, last: bool) -> list[Spoken]:
        known = len(self._rows) - (0 if last else AHEAD)
        if known <= 0:
            return []
        words = self._reading.words(self._rows[:known])
        over = [word for word in words if last or word.stop <= known - SETTLED]
        new = over[self._told :]
        self._told = max(self._told, len(over))
        told = [
            dataclasses.replace(w, first=w.first + self._first, stop=w.stop + self._first)
            for w in new
        ]
        ended = words[-1].stop if words else 0
        if len(over) == len(words) and known - ended >= PAUSE:
            self._forget(known - PAUSE // 2, 0)
        elif known > LONGEST and len(over) > 1:  # at the longest gap, most likely between sentences
            gaps = [later.first - word.stop for word, later in pairwise(over)]
            at = int(np.argmax(gaps))
            self._forget((over[at].stop + over[at + 1].first) // 2, len(over) - at - 1)
        return told

    def _look(self, start: int) -> None:
        """The network's word on the last window, which begins with frame `start`."""
        rows = frame_log_probs(self._crops, self._seen, self.trained)
        # Frames keep what was said of them when they had more before them.
        begin = max(start + (BEHIND if start else 0), self._first)
        self._rows = np.concatenate([self._rows[: begin - self._first], rows[begin - start :]])

    def _forget(self, frames: int, told: int) -> None:
        """Decode the rest alone from now on, of which so many words are told."""
        self._rows, self._first, self._told = self._rows[frames:], self._first + frames, told


@dataclass
class Paced:
    """Pictures 25 a second, none before its time."""

    source: Iterator[np.ndarray]
    taken: int = 0
    began: float = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        self.began = time.perf_counter()
        while True:
            due = self.began + (self.taken + 1) / FPS
            time.sleep(max(0.0, due - time.perf_counter()))
            picture = next(self.source, None)
            if picture is None:
                return
            self.taken += 1
            yield picture

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began


class Camera:
    """The newest picture of a camera, whatever its own rate is; read by PyAV, as all films are."""

    def __init__(self, number: int) -> None:
        """Open it; BadVideo: there is none."""
        import av

        place, form = device(number)
        try:
            self._container = av.open(place, format=form)
            self._frames = self._container.decode(video=0)
            self._picture = luma_of(next(self._frames), 1.0, set())
        except (av.FFmpegError, OSError, StopIteration, IndexError) as error:
            raise BadVideo(
                f"--camera {number}: no picture comes from it ({one_line(error)}); a film:"
                " --follow FILE"
            ) from None
        self._open = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import av

        with suppress(av.FFmpegError, OSError):
            for frame in self._frames:
                self._picture = luma_of(frame, 1.0, set())
                if not self._open:
                    return
        self._open = False

    def __iter__(self) -> Iterator[np.ndarray]:
        """Its luma, uint8 [H, W], until it has gone."""
        while self._open:
            yield self._picture

    def close(self) -> None:
        """Let go of it."""
        self._open = False
        self._thread.join(timeout=1)
        self._container.close()


def device(number: int) -> tuple[str, str]:
    """Name and format of a camera for `av.open`."""
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    return f"/dev/video{number}", "v4l2"


def leave_a_core() -> None:
    """Give the network one core less than there are: pictures are decoded and tracked meanwhile.

    With all of two, beside another program, words came 2 s late where they came .44 s late alone;
    with one they are as soon either way.
    """
    use_threads(cores() - 1)


def hear(
    pictures: Iterable[np.ndarray], trained: Trained, face: int = 1, film: str | None = None
) -> Iterator[Spoken]:
    """Words of pictures, luma [H, W], as they come; none is asked for before all is ready.

    BadVideo: they are all of `film`, and nobody is in it.
    """
    listener = Listener(trained)
    nobody = np.zeros((WINDOW, trained.crop.stored, trained.crop.stored), np.uint8)
    frame_log_probs(nobody, np.ones(WINDOW, bool), trained)  # the first pass takes .3 s longer
    for piece in live_pieces(iter(pictures), trained, face, film):
        yield from listener.push(piece)
    yield from listener.end()
