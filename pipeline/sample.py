"""One clip from source file to the members of its sample: decode, track, crop, mel, encode."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline import audio, crop
from avb.pipeline.codec import encode_flac, encode_video
from avb.pipeline.corpora import adapter
from avb.pipeline.plan import Settings
from avb.pipeline.records import FLAGS, Clip, Word
from avb.pipeline.track import track

#: One picture: sound that starts further from the first, or lacks more at the end, is flagged.
PICTURE_S = 0.040


@dataclass
class Clock:
    """Milliseconds spent in each stage by one clip, of the wall or of another timer."""

    timer: Callable[[], float] = time.perf_counter
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start = self.timer()
        try:
            yield
        finally:
            self.ms[stage] = self.ms.get(stage, 0.0) + (self.timer() - start) * 1e3


@dataclass
class Prepared:
    """One clip before encoding.

    Attributes:
        crops: uint8 [T, stored, stored] for each kind of crop.
        boxes: float [T, 4] or [1, 4] for each kind, x0 y0 x1 y1 in source pixels.
        sound: float32 [T * 640], 16 kHz mono.
        log_mels: float32 [n_mels, 4 T].
        audio_pad: samples appended at the end; negative means cut.
    """

    crops: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]
    sound: np.ndarray
    log_mels: np.ndarray
    audio_pad: int
    words: list[Word]
    face_misses: int
    flags: list[str]

    @property
    def num_frames(self) -> int:
        """T, the number of pictures."""
        return len(next(iter(self.crops.values())))


def prepare_clip(clip: Clip, root: Path, settings: Settings, clock: Clock) -> Prepared:
    """Decode, track, crop and mel one clip.

    Raises:
        Refused: the clip cannot be used; status and finding are in it.
    """
    with clock("decode"):
        media, words = adapter(settings.corpus).load(root, clip, settings)
    frames = media.frames
    height, width = frames[0].shape
    flags = {*media.flags, *clip.flags, *_picture_flags(height, width, settings)}
    points, misses = None, 0
    if settings.box == "tracked":
        with clock("track"):
            found = track(frames, settings.face_every)
        points, misses = found.points, found.misses
        if misses:
            flags.add("face_gaps")
    with clock("crop"):
        boxes = {kind: _boxes(kind, points, height, width, settings) for kind in settings.crops}
        crops = {k: crop.cut(frames, boxes[k], spec) for k, spec in settings.crops.items()}
        if any(crop.leaves_picture(b, height, width) for b in boxes.values()):
            flags.add("edge_padded")
    with clock("mel"):
        start_s = media.sound_start_s
        rate, fps = settings.sample_rate, settings.fps
        sound, pad = audio.fit(media.sound, media.rate, start_s, len(frames), fps, rate)
        log_mels = audio.log_mel(sound, settings.mel, rate)
    if abs(start_s) > PICTURE_S:
        flags.add("audio_misplaced")
    if pad > PICTURE_S * rate:
        flags.add("audio_short")
    assert flags <= FLAGS.keys(), flags
    return Prepared(crops, boxes, sound, log_mels, pad, words, misses, sorted(flags))


def _picture_flags(height: int, width: int, settings: Settings) -> set[str]:
    if settings.picture is None or [width, height] == settings.picture:
        return set()
    larger = width * height > math.prod(settings.picture)
    return {"large_picture" if larger else "small_picture"}


def _boxes(
    kind: str, points: np.ndarray | None, height: int, width: int, settings: Settings
) -> np.ndarray:
    if points is not None:
        return crop.tracked_boxes(points, kind, settings.fps)
    if settings.box == "whole":
        return crop.whole_boxes(height, width)
    picture = settings.picture or [width, height]
    return crop.fixed_boxes(settings.fixed_box or [0, 0, *picture], picture, height, width)


def encode_sample(
    key: str, clip: Clip, done: Prepared, settings: Settings, label_id: int | None
) -> dict[str, bytes]:
    """The members of one sample, by extension, in the order in which they lie in the tar."""
    members = {}
    for kind, pictures in done.crops.items():
        extension, data = encode_video(pictures, settings.codec, settings.crf, settings.fps)
        members[f"{kind}.{extension}"] = data
    members["mel.npy"] = _npy(audio.store_mel(done.log_mels, settings.mel, settings.mel_dtype))
    if settings.keep_audio:
        members["flac"] = encode_flac(done.sound, settings.sample_rate)
    single = done.words[0] if clip.label is not None and len(done.words) == 1 else None
    boundary = None if single is None or single[1] is None else [single[1], single[2]]
    facts: dict[str, Any] = {
        "key": key,
        "corpus": settings.corpus,
        "group": clip.group,
        "split": clip.split,
        "speaker": clip.speaker,
        "label": clip.label,
        "label_id": label_id,
        "words": done.words,
        "boundary": boundary,
        "n_frames": done.num_frames,
        "n_mel": done.log_mels.shape[1],
        "fps": settings.fps,
        "sample_rate": settings.sample_rate,
        "duration": done.num_frames / settings.fps,
        "source": clip.source,
        "crop_boxes": {kind: boxes.tolist() for kind, boxes in done.boxes.items()},
        "face_misses": done.face_misses,
        "audio_pad": done.audio_pad,
        "flags": done.flags,
    }
    members["json"] = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    return members


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def sums(done: Prepared) -> list[float]:
    """Sum and sum of squares of each crop and of the log-mels, for the corpus's statistics."""
    import cv2

    found: list[float] = []
    for values in (*done.crops.values(), done.log_mels):
        moments = cv2.meanStdDev(values.reshape(values.shape[0], -1))
        mean, std = (float(x[0, 0]) for x in moments)
        found += [mean * values.size, (std * std + mean * mean) * values.size]
    return found
