"""Drawn talkers as films, written by the ffmpeg program, and what infer cuts of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.clip.ffmpeg import ffmpeg_program
from avb.tools.infer.crops import Cutter
from avb.tools.infer.model import Trained
from avb.tools.infer.video import probe
from avb.tools.synth import face

ffmpeg = pytest.importorskip("ffmpeg", reason="films are written with the extra prep")


def talker(seed: int, num_frames: int, size: tuple[int, int], unit: float) -> list[np.ndarray]:
    """A drawn talker whose mouth opens and closes twice a second."""
    opening = 0.5 - 0.5 * np.cos(2 * math.pi * 2 * np.arange(num_frames) / 25)
    track = np.stack([opening, np.zeros(num_frames)], axis=1)
    mouth = (size[0] / 2 + 4, size[1] * 0.7)
    return list(face.film(face.Identity.from_seed(seed), track, size, mouth, unit, seed))


def write(path: Path, frames: list[np.ndarray], sound: bool = True) -> Path:
    """BGR pictures at 25 a second as H.264, with a tone."""
    height, width = frames[0].shape[:2]
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="bgr24", s=f"{width}x{height}", r=25)
    streams = [source.video]
    if sound:
        streams.append(ffmpeg.input("sine=frequency=300", f="lavfi", t=len(frames) / 25).audio)
    encode(streams, path, b"".join(f.tobytes() for f in frames))
    return path


def encode(streams: list[Any], path: Path, data: bytes | None = None, **options: Any) -> Path:
    usual = {"vcodec": "libx264", "crf": 12, "preset": "ultrafast", "pix_fmt": "yuv420p"}
    output = ffmpeg.output(*streams, str(path), **(usual | options))
    output.run(cmd=ffmpeg_program(), input=data, quiet=True, overwrite_output=True)
    return path


def cut(path: Path | str, trained: Trained, **options: Any) -> tuple[Cutter, np.ndarray]:
    cutter = Cutter(probe(str(path)), trained, **options)
    return cutter, np.concatenate([piece.crops for piece in cutter.pieces()])
