"""Films read by the ffmpeg program: its process alone is lost to a file that crashes or stalls it.

It hands over decoded pictures and sound with the stamps of the file (as NUT), so that both readers
share one clock. What it conceals it does not say: nothing is flagged `damaged`.
"""

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import av
import numpy as np

from avb.pipeline.clip.container import PREROLL_S, Event, Head, limits, text_options
from avb.pipeline.clip.media import MAX_PIXELS
from avb.pipeline.clip.status import Refused

Process = subprocess.Popen[bytes]

#: Formats whose first plane is the luma of the source as it is.
LUMA_FIRST = "yuv420p|yuvj420p|gray"
#: A program that says nothing for so many seconds is stopped.
STALL_S = 25.0
#: Added to all stamps on their way: the container on the pipe has none below zero.
AHEAD_S = 10
PIPE_BYTES = 1 << 18
#: The container on the pipe has no stamps that fall. So that they arrive as they are, those of a
#: recording joined to another one included, each picture and each sample adds so many seconds.
PICTURE_S, SAMPLE_S = 10_000, 10


def ffmpeg_program() -> str:
    """The ffmpeg program: that inside imageio-ffmpeg, else the one on PATH, which is of any age."""
    import shutil

    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        program = shutil.which("ffmpeg")
    if program is None:
        raise Refused(
            "unreadable", "no imageio-ffmpeg and no ffmpeg on PATH; pip install imageio-ffmpeg"
        )
    return program


def program_events(
    head: Head, seek_s: float, through: set[str], colour: bool = False
) -> Iterator[Event]:
    """Pictures and sound of one pass, from before `seek_s` on, in seconds after the first picture.

    The pass ends when all kinds are in `through`. `colour` gives BGR, uint8 [H, W, 3], in place of
    luma. Refused: `bad_decode`, with the program's complaint.
    """
    import ffmpeg

    seek_s = head.start_s - head.zero_s + seek_s - PREROLL_S
    early = {"ss": seek_s} if seek_s > 0 and head.seekable else {}
    source = ffmpeg.input(head.source, copyts=None, **input_options(head), **early)
    tracks = []
    if head.video is not None:
        picture = source[str(head.video)].filter("setpts", f"PTS+N*{PICTURE_S}/TB")
        if head.sar != 1:
            picture = picture.filter("scale", "trunc(iw*sar+0.5)", "ih").filter("setsar", 1)
        if colour:
            picture = picture.filter("format", "bgr24")
        else:
            picture = picture.filter("format", LUMA_FIRST).filter("extractplanes", "y")
        tracks.append(picture)
    if head.audio is not None:
        tracks.append(source[str(head.audio)].filter("asetpts", f"PTS+N*{SAMPLE_S}/TB"))
    options: dict[str, Any] = {"c:v": "rawvideo", "c:a": "pcm_f32le", "fps_mode": "passthrough"}
    options |= {"enc_time_base:v": "1:90000", "output_ts_offset": AHEAD_S}
    output = ffmpeg.output(*tracks, "pipe:", format="nut", **options)
    count = samples = 0
    with running(output, head.name) as (process, said):
        try:
            pipe: Any = _Pipe(process.stdout, head.name)
            options = {"format": "nut", "buffer_size": PIPE_BYTES, **text_options()}
            with av.open(pipe, "r", **options) as container:
                for packet in container.demux():
                    if packet.pts is None:  # the end
                        continue
                    stamp = float(packet.pts * packet.time_base) - AHEAD_S
                    if packet.stream.type == "video":
                        yield _picture(packet, stamp - count * PICTURE_S, colour)
                        count += 1
                    else:
                        event = _block(packet, stamp - samples * SAMPLE_S, head)
                        samples += event[3][0].shape[1]
                        yield event
                    if through >= head.kinds:
                        return
        except av.FFmpegError as error:
            if count + samples == 0 and (why := said()):
                raise Refused("bad_decode", f"{head.name}: {why}") from None
            if count + samples:
                raise Refused("bad_decode", f"{head.name}: {error.strerror}") from None


def _picture(packet: Any, stamp: float, colour: bool) -> Event:
    context = packet.stream.codec_context
    data = np.frombuffer(packet, np.uint8)
    shape = (context.height, context.width, 3)[: 3 if colour else 2]
    return "picture", stamp, 0.0, lambda: data.reshape(shape)


def _block(packet: Any, stamp: float, head: Head) -> Event:
    context = packet.stream.codec_context
    count = context.layout.nb_channels
    block = np.frombuffer(packet, np.float32).reshape(-1, count).T
    names = head.channels if len(head.channels) == count else ()
    duration = block.shape[1] / context.sample_rate
    return "sound", stamp, duration, (block, context.sample_rate, names)


def input_options(head: Head) -> dict[str, Any]:
    """What the program is told of its input: how large pictures may be, and what may be opened."""
    return {"max_pixels": MAX_PIXELS, **limits(head.remote)}


class _Pipe:
    """The reading end of a pipe, as PyAV reads files, that does not wait for ever."""

    def __init__(self, pipe: IO[bytes] | None, name: str) -> None:
        assert pipe is not None
        self._pipe, self._name = pipe, name

    def read(self, size: int) -> bytes:
        if not select.select([self._pipe], [], [], STALL_S)[0]:
            raise Refused(
                "bad_decode",
                f"{self._name}: the decoder gave nothing for {STALL_S:.0f} s and was stopped",
            )
        return os.read(self._pipe.fileno(), size)


@contextmanager
def running(
    output: Any, name: str, feed: bool = False
) -> Iterator[tuple[Process, Callable[[], str]]]:
    """An ffmpeg process, ended in any case, and a function that gives its last complaint."""
    import ffmpeg

    words = ffmpeg.compile(output, cmd=ffmpeg_program(), overwrite_output=True)
    words[1:1] = ["-v", "error", "-nostdin"][: 2 if feed else 3]
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
