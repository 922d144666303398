"""Which stored clips are for training, validation and test."""

import dataclasses
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from avb.pipeline.config import (
    HASH_PARTS,
    PARTS,
    Corpus,
    Split,
    find_split,
    name_hash,
    talkers_as_stored,
)
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints, Row
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

GRID_TALKER, ANY = re.compile(r"s\d{1,2}"), re.compile(".*")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Rows of an index for each part, and under which name the split goes into every result.

    `speakers` and `listed` are what it was narrowed to or read from: with the name, all it takes
    to find the same clips again. `absent` are the talkers that were asked for, by name or by the
    split, and have no clip here.
    """

    name: str
    source: str
    rows: dict[str, Ints]
    speakers: list[str] | None = None
    listed: dict[str, str] | None = None
    absent: tuple[str, ...] = ()
    rule: str | None = None  # of a split by name, which another datasets.yaml may have otherwise

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        facts = {"split": self.name, "split_source": self.source}
        return facts | {"speakers": self.speakers, "listed": self.listed, "rule": self.rule}


def split_rows(
    index: Index, corpus: Corpus, name: str, speakers: list[str] | None = None,
    file: Path | None = None, need: tuple[str, ...] = ("train", "val"),
    listed: dict[str, str] | None = None, among: Ints | None = None,
) -> Parts:  # fmt: skip
    """The rows of each part of a named split, or of a list.

    UsageError: an unknown split or line, or an empty part; missing talkers are named.

    Args:
        speakers: keep only these talkers.
        file: lines that name part, talker and clip, in any of the public forms
            (`val/s20/prwo5p`, `train s1/video/bwim6p.mp4`, LRW's `ABOUT/train/ABOUT_00001`).
        need: parts that must not be empty.
        listed: `{key: part}` as such a file was read once; `name` is then what it was called.
        among: rows that can be used, where so few clips are dealt that every one counts.
    """
    corpus_name = index.dataset["corpus"]
    if speakers is not None:
        speakers = talkers_as_stored(corpus_name, speakers)
    if file is not None:
        if not file.name.isprintable():
            raise UsageError(f"--split-file {file.name!r}: a name that cannot be printed")
        name, listed = file.name, read_split_file(file, corpus_name)
        stored = {index.key(row) for row in range(len(index))}
        if gone := len(listed.keys() - stored):
            log.info(f"{file}: {gone} of {len(listed)} listed clips are not in {index.folder}")
    if listed is not None:
        own, split = name, Split("split", name)
    else:
        own, split = find_split(corpus, name)

    def part(row: Row) -> str | None:
        if speakers is not None and row.speaker not in speakers:
            return None
        if listed is not None:
            return listed.get(row.key)
        return split.part_of(row.key, row.speaker, row.split)

    found = [part(index.row(i)) for i in range(len(index))]
    rows = {p: np.flatnonzero([f == p for f in found]) for p in PARTS}
    if split.few and listed is None:
        good = {p: r if among is None else np.intersect1d(r, among) for p, r in rows.items()}
        if not all(map(len, good.values())):
            listed = _deal_few(index, np.concatenate(list(good.values())), split)
            dealt = [listed.get(index.key(i)) for i in range(len(index))]
            rows = {p: np.flatnonzero([d == p for d in dealt]) for p in PARTS}
    members = split_talkers(split)
    empty = [p for p in need if not len(rows[p])]
    if empty:
        named = ", ".join(absent_talkers(index, members.union(speakers or ())))
        own_parts = ", ".join(index.split.names[:8]) if split.by == "split" else ""
        there = own_parts and f" (the clips are of {own_parts})"
        raise UsageError(
            f"{index.folder}: split {own} leaves nothing for {' and '.join(empty)}"
            f"{named and f' (talkers without a clip: {named})'}{there};"
            " choose another --split, or prepare more talkers"
        )
    absent = absent_talkers(index, members if speakers is None else speakers)
    rule = None if listed is not None else split.rule()
    return Parts(own, split.source, rows, speakers, listed, absent, rule)


def _deal_few(index: Index, rows: Ints, split: Split) -> dict[str, str]:
    """`{key: part}` in the order of the hashes: each part its share, and one clip if there are."""
    keys = sorted((index.key(row) for row in rows), key=lambda key: (name_hash(key), key))
    sizes = {p: max(1, len(keys) * len(split.parts[p]) // HASH_PARTS) for p in PARTS}
    parts = ["val"] * sizes["val"] + ["train"] + ["test"] * sizes["test"] + ["train"] * len(keys)
    return dict(zip(keys, parts, strict=False))


def default_split(index: Index, corpus: Corpus, wanted: str | None = None) -> str:
    """The split that is wanted, if these clips can have it, else the usual one.

    That is by the clips' own parts where they have some, else by the hash rule, for all talkers.
    """
    by = "split" if index.split.names else "hash"
    for name, split in corpus.splits.items():
        fits = split.by in (by, "hash", "speaker", "name")
        if wanted and fits and wanted in (name, *split.aliases):
            return wanted
    fitting = [n for n, split in corpus.splits.items() if split.by == by and not split.speakers]
    return [*fitting, *corpus.splits][0]


def teachable(index: Index, parts: Parts, recipe: Recipe) -> tuple[Parts, int]:
    """The parts without clips that teach a recipe nothing, and how many lack what it learns.

    Of the others one line says how many of which kind: silent ones are left out of training, those
    without a sound track (flag `no_audio`) of both parts where a mel is needed. UsageError: nothing
    is left of a part.
    """
    task = find_task(recipe.task)
    kept = {part: task.usable_rows(index, rows, recipe) for part, rows in parts.rows.items()}
    left_out = sum(map(len, parts.rows.values())) - sum(map(len, kept.values()))
    for part in ("train", "val"):
        if len(parts.rows[part]) and not len(kept[part]):
            raise without_target(index, recipe, f"{len(parts.rows[part])} clips of {part}")
    for part in ("train", "val"):
        rows = kept[part]
        silent = index.silent[rows] & (part == "train" and not recipe.keep_silent)
        mute = index.no_audio[rows] & task.needs_sound(recipe)
        useless = {
            "without a sound track": mute,
            "silent (--set keep_silent=true takes them)": silent,
        }
        shown = ", ".join(f"{mask.sum()} {what}" for what, mask in useless.items() if mask.any())
        kept[part] = rows[~np.any(list(useless.values()), axis=0)]
        if shown:
            log.info(f"left out of {len(rows)} clips of {part}: {shown}")
        if shown and not kept[part].size:
            advice = ""
            if mute.any() and not task.needs_target_sound:
                advice = "; a lip reader without memory needs no sound: --set model.slots=0"
            raise UsageError(f"{index.folder}: no clip of {part} is left: {shown}{advice}")
    return dataclasses.replace(parts, rows=kept), left_out


def without_target(index: Index, recipe: Recipe, which: str) -> UsageError:
    """The fault of clips without what the recipe learns."""
    return UsageError(
        f"{index.folder}: none of {which} has {target_name(recipe)}; --unit clip learns labels,"
        " --unit word words with their times ([word, start, end]), --unit sentence words"
    )


def target_name(recipe: Recipe) -> str:
    """What a clip must have for the recipe to learn from it."""
    if recipe.unit == "clip":
        return "a label"
    if recipe.unit == "word":
        return "a word with its times"
    return f"words{' with their times' if recipe.window else ''}, as many as fit its frames"


def split_talkers(split: Split) -> set[str]:
    """The talkers that a split names."""
    named = set(split.speakers or ())
    if split.by == "speaker":
        named |= {str(talker) for members in split.parts.values() for talker in members}
    return named


def absent_talkers(index: Index, talkers: Iterable[str]) -> tuple[str, ...]:
    """Those of the talkers of whom no clip is stored."""
    absent = set(talkers) - set(index.speaker.names)
    return tuple(sorted(absent, key=lambda name: (len(name), name)))


def read_split_file(path: Path, corpus: str = "grid") -> dict[str, str]:
    """`{key: part}` from a list of clips of a corpus.

    UsageError: it cannot be read, a line has no part or talker, or a clip is of two parts.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is no UTF-8; save it as UTF-8") from None
    found: dict[str, str] = {}
    dealt = corpus in ("lrw", "lrw1000")
    group = re.compile("|".join(PARTS)) if dealt else GRID_TALKER if corpus == "grid" else ANY
    example = "val/train/ABOUT_00001" if dealt else "train/s1/bbaf2n"
    for number, line in enumerate(lines, 1):
        words = [w for w in re.split(r"[/\s,]+", line.strip()) if w]
        if not words:
            continue
        parts = [w for w in words if w in PARTS]
        # LRW's keys begin with the part of the release, which is often the only one in a line.
        if parts and (len(parts) > 1 or not dealt):
            words.remove(parts[0])  # once: of a table with parts, the talker's place has one too
        # In GRID's trees other folders may stand before the talker's, in LRW's the word's.
        named = [w for w in words[:-1] if group.fullmatch(w)]
        if not parts or not named:
            raise UsageError(
                f"{path}:{number}: {line[:60]!r} names no part{'' if dealt else ' and talker'};"
                f" expected a line such as {example}"
            )
        key = f"{talkers_as_stored(corpus, named)[0]}/{PurePosixPath(words[-1]).stem}"
        if found.setdefault(key, parts[0]) != parts[0]:
            raise UsageError(
                f"{path}:{number}: {key} is in {parts[0]}, and in {found[key]} above; list it once"
            )
    return found
