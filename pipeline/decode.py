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
#: Containers without an index: a seek lands near the wanted time, but at no picture that stands
#: alone. Broadcast and disc streams have one at least every half second.
UNINDEXED = {"mpeg", "mpegts"}
PREROLL_S = 2.0
#: What sound is sampled at, from telephones to mastering.
MIN_HZ, MAX_HZ = 2_000, 768_000
#: No picture is shown for longer: where stamps are damaged, a film of a second may say years.
LONGEST_S = 10.0


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
    if decoder == "ffmpeg":
        from avb.pipeline.decode_ffmpeg import read_ffmpeg

        return read_ffmpeg(path, fps, start_s, end_s)
    return _read_pyav(path, fps, start_s, end_s)


@dataclass
class _Taken:
    """What one pass over a file gave: pictures of a span, their times in it, and its sound."""

    pictures: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sound: _Sound = field(default_factory=lambda: _Sound())
    flags: set[str] = field(default_factory=set)
    indexed: bool = True


def _read_pyav(path: Path, fps: int, start_s: float | None, end_s: float | None) -> Media:
    low, high = start_s or 0.0, float("inf") if end_s is None else end_s
    taken = _decode(path, fps, low, high, low)
    whole = "damaged" not in taken.flags and taken.times and taken.times[0] < 0.51 / fps
    if not taken.indexed and low > 0 and not whole:  # the seek landed behind the span's start
        taken = _decode(path, fps, low, high, 0.0)
    if not taken.pictures:
        raise Refused("bad_decode", f"{path.name}: no picture came out of the decoder")
    mono, rate, sound_start_s = taken.sound.mono(path)
    sound_start_s -= taken.times[0]
    lead = round(-sound_start_s * rate)
    if low > 0 and lead > 0:  # its sound begins with the decoder's frame, not with the span
        mono, sound_start_s = mono[lead:], sound_start_s + lead / rate
        if not len(mono):
            raise Refused("no_audio", f"{path.name}: the sound ends before {low} s")
    frames = _to_rate(taken.pictures, taken.times, fps, taken.flags)
    return Media(frames, mono, rate, sound_start_s, taken.flags)


def open_media(source: Path | str, **options: Any) -> Any:
    """An opened film or sound for reading; what it says of itself may be no UTF-8.

    Before PyAV 19 such text ended the reading unless it was told otherwise; 19 has no such choice.
    """
    import av

    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "replace"
    return av.open(str(source), **options)


def _decode(path: Path, fps: int, low: float, high: float, seek_s: float) -> _Taken:
    """One pass over the span `low` to `high`, from the last key picture before `seek_s` on."""
    import av

    taken, size = _Taken(), 0
    bounded = high < float("inf")
    edge = 0.5 / fps + 1e-6  # a picture belongs to the span whose start it is nearest to
    try:
        with open_media(path) as container:
            streams = _streams(container, path)
            zero = start_of(streams[0])
            taken.indexed = container.format.name not in UNINDEXED
            seek_s -= 0.0 if taken.indexed else PREROLL_S
            if seek_s > 0:
                container.seek(int((zero + seek_s) * 1e6), backward=True)
            behind: set[int] = set()  # program streams hold sound up to a second after its pictures
            for packet in container.demux(streams):
                if bounded and packet.pts is not None and _time_of(packet) > zero + high + 1:
                    behind.add(packet.stream_index)
                    if len(behind) == len(streams):
                        break
                    continue
                try:
                    decoded: list[Any] = packet.decode()
                except av.FFmpegError:
                    if low == 0.0 or taken.pictures:
                        taken.flags.add("damaged")
                    continue
                for frame in decoded:
                    time = float(frame.time or 0.0) - zero
                    if isinstance(frame, av.AudioFrame):
                        if time + frame.samples / frame.sample_rate > low - edge and time < high:
                            taken.sound.add(frame, time - low)
                    elif low - edge <= time < high - edge:
                        picture = _luma(frame)
                        size += picture.nbytes
                        check_size(size, path, len(taken.pictures))
                        taken.pictures.append(picture)
                        taken.times.append(time - low)
                        if frame.is_corrupt:
                            taken.flags.add("damaged")
    except av.FFmpegError as error:
        raise Refused("bad_decode", f"{path.name}: {error.strerror or error}") from None
    return taken


def _streams(container: Any, path: Path) -> list[Any]:
    videos = container.streams.video
    sounds = container.streams.audio
    if not videos:
        raise Refused("bad_decode", f"{path.name}: no video stream")
    if not sounds:
        raise Refused("no_audio", f"{path.name}: no sound track")
    for stream, status in ((videos[0], "bad_decode"), (sounds[0], "no_audio")):
        if stream.codec_context is None:
            raise Refused(status, f"{path.name}: {stream.type} that no decoder here knows")
        stream.thread_type = "NONE"  # one worker is one core; more threads cost more than they give
    return [videos[0], sounds[0]]


def _time_of(packet: Any) -> float:
    return float(packet.pts * packet.time_base)


def start_of(stream: Any) -> float:
    """The first stamp of a stream, in seconds."""
    start = getattr(stream, "start_time", None)
    return float(start * stream.time_base) if start is not None else 0.0


def _luma(frame: Any) -> np.ndarray:
    """The luma plane, upright: [H, W] uint8, a view that keeps the decoder's frame alive."""
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
    # Copied, so that the decoder can use its frame again: fresh ones cost 2 ms a clip more.
    return np.rot90(picture, turns) if turns else picture.copy()


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
        forms = {(len(part), part.dtype) for part in self.parts}
        if len(forms) > 1 or not MIN_HZ <= self.rate <= MAX_HZ:
            raise Refused(
                "no_audio", f"{path.name}: sound at {self.rate} Hz in {len(forms)} forms; damaged?"
            )
        data = np.concatenate(self.parts, axis=1)
        mono = data[0].astype(np.float32)
        for channel in data[1:]:
            mono += channel
        mono /= len(data)
        if data.dtype.kind == "i":
            mono /= float(np.iinfo(data.dtype).max + 1)
        elif data.dtype.kind == "u":
            mono = (mono - 128.0) / 128.0
        return mono, self.rate, self.start


def check_size(size: int, path: Path, count: int) -> None:
    """Refuse a clip whose luma, of so many bytes and pictures, no worker should hold."""
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
            at = np.concatenate([[0.0], np.cumsum(np.minimum(steps, LONGEST_S))])
            period = float(np.median(steps))
            wanted = np.arange(max(1, round((at[-1] + period) * fps))) / fps
            nearest = np.abs(at[None, :] - wanted[:, None]).argmin(axis=1)
            pictures = [pictures[i] for i in nearest]
    return pictures


def numbered_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in the order of the number in their name (1.jpg, mouth_000.png).

    A number missing in between has a path as well, to no file, so that nothing moves up.

    Raises:
        Refused: `missing_frames` when there is no such folder.
    """
    try:
        found = [(re.search(r"(\d+)\.(?:jpe?g|png)$", p.name, re.I), p) for p in folder.iterdir()]
    except OSError:
        raise Refused("missing_frames", f"{folder.name}: no such folder") from None
    paths = {int(m[1]): path for m, path in sorted(found, key=lambda f: f[1].name) if m}
    if not paths or max(paths) - min(paths) > 2 * len(paths):  # stamps of time, not numbers
        return [paths[n] for n in sorted(paths)]
    return [paths.get(n, folder / f"picture {n}") for n in range(min(paths), max(paths) + 1)]


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
        with open_media(path) as container:
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
