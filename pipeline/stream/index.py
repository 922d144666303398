"""The index of a shard folder: where every stored clip lies and what is known of it, as arrays.

Built from `manifest.parquet` and `dataset.json` alone, column after column; no shard is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.config import LONGEST_NAME, MOST_SECONDS
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.parse import MOST_JSON, parse_json
from avb.pipeline.shards.dataset import can_hold, check_dataset, manifest_batches, open_manifest
from avb.pipeline.storage.cache import open_file
from avb.pipeline.storage.store import Folder, place

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Ints = NDArray[np.int64]
SmallInts = NDArray[np.int32]
Rows = Ints | slice

PIECE_ROWS = 1 << 16


class Row(NamedTuple):
    """What a selection may look at."""

    key: str
    group: str
    split: str | None
    speaker: str | None
    label: str | None


@dataclass(frozen=True)
class Names:
    """A text column: `names[code]` for each row, code -1 (int32) where there is none."""

    codes: SmallInts
    names: list[str]

    def __getitem__(self, row: int) -> str | None:
        code = self.codes[row]
        return None if code < 0 else self.names[code]

    def taken(self, rows: Rows) -> Names:
        """The column of some rows, its names in the order in which they meet one."""
        if isinstance(rows, slice):  # all: they were numbered so
            return self
        codes = self.codes[rows]
        met, first = np.unique(codes, return_index=True)
        met = met[np.argsort(first)]
        met = met[met >= 0]
        code_of = np.full(len(self.names) + 1, -1, np.int32)  # the last entry serves code -1
        code_of[met] = np.arange(len(met))
        return Names(code_of[codes], [self.names[code] for code in met])


@dataclass(frozen=True)
class Index:
    """Every stored clip of a folder in the order shard, place in the shard; one array a column.

    Attributes:
        folder: where the shards lie.
        dataset: `dataset.json` as it is.
        keys, group, split, speaker, shard: text columns.
        label_id: number of the clip's label in the class list, -1 where it has none.
        offset, nbytes: the sample's block in its tar.
        num_frames, num_mel: length in frames and in mel columns; no columns without a sound.
        silent, no_audio: whether the clip has this flag.
        first_word: words of clip i are those from `first_word[i]` to `first_word[i + 1]`.
        word: text of each word.
        word_s: float64 [words, 2], start and end in seconds; NaN where not known.
    """

    folder: Folder
    dataset: dict[str, Any]
    keys: pa.Array
    group: Names
    split: Names
    speaker: Names
    shard: Names
    label_id: Ints
    offset: Ints
    nbytes: Ints
    num_frames: Ints
    num_mel: Ints
    silent: NDArray[np.bool_]
    no_audio: NDArray[np.bool_]
    first_word: Ints
    word: Names
    word_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, row: int) -> str:
        """The key of one clip."""
        return self.keys[int(row)].as_py()

    def words(self, row: int) -> list[tuple[str, float | None, float | None]]:
        """Word, start and end in seconds of each word of one clip."""
        found = []
        for i in range(self.first_word[row], self.first_word[row + 1]):
            start, end = (None if np.isnan(t) else float(t) for t in self.word_s[i])
            found.append((self.word.names[self.word.codes[i]], start, end))
        return found

    @property
    def labels(self) -> list[str]:
        """The class list."""
        return self.dataset["labels"]

    def select(
        self,
        *,
        groups: Collection[str] | None = None,
        speakers: Collection[str] | None = None,
        splits: Collection[str] | None = None,
        keys: Collection[str] | None = None,
        where: Callable[[Row], bool] | None = None,
    ) -> Ints:
        """Row numbers of the clips that meet every condition given.

        Keys without a stored clip are passed over: a list may name clips that were refused.

        Raises:
            ValueError: nothing is left, or a group, speaker or split is not there at all.
        """
        mask = np.ones(len(self), bool)
        wanted = {"group": groups, "speaker": speakers, "split": splits}
        for column, names in wanted.items():
            if names is not None:
                mask &= self._has(column, names)
        if keys is not None:
            import pyarrow as pa
            import pyarrow.compute as pc

            value_set = pa.array(sorted(keys), pa.string())
            mask &= pc.is_in(self.keys, value_set=value_set).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(mask)
        if where is not None:
            kept = (where(self.row(int(row))) for row in rows)
            rows = rows[np.fromiter(kept, np.bool_, len(rows))]
        if not rows.size:
            raise ValueError(
                f"{self.folder}: no clip of {len(self)} stored ones is left by this selection; "
                f"there are groups {_some(self.group.names)} and speakers "
                f"{_some(self.speaker.names)}"
            )
        return rows

    def check_shards(self, rows: Ints) -> None:
        """See that the shards of these rows are there, before hours are spent on some of them.

        Raises:
            UsageError: some are gone; they are named.
        """
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
        """Those rows that hold a word with its times that is in the class list.

        Raises:
            ValueError: there is none.
        """
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

        Returns:
            int64 [rows + 1] and [words]: row i has the words at the places `second[first[i] :
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

        Where words with times are no labels of clips (a table that has none, or others), the
        classes are all such words, and no clip has a label.
        """
        if unit != "word":
            return self
        names = {self.word.names[code] for code in np.unique(self.word.codes[self._timed()])}
        names = {name for name in names if name.isprintable() and len(name) < LONGEST_NAME}
        if names <= set(self.labels):
            return self
        dataset = self.dataset | {"labels": sorted(names)}
        return replace(self, dataset=dataset, label_id=np.full_like(self.label_id, -1))

    def _has(self, column: str, names: Collection[str]) -> NDArray[np.bool_]:
        found: Names = getattr(self, column)
        absent = sorted(set(names) - set(found.names))
        if absent:
            raise ValueError(
                f"{self.folder}: no stored clip of {column} {_some(absent)}; "
                f"there are {_some(found.names)}"
            )
        codes = [code for code, name in enumerate(found.names) if name in names]
        return np.isin(found.codes, codes)

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


