"""The columns of a manifest, of its stored clips alone, as arrays in the order of the shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from avb.pipeline.shards.dataset import manifest_batches

Ints = NDArray[np.int64]
Rows = Ints | slice

PIECE_ROWS = 1 << 16


@dataclass(frozen=True)
class Names:
    """A text column: `names[code]` for each row, code -1 (int32) where there is none."""

    codes: NDArray[np.int32]
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


class Columns:
    """Reads one column after the other, as all of a table at once would take twice the memory.

    Clips come sorted by the name of their shard and their place in it, as a rule as they lie.
    Methods raise `pyarrow.ArrowException` where a column is missing or is not of its type.
    """

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self._order: Rows = slice(None)
        shard, offset = self.names("shard"), self.ints("offset")
        rank = np.argsort(np.argsort(np.array(shard.names)))[shard.codes]
        steps = np.diff(rank)
        if not ((steps > 0) | ((steps == 0) & (np.diff(offset) > 0))).all():
            self._order = np.lexsort((offset, rank))
        self.shard, self.offset = shard.taken(self._order), offset[self._order]

    def names(self, name: str) -> Names:
        """A column of text that repeats."""
        return _coded(self._pieces(name)).taken(self._order)

    def ints(self, name: str) -> Ints:
        """A column of numbers."""
        return _ints(self._pieces(name))[self._order]

    def keys(self) -> pa.Array:
        """The clips' keys."""
        keys = pa.concat_arrays([piece.cast(pa.string()) for piece in self._pieces("key")])
        return keys if isinstance(self._order, slice) else keys.take(pa.array(self._order))

    def flagged(self, flag: str) -> NDArray[np.bool_]:
        """Which clips have a flag."""
        has = [np.empty(0, np.bool_)]
        for piece in self._pieces("flags"):
            parents = pc.list_parent_indices(piece).to_numpy(zero_copy_only=False)
            is_it = pc.equal(pc.list_flatten(piece), flag).to_numpy(zero_copy_only=False)
            has.append(np.bincount(parents[is_it.astype(bool)], minlength=len(piece)) > 0)
        return np.concatenate(has)[self._order]

    def words(self) -> tuple[Ints, Names, NDArray[np.float64]]:
        """Where the words of each clip begin, and all words with their times, as `Index` has."""
        schema = self._file.schema_arrow
        kind = dict(zip(schema.names, schema.types, strict=True)).get("words", pa.null())
        if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
            raise pa.ArrowInvalid(f"words are {kind}")
        counts = _ints(piece.value_lengths().fill_null(0) for piece in self._pieces("words"))
        first = np.concatenate([[0], np.cumsum(counts)])
        word = _coded(piece.flatten().field("word") for piece in self._pieces("words"))
        word_s = np.empty((first[-1], 2), np.float64)
        at = 0
        for piece in self._pieces("words"):
            flat = piece.flatten()
            for side, name in enumerate(("start", "end")):
                times = flat.field(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
                word_s[at : at + len(flat), side] = times
            at += len(flat)
        if isinstance(self._order, slice):
            return first, word, word_s
        counts = counts[self._order]
        moved = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(first[self._order] - moved[:-1], counts) + np.arange(moved[-1])
        return moved, word.taken(rows), word_s[rows]

    def _pieces(self, name: str) -> Iterator[pa.Array]:
        """A column of the clips with status ok, as it lies."""
        for batch in manifest_batches(self._file, PIECE_ROWS, ["status", name]):
            column = batch.filter(pc.equal(batch["status"], "ok"))[name]
            if name in ("key", "shard") and column.null_count:
                raise pa.ArrowInvalid(f"a clip without {name}")
            yield column


def _ints(pieces: Iterable[pa.Array]) -> Ints:
    columns = (piece.cast(pa.int64()).to_numpy() for piece in pieces)
    return np.concatenate([np.empty(0, np.int64), *columns])


def _coded(pieces: Iterable[pa.Array]) -> Names:
    code_of: dict[str, int] = {}
    codes = [np.empty(0, np.int32)]
    for piece in pieces:
        encoded = piece.cast(pa.string()).dictionary_encode()
        met = encoded.dictionary.to_pylist()
        here = np.array([code_of.setdefault(name, len(code_of)) for name in met] + [-1], np.int32)
        codes.append(here[encoded.indices.fill_null(-1).to_numpy()])
    return Names(np.concatenate(codes), list(code_of))
