"""The exact raw layout of LRW-1000, filled like the others: see `raw`."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avb.tools.synth import media
from avb.tools.synth.raw import FPS, Clip, Talker, clip_seed, shoot
from avb.tools.synth.voice import SAMPLE_RATE, Span, Speech, speak

MARGIN = 20  # hundredths of a second that an LRW-1000 wav holds on either side of its word
# Two words are written differently and sound alike: one class.
MANDARIN = (
    ("扫描", "sao miao"), ("中国", "zhong guo"), ("新闻", "xin wen"),
    ("北京", "bei jing"), ("经济", "jing ji"), ("记者", "ji zhe"),
    ("今天", "jin tian"), ("事实", "shi shi"), ("实施", "shi shi"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One word of LRW-1000; times in hundredths of a second on its folder's clock."""

    split: str  # trn, val or tst
    folder: str
    audio: str
    word: str
    pinyin: str
    start: int
    end: int


@dataclass(frozen=True)
class Tree:
    """Where a layout of LRW-1000 keeps its three parts."""

    images: Path
    audio: Path
    info: Path

    @classmethod
    def of(cls, out: Path, layout: str) -> Tree:
        """The folders of layout `A` (LRW1000_Public) or `B` (CAS-VSR-W1k)."""
        if layout == "A":
            root = out / "LRW1000_Public"
            return cls(root / "images", root / "audio", root / "info")
        if layout == "B":
            root = out / "CAS-VSR-W1k"
            audio = root / "audio/LRW1000_Public/audio"
            return cls(root / "lip_images/lip_images", audio, root / "info")
        raise ValueError(f"layout {layout!r}: expected A (LRW1000_Public) or B (CAS-VSR-W1k)")


def segment_clip(words: Sequence[tuple[str, str]], talker: int, seed: int = 0) -> Clip:
    """Films several Mandarin words in one go, lower face only; `words` holds their pinyin."""
    who = Talker.number(talker, seed, mandarin=True)
    rng = np.random.default_rng((seed, talker, len(words)))
    sounds: list[np.ndarray] = []
    phonemes: list[Span] = []
    spans: list[Span] = []
    clock_s = float(rng.uniform(0.3, 0.6))
    for word, pinyin in words:
        speech = speak(word, who.voice, who.pitch, who.rate)
        phonemes += [(p, s + clock_s, e + clock_s) for p, s, e in speech.phonemes]
        spans.append((pinyin, clock_s + speech.words[0][1], clock_s + speech.words[-1][2]))
        pause = np.zeros(round(clock_s * SAMPLE_RATE) - sum(map(len, sounds)), np.float32)
        sounds += [pause, speech.samples]
        clock_s += speech.duration_s + float(rng.uniform(0.05, 0.4))
    whole = Speech(np.concatenate(sounds), spans, phonemes)
    num_frames = int((spans[-1][2] + 0.3) * FPS) + 1
    side = int(rng.integers(76, 150))
    unit = side / float(rng.uniform(1.35, 1.6))
    mouth = side / 2, 0.52 * side
    return shoot(who, whole, 0.0, num_frames, (side, side), mouth, unit, clip_seed(rng))


def save_segment(
    tree: Tree, clip: Clip, folder: str, split: str, words: Sequence[str]
) -> list[Row]:
    """Writes a folder of jpgs and one wav a word; `words` are as written, one for each span."""
    for number, frame in enumerate(clip.frames, start=1):
        media.write_jpg(tree.images / folder / f"{number}.jpg", frame)
    rows = []
    for index, (word, (pinyin, start_s, end_s)) in enumerate(zip(words, clip.words, strict=True)):
        audio = hashlib.md5(f"{folder}/{index}".encode()).hexdigest()
        row = Row(split, folder, audio, word, pinyin, round(start_s * 100), round(end_s * 100))
        media.write_wav(tree.audio / f"{audio}.wav", word_sound(clip.samples, row.start, row.end))
        rows.append(row)
    return rows


def word_sound(samples: np.ndarray, start: int, end: int) -> np.ndarray:
    """The sound of `start - 0.2 s .. end + 0.2 s`, cut at the ends of the recording."""
    step = SAMPLE_RATE // 100
    return samples[max(0, start - MARGIN) * step : (end + MARGIN) * step]


def write_index(tree: Tree, rows: Sequence[Row], bom_in: str = "") -> None:
    """Writes the index files; times as 1.20 in the split files and as 1.2 in the audio file."""
    tree.info.mkdir(parents=True, exist_ok=True)
    for split in ("trn", "val", "tst"):
        lines = [
            f"{r.folder},{r.word},{r.pinyin},{r.start / 100:.2f},{r.end / 100:.2f}\n"
            for r in rows
            if r.split == split
        ]
        encoding = "utf-8-sig" if split == bom_in else "utf-8"
        path = tree.info / f"{split}_1000.txt"
        path.write_text("".join(lines), encoding=encoding, newline="")
    lines = [
        f"{r.folder},{r.audio},{r.word},{r.pinyin},{r.start / 100:g},{r.end / 100:g}\n"
        for r in rows
    ]
    path = tree.info / "all_audio_video.txt"
    path.write_text("".join(lines), encoding="utf-8", newline="")


def segment_plan(clips: int, words_each: int) -> Iterator[tuple[str, int]]:
    """(split, words) of each folder: at least three folders, of six four trn, one val, one tst."""
    pattern = ("trn", "val", "tst", "trn", "trn", "trn")
    folders = max(min(3, clips), -(-clips // words_each))
    for index in range(folders):
        yield pattern[index % 6], clips // folders + (index < clips % folders)


def folder_name(seed: int, index: int) -> str:
    """The 32 hexadecimal digits that name a video segment."""
    return hashlib.md5(f"avb synth {seed} {index}".encode()).hexdigest()


def make_lrw1000(tree: Tree, clips: int, seed: int, rows: list[Row]) -> Iterator[str]:
    """Writes LRW-1000 but for its index and fills `rows`; yields the name of each word."""
    turn = itertools.cycle(MANDARIN)
    for index, (split, count) in enumerate(segment_plan(clips, 6)):
        words = list(itertools.islice(turn, count))
        clip = segment_clip(words, 200 + index, seed)
        new = save_segment(tree, clip, folder_name(seed, index), split, [w for w, _ in words])
        rows += new
        yield from (f"{row.folder}/{row.pinyin}" for row in new)
