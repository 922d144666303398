"""A film to luma pictures at an exact rate and mono sound. No corpus knowledge; no process a clip.

The picture is the decoder's luma plane as it is, limited range or full, its levels never rescaled;
upright, and with square pixels as a player shows it. Sound keeps its own rate and its own place in
time; `audio.fit` puts it under the pictures. Both are read in one pass, and few pictures are held.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avb.pipeline.clip.sound_track import Sound
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.timeline import (
    CODED_ORDER,
    Rate,
    Recordings,
    Timed,
    Timeline,
    in_coded_order,
    rising,
)
from avb.pipeline.files import ABSENT

#: Luma deviation below this is a picture without content: a missing intra picture decodes to
#: 0.0 to 1.2 over its first two frames, a face to more than 30.
BLANK_STD = 2.0
#: Containers without an index: a seek lands near the wanted time, but at no picture that stands
#: alone. Broadcast and disc streams have one at least every half second.
UNINDEXED = {"mpeg", "mpegts"}
PREROLL_S = 2.0
#: Pictures with more pixels than this (the largest camera format) are refused: a decoder holds up
#: to 16 of them.
MAX_PIXELS = 8192 * 4320
#: Pictures longer than this are shrunk by a whole factor as they are read: a face in them is
#: large, and a second of 4K is 200 MB.
MAX_SIDE = 1920
#: Pixels this close to square are taken as they are; beyond these limits the film says nonsense.
SQUARE, MAX_SAR = 0.02, 5
#: Formats that name other files, which a film from outside has no business to open.
NAMING = set(
    "hls dash concat concatf imf image2 sdp rtsp rtp lavfi webm_dash_manifest avisynth vapoursynth"
    " dvdvideo".split()
)
#: Dispositions of a stream, of libavformat.
DEFAULT, ATTACHED_PIC = 0x1, 0x400
#: Types of samples by FFmpeg's names of them, which end in p where each channel has its plane.
NUMBERS = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
#: What is read of a film whose sound nobody asked for, or that may have none.
Track = Literal["required", "optional", "none"]

#: Kind ("picture" or "sound"), stamp and duration in seconds, and what makes the picture, or
#: (block [channels, n], rate, channel names).
Event = tuple[str, float | None, float, Any]


@dataclass
class Media:
    """One decoded clip.

    Attributes:
        frames: T pictures of luma, uint8 [H, W], of one size; an iterator can be read once.
        sound: float32 [n], mono, about -1 to 1, at `rate` Hz; None where there is none. Of a film
            that is read as it is used, it is there when the pictures are through.
        sound_start_s: where `sound` starts, in seconds after the first picture.
        flags: what was odd, of `records.FLAGS`.
    """

    frames: Iterable[np.ndarray]
    sound: np.ndarray | None = None
    rate: int = 0
    sound_start_s: float = 0.0
    flags: set[str] = field(default_factory=set)

    def whole(self) -> Media:
        """The same with all pictures in a list."""
        self.frames = list(self.frames)
        return self


@dataclass(frozen=True)
class Head:
    """What a film says of itself, and which of its tracks are read.

    Attributes:
        source: what FFmpeg is given: a path or an address.
        name: for messages.
        form: the container's name.
        video: number of the video stream; None if its pictures are not wanted.
        audio: number of the audio stream; None if there is none, or it is not wanted.
        start_s: the first stamp of the pictures.
        zero_s: that of the file.
        duration_s: of its pictures, in seconds; None if it does not say.
        codec: of its pictures.
        sar: width of a pixel in heights.
        channels: names of the sound's channels.
        remote: whether it is an address.
    """

    source: str
    name: str
    form: str
    video: int | None
    audio: int | None
    start_s: float
    zero_s: float
    duration_s: float | None
    codec: str
    sar: float
    channels: tuple[str, ...]
    remote: bool = False

    @property
    def seekable(self) -> bool:
        """Whether a seek lands where it should."""
        return self.form not in UNINDEXED | CODED_ORDER


def stream_video(
    path: Path,
    fps: int,
    start_s: float | None = None,
    end_s: float | None = None,
    decoder: str = "pyav",
    max_s: float | None = None,
    sound: Track = "required",
) -> Media:
    """Pictures and sound of a file, or of the span `start_s` to `end_s` of it, read as they go.

    Args:
        path: of the file.
        fps: pictures a second that come out.
        start_s: of the span, in seconds after the first picture.
        end_s: of the span.
        decoder: "pyav", or "ffmpeg" for the program.
        max_s: how long it may be, in seconds.
        sound: "optional" flags a film without it as `no_audio`.

    Raises:
        Refused: `unreadable`, `bad_decode`, `no_audio` or `long`, with what was found; also while
            the pictures are read.
        OSError: the file is there and cannot be read.
    """
    try:
        found = path.stat()
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        raise Refused("unreadable", f"{path.name}: no such file") from None
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
        raise Refused("unreadable", f"{path.name or path}: no file but a folder, pipe or device")
    if found.st_size == 0:
        raise Refused("bad_decode", f"{path.name}: 0 bytes")
    container, head = _open_head(str(path), path.name, sound)
    media = Media([])
    film = Film(head, fps, start_s, end_s, decoder, max_s, media.flags, container=container)

    def frames() -> Iterator[np.ndarray]:
        yield from film.pictures()
        if head.audio is None:
            media.flags.add("no_audio")
            return
        try:
            media.sound, media.rate, media.sound_start_s = film.sound()
        except Refused:
            if sound == "required":
                raise
            media.flags.add("no_audio")

    media.frames = frames()
    return media


def read_video(*where: Any, **options: Any) -> Media:
    """`stream_video` with all pictures in a list."""
    return stream_video(*where, **options).whole()


class Film:
    """One pass over a film or a span of it: its pictures at an exact rate, then its sound.

    Attributes:
        flags: what was odd, of `records.FLAGS`.
        first_s: when the first picture stands, in seconds of the span; known when it came.
    """

    def __init__(
        self,
        head: Head,
        fps: int,
        start_s: float | None = None,
        end_s: float | None = None,
        decoder: str = "pyav",
        max_s: float | None = None,
        flags: set[str] | None = None,
        colour: bool = False,
        container: Any = None,
    ) -> None:
        """Get ready; nothing is read before the pictures are asked for.

        Args:
            head: of `read_head`.
            fps: pictures a second.
            start_s: of the span, in seconds after the first picture.
            end_s: of the span.
            decoder: "pyav" or "ffmpeg".
            max_s: how long it may be.
            flags: where to put what is odd.
            colour: BGR pictures, uint8 [H, W, 3]; the program alone has them.
            container: the opened film, if it is at hand.
        """
        self.head, self.fps, self.decoder, self.colour = head, fps, decoder, colour
        self.flags = set() if flags is None else flags
        self.first_s = 0.0
        self._container = container
        self._low = start_s or 0.0
        self._high = float("inf") if end_s is None else end_s
        self._limit = float("inf") if max_s is None else self._low + max_s
        self._edge = 0.5 / fps + 1e-6  # a picture belongs to the span whose start it is nearest to
        self._sound = Sound()
        self._shape: tuple[int, ...] | None = None
        self._through: set[str] = set()  # kinds whose span is over

    def pictures(self) -> Iterator[np.ndarray]:
        """Pictures uint8 [H, W] at exactly `fps`.

        Raises:
            Refused: none comes, or the film is too long.
            OSError: the disk or the network failed.
        """
        timed = self._span(self._low)
        first = next(timed, None)
        late = first is None or first[0] > 0.51 / self.fps or "damaged" in self.flags
        if self._low > 0 and self.head.form in UNINDEXED and late:
            # The seek landed behind the start of the span.
            self._sound = Sound()
            self.flags.discard("damaged")
            timed = self._span(0.0)
            first = next(timed, None)
        if first is None:
            raise Refused("bad_decode", f"{self.head.name}: no picture came out of the decoder")
        rate = Rate(self.fps)
        yield from rate.lay(_chain(first, timed))
        self.first_s = rate.first_s
        if not rate.kept:
            self.flags.add("resampled_rate")

    def sound(self) -> tuple[np.ndarray, int, float]:
        """The span's sound once its pictures are through: float32 [n], Hz, seconds after the first.

        Of a film whose pictures are not wanted the sound alone is read here.

        Raises:
            Refused: `no_audio`.
        """
        if self.head.video is None and self.head.audio is not None:
            for _ in self._shown(self._low):
                pass
        mono, rate, start_s = self._sound.mono(self.head.name)
        start_s -= self.first_s
        lead = round(-start_s * rate)
        if self._low > 0 and lead > 0:  # it begins with the decoder's block, not with the span
            mono, start_s = mono[lead:], start_s + lead / rate
            if not len(mono):
                raise Refused("no_audio", f"{self.head.name}: the sound ends before {self._low} s")
        return mono, rate, start_s

    def _span(self, seek_s: float) -> Iterator[Timed]:
        """Pictures of the span with their times in it, from one pass; the sound is collected."""
        self._through.clear()
        shown = self._shown(seek_s)
        timed = in_coded_order(shown) if self.head.form in CODED_ORDER else rising(shown)
        before = None
        for time, make in timed:
            if time >= self._high - self._edge:
                break
            if time >= self._limit:
                raise Refused(
                    "long",
                    f"{self.head.name}: longer than {self._limit - self._low:g} s; cut it with the"
                    " columns start and end of a table, or raise --max-seconds",
                )
            if time < self._low - self._edge:
                before = make
                continue
            if self._low > 0 and before is not None and time > self._low + self._edge:
                yield 0.0, self._picture(before)  # the one that stands when the span begins
            before = None
            yield time - self._low, self._picture(make)
        for _ in shown:  # the sound may lie behind
            pass

    def _shown(self, seek_s: float) -> Iterator[Timed]:
        """Pictures in the order in which they are shown, with what makes them; sound on the way."""
        joined = Recordings()
        lines = {"picture": Timeline(joined), "sound": Timeline(joined)}
        beyond = dict.fromkeys(lines, 0)
        zero, low, high = self.head.start_s, self._low - self._edge, min(self._high, self._limit)
        for kind, stamp, duration, content in self._events(seek_s):
            time = lines[kind].time(None if stamp is None else stamp - zero, duration)
            if time > high + 1:
                beyond[kind] += 1
                if beyond[kind] > 1:  # a single one may be damaged
                    self._through.add(kind)
            else:
                beyond[kind] = 0
            if kind == "picture":
                yield time, content
            elif time + duration > low and time < high:
                block, rate, names = content
                self._sound.add(block, rate, names, time - self._low)

    def _events(self, seek_s: float) -> Iterator[Event]:
        if self.decoder == "pyav":
            return self._decoded(seek_s)
        from avb.pipeline.clip.ffmpeg import program_events

        start_s = self.head.start_s - self.head.zero_s + seek_s - PREROLL_S
        return self._until_through(program_events(self.head, start_s, self.colour))

    def _until_through(self, events: Iterator[Event]) -> Iterator[Event]:
        streams = {"picture": self.head.video, "sound": self.head.audio}
        wanted = {kind for kind, number in streams.items() if number is not None}
        for event in events:
            if wanted <= self._through:
                return
            yield event

    def _decoded(self, seek_s: float) -> Iterator[Event]:
        """One pass over the file, from the last key picture before `seek_s` on."""
        import av

        head = self.head
        try:
            opened, self._container = self._container or open_film(head.source), None
            with opened as container:
                video = container.streams[head.video]
                streams = [video] + ([] if head.audio is None else [container.streams[head.audio]])
                for stream in streams:
                    stream.thread_type = "NONE"  # one worker is one core; more threads cost more
                seek_s -= PREROLL_S if head.form in UNINDEXED else 0.0
                if seek_s > 0 and head.form not in CODED_ORDER:
                    container.seek(int((head.start_s + seek_s) * 1e6), backward=True)
                yield from self._decoded_packets(container.demux(streams), len(streams))
        except av.FFmpegError as error:
            check_readable(head.source)
            raise Refused("bad_decode", f"{head.name}: {error.strerror or error}") from None

    def _decoded_packets(self, packets: Iterable[Any], num_streams: int) -> Iterator[Event]:
        import av

        kinds = {"video": "picture", "audio": "sound"}
        names, unit = self.head.channels, 0.0
        for packet in packets:
            kind = kinds[packet.stream.type]
            if kind in self._through:
                if len(self._through) == num_streams:
                    return
                continue
            try:
                decoded: list[Any] = packet.decode()
            except av.FFmpegError:
                if self._low == 0.0 or self._shape is not None:
                    self.flags.add("damaged")
                continue
            for frame in decoded:
                if kind == "sound":
                    duration = frame.samples / frame.sample_rate
                    content: Any = _samples(frame), frame.sample_rate, names
                else:
                    unit = unit or float(frame.time_base or 0)  # a Fraction made anew at each look
                    duration = (frame.duration or 0) * unit
                    content = functools.partial(self._luma, frame)
                yield kind, frame.time, duration, content

    def _luma(self, frame: Any) -> np.ndarray:
        if frame.is_corrupt:
            self.flags.add("damaged")
        return _luma(frame, self.head.sar)

    def _picture(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A picture, not too large, of the size of the first one."""
        picture = make()
        shape = picture.shape if self._shape is None else self._shape
        if self._shape is None:
            shrink = -(-max(shape[:2]) // MAX_SIDE)
            shape = (shape[0] // shrink, shape[1] // shrink, *shape[2:])
            self._shape = shape
        if picture.shape == shape:
            return picture
        import cv2

        return cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA)


def _chain(first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    yield from rest


def open_film(source: str, remote: bool = False, **options: Any) -> Any:
    """An opened film for reading; it opens no other file.

    Raises:
        OSError: it cannot be read, or is none that FFmpeg knows.
    """
    import av

    # Before PyAV 19 text that is no UTF-8 ended the reading unless it was told otherwise; 19 has no
    # such choice.
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "replace"
    limits = {"format_whitelist": film_formats()} | (
        {} if remote else {"protocol_whitelist": "file"}
    )
    return av.open(source, options=limits, **options)


@functools.cache
def film_formats() -> str:
    """All formats that FFmpeg reads but those that name other files, as its options want them."""
    import av

    return ",".join(sorted(av.formats_available - NAMING))


def read_head(
    source: str, name: str, *, sound: Track = "required", remote: bool = False, **options: Any
) -> Head:
    """What a film says of itself: of several tracks those that a player takes.

    Raises:
        Refused: `bad_decode` or `no_audio`, with what was found.
        OSError: the file cannot be read.
    """
    container, head = _open_head(source, name, sound, remote, **options)
    container.close()
    return head


def _open_head(
    source: str, name: str, sound: Track, remote: bool = False, **options: Any
) -> tuple[Any, Head]:
    """The opened film as well; opening one takes a tenth of the time of a clip."""
    import av

    try:
        container = open_film(source, remote, **options)
        return container, _head_of(container, source, name, sound, remote)
    except (av.FFmpegError, ValueError) as error:  # ValueError: metadata that is no text
        if not remote:
            check_readable(source)
            _refuse_playlist(source, name)
        reason = getattr(error, "strerror", None) or error
        raise Refused("bad_decode", f"{name}: not a video ({reason})") from None


def _head_of(container: Any, source: str, name: str, sound: Track, remote: bool) -> Head:
    films = [s for s in container.streams.video if not _has(s, ATTACHED_PIC)]
    if not films:
        cover = " but a cover picture" if container.streams.video else ""
        raise Refused("bad_decode", f"{name}: no video stream{cover}")
    video = _chosen(films)
    if video.codec_context is None:
        raise Refused("bad_decode", f"{name}: video that no decoder here knows")
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > MAX_PIXELS:
        raise Refused(
            "bad_decode",
            f"{name}: pictures of {width} x {height}; at most 8192 x 4320 are decoded, shrink it",
        )
    audio = _chosen(container.streams.audio) if container.streams.audio else None
    if sound == "required" and audio is None:
        raise Refused("no_audio", f"{name}: no sound track")
    if audio is not None and audio.codec_context is None:
        if sound == "required":
            raise Refused("no_audio", f"{name}: audio that no decoder here knows")
        audio = None
    duration_s = container.duration / 1e6 if container.duration else None
    if video.duration and video.time_base:
        duration_s = float(video.duration * video.time_base)
    channels = () if audio is None else audio.codec_context.layout.channels
    return Head(
        source, name, container.format.name, video.index,
        None if audio is None or sound == "none" else audio.index,
        start_of(video), (container.start_time or 0) / 1e6, duration_s, video.codec_context.name,
        _pixel_width(video), tuple(channel.name for channel in channels), remote,
    )  # fmt: skip


def _has(stream: Any, disposition: int) -> bool:
    return bool(stream.disposition.value & disposition)


def _chosen(streams: Any) -> Any:
    """The stream that a player takes: the default one, else the first."""
    known = [stream for stream in streams if stream.codec_context is not None] or list(streams)
    return next((stream for stream in known if _has(stream, DEFAULT)), known[0])


def _pixel_width(stream: Any) -> float:
    """Width of a pixel in heights; 1 where it is nearly so, or the film says nonsense."""
    sar = float(stream.sample_aspect_ratio or 1)
    return 1.0 if abs(sar - 1) < SQUARE or not 1 / MAX_SAR <= sar <= MAX_SAR else sar


def start_of(stream: Any) -> float:
    """The first stamp of a stream, in seconds."""
    start = getattr(stream, "start_time", None)
    return float(start * stream.time_base) if start is not None else 0.0


def check_readable(source: str) -> None:
    """Tell a fault of the disk from one of the film: read all of it, if it is there.

    Raises:
        OSError: what the disk says.
    """
    with suppress(FileNotFoundError), open(source.removeprefix("file:"), "rb") as file:
        while file.read(1 << 20):
            pass


def _refuse_playlist(source: str, name: str) -> None:
    with open(source.removeprefix("file:"), "rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0", b"[playlist]")):
        raise Refused("bad_decode", f"{name}: a list of other files and no video; name the video")


def _luma(frame: Any, sar: float) -> np.ndarray:
    """The luma plane as a player shows it: upright and with square pixels, uint8 [H, W]."""
    name = frame.format.name
    depth = 8 if name in ("yuv420p", "yuvj420p") else frame.format.components[0].bits
    turns = round(frame.rotation / 90) % 4
    if not name.startswith(("yuv", "gray", "nv")) or depth > 16:  # RGB, or packed with its chroma
        frame, depth = frame.reformat(format="yuv420p"), 8
    plane = frame.planes[0]
    kind: np.dtype[Any] = np.dtype(
        np.uint8 if depth == 8 else ">u2" if name.endswith("be") else "<u2"
    )
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
    picture: np.ndarray[Any, Any] = rows[: frame.height, : frame.width]
    if depth > 8:
        picture = (picture >> (depth - 8)).astype(np.uint8)
    if sar != 1:
        import cv2

        width = max(1, round(frame.width * sar))
        way = cv2.INTER_AREA if sar < 1 else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (width, frame.height), interpolation=way)
    # Copied, so that the decoder can use its frame again: fresh ones cost 2 ms a clip more.
    return np.rot90(picture, turns) if turns else picture.copy()


