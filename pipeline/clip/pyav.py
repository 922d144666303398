"""Films and sound files read by PyAV in this process: decoded events, each with its stamp."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.audio.plane import AudioPlane

from avb.pipeline.clip.container import (
    PREROLL_S,
    UNINDEXED,
    Event,
    Head,
    check_readable,
    open_container,
)
from avb.pipeline.clip.media import first_plane
from avb.pipeline.clip.sound_track import Sound
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.timeline import CODED_ORDER, Timeline

Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)
#: Types of samples by FFmpeg's names of them, which end in p where each channel has its plane.
NUMBERS = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def pyav_events(
    head: Head, seek_s: float, through: set[str], flags: set[str], container: Any = None
) -> Iterator[Event]:
    """Pictures and sound of one pass, from the last key picture before `seek_s` on.

    In seconds after the first picture. The pass ends when all kinds are in `through`; `flags` gets
    `damaged` where a picture that was used is. Refused: `bad_decode`; OSError: the disk failed.
    """
    unit, matrix = 0.0, None
    try:
        with container or open_container(head.source) as opened:
            numbers = [number for number in (head.video, head.audio) if number is not None]
            streams = [opened.streams[number] for number in numbers]
            for stream in streams:
                stream.thread_type = "NONE"  # one worker is one core; more threads cost more
            seek_s -= PREROLL_S if head.form in UNINDEXED else 0.0
            if seek_s > 0 and head.form not in CODED_ORDER:
                opened.seek(int((head.start_s + seek_s) * 1e6), backward=True)
            for packet in _packets(opened, streams):
                kind = "picture" if packet.stream.index == head.video else "sound"
                if kind in through:
                    if through >= head.kinds:
                        return
                    continue
                try:
                    decoded: list[Any] = packet.decode()
                except av.FFmpegError:
                    yield "damage", None, 0.0, None
                    continue
                for frame in decoded:
                    if kind == "sound":
                        content: Any = samples_of(frame), frame.sample_rate, head.channels
                        yield kind, frame.time, frame.samples / frame.sample_rate, content
                    else:
                        unit = unit or float(frame.time_base or 0)  # a Fraction made anew each time
                        matrix = matrix or _matrix(frame)
                        content = functools.partial(luma_of, frame, head.sar, flags, matrix)
                        yield kind, frame.time, (frame.duration or 0) * unit, content
    except av.FFmpegError as error:
        check_readable(head.source)
        raise Refused("bad_decode", f"{head.name}: {error.strerror or error}") from None


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """All packets of some streams.

    Others may begin in the middle of a transport stream. PyAV (18) asks for the last packets of
    these too, behind those of all that it knew at the start, and does not find them.
    """
    try:
        yield from container.demux(streams)
    except IndexError:
        return


def luma_of(frame: Any, sar: float, flags: set[str], matrix: Matrix = UPRIGHT) -> np.ndarray:
    """The luma plane of PyAV's frame as a player shows it, uint8 [H, W], levels not rescaled.

    Refused: `bad_decode`, where FFmpeg converts no pictures of its kind.
    """
    if frame.is_corrupt:
        flags.add("damaged")
    name = frame.format.name
    depth = 8 if name in ("yuv420p", "yuvj420p") else frame.format.components[0].bits
    if not name.startswith(("yuv", "gray", "nv")) or depth > 16:  # RGB, or packed with its chroma
        # RGB that says that its levels are full becomes as RGB that says nothing.
        levels = {"dst_color_range": "MPEG"} if frame.format.is_rgb else {}
        try:
            frame, depth = frame.reformat(format="yuv420p", **levels), 8
        except av.FFmpegError as error:
            raise Refused("bad_decode", f"pictures in {name}: {error.strerror}") from None
    picture = first_plane(frame, "u1" if depth == 8 else ">u2" if name.endswith("be") else "<u2")
    if depth > 8:
        picture = (picture >> (depth - 8)).astype(np.uint8)
    if sar != 1:
        width = max(1, round(frame.width * sar))
        way = cv2.INTER_AREA if sar < 1 else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (width, frame.height), interpolation=way)
    # Copied, so that the decoder can use its frame again: fresh ones cost 2 ms a clip more.
    return (picture if matrix == UPRIGHT else _upright(picture, *matrix)).copy()


def _matrix(frame: Any) -> Matrix:
    """How the frames of a film are to be turned and mirrored, as the first of them says.

    What stands at x, y is shown at a x + c y, b x + d y. Of one frame alone: PyAV (18) keeps one
    whose side data were asked for until Python looks for circles.
    """
    if (data := frame.side_data.get("DISPLAYMATRIX")) is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(data, np.int32, 5).tolist()
    return a, b, c, d


def _upright(picture: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A picture turned by quarters, and mirrored."""
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.T, c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def samples_of(frame: Any) -> np.ndarray:
    """The samples of a decoded block, [channels, n] of any type of number."""
    form, channels = frame.format, frame.layout.nb_channels
    kind, planar = NUMBERS[form.name.removesuffix("p")], form.is_planar
    count = frame.samples * (1 if planar else channels)
    # As the frame's own to_ndarray, in a third of the time: blocks are short, and there are many.
    # Each asked for: counting them, PyAV (19) reads on behind the last of more than eight.
    planes: list[Any] = [AudioPlane(frame, n) for n in range(channels if planar else 1)]
    data = np.array([np.frombuffer(plane, kind, count) for plane in planes])
    return data if planar or channels == 1 else data.reshape(-1, channels).T


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """A sound file as mono float32 [n] and its rate; Refused: `missing_audio`."""
    sound, timeline = Sound(), Timeline()
    try:
        with open_container(str(path)) as container:
            for frame in container.decode(audio=0):
                time = timeline.time(frame.time, frame.samples / frame.sample_rate)
                names = [channel.name for channel in frame.layout.channels]
                sound.add(samples_of(frame), frame.sample_rate, names, time)
        mono, rate, _ = sound.mono(path.name)
    except (av.FFmpegError, IndexError) as error:
        check_readable(str(path))
        reason = getattr(error, "strerror", None) or error
        raise Refused("missing_audio", f"{path.name}: {reason}") from None
    except Refused as refusal:
        raise Refused("missing_audio", refusal.error) from None
    return mono, rate
