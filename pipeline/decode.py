"""Source files to luma pictures and mono sound. No corpus knowledge; no process per clip.

The picture is the decoder's luma plane as it is, limited range or full, never rescaled. Sound
keeps its own rate and its own place in time; `audio.fit` puts it under the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.records import Refused

#: Decoded luma of one clip above this is refused as `long`: a worker stays under 1 GB.
MAX_CLIP_BYTES = 400_000_000
#: Luma deviation below this is a picture without content: a missing intra picture decodes to
#: 0.0 to 1.2 over its first two frames, a face to more than 30.
BLANK_STD = 2.0


@dataclass
class Media:
    """One decoded clip.

    Attributes:
        frames: T pictures of luma, uint8 [H, W], of one size. Not stacked: the copy would cost a
            quarter of the decoding.
        sound: float32 [n], mono, about -1 to 1, at `rate` Hz.
        sound_start_s: where `sound` starts, in seconds after the first picture.
        flags: what was odd, of `records.FLAGS`.
    """

    frames: list[np.ndarray]
    sound: np.ndarray
    rate: int
    sound_start_s: float = 0.0
    flags: set[str] = field(default_factory=set)


def read_video(
    path: Path,
    fps: int,
    start_s: float | None = None,
    end_s: float | None = None,
    decoder: str = "pyav",
) -> Media:
    """Pictures and sound of a file, or of the span `start_s` to `end_s` of it.

    Raises:
        Refused: `unreadable`, `bad_decode`, `no_audio` or `long`, with what was found.
    """
    if not path.is_file():
        raise Refused("unreadable", f"{path.name}: no such file")
    if path.stat().st_size == 0:
        raise Refused("bad_decode", f"{path.name}: 0 bytes")
    reader = _read_pyav if decoder == "pyav" else _read_ffmpeg
    return reader(path, fps, start_s, end_s)


def _read_pyav(path: Path, fps: int, start_s: float | None, end_s: float | None) -> Media:
    import av

    pictures: list[np.ndarray] = []
    times: list[float] = []
    sound = _Sound()
    flags: set[str] = set()
    low, high = start_s or 0.0, float("inf") if end_s is None else end_s
    size = 0
    try:
        with av.open(str(path)) as container:
            streams = _streams(container, path)
            if low > 0:
                container.seek(int(low * 1e6), backward=True)
            zero = _start_of(streams[0])
            for packet in container.demux(streams):
                try:
                    decoded: list[Any] = packet.decode()
                except av.FFmpegError:
                    flags.add("damaged")
                    continue
                for frame in decoded:
                    time = float(frame.time or 0.0) - zero
                    if isinstance(frame, av.AudioFrame):
                        if time + frame.samples / frame.sample_rate > low and time < high:
                            sound.add(frame, time - low)
                    elif low - 0.5 / fps <= time < high - 0.5 / fps:
                        picture = _luma(frame)
                        size += picture.nbytes
                        _check_size(size, path, len(pictures))
                        pictures.append(picture)
                        times.append(time - low)
                        if frame.is_corrupt:
                            flags.add("damaged")
                if (
                    packet.pts is not None
                    and float(packet.pts * packet.time_base) > zero + high + 1
                ):
                    break
    except av.FFmpegError as error:
        raise Refused("bad_decode", f"{path.name}: {error.strerror or error}") from None
    if not pictures:
        raise Refused("bad_decode", f"{path.name}: no picture came out of the decoder")
    mono, rate, sound_start = sound.mono(path)
    frames = _to_rate(pictures, times, fps, flags)
    first = times[0] if low == 0.0 else 0.0
    return Media(frames, mono, rate, sound_start - first, flags)


def _streams(container: Any, path: Path) -> list[Any]:
    videos = container.streams.video
    sounds = container.streams.audio
    if not videos:
        raise Refused("bad_decode", f"{path.name}: no video stream")
    if not sounds:
        raise Refused("no_audio", f"{path.name}: no sound track")
    for stream in (videos[0], sounds[0]):
        stream.thread_type = "NONE"  # one worker is one core; more threads cost more than they give
    return [videos[0], sounds[0]]


def _start_of(stream: Any) -> float:
    start = getattr(stream, "start_time", None)
    return float(start * stream.time_base) if start is not None else 0.0


def _luma(frame: Any) -> np.ndarray:
    """The luma plane, upright: [H, W] uint8, a view that keeps the decoder's frame alive."""
    if frame.format.name.startswith(("yuv", "gray", "nv")) and "p1" not in frame.format.name:
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        picture = rows[: frame.height, : frame.width]
    else:
        picture = frame.to_ndarray(format="gray")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(picture, turns) if turns else picture


