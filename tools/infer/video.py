"""Any film that ffmpeg reads, as upright pictures at exactly 25 a second, one after the other.

The ffmpeg program decodes in a process of its own: a file that crashes or stalls the decoder costs
that process only, and few pictures are held. It turns what its metadata calls turned, takes for
each time the nearest picture of another rate (of a variable one the last that began no later than
half a mean period after), and opens no other protocol than files (a playlist may name addresses)
unless it is told to.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from avb.pipeline.decode import open_media
from avb.pipeline.decode_ffmpeg import (
    LUMA_FIRST,
    Header,
    at_rate,
    ffmpeg_program,
    header_of,
    mono_at_rate,
    sound_of,
)
from avb.pipeline.records import Refused

#: Pictures with more pixels than this (the largest camera format) are refused: a decoder holds up
#: to 16 of them.
MAX_PIXELS = 8192 * 4320
#: Pictures longer than this are shrunk by a whole factor as they are read: a face in them is
#: large, and a second of 4K is 200 MB.
MAX_SIDE = 1920
#: A decoder that says nothing for so many seconds is stopped.
STALL_S = 25.0
#: So many pictures a second all networks are trained on.
FPS = 25

Process = subprocess.Popen[bytes]


class BadVideo(Exception):
    """A film that cannot be used; one line says which and why."""


@dataclass(frozen=True)
class Video:
    """What a film says of itself before a picture of it is decoded.

    Attributes:
        source: what ffmpeg is given: an address, or `file:` and a whole path.
        name: for messages.
        duration_s: of its pictures, in seconds; None if it does not say.
        codec: of its pictures.
        has_sound: whether there is a sound track.
        header: what `decode_ffmpeg.at_rate` needs.
        remote: whether it is an address.
    """

    source: str
    name: str
    duration_s: float | None
    codec: str
    has_sound: bool
    header: Header
    remote: bool = False

    def input(self) -> Any:
        """The film as an input of ffmpeg-python."""
        import ffmpeg

        limits: dict[str, Any] = {} if self.remote else {"protocol_whitelist": "file"}
        return ffmpeg.input(self.source, max_pixels=MAX_PIXELS, **limits)


def probe(place: str, allow_url: bool = False) -> Video:
    """Look at the head of a film.

    Args:
        place: a path, or an address such as https://...
        allow_url: whether addresses may be opened.

    Raises:
        BadVideo: it is no film, or one that should not be decoded.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place):
        if not allow_url:
            raise BadVideo(f"{place}: an address, not a file; allow it with --allow-url")
        return _probe(place, place, True)
    path = Path(place)
    if path.is_dir():
        raise BadVideo(f"{place}: a folder; name the video files in it")
    if not path.is_file():
        raise BadVideo(f"{place}: no such file")
    if path.stat().st_size == 0:
        raise BadVideo(f"{place}: an empty file (0 bytes)")
    return _probe(f"file:{path.resolve()}", place, False)


def _probe(source: str, name: str, remote: bool) -> Video:
    import av

    options = {} if remote else {"protocol_whitelist": "file"}
    try:
        with open_media(source, options=options, timeout=STALL_S) as container:
            if not container.streams.video:
                raise BadVideo(f"{name}: no video stream")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise BadVideo(f"{name}: its pictures are in a format that no decoder here knows")
            duration_s = container.duration / 1e6 if container.duration else None
            if stream.duration and stream.time_base:
                duration_s = float(stream.duration * stream.time_base)
            width, height = context.width, context.height
            video = Video(
                source, name, duration_s, context.name, bool(sound_of(container)),
                header_of(container), remote,
            )  # fmt: skip
    except (av.FFmpegError, ValueError) as error:  # ValueError: metadata that is no text
        reason = getattr(error, "strerror", None) or error
        raise BadVideo(f"{name}: not a video ({reason})") from None
    if width * height > MAX_PIXELS:
        raise BadVideo(
            f"{name}: pictures of {width} x {height}; at most 8192 x 4320 are decoded, shrink it"
        )
    return video


