"""Drawn talkers as films, other forms of them by the ffmpeg program, and what infer cuts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import write_film

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


def write(path: Path, frames: list[np.ndarray]) -> Path:
    """BGR pictures as grey ones, 25 a second, with a tone."""
    tone = 0.2 * np.sin(np.arange(640 * len(frames)) * 2 * math.pi * 300 / 16000)
    grey = [np.ascontiguousarray(frame[..., 1]) for frame in frames]
    return write_film(path, grey, np.arange(len(frames)) / 25, tone)


def encode(streams: list[Any], path: Path, **options: Any) -> Path:
    usual = {"vcodec": "libx264", "crf": 12, "preset": "ultrafast", "pix_fmt": "yuv420p"}
    output = ffmpeg.output(*streams, str(path), **(usual | options))
    output.run(cmd=ffmpeg_program(), quiet=True, overwrite_output=True)
    return path


def cut(path: Path | str, trained: Trained, **options: Any) -> tuple[Cutter, np.ndarray]:
    cutter = Cutter(probe(str(path)), trained, **options)
    return cutter, np.concatenate([piece.crops for piece in cutter.pieces()])


VARIABLE = "select='mod(n+1,3)+gt(n,30)*mod(n,2)',settb=1/90000"  # two of three, then most
#: The same film in other forms: (the film, where to) -> the file.
VERSIONS: dict[str, Callable[[Path, Path], Path]] = {
    "29.97": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", "30000/1001")], p),
    "30": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 30)], p),
    "50": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 50)], p),
    "60": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 60)], p),
    "variable": lambda b, p: encode([ffmpeg.input(b).video], p, vf=VARIABLE, fps_mode="vfr"),
    "mute": lambda b, p: encode([ffmpeg.input(b).video], p, vcodec="copy"),
    "odd": lambda b, p: encode(
        [ffmpeg.input(b).video.filter("scale", 361, 289)], p, pix_fmt="yuv444p"
    ),
    "turned": lambda b, p: encode([ffmpeg.input(b).video.filter("transpose", 1)], p),
    "upside": lambda b, p: encode([ffmpeg.input(b).video.filter("vflip").filter("hflip")], p),
    "160x120": lambda b, p: encode([ffmpeg.input(b).video.filter("scale", 160, 120)], p),
    "mirrored": lambda b, p: encode([ffmpeg.input(b).video.filter("hflip")], p),
    "late": lambda b, p: encode([ffmpeg.input(b).video], p, output_ts_offset=3.2),
    "far": lambda b, p: encode([ffmpeg.input(b).video.filter("pad", 1280, 720, 800, 400)], p),
    "turned by metadata": lambda b, p: encode(
        [ffmpeg.input(VERSIONS["turned"](b, p.with_name("flat.mp4")), display_rotation=90).video],
        p,
        vcodec="copy",
    ),
}
