"""Any film that ffmpeg reads, as upright pictures at exactly 25 a second, one after the other.

As `avb prep --decoder ffmpeg`; no other file or address is opened unless it is allowed.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from avb.pipeline.clip import audio, ffmpeg
from avb.pipeline.clip.container import Head, read_head
from avb.pipeline.clip.decode import Film
from avb.pipeline.clip.follow import FPS
from avb.pipeline.clip.status import Refused
from avb.pipeline.corpora.clip import written_out
from avb.pipeline.errors import RunError


class BadVideo(RunError):
    """A film that cannot be used; one line says which and why."""


@contextmanager
def named() -> Iterator[None]:
    """Turn what the pipeline refuses, or a disk, into a `BadVideo`."""
    try:
        yield
    except Refused as refusal:
        raise BadVideo(refusal.error) from None
    except OSError as error:
        raise BadVideo(f"{error.filename}: {error.strerror}") from None


def probe(place: str, allow_url: bool = False) -> Head:
    """Look at the head of a film, a path or, if allowed, an address; BadVideo: it is none."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place):
        if not allow_url:
            raise BadVideo(f"{place}: an address, not a file; allow it with --allow-url")
        with named():
            return read_head(place, place, sound="optional", remote=True, timeout=ffmpeg.STALL_S)
    path = Path(place)
    names = place + os.path.realpath(place)
    if names != written_out(names):  # what is told, written and given to ffmpeg has to be
        raise BadVideo(f"{written_out(place)}: a name that is no UTF-8; rename it")
    if path.is_dir():
        raise BadVideo(f"{place}: a folder; name the video files in it")
    if not path.exists():  # also a link to itself
        raise BadVideo(f"{place}: no such file")
    with named():
        if path.stat().st_size == 0:
            raise BadVideo(f"{place}: an empty file (0 bytes)")
        return read_head(f"file:{path.resolve()}", place, sound="optional")


def pictures(video: Head, colour: bool = False) -> Iterator[np.ndarray]:
    """Luma pictures, uint8 [H, W], upright, at exactly 25 a second; or BGR, uint8 [H, W, 3]."""
    alone = dataclasses.replace(video, audio=None)
    with named():
        yield from Film(alone, FPS, decoder="ffmpeg", colour=colour).frames


def own_sound(video: Head, num_frames: int, rate: int) -> np.ndarray:
    """The film's own sound under its pictures, float32 [num_frames * rate / 25], or silence."""
    film = Film(
        dataclasses.replace(video, video=None), FPS, decoder="ffmpeg", max_s=num_frames / FPS
    )
    try:
        film.read_sound()
    except (Refused, OSError):
        return np.zeros(num_frames * rate // FPS, np.float32)
    assert film.sound is not None
    return audio.fit(film.sound, film.rate, film.sound_start_s, num_frames, FPS, rate)[0]
