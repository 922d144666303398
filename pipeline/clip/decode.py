"""A film to luma pictures at an exact rate and mono sound, in one pass; few pictures are held.

The picture is the decoder's luma plane, limited range or full, never rescaled; upright, and with
square pixels. Sound keeps its rate and its place in time; `audio.fit` puts it under the pictures.
"""

import functools
import itertools
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.clip.container import PREROLL_S, UNINDEXED, Event, Head, Track, open_head
from avb.pipeline.clip.media import Media, fitted
from avb.pipeline.clip.sound_track import Sound
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.timeline import (
    CODED_ORDER,
    Rate,
    Timed,
    Timeline,
    coded_order,
    rising_order,
)
from avb.pipeline.files import ABSENT

#: Pixels and samples of a film taken whole that are read before any is placed: all of most clips.
#: What places them takes three times as long where each decoding throws it out of the caches, 3 %
#: of a clip of GRID, 1.5 % of one of LRW.
AHEAD, AHEAD_EVENTS = 1 << 23, 1000


def stream_video(
    path: Path,
    fps: int,
    start_s: float | None = None,
    end_s: float | None = None,
    decoder: str = "pyav",
    max_s: float | None = None,
    sound: Track = "required",
    lag_s: float = 0.0,
) -> Media:
    """Pictures and sound of a file, or of a span of it in seconds after the first picture.

    They are read as they go, `fps` pictures a second, by "pyav" or the program "ffmpeg". Refused
    (also meanwhile) as `unreadable`, `bad_decode`, `no_audio`, or `long` above `max_s`; with
    `sound` "optional" a film without it is flagged `no_audio`. The sound is taken `lag_s` later
    than the pictures. OSError: the file cannot be read.
    """
    try:
        file = path.stat()
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        raise Refused("unreadable", f"{path.name}: no such file") from None
    if not stat.S_ISREG(file.st_mode):  # a pipe would be waited for without end
        raise Refused("unreadable", f"{path.name or path}: no file but a folder, pipe or device")
    if file.st_size == 0:
        raise Refused("bad_decode", f"{path.name}: 0 bytes")
    container, head = open_head(str(path), path.name, sound)
    film = Film(head, fps, start_s, end_s, decoder, max_s, sound, container=container)
    film.lag_s = lag_s
    return film


def read_video(*where: Any, **options: Any) -> Media:
    """`stream_video` with all pictures in a list."""
    return stream_video(*where, **options).whole()


