"""One clip from source file to the members of its sample: decode, track, crop, mel, encode."""

import functools
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.clip import audio, codec, crop
from avb.pipeline.clip.flac import encode_flac
from avb.pipeline.clip.follow import Follower, Frame, still
from avb.pipeline.clip.status import FLAGS, Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.clip.track import use
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import Clip, Word
from avb.pipeline.settings import Settings
from avb.pipeline.shards.metadata import write_facts

#: One picture: sound that starts further from the first, or lacks more at the end, is flagged.
PICTURE_S = 0.040

#: What the crops of one clip may take: 12 minutes of lips. A worker keeps below 1 GB, and readers
#: take twice as much.
MOST_CROPS = 1 << 28


@dataclass
class Prepared:
    """One clip before encoding."""

    crops: dict[str, np.ndarray]  # uint8 [T, stored, stored] by kind
    # Float [T, 4] or [1, 4] by kind, x0 y0 x1 y1 in pixels of the picture as a player shows it.
    boxes: dict[str, np.ndarray]
    sound: np.ndarray | None  # float32 [T * 640], 16 kHz mono; None for a film without sound
    log_mels: np.ndarray | None  # float32 [n_mels, 4 T]
    audio_pad: int  # samples appended at the end; negative means cut
    words: list[Word]
    face_misses: int
    flags: list[str]
    sync_ms: float = 0.0  # by how much the sound was moved, towards the start

    @property
    def num_frames(self) -> int:
        """T, the number of pictures."""
        return len(next(iter(self.crops.values())))

    @property
    def num_columns(self) -> int:
        """Columns of the log-mels; 0 where there are none."""
        return 0 if self.log_mels is None else self.log_mels.shape[1]


def prepare_clip(clip: Clip, root: Path, settings: Settings, clock: Clock) -> Prepared:
    """Decode, track, crop and mel one clip; few of its pictures are in memory at a time.

    Refused: the clip cannot be used; OSError: the disk or the network failed.
    """
    corpus = adapter(settings.corpus)
    with clock("decode"):
        media = corpus.load(root, clip, settings)
    frames = media.pictures(clock)
    first = next(frames)
    height, width = first.shape
    media.flags |= _picture_flags(height, width, settings)
    crops, boxes, misses = _cut(first, frames, media.flags, settings, clock)
    flags = media.flags | {*clip.flags}
    num_frames = len(next(iter(crops.values())))
    words = corpus.words(root, clip, num_frames, settings, flags)
    lag_s = 0.0
    if settings.sync and media.sound is not None:
        lag_s = (clip.lag_ms or 0.0) / 1000
        flags |= sync_flags(clip.lag_ms)
        words, clamped = moved_words(words, -lag_s, num_frames / settings.fps)
        flags |= clamped
    sound = log_mels = None
    pad = 0
    if media.sound is not None:
        with clock("mel"):
            start_s = media.sound_start_s + media.lag_s - lag_s
            rate, fps = settings.sample_rate, settings.fps
            sound, pad = audio.fit(media.sound, media.rate, start_s, num_frames, fps, rate)
            log_mels = audio.log_mel(sound, settings.mel, rate)
        if abs(media.sound_start_s) > PICTURE_S:
            flags.add("audio_misplaced")
        if pad > PICTURE_S * rate:
            flags.add("audio_short")
        if audio.is_silent(sound, rate):
            flags.add("silent")
    assert flags <= FLAGS.keys(), flags
    sync_ms = round(1000 * lag_s, 2)
    return Prepared(crops, boxes, sound, log_mels, pad, words, misses, sorted(flags), sync_ms)


def sync_flags(lag_ms: float | None) -> set[str]:
    """What is told of a clip whose sound a table of lags moves."""
    if lag_ms is None:
        return {"sync_unsure"}
    return {"sync_corrected", "sync_far"} if abs(lag_ms) > 1000 * PICTURE_S else {"sync_corrected"}


def moved_words(words: list[Word], by_s: float, duration_s: float) -> tuple[list[Word], set[str]]:
    """Words with their times moved as their sound was, and the flag of times cut to the clip.

    A word that lies beyond one of its ends has none: its sound is not there.
    """
    moved, flags = [], set()
    for word, *times in words:
        free = [None if time is None else round(time + by_s, 5) for time in times]
        start, end = (None if t is None else min(max(t, 0.0), duration_s) for t in free)
        if start == duration_s or end == 0.0:
            start = end = None
        flags |= {"words_clamped"} if [start, end] != free else set()
        moved.append((word, start, end))
    return moved, flags


