"""`datasets.yaml` as typed, checked objects, and the precedence of where a corpus lies."""

import hashlib
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import avb
from avb.pipeline.errors import UsageError
from avb.pipeline.machine import at_home
from avb.pipeline.parse import checked, expect, expect_keys, read_yaml
from avb.pipeline.storage.store import Folder, place

#: What clips are for.
PARTS = ("train", "val", "test")
#: What can be cut from a picture, and what can be counted against the published numbers.
CROPS = ("lips", "face")
EXPECTED = ("clips", "classes", "speakers", *PARTS)

#: Letters of a label, talker or part: what is as long as this is no name.
LONGEST_NAME = 200
#: More than any film lasts: a time beyond is none, and readers refuse it.
MOST_SECONDS = 1e6
#: The hash rule deals sentences into this many equal lots.
HASH_PARTS = 20


@dataclass(frozen=True)
class Mel:
    """A log-mel front end: natural log of `max(mel(|STFT|^power), floor)`, centred frames.

    `hop`, `window` and `n_fft` are in samples, frequencies in Hz. `uint8_max` is the top (ln) of
    the range that `--mel-dtype uint8` spans; its bottom is ln(floor).
    """

    n_mels: int
    hop: int
    window: int
    n_fft: int
    power: float
    mel_scale: Literal["htk", "slaney"]
    norm: Literal["slaney"] | None
    f_min: float
    f_max: float
    preemphasis: float
    floor: float
    uint8_max: float

    def __post_init__(self) -> None:
        bottom = math.log(self.floor) if self.floor > 0 else math.inf
        rules = (
            (0 < self.hop <= self.window <= self.n_fft <= 65536,
             "0 < hop <= window <= n_fft <= 65536"),
            (0 < self.n_mels <= 1024, "0 < n_mels <= 1024"),
            (0 <= self.f_min < self.f_max < math.inf, "0 <= f_min < f_max"),
            (0 <= self.preemphasis <= 1, "0 <= preemphasis <= 1"),
            (0 < self.power <= 4, "0 < power <= 4"),
            (bottom < self.uint8_max < math.inf, "0 < floor and ln(floor) < uint8_max"),
        )  # fmt: skip
        if broken := [rule for holds, rule in rules if not holds]:
            raise ValueError(f"a mel front end has {broken[0]}")


@dataclass(frozen=True)
class Crop:
    """A square stored with a margin: its centre `size` pixels are the box, the rest is jitter."""

    size: int
    margin: int

    def __post_init__(self) -> None:
        if not (0 < self.size <= 4096 and 0 <= self.margin <= 1024):
            raise ValueError(f"no picture of {self.size} pixels and a margin of {self.margin}")

    @property
    def stored(self) -> int:
        """Side of the stored picture in pixels."""
        return self.size + 2 * self.margin


@dataclass(frozen=True)
class Split:
    """A named division into parts: by the clip's own split, its talker, its name or a hash of it.

    `parts` lists talkers (by: speaker), residues modulo 20 (by: hash), or the clips of val and test
    (by: name), all others being of train; `speakers` limits them.
    With `few`, clips so few that the residues leave a part empty are dealt in the hashes' order.
    """

    by: Literal["split", "speaker", "hash", "name"]
    source: str
    aliases: list[str] = field(default_factory=list)
    speakers: list[str] | None = None
    parts: dict[str, list[int | str]] = field(default_factory=dict)
    few: bool = False

    def __post_init__(self) -> None:
        for member in itertools.chain(*self.parts.values()):
            if self.by == "hash" and member not in range(HASH_PARTS):
                raise ValueError(f"residue {member!r} is no number from 0 to {HASH_PARTS - 1}")
            if self.by != "hash" and not isinstance(member, str):
                raise ValueError(f"talker or clip {member!r} is no text; write '{member}'")
        members = Counter(itertools.chain(*map(set, self.parts.values())))
        if twice := [member for member, count in members.items() if count > 1]:
            raise ValueError(f"{twice[0]!r} is in more than one part")

    def rule(self) -> str:
        """Twelve digits of a hash of what decides the parts, in whatever order it is listed."""
        parts = {part: sorted(members, key=str) for part, members in self.parts.items()}
        decides = (self.by, self.speakers and sorted(self.speakers), parts, self.few)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    def part_of(self, key: str, speaker: str | None, split: str | None) -> str | None:
        """The part (train, val, test) that a clip belongs to, or None if it belongs to none.

        By hash, the name in `key` (`group/name`) alone decides, so that a sentence is in the same
        part whoever speaks it; `split` is the part that the corpus itself assigns.
        """
        if self.speakers is not None and speaker not in self.speakers:
            return None
        if self.by == "split":
            return split
        member: int | str | None = speaker
        if self.by != "speaker":
            member = key if self.by == "name" else name_hash(key) % HASH_PARTS
        other = "train" if self.by == "name" else None
        return next((part for part, members in self.parts.items() if member in members), other)