def _samples(frame: Any) -> np.ndarray:
    """The samples of a decoded block, [channels, n] of any type of number."""
    form, channels = frame.format, frame.layout.nb_channels
    kind, planar = NUMBERS[form.name.removesuffix("p")], form.is_planar
    count = frame.samples * (1 if planar else channels)
    # As the frame's own to_ndarray, in a third of the time: blocks are short, and there are many.
    data = np.array([np.frombuffer(plane, kind, count) for plane in frame.planes])
    return data if planar or channels == 1 else data.reshape(-1, channels).T


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """A sound file as mono float32 [n] and its rate.

    Raises:
        Refused: `missing_audio` when it is not there or is no sound.
        OSError: it is there and cannot be read.
    """
    import av

    sound = Sound()
    line = Timeline(Recordings())
    try:
        with open_film(str(path)) as container:
            for frame in container.decode(audio=0):
                time = line.time(frame.time, frame.samples / frame.sample_rate)
                names = [channel.name for channel in frame.layout.channels]
                sound.add(_samples(frame), frame.sample_rate, names, time)
        mono, rate, _ = sound.mono(path.name)
    except (av.FFmpegError, IndexError) as error:
        check_readable(str(path))
        what = getattr(error, "strerror", None) or error
        raise Refused("missing_audio", f"{path.name}: {what}") from None
    except Refused as refusal:
        raise Refused("missing_audio", refusal.error) from None
    return mono, rate
