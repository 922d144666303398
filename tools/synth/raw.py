"""The exact raw layouts of LRW, LRW-1000 and GRID, filled with drawn talkers that really speak.

A `Clip` is what was filmed and said; the `save_*` functions lay it down as a corpus ships it. The
re-cutter makes its clips from real video and shares the second half.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avb.pipeline.corpora.grid import SLOTS, words_of
from avb.tools.synth import face, media, visemes
from avb.tools.synth.media import FPS
from avb.tools.synth.voice import SAMPLE_RATE, Span, Speech, speak

GRID_FRAMES, GRID_SIZE = 75, (360, 288)
GRID_TALKERS = (1, 2, 3, 9)  # a part of each of train, val and test, of 16/7/10, among them
GRID_END = 74500  # every align file ends here, in units of 1/25000 s
LRW_FRAMES, LRW_SIZE, LRW_MOUTH = 29, (256, 256), (127.0, 163.0)  # centre of the fixed boxes
LRW_WORDS = (
    "ABOUT", "BECAUSE", "BUSINESS", "CHANGE", "FAMILY",
    "MILLION", "PEOPLE", "PRICE", "WEATHER", "YOUNG",
)  # fmt: skip
_ENGLISH = (
    "en", "en+f2", "en-us+m3", "en-gb-x-rp+f3",
    "en-us+f4", "en+m7", "en-us+f1", "en-gb-scotland+m1",
)  # fmt: skip
_CARRIERS = (
    ("and now we hear more", "from all over the country"),
    ("they have been talking of", "since early this morning"),
    ("the question today is", "and what it means to you"),
    ("we were told there is", "in the north of the island"),
)


@dataclass(frozen=True)
class Talker:
    """A face and a voice that belong together."""

    identity: face.Identity
    voice: str
    pitch: int
    rate: int

    @classmethod
    def number(cls, number: int, seed: int = 0, mandarin: bool = False) -> Talker:
        """The talker with that number in the synthetic world of that seed."""
        rng = np.random.default_rng((seed, number, 0x7A1C))
        voice = _ENGLISH[(number + seed) % len(_ENGLISH)]
        if mandarin:
            voice = f"cmn+{('f2', 'm3', 'f4', 'm1')[number % 4]}"
        identity = face.Identity.from_seed(seed * 1009 + number)
        return cls(identity, voice, int(rng.integers(35, 65)), int(rng.integers(140, 165)))


@dataclass
class Clip:
    """One stretch of film."""

    frames: list[np.ndarray]  # uint8 BGR pictures at 25 fps
    samples: np.ndarray  # float32 at 16 kHz, beginning with the first frame
    words: list[Span]  # (word, start_s, end_s) on the clip's clock
    # Drawn mouth opening 0..1 of each frame; empty for real film.
    opening: np.ndarray = field(default_factory=lambda: np.zeros(0))


def shoot(
    talker: Talker, speech: Speech, start_s: float, num_frames: int, size: tuple[int, int],
    mouth: tuple[float, float], unit: float, seed: int,
) -> Clip:  # fmt: skip
    """Films a talker saying something that begins `start_s` into the clip (it may be negative)."""
    length = num_frames * SAMPLE_RATE // FPS
    # A room is never silent: without this hiss a log-mel would sit on its floor.
    sound = np.random.default_rng((seed, 0xA1)).normal(0, 3e-4, length).astype(np.float32)
    begin = round(start_s * SAMPLE_RATE)
    spoken = speech.samples[max(0, -begin) : max(0, length - begin)]
    loud = 0.5 / max(1e-6, float(np.abs(speech.samples).max()))
    sound[max(0, begin) : max(0, begin) + len(spoken)] += loud * spoken
    phonemes = [(p, s + start_s, e + start_s) for p, s, e in speech.phonemes]
    track = visemes.mouth_track(phonemes, num_frames)
    frames = list(face.film(talker.identity, track, size, mouth, unit, seed))
    words = [(w, s + start_s, e + start_s) for w, s, e in speech.words]
    return Clip(frames, sound, words, track[:, 0])


def grid_names(seed: int) -> Iterator[str]:
    """Sentence names without repetition, `bbaf2n` first: no sentence has two talkers in GRID."""
    rng = np.random.default_rng((seed, 0x612D))
    name, seen = "bbaf2n", set[str]()
    while True:
        if name not in seen:
            seen.add(name)
            yield name
        name = "".join(str(rng.choice(list(words))) for words in SLOTS)


def grid_clip(talker: int, name: str, seed: int = 0) -> Clip:
    """Films one sentence of 75 frames; word times are multiples of 10 ms, as in the align files."""
    who = Talker.number(talker, seed)
    # Alone, `a` would be read as the article.
    text = " ".join("[[eI]]" if word == "a" else word for word in words_of(name))
    rng = np.random.default_rng((seed, talker, *name.encode()))
    speech = speak(text, who.voice, who.pitch, who.rate)
    if len(speech.words) != 6:
        raise ValueError(f"{name}: espeak-ng reported {len(speech.words)} words instead of six")
    start_s = round(float(rng.uniform(0.35, 2.75 - speech.duration_s)), 2)
    x, y, unit = np.random.default_rng((seed, talker)).uniform((160, 207, 47), (186, 214, 53))
    clip = shoot(who, speech, start_s, GRID_FRAMES, GRID_SIZE, (x, y), unit, clip_seed(rng))
    starts = [round(s, 2) for _, s, _ in clip.words] + [round(clip.words[-1][2], 2)]
    clip.words = list(zip(words_of(name), starts[:-1], starts[1:], strict=True))
    return clip


def align_text(words: Sequence[Span], end: str = "\n") -> str:
    """An align file: start, end and word in units of 1/25000 s, silence at both ends."""
    times = [round(w[1] * 25000) for w in words] + [round(words[-1][2] * 25000)]
    rows = [(0, times[0], "sil"), *zip(times[:-1], times[1:], (w[0] for w in words), strict=True)]
    rows.append((times[-1], GRID_END, "sil"))
    return "".join(f"{first} {last} {word}{end}" for first, last, word in rows)


def save_grid(out: Path, talker: int, name: str, clip: Clip) -> Path:
    """Writes `sN/video/NAME.mpg` and `sN/align/NAME.align`; returns the video's path."""
    path = out / f"s{talker}/video/{name}.mpg"
    media.write_mpg(path, clip.frames, clip.samples)
    align = out / f"s{talker}/align/{name}.align"
    align.parent.mkdir(parents=True, exist_ok=True)
    align.write_text(align_text(clip.words), newline="")
    return path