def talkers_as_stored(corpus: str, names: Iterable[str]) -> list[str]:
    """Talkers as shards have them: "1" and "s01" are GRID's s1; of other corpora as they are."""
    found = [name.strip() for name in names]
    if corpus != "grid":
        return found
    return [re.sub(r"^s?0*(\d+)$", r"s\1", name) for name in found]


def name_hash(key: str) -> int:
    """The number that the hash rule deals a clip by: of its name alone, whatever the group."""
    return int(hashlib.sha256(key.split("/", 1)[-1].encode()).hexdigest()[:8], 16)


def stable_hash(key: str) -> int:
    """The first 64 bits of SHA-256 of a key: the order of clips, and what `--limit` takes."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Licence:
    """Under what terms a corpus is had, and where to ask."""

    name: str
    apply: str


@dataclass(frozen=True)
class Corpus:
    """One entry of `datasets.yaml`; `fps` is in frames a second, `sample_rate` in Hz.

    `known` is what is wrong with the corpus itself, which `avb inspect` says, and `lags` a table
    that mends it (`--sync known`); its path is taken from the file that names it. `grammar` are the
    words of each place of its sentences.
    """

    title: str
    root: str
    layouts: list[str]
    expected: dict[str, int]
    fps: int
    sample_rate: int
    crops: dict[str, Crop]
    box: Literal["fixed", "tracked", "whole"]
    shard_clips: int
    keep_audio: bool
    mel: Mel
    splits: dict[str, Split]
    licence: Licence
    frames: int | None = None
    picture: list[int] | None = None
    fixed_box: list[int] | None = None
    face_every: int = 3
    known: str = ""
    lags: str = ""
    grammar: list[list[str]] | None = None

    def __post_init__(self) -> None:
        hop = self.mel.hop
        if self.fps < 1 or self.sample_rate != 4 * self.fps * hop:
            raise ValueError(
                f"{self.sample_rate} Hz, {self.fps} pictures a second and a hop of {hop} samples;"
                " networks take 4 mel columns a picture: sample_rate = 4 * fps * hop"
            )
        if self.mel.f_max > self.sample_rate / 2:
            raise ValueError(
                f"mels up to {self.mel.f_max:g} Hz; sound at {self.sample_rate} Hz has half of that"
            )


def builtin_path() -> Path:
    """The `datasets.yaml` that came with the package."""
    return Path(avb.__file__).with_name("datasets.yaml")


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _placed(corpora: dict[str, Any], file: Path) -> dict[str, Any]:
    """The entries of a file, with tables of lags found from its folder."""
    for entry in corpora.values():
        if isinstance(entry, dict) and isinstance(lags := entry.get("lags"), str) and lags:
            entry["lags"] = str(file.resolve().parent / lags)
    return corpora


def load_corpora(path: str | Path | None = None) -> dict[str, Corpus]:
    """Every corpus of the built-in `datasets.yaml`, overridden key by key by the file `path`."""
    raw = _placed(read_yaml(builtin_path()), builtin_path())
    where = "datasets.yaml"
    if path is not None:
        over = read_yaml(Path(path)) or {}
        where = str(path)
        expect(isinstance(over, dict), where, "a mapping of corpora", over)
        expect_keys(over, raw, where)
        raw = _merge(raw, _placed(over, Path(path)))
    corpora = {name: checked(Corpus, entry, f"{where}: {name}") for name, entry in raw.items()}
    for name, corpus in corpora.items():
        expect_keys(corpus.crops, CROPS, f"{where}: {name}.crops")
        expect_keys(corpus.expected, EXPECTED, f"{where}: {name}.expected")
        for own, split in corpus.splits.items():
            expect_keys(split.parts, PARTS, f"{where}: {name}.splits.{own}.parts")
    return corpora


def corpus_root(name: str, corpus: Corpus, flag: str | Folder | None = None) -> Folder:
    """Where the raw corpus lies: the flag, else `AVB_<CORPUS>_ROOT`, else its entry.

    UsageError: it begins with the home of a user that there is not.
    """
    variable = os.environ.get(f"AVB_{name.upper()}_ROOT")
    root = place(flag or variable or corpus.root)
    return at_home(root) if isinstance(root, Path) else root


def find_split(corpus: Corpus, name: str) -> tuple[str, Split]:
    """The split called `name`, or that has it as an alias, under its own name."""
    for own, split in corpus.splits.items():
        if name == own or name in split.aliases:
            return own, split
    known = [*corpus.splits, *(a for s in corpus.splits.values() for a in s.aliases)]
    raise UsageError(f"no split {name!r}; known: {', '.join(known)}")