def pictures(video: Video) -> Iterator[np.ndarray]:
    """Luma pictures, uint8 [H, W], upright, at exactly 25 a second.

    Raises:
        BadVideo: no picture comes out of the decoder, or it stalls.
    """
    stream = at_rate(video.input().video, video.header, FPS)
    stream = _shrunk(stream.filter("format", LUMA_FIRST).filter("extractplanes", "y"))
    count = 0
    with running(stream.output("pipe:", format="yuv4mpegpipe", strict=-1)) as (process, said):
        pipe = process.stdout
        head = re.match(rb"YUV4MPEG2 W(\d+) H(\d+)", _line(pipe, video.name))
        while head is not None and _line(pipe, video.name) == b"FRAME\n":
            picture = np.empty((int(head[2]), int(head[1])), np.uint8)
            if not _fill(pipe, picture, video.name):
                break
            count += 1
            yield picture
        if not count:
            reason = said() or "no picture came out of the decoder"
            raise BadVideo(f"{video.name}: cannot be decoded ({reason})")


def colour_pictures(video: Video, height: int, width: int) -> Iterator[np.ndarray]:
    """The pictures of `pictures`, which have this size, in BGR: uint8 [H, W, 3]."""
    stream = _shrunk(at_rate(video.input().video, video.header, FPS))
    with running(stream.output("pipe:", format="rawvideo", pix_fmt="bgr24")) as (process, _):
        while True:
            picture = np.empty((height, width, 3), np.uint8)
            if not _fill(process.stdout, picture, video.name):
                return
            yield picture


def own_sound(video: Video, num_frames: int, rate: int) -> np.ndarray:
    """The film's own sound under its pictures, mono: float32 [num_frames * rate / 25].

    Silence where there is none.
    """
    samples = np.zeros(num_frames * rate // FPS, np.float32)
    if video.has_sound:
        stream = mono_at_rate(video.input().audio, video.header, rate)
        with running(stream.output("pipe:", format="f32le", ac=1, ar=rate)) as (process, _):
            _fill(process.stdout, samples, video.name)
    return samples


def _shrunk(stream: Any) -> Any:
    factor = f"ceil(max(iw,ih)/{MAX_SIDE})"
    return stream.filter("scale", f"trunc(iw/{factor})", f"trunc(ih/{factor})", flags="area")


@contextmanager
def running(output: Any, feed: bool = False) -> Iterator[tuple[Process, Callable[[], str]]]:
    """An ffmpeg process, ended in any case, and a function that gives its last complaint.

    Raises:
        BadVideo: there is no ffmpeg program.
    """
    import ffmpeg

    try:
        program = ffmpeg_program()
    except Refused as refusal:
        raise BadVideo(refusal.error) from None
    words = ffmpeg.compile(output, cmd=program, overwrite_output=True)
    words[1:1] = ["-v", "error"]
    source = subprocess.PIPE if feed else subprocess.DEVNULL
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdin=source, stdout=subprocess.PIPE, stderr=log)

        def said() -> str:
            process.wait()
            log.seek(0)
            lines = log.read(1 << 16).decode(errors="replace").strip().splitlines()
            return re.sub(r"^(\[.*?\] )+", "", lines[0])[:160] if lines else ""

        try:
            yield process, said
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()


def _line(pipe: IO[bytes] | None, name: str) -> bytes:
    """A short line, or what there is of it at the end of the stream."""
    line, one = b"", np.empty(1, np.uint8)
    while not line.endswith(b"\n") and len(line) < 400 and _fill(pipe, one, name):
        line += one.tobytes()
    return line


def _fill(pipe: IO[bytes] | None, array: np.ndarray, name: str) -> bool:
    """Read exactly as much as `array` holds; False at the end of the stream."""
    assert pipe is not None
    view = array.data.cast("B")
    while view:
        if not select.select([pipe], [], [], STALL_S)[0]:
            raise BadVideo(f"{name}: the decoder gave nothing for {STALL_S:.0f} s and was stopped")
        got = os.readv(pipe.fileno(), [view])
        if not got:
            return False
        view = view[got:]
    return True
