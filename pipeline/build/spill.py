"""More rows than memory should hold: sorted outside of it, and cut into runs as they pass by.

`Spill` is an external merge sort of Arrow rows. They are sorted in runs of `RUN_ROWS`, which go to
an unnamed temporary file, and are merged from there slice by slice. Memory holds one run while rows
come, and one slice of every run while they go: about the same for a hundred thousand rows as for
ten million.
"""

from __future__ import annotations

import operator
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

RUN_ROWS = 1 << 17  # 30 MB of planned clips
SLICE_ROWS = 1 << 11  # 0.5 MB of them, in memory once for each run

_value = operator.methodcaller("as_py")


class Spill:
    """Rows that are added in any order and read, any number of times, in the order of their keys.

    The key is the first column, of type binary, and no two rows may have the same one. Once read,
    nothing more can be added. The file goes with the object, or with the process.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        import pyarrow.ipc as ipc

        self._schema = schema
        self._file = tempfile.TemporaryFile(dir=folder)
        options = ipc.IpcWriteOptions(compression="lz4")
        self._writer: Any = ipc.new_file(self._file, schema, options=options)
        self._num_rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._runs: list[range] = []  # numbers of the slices of each run

    def __len__(self) -> int:
        return self._num_rows

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows in."""
        self._num_rows += len(batch)
        self._pending.append(batch)
        if sum(map(len, self._pending)) >= RUN_ROWS:
            self._write_run()

    def slices(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in no particular order, with all columns or only some."""
        read = self._reading(columns)
        for run in self._runs:
            yield from map(read, run)

    def merged(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in the order of their keys, with all columns or the first and some others."""
        import pyarrow as pa

        read = self._reading(columns)
        runs = [(read(run[0]), map(read, run[1:])) for run in self._runs]
        while runs:
            # Whatever follows in a run is above the last key of its slice at hand.
            bound = min(_value(head[0][-1]) for head, _ in runs)
            cuts = [bisect_right(head[0], bound, key=_value) for head, _ in runs]
            ready = [head.slice(0, cut) for (head, _), cut in zip(runs, cuts, strict=True)]
            table = pa.Table.from_batches(ready).sort_by(self._schema.names[0])
            yield from table.combine_chunks().to_batches()
            runs = [
                (head.slice(cut) if cut < len(head) else next(rest, None), rest)
                for (head, rest), cut in zip(runs, cuts, strict=True)
            ]
            runs = [(head, rest) for head, rest in runs if head is not None]

    def _write_run(self) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(self._pending, self._schema).sort_by(self._schema.names[0])
        slices = table.combine_chunks().to_batches(SLICE_ROWS)
        for batch in slices:
            self._writer.write_batch(batch)
        first = self._runs[-1].stop if self._runs else 0
        if slices:
            self._runs.append(range(first, first + len(slices)))
        self._pending.clear()

    def _reading(self, columns: Sequence[str] | None) -> Callable[[int], pa.RecordBatch]:
        """What reads one slice."""
        import pyarrow.ipc as ipc

        if self._writer is not None:
            self._write_run()
            self._writer.close()
            self._writer = None
        fields = [self._schema.names.index(name) for name in columns or ()]
        options = ipc.IpcReadOptions(included_fields=fields or None)
        return ipc.open_file(self._file, options=options).get_batch


def runs(
    batches: Iterable[pa.RecordBatch], column: str, most: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows that follow each other with one value in `column` as one batch, of at most `most`."""
    import pyarrow.compute as pc

    parts: list[pa.RecordBatch] = []
    for batch in batches:
        at = 0
        for end in pc.run_end_encode(batch[column]).run_ends.to_pylist():
            if parts and _value(parts[0][column][0]) != _value(batch[column][at]):
                yield _joined(parts)
            while at < end:
                room = end - at if most is None else most - sum(map(len, parts))
                parts.append(batch.slice(at, min(room, end - at)))
                at += len(parts[-1])
                if sum(map(len, parts)) == most:
                    yield _joined(parts)
    if parts:
        yield _joined(parts)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """All parts as one batch; the list is empty then."""
    import pyarrow as pa

    [batch] = pa.Table.from_batches(parts).combine_chunks().to_batches()
    parts.clear()
    return batch