def load_index(folder: str | Folder) -> Index:
    """Read the index of a folder of shards, here or in a store.

    Raises:
        FileNotFoundError: no folder, or no finished preparation in it.
        ValueError: a file in it is damaged or of another kind.
    """
    import pyarrow as pa

    folder = place(folder)
    if isinstance(folder, Path) and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of shards; make one with `avb prep`")
    dataset = _load_dataset(folder)
    path = folder / "manifest.parquet"
    try:
        with open_manifest(folder) as file:
            index = _read(folder, dataset, file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing; run `avb prep` on this folder again") from None
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(
            f"{path}: no manifest of this version ({one_line(error)}); prepare again"
        ) from None
    if (row := _first_impossible(index)) is not None:
        raise ValueError(f"{path}: the row of clip {index.key(row)!r} cannot be; prepare again")
    return index


def _first_impossible(index: Index) -> int | None:
    """The first row, if any, whose numbers no shard can have."""
    wrong = (index.offset < 0) | (index.nbytes <= 0)
    wrong |= (index.num_mel == 0) != index.no_audio
    wrong |= ~can_hold(index.dataset, index.nbytes, index.num_frames, index.num_mel)
    far_off = (index.word_s > MOST_SECONDS) | (index.word_s < -MOST_SECONDS)
    far = np.flatnonzero(far_off.any(1))
    wrong[np.searchsorted(index.first_word, far, side="right") - 1] = True
    found = np.flatnonzero(wrong)
    return int(found[0]) if found.size else None


def _load_dataset(folder: Folder) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        with open_file(folder, "dataset.json") as file:
            return check_dataset(parse_json(file.read(MOST_JSON + 1)), str(path))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: missing, so the preparation is not finished; run `avb prep` again"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path}: not readable as JSON ({one_line(error)}); prepare again"
        ) from None
    except UsageError as error:
        raise ValueError(f"{error}; prepare again") from None


def _read(folder: Folder, dataset: dict[str, Any], file: pq.ParquetFile) -> Index:
    """All columns of the stored clips, one after the other: a table of them would take twice it."""
    shard = _names(_stored(file, "shard"))
    if not shard.codes.size:
        raise ValueError(
            f"{folder / 'manifest.parquet'}: no clip has status ok; the column `error` says why not"
        )
    offset = _ints(_stored(file, "offset"))
    order = _order(shard, offset)
    label = _names(_stored(file, "label")).taken(order)
    label_of = {name: i for i, name in enumerate(dataset["labels"])}
    unknown = sorted(set(label.names) - set(label_of))
    if unknown:
        raise ValueError(f"{folder}: labels {_some(unknown)} are not in its class list")
    # The last entry serves code -1: no label.
    to_id = np.array([label_of[name] for name in label.names] + [-1], np.int64)
    first_word, word, word_s = _words(file, order)
    return Index(
        folder=folder,
        dataset=dataset,
        keys=_keys(_stored(file, "key"), order),
        group=_names(_stored(file, "group")).taken(order),
        split=_names(_stored(file, "split")).taken(order),
        speaker=_names(_stored(file, "speaker")).taken(order),
        shard=shard.taken(order),
        label_id=to_id[label.codes],
        offset=offset[order],
        nbytes=_ints(_stored(file, "nbytes"))[order],
        num_frames=_ints(_stored(file, "n_frames"))[order],
        num_mel=_ints(_stored(file, "n_mel"))[order],
        silent=_flagged(file, "silent")[order],
        no_audio=_flagged(file, "no_audio")[order],
        first_word=first_word,
        word=word,
        word_s=word_s,
    )


