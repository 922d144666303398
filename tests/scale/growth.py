"""What millions of clips cost everything that is not decoding them.

    python tests/scale/growth.py 10000000 --kind lrw --folder /scratch

Clips are listed by code and their rows made up; no file of a corpus is there. Each step runs in a
process of its own, so that its memory is its own.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.build.plan import Plan, Unit, lay_out, plan_path, read_plan
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.machine import peak_bytes
from avb.pipeline.settings import settings_for

LABELS = [f"WORD{number:03d}" for number in range(500)]  # as many as LRW has
TALKERS = 340  # ten times those of GRID
SENTENCE: list[Word] = [(word, None, None) for word in "bin blue at f two now".split()]


def growth(rows: int, kind: str = "lrw", folder: Path | None = None) -> dict[str, Any]:
    """Plan, write the manifest of, verify and index `rows` clips that are not there.

    Args:
        kind: `lrw` (three splits, a word each) or `grid` (many talkers, six words each).
        folder: where a temporary folder is made [the system's].

    Returns:
        `rows kind shards plan_mb manifest_mb start_mb` (of a process before its step), and by step
        `cpu_s` and `peak_mb`.
    """
    record: dict[str, Any] = {"rows": rows, "kind": kind, "shards": 0}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        out = Path(temporary) / "out"
        measured = {}
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as apart:
            for name in STEPS:
                measured[name] = apart.submit(_measure, name, out, kind, rows).result()
        record["shards"] = len(read_plan(plan_path(out)).units)
        record["plan_mb"] = round(plan_path(out).stat().st_size / 1e6, 1)
        record["manifest_mb"] = round((out / "manifest.parquet").stat().st_size / 1e6, 1)
    del measured["rows"]  # what fabricates them is no part of avb prep
    record["start_mb"] = max(start_mb for _, start_mb, _ in measured.values())
    record["cpu_s"] = {name: cpu_s for name, (cpu_s, _, _) in measured.items()}
    record["peak_mb"] = {name: peak_mb for name, (_, _, peak_mb) in measured.items()}
    return record


Step = Callable[[Path, str, int], object]


def _measure(name: str, out: Path, kind: str, rows: int) -> tuple[float, int, int]:
    """CPU seconds of a step, and MB of this process before it and at most."""
    import avb.pipeline.build.prep  # so that what it imports is no part of a step

    assert avb.pipeline.build.prep
    before = peak_bytes() >> 20
    start = time.process_time()
    STEPS[name](out, kind, rows)
    return round(time.process_time() - start, 2), before, peak_bytes() >> 20


def _clips(kind: str, rows: int) -> Iterator[Clip]:
    """Clips as the adapters list them, in an order that shards do not keep."""
    for number in range(rows):
        if kind == "lrw":
            word = LABELS[number % len(LABELS)]
            split = ("train", "val", "test")[max(0, number // len(LABELS) % 22 - 19)]
            name = f"{word}_{number // len(LABELS):05d}"
            path = f"lipread_mp4/{word}/{split}/{name}"
            yield Clip(
                name=name, group=split, split=split, label=word,
                source=f"{path}.mp4", text=f"{path}.txt",
            )  # fmt: skip
        else:
            talker = f"s{number % TALKERS + 1}"
            name = f"clip{number // TALKERS:06d}"
            yield Clip(
                name=name, group=talker, speaker=talker, words=SENTENCE,
                source=f"{talker}/video/{name}.mpg", text=f"align/{talker}/{name}.align",
            )  # fmt: skip


def _plan(out: Path, kind: str, rows: int) -> Plan:
    listing = Listing(out, "fabricated", _clips(kind, rows), LABELS)
    return lay_out(listing, settings_for(kind, load_corpora()[kind]), plan_path(out))


def _read_plan(out: Path, kind: str, rows: int) -> object:
    plan = read_plan(plan_path(out))
    return plan.rows(len(plan.units) // 2)


def _rows(out: Path, kind: str, rows: int) -> None:
    """The rows that units would leave, had they made their shards."""
    plan = read_plan(plan_path(out))
    (out / ".avb" / "rows").mkdir()
    for unit in plan.units:
        _fabricate(out, plan, unit)


def _fabricate(out: Path, plan: Plan, unit: Unit) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from avb.pipeline.build.unit import row_schema, rows_path
    from avb.pipeline.shards.metadata import STAGES

    planned = plan.table(unit.number)
    nbytes = 32_768
    same: dict[str, Any] = {
        "status": "ok", "shard": unit.name, "n_frames": 29, "n_mel": 116, "face_misses": 0,
        "nbytes": nbytes, "sync_ms": None, "sums": [1.0] * (2 * len(plan.settings.crops) + 2),
        "digest": None,
    } | {f"{stage}_ms": 1.5 for stage in STAGES}  # fmt: skip
    columns: dict[str, Any] = {name: [value] * unit.clips for name, value in same.items()}
    columns["offset"] = range(0, unit.clips * nbytes, nbytes)
    if plan.settings.corpus == "lrw":
        columns["words"] = [[(label, 0.2, 0.9)] for label in planned["label"].to_pylist()]
    schema = row_schema()
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else planned[field.name]
        for field in schema
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    head = {"digest": unit.digest, "sha256": "", "bytes": "0"}  # no shard, no bytes
    pq.write_table(table.replace_schema_metadata(head), rows_path(out, unit), compression="zstd")


def _missing(out: Path, kind: str, rows: int) -> None:
    from avb.pipeline.build.unit import finished

    if not all(finished(out, unit) for unit in read_plan(plan_path(out)).units):
        raise AssertionError("the fabricated rows are not those of the plan")


def _manifest(out: Path, kind: str, rows: int) -> None:
    from avb.pipeline.build.manifest import write_dataset, write_manifest

    plan = read_plan(plan_path(out))
    write_manifest(out, plan)
    write_dataset(out, plan, load_corpora()[kind], 0.0)


def _verify(out: Path, kind: str, rows: int) -> None:
    from avb.pipeline.shards.verify import verify

    # Each shard is missing, which is one fault; the rest of the book-keeping is as ever.
    assert len(verify(out).faults) == len(read_plan(plan_path(out)).units)


def _stats(out: Path, kind: str, rows: int) -> None:
    from avb.pipeline.shards.stats import stats

    stats(out)


def _index(out: Path, kind: str, rows: int) -> None:
    from avb.pipeline.stream.index import load_index

    load_index(out)


def _epoch(out: Path, kind: str, rows: int) -> None:
    import numpy as np

    from avb.pipeline.stream.order import EndlessOrder

    shards = np.repeat(np.arange(rows // 2048 + 1, dtype=np.int32), 2048)[:rows]
    EndlessOrder(shards, seed=0, buffer=2048).take(rows - 32, rows + 32)  # a seam, so two of them


STEPS: dict[str, Step] = {
    "plan": _plan, "read_plan": _read_plan, "rows": _rows, "missing": _missing,
    "manifest": _manifest, "verify": _verify, "stats": _stats, "index": _index, "epoch": _epoch,
}  # fmt: skip


def main(rows: int, kind: str = "lrw", folder: Path | None = None) -> None:
    """Print the record."""
    print(json.dumps(growth(rows, kind, folder), indent=1))


if __name__ == "__main__":
    typer.run(main)