class Film(Media):
    """One pass over a film or a span of it: its pictures at an exact rate, then its sound."""

    def __init__(
        self,
        head: Head,
        fps: int,
        start_s: float | None = None,
        end_s: float | None = None,
        decoder: str = "pyav",
        max_s: float | None = None,
        need: Track = "optional",
        colour: bool = False,
        container: Any = None,
    ) -> None:
        """Get ready; nothing is read before the pictures are asked for.

        As `stream_video`; `need` "required" refuses a film whose sound cannot be used, `colour`
        gives BGR pictures, uint8 [H, W, 3] (of the program alone), `container` is the opened film,
        if any.
        """
        super().__init__(self._frames())
        self.head, self.fps, self.need = head, fps, need
        self._decoder, self._colour, self._container = decoder, colour, container
        self._low = start_s or 0.0
        self._high = float("inf") if end_s is None else end_s
        self._limit = float("inf") if max_s is None else self._low + max_s
        self._edge = 0.5 / fps + 1e-6  # a picture belongs to the span whose start it is nearest to
        self._track = Sound()
        self._first_s = 0.0  # when the first picture stands, in seconds of the span
        self._last_s = 0.0  # when the last picture before the span ends
        self._shape: tuple[int, ...] | None = None
        self._through: set[str] = set()  # kinds whose span is over

    def _frames(self) -> Iterator[np.ndarray]:
        """Pictures uint8 [H, W] at exactly `fps`; behind the last one the sound is known."""
        # A seek may land behind the start of the span: always where nothing is indexed, else where
        # pictures that are shown before a key picture were coded behind it.
        begin_s = max(0.0, self._low + min(0.0, self.lag_s))
        for seek_s in (begin_s, max(0.0, begin_s - PREROLL_S), 0.0):
            self._track, self._shape = Sound(), None
            timed = self._span(seek_s)
            first = next(timed, None)
            late = first is None or first[0] > 0.51 / self.fps
            if self.head.form in UNINDEXED:
                late = late or "damaged" in self.flags
            elif self._last_s:  # there was a picture before the span
                late = False
            sought = seek_s > 0 and self._decoder == "pyav" and self.head.form not in CODED_ORDER
            if not (late and sought):
                break
            self.flags.discard("damaged")
        if first is None:
            raise Refused("bad_decode", f"{self.head.name}: {self._why_nothing()}")
        rate = Rate(self.fps)
        yield from rate.lay(itertools.chain([first], timed))
        self._first_s = rate.first_s
        if not rate.kept:
            self.flags.add("resampled_rate")
        try:
            if self.head.audio is not None:
                self.read_sound()
        except Refused:
            if self.need == "required":
                raise
        if self.sound is None:
            self.flags.add("no_audio")

    def _why_nothing(self) -> str:
        """Why there is no picture; a film may end before or after the time that it says."""
        ends_s = (self.head.duration_s or 0.0, self._last_s)
        if end_s := max((end_s for end_s in ends_s if end_s <= self._low), default=0.0):
            return f"starts at {self._low:g} s, the film ends at {end_s:.2f} s"
        return "no picture came out of the decoder"

    def read_sound(self) -> None:
        """Set the span's sound once its pictures are through or not wanted; Refused: `no_audio`."""
        if self.head.video is None and self.head.audio is not None:
            for _ in self._span(self._low):
                pass
        mono, rate, start_s = self._track.mono(self.head.name)
        start_s -= self._first_s
        lead = round(-start_s * rate)
        if self._low + self.lag_s > 0 and lead > 0:  # it begins with a block, not the span
            mono, start_s = mono[lead:], start_s + lead / rate
            if not len(mono):
                raise Refused("no_audio", f"{self.head.name}: the sound ends before {self._low} s")
        self.sound, self.rate, self.sound_start_s = mono, rate, start_s

    def _span(self, seek_s: float) -> Iterator[Timed]:
        """Pictures of the span with their times in it, from one pass; the sound is collected."""
        self._through.clear()
        events = self._events(seek_s)
        ahead: list[Event] = []
        values = 0
        if (self._low, self._high) == (0.0, float("inf")):  # else some need not be made
            for kind, stamp, duration, content in events:
                if kind == "picture":
                    picture = content()
                    content = functools.partial(np.asarray, picture)
                    values += picture.size
                elif kind == "sound":
                    values += content[0].size
                ahead.append((kind, stamp, duration, content))
                late = stamp is not None and stamp - self.head.start_s > self._limit
                if late or values > AHEAD or len(ahead) > AHEAD_EVENTS:
                    break
        ordered = coded_order if self.head.form in CODED_ORDER else rising_order
        placed = self._timed(itertools.chain(ahead, events), seek_s)
        for time, make in self._inside(ordered(placed)):
            picture = fitted(make(), self._shape)
            self._shape = picture.shape
            yield time, picture

    def _timed(self, events: Iterable[Event], seek_s: float) -> Iterator[Timed]:
        """What makes each picture of one pass, with its time in the film."""
        shifts = [0.0]
        lines = {"picture": Timeline(shifts), "sound": Timeline(shifts)}
        beyond = dict.fromkeys(lines, 0)
        low, high = self._low - self._edge, min(self._high, self._limit)
        for kind, stamp, duration, content in events:
            if kind == "damage":  # behind a seek pictures are missing that others rest on
                if seek_s == 0 or self._shape is not None:
                    self.flags.add("damaged")
                continue
            stamp = None if stamp is None else stamp - self.head.start_s
            time = lines[kind].time(stamp, duration) - (self.lag_s if kind == "sound" else 0.0)
            beyond[kind] = 0 if time <= high + 1 else beyond[kind] + 1
            if beyond[kind] > 1:  # a single one may be damaged
                self._through.add(kind)
            if kind == "picture":
                if self.head.form in CODED_ORDER:  # many wait: only as large as needed
                    picture = fitted(content(), self._shape)
                    self._shape = picture.shape
                    content = functools.partial(np.asarray, picture)
                yield time, content
            elif time + duration > low and time < high:
                block, rate, names = content
                self._track.add(block, rate, names, time - self._low)

    def _events(self, seek_s: float) -> Iterator[Event]:
        if self._decoder == "pyav":
            from avb.pipeline.clip.pyav import pyav_events

            container, self._container = self._container, None
            return pyav_events(self.head, seek_s, self._through, self.flags, container)
        from avb.pipeline.clip.ffmpeg import program_events

        return program_events(self.head, seek_s, self._through, self._colour)

    def _inside(self, pictures: Iterable[Timed]) -> Iterator[Timed]:
        """Those of the pictures that belong to the span, with their times in it."""
        before: Any = None  # the last one before the span
        over = False
        for time, make in pictures:
            over = over or time >= self._high - self._edge
            if over:  # but sound may follow
                continue
            if time >= self._limit:
                raise Refused(
                    "long",
                    f"{self.head.name}: longer than {self._limit - self._low:g} s; cut it with the"
                    " columns start and end of a table, or raise --max-seconds",
                )
            if time < self._low - self._edge:
                before, self._last_s = make, time + 1 / self.fps
                continue
            if self._low > 0 and before is not None and time > self._low + self._edge:
                yield 0.0, before  # the one that stands when the span begins
            before = None
            yield time - self._low, make