def _stored(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    """A column of the clips with status ok, in pieces."""
    import pyarrow.compute as pc

    if name not in file.schema_arrow.names:
        raise KeyError(f"no column {name}")
    for batch in manifest_batches(file, PIECE_ROWS, ["status", name]):
        column = batch.filter(pc.equal(batch["status"], "ok"))[name]
        if name in ("key", "shard") and column.null_count:
            raise KeyError(f"a clip without {name}")
        yield column


def _ints(pieces: Iterator[pa.Array]) -> Ints:
    import pyarrow as pa

    columns = (piece.cast(pa.int64()).to_numpy() for piece in pieces)
    return np.concatenate([np.empty(0, np.int64), *columns])


def _flagged(file: pq.ParquetFile, flag: str) -> NDArray[np.bool_]:
    """Which clips have a flag; none in a manifest without flags."""
    import pyarrow.compute as pc

    if "flags" not in file.schema_arrow.names:
        return np.zeros(sum(len(piece) for piece in _stored(file, "shard")), np.bool_)
    found = [np.empty(0, np.bool_)]
    for piece in _stored(file, "flags"):
        has = np.zeros(len(piece), np.bool_)
        at = pc.list_parent_indices(piece).to_numpy(zero_copy_only=False)
        has[at[pc.equal(pc.list_flatten(piece), flag).to_numpy(zero_copy_only=False)]] = True
        found.append(has)
    return np.concatenate(found)


def _names(pieces: Iterator[pa.Array]) -> Names:
    import pyarrow as pa

    code_of: dict[str, int] = {}
    codes = [np.empty(0, np.int32)]
    for piece in pieces:
        encoded = piece.cast(pa.string()).dictionary_encode()
        met = encoded.dictionary.to_pylist()
        here = np.array([code_of.setdefault(name, len(code_of)) for name in met] + [-1], np.int32)
        codes.append(here[encoded.indices.fill_null(-1).to_numpy()])
    return Names(np.concatenate(codes), list(code_of))


def _keys(pieces: Iterator[pa.Array], order: Rows) -> pa.Array:
    import pyarrow as pa

    keys = pa.concat_arrays([piece.cast(pa.string()) for piece in pieces])
    return keys if isinstance(order, slice) else keys.take(pa.array(order))


def _order(shard: Names, offset: Ints) -> Rows:
    """What sorts clips by the name of their shard and their place in it: nothing, as a rule."""
    rank = np.argsort(np.argsort(np.array(shard.names)))[shard.codes]
    steps = np.diff(rank)
    if ((steps > 0) | ((steps == 0) & (np.diff(offset) > 0))).all():
        return slice(None)
    return np.lexsort((offset, rank))


def _words(file: pq.ParquetFile, order: Rows) -> tuple[Ints, Names, NDArray[np.float64]]:
    """Where the words of each clip begin, and all words with their times."""
    import pyarrow as pa

    kind = file.schema_arrow.field("words").type
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        raise KeyError(f"words are {kind}")
    counts = _ints(p.value_lengths().fill_null(0) for p in _stored(file, "words"))
    first = np.concatenate([[0], np.cumsum(counts)])
    word = _names(piece.flatten().field("word") for piece in _stored(file, "words"))
    word_s = np.empty((first[-1], 2), np.float64)
    at = 0
    for piece in _stored(file, "words"):
        flat = piece.flatten()
        for side, name in enumerate(("start", "end")):
            times = flat.field(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            word_s[at : at + len(flat), side] = times
        at += len(flat)
    if isinstance(order, slice):
        return first, word, word_s
    counts = counts[order]
    moved = np.concatenate([[0], np.cumsum(counts)])
    rows = np.repeat(first[order] - moved[:-1], counts) + np.arange(moved[-1])
    return moved, word.taken(rows), word_s[rows]


def _some(names: Collection[str], limit: int = 8) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(list(names)[:limit]) or "(none)"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
