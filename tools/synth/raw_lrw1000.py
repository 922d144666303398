"""The exact raw layout of LRW-1000, filled like the others: see `raw`."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
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


Segment = tuple[Clip, list[str]]  # its words as they are written


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
    rows, step = [], SAMPLE_RATE // 100
    for index, (word, (pinyin, start_s, end_s)) in enumerate(zip(words, clip.words, strict=True)):
        audio = hashlib.md5(f"{folder}/{index}".encode()).hexdigest()
        row = Row(split, folder, audio, word, pinyin, round(start_s * 100), round(end_s * 100))
        sound = clip.samples[max(0, row.start - MARGIN) * step : (row.end + MARGIN) * step]
        media.write_wav(tree.audio / f"{audio}.wav", sound)
        rows.append(row)
    return rows


def write_index(tree: Tree, rows: Sequence[Row], bom_in: str = "") -> None:
    """Writes the index files; times as 1.20 in the split files and as 1.2 in the audio file."""
    tree.info.mkdir(parents=True, exist_ok=True)
    lines = {name: "\ufeff" if name == bom_in else "" for name in ("trn", "val", "tst", "all")}
    for r in rows:
        start, end = r.start / 100, r.end / 100
        lines[r.split] += f"{r.folder},{r.word},{r.pinyin},{start:.2f},{end:.2f}\n"
        lines["all"] += f"{r.folder},{r.audio},{r.word},{r.pinyin},{start:g},{end:g}\n"
    for name, text in lines.items():
        path = tree.info / ("all_audio_video.txt" if name == "all" else f"{name}_1000.txt")
        path.write_text(text, encoding="utf-8", newline="")


def folder_name(seed: int, index: int) -> str:
    """The 32 hexadecimal digits that name a video segment."""
    return hashlib.md5(f"avb synth {seed} {index}".encode()).hexdigest()


def segments(clips: int, seed: int) -> Iterator[Segment]:
    """Drawn segments: three of at least a word if there are as many, each of six words at most."""
    turn = itertools.cycle(MANDARIN)
    folders = max(min(3, clips), -(-clips // 6))
    for index in range(folders):
        words = list(itertools.islice(turn, clips // folders + (index < clips % folders)))
        yield segment_clip(words, 200 + index, seed), [word for word, _ in words]


def write_segments(tree: Tree, segments: Iterable[Segment], seed: int) -> Iterator[Row]:
    """Writes LRW-1000 but for its index; of each six folders four are trn, one val and one tst."""
    for index, (clip, words) in enumerate(segments):
        split = ("trn", "val", "tst", "trn", "trn", "trn")[index % 6]
        yield from save_segment(tree, clip, folder_name(seed, index), split, words)