def _cut(
    first: np.ndarray,
    rest: Iterator[np.ndarray],
    flags: set[str],
    settings: Settings,
    clock: Clock,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Crops [T, stored, stored] and boxes of each kind, and how many looks found nobody."""
    frames = itertools.chain([first], rest)
    follower = None
    if settings.box == "tracked":
        # The corpus's own pictures are upright; others may be films held sideways.
        own = [*first.shape[::-1]] == settings.picture
        layout = {kind: Frame.of(kind) for kind in settings.crops}
        use(settings.tracker)
        follower = Follower(settings.face_every, layout, clock=clock, others=False, turn=not own)
        blocks = follower.follow(frames)
    else:
        blocks = still(frames, functools.partial(_boxes, settings))
    crops: dict[str, np.ndarray] = {}
    boxes: dict[str, np.ndarray] = {}
    for block in blocks:
        with clock("crop"):
            for kind, spec in settings.crops.items():
                pictures = crop.cut(block.frames, block.boxes[kind], spec)
                crops[kind] = _extended(crops.get(kind), pictures)
                boxes[kind] = _extended(boxes.get(kind), block.boxes[kind])
                if crop.leaves_picture(block.boxes[kind], *block.frames[0].shape):
                    flags.add("edge_padded")
        if sum(pictures.nbytes for pictures in crops.values()) > MOST_CROPS:
            most = f"its crops take more than {MOST_CROPS >> 20} MB"
            raise Refused("long", f"{most}; cut it with the columns start and end of a table")
        rows = max(len(pictures) * pictures.shape[1] for pictures in crops.values())
        if settings.codec == "jpeg" and rows > codec.JPEG_MAX_ROWS:
            raise Refused(
                "long",
                f"{rows} rows of pictures, a JPEG holds {codec.JPEG_MAX_ROWS}; --codec mp4, or cut"
                " it with the columns start and end of a table",
            )
    if follower is None:  # one box
        return crops, {kind: box[:1] for kind, box in boxes.items()}, 0
    follower.require_face()
    flags |= {"face_gaps"} if follower.misses else set()
    flags |= {"turned"} if follower.turns else set()
    return crops, boxes, follower.misses


def _extended(whole: np.ndarray | None, block: np.ndarray) -> np.ndarray:
    """`whole` with `block` behind it, grown in place: a long film is never there twice."""
    if whole is None:
        return np.array(block)
    start = len(whole)
    whole.resize((start + len(block), *whole.shape[1:]), refcheck=False)
    whole[start:] = block
    return whole


def _picture_flags(height: int, width: int, settings: Settings) -> set[str]:
    if settings.picture is None or [width, height] == settings.picture:
        return set()
    larger = width * height > math.prod(settings.picture)
    return {"large_picture" if larger else "small_picture"}


def _boxes(settings: Settings, height: int, width: int) -> dict[str, np.ndarray]:
    """The box [1, 4] of each kind in pictures of this size, where nobody is followed."""
    box = crop.whole_boxes(height, width)
    if settings.box == "fixed":
        picture = settings.picture or [width, height]
        box = crop.fixed_boxes(settings.fixed_box or [0, 0, *picture], picture, height, width)
    return dict.fromkeys(settings.crops, box)


def encode_sample(
    key: str, clip: Clip, done: Prepared, settings: Settings, label_id: int | None
) -> dict[str, bytes]:
    """The members of one sample, by extension, which the tar holds sorted."""
    members = {}
    for kind, pictures in done.crops.items():
        extension, data = codec.encode_video(pictures, settings.codec, settings.crf, settings.fps)
        members[f"{kind}.{extension}"] = data
    if done.log_mels is not None and done.sound is not None:
        members |= encode_sound(done.sound, done.log_mels, settings)
    facts: dict[str, Any] = {
        "key": key,
        "corpus": settings.corpus,
        "group": clip.group,
        "split": clip.split,
        "speaker": clip.speaker,
        "label": clip.label,
        "label_id": label_id,
        "words": done.words,
        "boundary": boundary_of(clip.label, done.words),
        "n_frames": done.num_frames,
        "n_mel": done.num_columns,
        "fps": settings.fps,
        "sample_rate": settings.sample_rate,
        "duration": done.num_frames / settings.fps,
        "source": clip.source,
        "crop_boxes": {kind: boxes.tolist() for kind, boxes in done.boxes.items()},
        "face_misses": done.face_misses,
        "audio_pad": done.audio_pad,
        "flags": done.flags,
    }
    if settings.sync:
        facts["sync_ms"] = done.sync_ms
    members["json"] = write_facts(facts)
    return members


def boundary_of(label: str | None, words: list[Word]) -> tuple[Any, Any] | None:
    """Start and end of the word that is a clip's label, where both are known."""
    if label is None or len(words) != 1 or None in words[0]:
        return None
    return words[0][1:]


def encode_sound(sound: np.ndarray, log_mels: np.ndarray, settings: Settings) -> dict[str, bytes]:
    """The members of a sample that its sound makes."""
    file = io.BytesIO()
    np.save(file, audio.store_mel(log_mels, settings.mel, settings.mel_dtype), allow_pickle=False)
    members = {"mel.npy": file.getvalue()}
    if settings.keep_audio:
        members["flac"] = encode_flac(sound, settings.sample_rate)
    return members


def sums(done: Prepared) -> list[float]:
    """Sum and sum of squares of each crop and of the log-mels, for the corpus's statistics."""
    import cv2

    numbers: list[float] = []
    for values in (*done.crops.values(), done.log_mels):
        if values is None:
            numbers += [0.0, 0.0]
            continue
        moments = cv2.meanStdDev(values.reshape(values.shape[0], -1))
        mean, std = (float(x[0, 0]) for x in moments)
        numbers += [mean * values.size, (std * std + mean * mean) * values.size]
    return numbers