def write_grid(out: Path, clips: int, seed: int) -> Iterator[Path]:
    """Writes GRID; yields each clip's video once it is on disk."""
    names = itertools.islice(grid_names(seed), clips)
    for name, talker in zip(names, itertools.cycle(GRID_TALKERS), strict=False):
        yield save_grid(out, talker, name, grid_clip(talker, name, seed))


def lrw_clip(word: str, talker: int, seed: int = 0) -> Clip:
    """Films 1.16 s out of a longer phrase, the word in the middle; `words` holds that word only."""
    who = Talker.number(talker, seed)
    rng = np.random.default_rng((seed, talker, *word.encode()))
    before, after = _CARRIERS[int(rng.integers(len(_CARRIERS)))]
    speech = speak(f"{before} {word.lower()} {after}", who.voice, who.pitch, who.rate)
    target = next(w for w in speech.words if w[0] == word.lower())
    start_s = LRW_FRAMES / FPS / 2 - (target[1] + target[2]) / 2
    mouth = LRW_MOUTH[0] + rng.uniform(-3, 3), LRW_MOUTH[1] + rng.uniform(-3, 3)
    unit = float(rng.uniform(58, 66))
    clip = shoot(who, speech, start_s, LRW_FRAMES, LRW_SIZE, mouth, unit, clip_seed(rng))
    clip.words = [(word, target[1] + start_s, target[2] + start_s)]
    return clip


def lrw_text(duration_s: float, counter: int) -> str:
    """The metadata file beside a clip; Duration is that of the word."""
    return (
        f"Disk reference: {5920000000000000000 + counter}\n"
        "Channel: AVB One\n"
        f"Program start: 2011-03-{counter % 28 + 1:02d} 06:00:00 +0000\n"
        f"Clip start: {17.3 + 1.16 * counter:.2f} seconds\n"
        f"Duration: {duration_s:.2f} seconds\n"
    )


def save_lrw(out: Path, word: str, split: str, counter: int, clip: Clip) -> Path:
    """Writes `lipread_mp4/WORD/split/WORD_00001.mp4` and its .txt; returns the video's path."""
    path = out / f"lipread_mp4/{word}/{split}/{word}_{counter:05d}.mp4"
    media.write_mp4(path, clip.frames, clip.samples)
    start, end = clip.words[0][1:]
    path.with_suffix(".txt").write_text(lrw_text(end - start, counter), newline="")
    return path


def lrw_clips(clips: int, seed: int) -> Iterator[Clip]:
    """Drawn clips, the words taking turns."""
    for index in range(clips):
        talker = 100 + (index * 7 + index // len(LRW_WORDS)) % 24  # about two dozen people
        yield lrw_clip(LRW_WORDS[index % len(LRW_WORDS)], talker, seed)


def write_lrw(out: Path, clips: Iterable[Clip]) -> Iterator[Path]:
    """Writes LRW; of each six clips of a word four are train, one val and one test."""
    counts: Counter[str] = Counter()
    for clip in clips:
        word = clip.words[0][0]
        split = ("train", "val", "test", "train", "train", "train")[counts[word] % 6]
        counts.update((word, f"{word}/{split}"))
        yield save_lrw(out, word, split, counts[f"{word}/{split}"], clip)


def clip_seed(rng: np.random.Generator) -> int:
    """A seed for what is drawn of one clip."""
    return int(rng.integers(1 << 31))
