"""The second reader of `decode.read_video`: the ffmpeg program, for odd files.

Two processes a clip, ten times the cost of the first. Pictures, spans and places in time are the
same; what the program conceals it does not say, so nothing is flagged `damaged`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline import decode
from avb.pipeline.decode import LONGEST_S, Media, check_size, start_of
from avb.pipeline.records import Refused

#: Formats whose first plane is the luma of the source as it is.
LUMA_FIRST = "yuv420p|yuvj420p|gray"


def ffmpeg_program() -> str:
    """The ffmpeg program: the one on PATH, else the one inside imageio-ffmpeg.

    Raises:
        Refused: there is neither.
    """
    import shutil

    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise Refused(
            "unreadable", "no ffmpeg on PATH and no imageio-ffmpeg; pip install 'avb[prep]'"
        ) from None


def read_ffmpeg(path: Path, fps: int, start_s: float | None, end_s: float | None) -> Media:
    """Pictures and sound of a file or a span of it, as `decode.read_video` says."""
    import ffmpeg

    # Seconds to pictures as in `_decode`; where a file has no index, the program's seek misses.
    first = math.ceil((start_s or 0.0) * fps - 0.5 - 1e-4)
    header = read_header(path)
    early = max(0, first // fps - 2) if header.indexed else 0
    source = ffmpeg.input(str(path), **({"ss": early} if early else {}))
    video = at_rate(source.video, header, fps, **({"start_time": 0} if early else {}))
    sound = mono_at_rate(source.audio, header, 16000)
    if first or end_s is not None:
        span = {"start": first - early * fps}
        if end_s is not None:
            span["end"] = math.ceil(end_s * fps - 0.5 - 1e-4) - early * fps
        video = video.filter("trim", **{f"{k}_frame": n for k, n in span.items()})
        samples = {f"{k}_sample": n * 16000 // fps for k, n in span.items()}
        sound = sound.filter("atrim", **samples).filter("asetpts", "PTS-STARTPTS")
        video = video.filter("setpts", "PTS-STARTPTS")
    video = video.filter("format", LUMA_FIRST)
    most = int(1.6 * decode.MAX_CLIP_BYTES)  # a little more than is refused, with its chroma
    video = video.output("pipe:", format="yuv4mpegpipe", strict=-1, fs=most)
    frames = _parse_y4m(_run(video, path, ("bad_decode", "no video stream")), path)
    pcm = _run(
        sound.output("pipe:", format="f32le", ac=1, ar=16000), path, ("no_audio", "no sound track")
    )
    if not pcm:
        raise Refused("no_audio", f"{path.name}: the sound track is empty")
    flags = {"resampled_rate"} if abs(header.rate / fps - 1) > 0.01 else set()
    return Media(frames, np.frombuffer(pcm, np.float32), 16000, flags=flags)


def at_rate(video: Any, header: Header, fps: int, **options: Any) -> Any:
    """An ffmpeg-python stream of pictures at `fps`: the nearest one for each time."""
    # Its clock starts with the first stamp of either stream; ours with the first picture. Half a
    # period earlier, the last picture before each time is the nearest one.
    start = f"PTS-{header.first_s + min(0.5 / header.rate, LONGEST_S / 2):.6f}/TB"
    later = f"PREV_OUTPTS+min(PTS-PREV_INPTS,{LONGEST_S}/TB)"
    video = video.filter("setpts", f"if(isnan(PREV_OUTPTS),{start},{later})")
    return video.filter("fps", fps, round="up", **options)


def mono_at_rate(audio: Any, header: Header, rate: int) -> Any:
    """An ffmpeg-python stream of mono sound at `rate` Hz that begins with the first picture."""
    # The program's own mix of float channels is 3 dB louder than their mean.
    mean = "mono|c0<" + "+".join(f"c{i}" for i in range(header.channels))
    audio = audio.filter("asetpts", f"PTS-{header.first_s:.6f}/TB")
    # first_pts=0 fills or cuts the start, so that both begin together.
    return audio.filter("pan", mean).filter("aresample", rate, first_pts=0)


def _run(output: Any, path: Path, absent: tuple[str, str]) -> bytes:
    """What one ffmpeg process writes; `absent` is said of a file that lacks the stream."""
    import ffmpeg

    try:
        return output.run(cmd=ffmpeg_program(), capture_stdout=True, capture_stderr=True)[0]
    except ffmpeg.Error as error:
        said = error.stderr.decode(errors="replace").strip() or "ffmpeg failed"
        status, what = "bad_decode", said.splitlines()[-1]
        if "matches no streams" in said:
            status, what = absent
        raise Refused(status, f"{path.name}: {what}") from None


@dataclass
class Header:
    """What a file says of itself.

    Attributes:
        first_s: from the first stamp in the file to the first picture.
        rate: pictures a second.
        channels: of its sound.
        indexed: whether seeking is exact.
    """

    first_s: float = 0.0
    rate: float = 25.0
    channels: int = 1
    indexed: bool = False


def read_header(path: Path) -> Header:
    """What a file says of itself; what it does not say is as usual."""
    import av

    try:
        with decode.open_media(path) as container:
            return header_of(container)
    except av.FFmpegError:
        return Header()  # the program will say what is wrong


def sound_of(container: Any) -> list[Any]:
    """The sound stream of an opened file, if it has one that a decoder here knows."""
    return [s for s in container.streams.audio[:1] if s.codec_context is not None]


def header_of(container: Any) -> Header:
    """What an opened file says of itself."""
    header = Header(indexed=container.format.name not in decode.UNINDEXED)
    for sound in sound_of(container):
        header.channels = sound.codec_context.layout.nb_channels
    for stream in container.streams.video[:1]:
        header.first_s = start_of(stream) - (container.start_time or 0) / 1e6
        header.rate = float(stream.guessed_rate or 25)
    return header


def _parse_y4m(data: bytes, path: Path) -> list[np.ndarray]:
    """Luma of a YUV4MPEG2 stream: T pictures [H, W]."""
    head = re.match(rb"YUV4MPEG2 W(\d+) H(\d+)[^\n]*\n", data)
    if head is None:
        raise Refused("bad_decode", f"{path.name}: no picture came out of the decoder")
    width, height = int(head[1]), int(head[2])
    chroma = 0 if b"Cmono" in head[0] else 2 * ((width + 1) // 2) * ((height + 1) // 2)
    size = len(b"FRAME\n") + width * height + chroma
    count = (len(data) - head.end()) // size
    check_size(count * width * height, path, count)
    if not count:
        raise Refused("bad_decode", f"{path.name}: no picture came out of the decoder")
    body = np.frombuffer(data, np.uint8, count * size, head.end()).reshape(count, size)
    return list(body[:, 6 : 6 + width * height].reshape(count, height, width))
