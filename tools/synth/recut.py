"""Real GRID film re-cut into the layouts of LRW and LRW-1000.

The two lip-reading corpora are licensed; this lets their whole path run on real faces. The words
are GRID's own: `BIN`, `BLUE`, ... become LRW's class folders, and stand where LRW-1000 has its
Chinese word and its pinyin.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from avb.pipeline.clip.facemesh import FaceMesh
from avb.pipeline.clip.track import quiet
from avb.pipeline.corpora.grid import parse_align, words_of
from avb.tools.synth import raw
from avb.tools.synth.media import FPS
from avb.tools.synth.raw import Clip
from avb.tools.synth.raw_lrw1000 import Segment
from avb.tools.synth.voice import SAMPLE_RATE

EYE_TO_MOUTH_PX = 70.0  # in a 256 px picture with the mouth at (127, 163) the face then fills it
# Prepositions and letters are too short to be words of LRW.
_POSITIONS = (0, 1, 4, 5)


class Face(NamedTuple):
    """Where a face is, in source px: the middle of the mouth, and its distance from the eyes."""

    x: float
    y: float
    eye_to_mouth: float


def find_clips(root: Path, seed: int) -> list[tuple[Path, Path]]:
    """(video, align) of every aligned clip, shuffled, talkers taking turns."""
    talkers: dict[str, list[tuple[Path, Path]]] = {}
    for video in sorted(root.glob("s*/video/??????.mp[4g]")):
        align = video.parent.parent / "align" / f"{video.stem}.align"
        if align.is_file():
            talkers.setdefault(video.parts[-3], []).append((video, align))
    if not talkers:
        raise ValueError(
            f"{root}: no sN/video/NAME.mp4 or .mpg with sN/align/NAME.align; name a GRID folder"
        )
    rng = np.random.default_rng((seed, 0x6C1))
    shuffled = [[clips[i] for i in rng.permutation(len(clips))] for clips in talkers.values()]
    turns = itertools.zip_longest(*shuffled)
    return [clip for turn in turns for clip in turn if clip is not None]


def read_video(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames as uint8 BGR, and sound, float32 `[N]` at 16 kHz mono; empty without either."""
    frames: list[np.ndarray] = []
    sound: list[np.ndarray] = []
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    try:
        with av.open(str(path)) as container:
            if not (container.streams.video and container.streams.audio):
                return [], np.zeros(0, np.float32)
            for frame in container.decode(video=0, audio=0):
                if isinstance(frame, av.VideoFrame):
                    frames.append(frame.to_ndarray(format="bgr24"))
                elif isinstance(frame, av.AudioFrame):
                    sound += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    except av.FFmpegError:
        return [], np.zeros(0, np.float32)
    sound += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return frames, np.concatenate(sound)


def find_face(mesh: FaceMesh, frames: list[np.ndarray]) -> Face | None:
    """The median face of a few pictures; None if one of them shows no face."""
    measured = []
    for frame in frames:
        faces = mesh.landmarks(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        if not faces:
            return None
        # Outer corners of eyes and mouth, and the middles of the inner lips.
        xy = faces[0][[33, 263, 61, 291, 13, 14]]
        eyes, mouth = xy[:2].mean(axis=0), xy[2:].mean(axis=0)
        measured.append((*mouth, float(np.hypot(*(mouth - eyes)))))
    return Face(*(float(v) for v in np.median(measured, axis=0)))


def sentences(found: list[tuple[Path, Path]]) -> Iterator[tuple[int, Clip, Face]]:
    """Whole, sound sentences with their number; a clip that is odd in any way is left out."""
    with quiet():
        mesh = FaceMesh(follow=False)
    for number, (video, align) in enumerate(found):
        try:
            words: list[Any] = parse_align(align.read_text(), set())
            if [word for word, _, _ in words] != words_of(video.stem):
                continue
        except (ValueError, KeyError):  # the latter: a name that is no sentence
            continue
        frames, samples = read_video(video)
        if len(frames) == raw.GRID_FRAMES and (seen := find_face(mesh, frames[2::18])):
            yield number, Clip(frames, samples, words), seen


def cut_word(clip: Clip, seen: Face, position: int) -> Clip | None:
    """29 frames of 256 x 256 about a word, the mouth at (127, 163); None where they do not fit."""
    word, start_s, end_s = clip.words[position]
    first = round((start_s + end_s) / 2 * FPS - raw.LRW_FRAMES / 2)
    last = first + raw.LRW_FRAMES
    if first < 0 or last > len(clip.frames):
        return None
    scale = EYE_TO_MOUTH_PX / seen.eye_to_mouth
    x, y = raw.LRW_MOUTH
    matrix = np.array([[scale, 0, x - scale * seen.x], [0, scale, y - scale * seen.y]])
    edge = cv2.BORDER_REPLICATE  # a wide picture cut to a tall one may end above its lower edge
    frames = [
        np.asarray(cv2.warpAffine(f, matrix, raw.LRW_SIZE, flags=cv2.INTER_CUBIC, borderMode=edge))
        for f in clip.frames[first:last]
    ]
    step, shift = SAMPLE_RATE // FPS, first / FPS
    samples = clip.samples[first * step : last * step]
    return Clip(frames, samples, [(word.upper(), start_s - shift, end_s - shift)])


def lrw_clips(root: Path, clips: int, seed: int) -> Iterator[Clip]:
    """Clips of LRW out of GRID; fewer when GRID is used up."""
    found = find_clips(root, seed)
    turns = range(min(len(_POSITIONS), -(-clips // len(found))))
    cuts = (
        cut_word(clip, seen, _POSITIONS[(number + turn + seed) % len(_POSITIONS)])
        for number, clip, seen in sentences(found)
        for turn in turns
    )
    yield from itertools.islice((cut for cut in cuts if cut is not None), clips)


def segments(root: Path, clips: int, seed: int) -> Iterator[Segment]:
    """Lower faces of sentences, in square pictures whose size differs from one to the other."""
    left = clips
    for index, (_, clip, seen) in enumerate(sentences(find_clips(root, seed))):
        share = float(np.random.default_rng((seed + index, 0x5E6)).uniform(1.3, 1.9))
        half = round(share * seen.eye_to_mouth / 2)
        x, y = round(seen.x), round(seen.y)
        frames = []
        for frame in clip.frames:
            padded = cv2.copyMakeBorder(frame, half, half, half, half, cv2.BORDER_REPLICATE)
            frames.append(padded[y : y + 2 * half, x : x + 2 * half])
        end_s = len(clip.frames) / FPS - 0.2
        words = [word for word in clip.words if word[1] >= 0.2 and word[2] <= end_s]
        words = words[: min(6, max(1, clips // 3), left)]
        yield Clip(frames, clip.samples, words), [word.upper() for word, _, _ in words]
        left -= len(words)
        if not left:
            return
