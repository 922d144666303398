"""The index of a shard folder: where every stored clip lies and what is known of it, as arrays.

Built from `manifest.parquet` and `dataset.json` alone, column after column; no shard is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from avb.pipeline.config import LONGEST_NAME, MOST_SECONDS
from avb.pipeline.errors import UsageError, one_line, shown
from avb.pipeline.shards.dataset import can_hold, open_manifest, read_dataset
from avb.pipeline.storage.store import Folder, place
from avb.pipeline.stream.columns import Columns, Ints, Names

#: What a sample is: a clip, a word of it, or a clip with the words or characters of its sentence.
SENTENCES = ("sentence", "characters")
UNITS = ("clip", "word", *SENTENCES)


class Row(NamedTuple):
    """What a selection may look at."""

    key: str
    group: str
    split: str | None
    speaker: str | None
    label: str | None


@dataclass(frozen=True)
class Index:
    """Every stored clip of a folder in the order shard, place in the shard; one array a column."""

    folder: Folder  # where the shards lie
    dataset: dict[str, Any]  # `dataset.json` as it is
    # keys, group, split, speaker, shard: text columns
    keys: pa.Array
    group: Names
    split: Names
    speaker: Names
    shard: Names
    label_id: Ints  # number of the clip's label in the class list, -1 where it has none
    # offset, nbytes: the sample's block in its tar
    offset: Ints
    nbytes: Ints
    # num_frames, num_mel: length in frames and in mel columns; no columns without a sound
    num_frames: Ints
    num_mel: Ints
    # silent, no_audio: whether the clip has this flag
    silent: NDArray[np.bool_]
    no_audio: NDArray[np.bool_]
    first_word: Ints  # words of clip i are those from `first_word[i]` to `first_word[i + 1]`
    word: Names  # text of each word
    word_s: NDArray[np.float64]  # float64 [words, 2], start and end in seconds; NaN where not known

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, row: int) -> str:
        """The key of one clip."""
        return self.keys[int(row)].as_py()

    def words(self, row: int) -> list[tuple[str, float | None, float | None]]:
        """Word, start and end in seconds of each word of one clip."""
        said = []
        for i in range(self.first_word[row], self.first_word[row + 1]):
            start, end = (None if np.isnan(t) else float(t) for t in self.word_s[i])
            said.append((self.word.names[self.word.codes[i]], start, end))
        return said

    def tokens(self, rows: Ints, unit: str) -> list[list[int]]:
        """Classes of all words of each clip, or of their characters; none where one is no class."""
        found = []
        for row in rows:
            words = [word for word, _, _ in self.words(row)]
            text = " ".join(words) if unit == "characters" else words
            classes = [self.class_of.get(token, -1) for token in text]
            found.append([] if -1 in classes else classes)
        return found

    @cached_property
    def class_of(self) -> dict[str, int]:
        """The number of each class by its name."""
        return {name: i for i, name in enumerate(self.labels)}

    @property
    def labels(self) -> list[str]:
        """The class list."""
        return self.dataset["labels"]

    def row(self, row: int) -> Row:
        """What a selection may look at of one clip."""
        label = self.label_id[row]
        return Row(
            self.key(row),
            self.group[row] or "",
            self.split[row],
            self.speaker[row],
            None if label < 0 else self.labels[label],
        )

    def select(self, where: Callable[[Row], bool]) -> Ints:
        """Row numbers of the clips for which a condition holds; ValueError if there is none."""
        rows = np.flatnonzero([where(self.row(row)) for row in range(len(self))])
        if not rows.size:
            raise ValueError(
                f"{self.folder}: no clip of {len(self)} stored ones is left by this selection; "
                f"there are groups {_some(self.group.names)} and speakers "
                f"{_some(self.speaker.names)}"
            )
        return rows

    def check_shards(self, rows: Ints) -> None:
        """See that the shards of these rows are there, before hours are spent; else UsageError."""
        folder = self.folder
        there = {p.name for p in folder.iterdir()} if isinstance(folder, Path) else folder.entries()
        codes = np.unique(self.shard.codes[rows])
        names = [f"{self.shard.names[code]}.tar" for code in codes]
        if gone := [name for name in names if name not in there]:
            raise UsageError(
                f"{folder}: {_some(gone)} not there, of {len(codes)} shards with these clips "
                "(avb verify finds every fault)"
            )

    def timed_sentences(self, rows: Ints) -> Ints:
        """Those rows that hold a word with times that is in the class list; ValueError if none."""
        kept = rows[np.diff(self.timed_words(rows)[0]) > 0]
        if not kept.size:
            number = int((self.first_word[rows + 1] - self.first_word[rows]).sum())
            raise ValueError(
                f"{self.folder}: 0 of {number} words with times, in {len(rows)} clips; prepare the"
                " corpus with its alignment files, a table with words as [word, start, end], or"
                " read whole clips (--unit clip)"
            )
        return kept

    def timed_words(self, rows: Ints) -> tuple[Ints, Ints]:
        """Which words of each row can be samples: with times in the clip, and in the class list.

        Returns int64 [rows + 1] and [words]: row i has the words at the places `second[first[i] :
        first[i + 1]]` of its clip.
        """
        known = np.isin(self.word.names, self.labels)[self.word.codes]
        counts = self.first_word[rows + 1] - self.first_word[rows]
        of = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        places = np.arange(len(of)) - np.repeat(ends - counts, counts)
        words = self.first_word[rows][of] + places
        usable = known[words] & self._timed()[words]
        first = np.concatenate([[0], np.cumsum(np.bincount(of[usable], minlength=len(rows)))])
        return first, places[usable]

    def _timed(self) -> NDArray[np.bool_]:
        """Of each word, whether it has times that lie in its clip."""
        lasts_s = self.num_frames / self.dataset["settings"]["fps"]
        starts, ends = self.word_s.T
        inside = starts < np.repeat(lasts_s, np.diff(self.first_word))
        return inside & (0 <= starts) & (starts <= ends)  # neither holds of NaN

    def of_unit(self, unit: str) -> Index:
        """The index as a stream of this unit takes it: of words, the classes are words.

        Of `word` those with times, of `sentence` all, of `characters` their letters and the space
        between them. Where these are no labels of clips (a table that has none, or others), the
        classes are all of them, and no clip has a label.
        """
        if unit == "clip":
            return self
        codes = self.word.codes[self._timed()] if unit == "word" else self.word.codes
        names = {self.word.names[code] for code in np.unique(codes)}
        names = {name for name in names if name.isprintable() and len(name) < LONGEST_NAME}
        if unit == "characters":
            names = {" "}.union(*names)
        if names <= set(self.labels) and unit != "characters":
            return self
        dataset = self.dataset | {"labels": sorted(names)}
        return replace(self, dataset=dataset, label_id=np.full_like(self.label_id, -1))


def load_index(folder: str | Folder) -> Index:
    """Read the index of a folder of shards, here or in a store; UsageError says what is damaged."""
    folder = place(folder)
    if isinstance(folder, Path) and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of shards; make one with `avb prep`")
    dataset = read_dataset(folder)
    path = folder / "manifest.parquet"
    with open_manifest(folder) as file:
        columns = Columns(file)
        if not len(columns.offset):
            raise UsageError(f"{path}: no clip has status ok; the column `error` says why not")
        label = columns.names("label")
        label_of = {name: i for i, name in enumerate(dataset["labels"])}
        if unknown := sorted(set(label.names) - set(label_of)):
            raise UsageError(f"{folder}: labels {_some(unknown)} are not in its class list")
        # The last entry serves code -1: no label.
        to_id = np.array([label_of[name] for name in label.names] + [-1], np.int64)
        first_word, word, word_s = columns.words()
        index = Index(
            folder=folder,
            dataset=dataset,
            keys=columns.keys(),
            group=columns.names("group"),
            split=columns.names("split"),
            speaker=columns.names("speaker"),
            shard=columns.shard,
            label_id=to_id[label.codes],
            offset=columns.offset,
            nbytes=columns.ints("nbytes"),
            num_frames=columns.ints("n_frames"),
            num_mel=columns.ints("n_mel"),
            silent=columns.flagged("silent"),
            no_audio=columns.flagged("no_audio"),
            first_word=first_word,
            word=word,
            word_s=word_s,
        )
    wrong = (index.offset < 0) | (index.nbytes <= 0)
    wrong |= (index.num_mel == 0) != index.no_audio
    wrong |= ~can_hold(dataset, index.nbytes, index.num_frames, index.num_mel)
    far = np.flatnonzero((np.abs(word_s) > MOST_SECONDS).any(1))  # NaN, of no times, is not
    wrong[np.searchsorted(first_word, far, side="right") - 1] = True
    if wrong.any():
        key = index.key(int(np.argmax(wrong)))
        raise UsageError(f"{path}: the row of clip {shown(key)} cannot be; prepare again")
    return index


def _some(names: Collection[str], limit: int = 8) -> str:
    """The first few names, and how many more there are."""
    some = ", ".join(map(one_line, list(names)[:limit])) or "(none)"
    return some + (f" and {len(names) - limit} more" if len(names) > limit else "")
