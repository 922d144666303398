"""What a changed listing would take away: finished clips that a new plan does not have."""

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avb.pipeline.build.plan import Plan
from avb.pipeline.build.unit import DAMAGED, rows_folder
from avb.pipeline.files import DISK_FAULTS

_COLUMNS = ["key", "group", "shard", "status"]


def lost_clips(folder: Path, plan: Plan) -> str | None:
    """The finished clips in `folder` that `plan` does not list, in words; None if there are none.

    The last manifest is asked as well: of a run that was killed while it dealt the clips of a group
    anew, a clip may be in it and in no rows, and rows may have been lost.
    Memory: 8 bytes for each clip of the plan.
    """
    changed = stale_rows(folder, plan)
    manifest = folder / "manifest.parquet"
    had = (pc.unique(batch["shard"]).to_pylist() for batch in _finished(manifest))
    made = {path.stem for path in rows_folder(folder).glob("*.parquet")}
    if not changed and made.issuperset(itertools.chain.from_iterable(had)):
        return None
    listed = np.fromiter(map(hash, _keys(plan)), np.int64)
    gone: dict[str, tuple[str, str]] = {}  # group and shard by key
    for path in (*changed, manifest):
        for batch in _finished(path):
            hashes = np.fromiter(map(hash, batch["key"].to_pylist()), np.int64, len(batch))
            for i in np.flatnonzero(~np.isin(hashes, listed)).tolist():
                row = {name: batch[name][i].as_py() for name in _COLUMNS}
                gone.setdefault(row["key"], (row["group"], row["shard"]))
    return _told(gone) if gone else None


def stale_rows(folder: Path, plan: Plan) -> list[Path]:
    """The rows of finished units that are not, or not so, in the plan, or are damaged."""
    digests = {unit.name: unit.digest.encode() for unit in plan.units}
    stale = []
    for path in sorted(rows_folder(folder).glob("*.parquet")):
        with suppress(*DAMAGED):
            head = pq.read_metadata(path).metadata or {}
            if head[b"digest"] == digests[path.stem]:
                continue
        stale.append(path)
    return stale


def _keys(plan: Plan) -> Iterator[str]:
    """The clips that the plan takes: in a renamed folder they may be listed and refused at once."""
    for unit in plan.units:
        table = plan.table(unit.number).select(["key", "status"])
        yield from table.filter(pc.equal(table["status"], ""))["key"].to_pylist()


def _finished(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows of the clips that passed; none where there is no such file, or no more of one."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(8192, columns=_COLUMNS):
                yield batch.filter(pc.equal(batch["status"], "ok"))
    except DAMAGED as error:
        if getattr(error, "errno", None) in DISK_FAULTS:  # what it holds may still be told
            raise


def _told(gone: dict[str, tuple[str, str]], most: int = 3) -> str:
    """Such as "12 finished clips of s1 (12), in s1-000000; such as s1/bbaf2n, s1/..."."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" * (len(names) > most))

    groups = Counter(group for group, _ in gone.values())
    counted = some([f"{group} ({count})" for group, count in groups.most_common()])
    shards = some(sorted({shard for _, shard in gone.values()}))
    return f"{len(gone)} finished clips of {counted}, in {shards}; such as {some(sorted(gone))}"