class _Sound:
    """Collects decoded audio frames and mixes them down once."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.rate = 0
        self.start = 0.0

    def add(self, frame: Any, time: float) -> None:
        data = frame.to_ndarray()
        channels = frame.layout.nb_channels
        if not frame.format.is_planar and channels > 1:
            data = data.reshape(-1, channels).T
        if not self.parts:
            self.start, self.rate = time, frame.sample_rate
        self.parts.append(data)

    def mono(self, path: Path) -> tuple[np.ndarray, int, float]:
        if not self.parts:
            raise Refused("no_audio", f"{path.name}: the sound track is empty")
        data = np.concatenate(self.parts, axis=1)
        mono = data.mean(axis=0, dtype=np.float32)
        if data.dtype.kind == "i":
            mono /= float(np.iinfo(data.dtype).max + 1)
        elif data.dtype.kind == "u":
            mono = (mono - 128.0) / 128.0
        return mono, self.rate, self.start


def _check_size(size: int, path: Path, count: int) -> None:
    if size > MAX_CLIP_BYTES:
        raise Refused(
            "long",
            f"{path.name}: more than {count} pictures of this size ({size >> 20} MiB); "
            "cut it with the columns start and end",
        )


def _to_rate(
    pictures: list[np.ndarray], times: list[float], fps: int, flags: set[str]
) -> list[np.ndarray]:
    """Pictures at exactly `fps`: as they are, or the nearest one for each time."""
    shape = pictures[-1].shape
    if any(p.shape != shape for p in pictures):
        import cv2

        pictures = [p if p.shape == shape else cv2.resize(p, shape[::-1]) for p in pictures]
    if len(times) > 1:
        steps = np.diff(times)
        # A mean within 1 % and no step of two periods: the corpus's own rate, timestamps jitter.
        regular = abs(steps.mean() * fps - 1) < 0.01 and steps.max() * fps < 1.9
        if not regular:
            flags.add("resampled_rate")
            at = np.asarray(times) - times[0]
            period = float(np.median(steps))
            wanted = np.arange(max(1, round((at[-1] + period) * fps))) / fps
            nearest = np.abs(at[None, :] - wanted[:, None]).argmin(axis=1)
            pictures = [pictures[i] for i in nearest]
    return pictures


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


def _read_ffmpeg(path: Path, fps: int, start_s: float | None, end_s: float | None) -> Media:
    """The second reader, for odd files: two ffmpeg processes a clip, ten times the cost."""
    import ffmpeg

    span = {} if start_s is None else {"ss": start_s}
    span |= {} if end_s is None else {"to": end_s}
    source = ffmpeg.input(str(path), **span)
    program = ffmpeg_program()
    formats = "yuv420p|yuvj420p|gray"  # keeps the luma of the source as it is
    video = source.video.filter("fps", fps).filter("format", formats)
    # first_pts=0 fills or cuts the start, so that both begin together.
    sound = source.audio.filter("aresample", 16000, first_pts=0)
    try:
        y4m, _ = video.output("pipe:", format="yuv4mpegpipe", strict=-1).run(
            cmd=program, capture_stdout=True, capture_stderr=True
        )
        pcm, _ = sound.output("pipe:", format="f32le", ac=1, ar=16000).run(
            cmd=program, capture_stdout=True, capture_stderr=True
        )
    except ffmpeg.Error as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        text = last[0] if last else "ffmpeg failed"
        status = "no_audio" if "matches no streams" in error.stderr.decode() else "bad_decode"
        raise Refused(status, f"{path.name}: {text}") from None
    if not pcm:
        raise Refused("no_audio", f"{path.name}: the sound track is empty")
    return Media(_parse_y4m(y4m, path), np.frombuffer(pcm, np.float32), 16000)


def _parse_y4m(data: bytes, path: Path) -> list[np.ndarray]:
    """Luma of a YUV4MPEG2 stream: T pictures [H, W]."""
    head = re.match(rb"YUV4MPEG2 W(\d+) H(\d+)[^\n]*\n", data)
    if head is None:
        raise Refused("bad_decode", f"{path.name}: no picture came out of the decoder")
    width, height = int(head[1]), int(head[2])
    chroma = 0 if b"Cmono" in head[0] else 2 * ((width + 1) // 2) * ((height + 1) // 2)
    size = len(b"FRAME\n") + width * height + chroma
    count = (len(data) - head.end()) // size
    _check_size(count * width * height, path, count)
    body = np.frombuffer(data, np.uint8, count * size, head.end()).reshape(count, size)
    return list(body[:, 6 : 6 + width * height].reshape(count, height, width))


def numbered_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in the order of the number in their name (1.jpg, mouth_000.png).

    Raises:
        Refused: `missing_frames` when there is no such folder.
    """
    try:
        found = [(re.search(r"(\d+)\.(?:jpe?g|png)$", p.name, re.I), p) for p in folder.iterdir()]
    except OSError:
        raise Refused("missing_frames", f"{folder.name}: no such folder") from None
    return [path for _, path in sorted((int(m[1]), path) for m, path in found if m)]


