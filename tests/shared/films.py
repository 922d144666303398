"""Films and sounds that owe nothing to the code under test: of PyAV, ffmpeg and numpy alone."""

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def ffmpeg(*words: str | Path, feed: bytes = b"") -> None:
    """Run the ffmpeg program, which must not complain."""
    from avb.pipeline.clip.ffmpeg import ffmpeg_program

    command = [ffmpeg_program(), "-v", "error", "-y", *map(str, words)]
    subprocess.run(command, input=feed, check=True)


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    times_s: Sequence[float],
    sound: np.ndarray | None = None,
    rate: int = 16000,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    sound_at_s: float = 0.0,
    title: str = "",
) -> Path:
    """Write luma pictures [H, W] at any times, lossless if it can be, and sound [n] or [C, n]."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        # The period of most pictures: the last one lasts as long.
        rate_hz = 1 / float(np.median(np.diff(times_s))) if len(times_s) > 1 else 25
        video = container.add_stream(video_codec, rate=Fraction(rate_hz).limit_denominator(1001))
        video.height, video.width = pictures[0].shape
        video.pix_fmt = pix_fmt
        if video_codec == "libx264":
            video.options = {"qp": "0", "preset": "ultrafast"}
        video.codec_context.time_base = clock
        track = None
        if sound is not None:
            sound = np.atleast_2d(sound).astype(np.float32)
            layout = "stereo" if len(sound) == 2 else "mono"
            track = container.add_stream(audio_codec, rate=rate, layout=layout)
        for picture, time in zip(pictures, times_s, strict=True):
            frame = luma_frame(picture, pix_fmt)
            frame.pts, frame.time_base = round(time / clock), clock
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None and sound is not None:
            kind = track.codec_context.format.name
            if not kind.startswith("fl"):
                sound = np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)
            if not kind.endswith("p"):
                sound = sound.T.reshape(1, -1)
            chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), kind, layout)
            chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
            chunk.pts = round(sound_at_s * rate)
            container.mux(track.encode(chunk))
            container.mux(track.encode(None))
    return path


def luma_frame(picture: np.ndarray, pix_fmt: str) -> Any:
    """A frame whose luma plane is `picture`, in its upper bits if it has more, and grey chroma."""
    import av

    height, width = picture.shape
    frame = av.VideoFrame(width, height, pix_fmt)
    depth = frame.format.components[0].bits
    for number, plane in enumerate(frame.planes):
        samples = np.full((plane.height, plane.line_size), 128, np.uint16)
        if number == 0:
            samples[:, :width] = picture
        if depth > 8:
            samples = samples[:, : plane.line_size // 2] << (depth - 8)
        plane.update(samples.astype(np.uint16 if depth > 8 else np.uint8).tobytes())
    return frame


def speechlike(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """Syllables of harmonics in moving bands with pauses, and a little noise: float32, 16 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * time + seed)) / 16000
    sound = np.zeros_like(time)
    for centre in (500, 1200, 2500, 3500):
        moved = centre * (
            1 + 0.3 * np.sin(2 * np.pi * rng.uniform(1, 3) * time + rng.uniform(0, 6))
        )
        for k in range(1, 32):
            sound += np.exp(-(((120 * k - moved) / 300) ** 2)) * np.sin(k * phase) / centre**0.5
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time + rng.uniform(0, 6)), 0, None)
    return (sound * syllables + 1e-3 * rng.normal(size=len(time))).astype(np.float32)