def read_pictures(paths: Sequence[Path]) -> tuple[list[np.ndarray], list[int]]:
    """Grey pictures of the given files, gaps filled with their nearest neighbour.

    Returns:
        T pictures, uint8 [H, W] in the size of the first, and the indices that were filled.

    Raises:
        Refused: `missing_frames` when more than a fifth are missing.
    """
    import cv2

    have: dict[int, np.ndarray] = {}
    for i, path in enumerate(paths):
        try:
            data = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError:
            continue
        picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
        if picture is not None:
            have[i] = picture
    filled = [i for i in range(len(paths)) if i not in have]
    if len(filled) * 5 > len(paths) or not have:
        first = next((paths[i] for i in filled), None)
        raise Refused(
            "missing_frames",
            f"{len(filled)} of {len(paths)} pictures are missing or unreadable"
            + (f", the first is {first.parent.name}/{first.name}" if first else ""),
        )
    known = np.array(sorted(have))
    nearest = known[np.abs(known[None, :] - np.arange(len(paths))[:, None]).argmin(axis=1)]
    shape = have[int(known[0])].shape
    stack = [have[int(i)] for i in nearest]
    return [p if p.shape == shape else cv2.resize(p, shape[::-1]) for p in stack], filled


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """A sound file as mono float32 [n] and its rate.

    Raises:
        Refused: `missing_audio` when it is not there or is no sound.
    """
    import av

    sound = _Sound()
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                sound.add(frame, 0.0)
        mono, rate, _ = sound.mono(path)
    except (av.FFmpegError, IndexError) as error:
        what = getattr(error, "strerror", None) or error
        raise Refused("missing_audio", f"{path.name}: {what}") from None
    except Refused as refusal:
        raise Refused("missing_audio", refusal.error) from None
    return mono, rate


def blank_frames(frames: Sequence[np.ndarray]) -> list[int]:
    """Indices of pictures without content, judged by every eighth pixel."""
    sparse = np.stack([frame[::8, ::8].reshape(-1) for frame in frames])
    return np.flatnonzero(sparse.std(axis=1) < BLANK_STD).tolist()
