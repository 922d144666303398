"""`avb bench hours`: how long whole corpora take on so many cores, from clips that are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.tools.bench.engines import bench_driver
from avb.tools.bench.prep import bench_prep

CORES = (1, 16, 64, 256)


def bench_hours(
    roots: list[Path], clips: int = 40, datasets: Path | None = None, driver: bool = True
) -> dict[str, Any]:
    """Hours of `avb prep` for the published number of clips of each corpus.

    A core is as fast as this one, measured by `bench_prep` in processor time, and cores do not get
    into each other's way: reading from a disk that many share comes on top. The driver is that of
    `--engine ray`, measured by `bench_driver`: a unit costs it some milliseconds, whatever the
    number of cores.

    Args:
        roots: clips in the raw layout of a corpus each, such as `avb synth` draws.
        clips: how many of each are measured.
        driver: whether to measure it; needs the extra `ray`.

    Returns:
        By corpus `clips clips_per_s` (of one core), `hours` by cores, `driver_s` (None if not
        measured); `driver_ms` a unit.

    Raises:
        UsageError: a root is no corpus, or one whose size nobody published.
    """
    corpora = load_corpora(datasets)
    driver_ms = bench_driver(unit_s=5.0)["driver_ms"] if driver else None
    found: dict[str, Any] = {}
    for root in roots:
        measured = bench_prep(root, clips=clips, datasets=datasets)
        corpus = corpora[measured["corpus"]]
        total = corpus.expected.get("clips")
        if not total:
            raise UsageError(f"{root}: nobody published how many clips {corpus.title} has")
        rate = measured["clips_per_s"]
        units = -(-total // corpus.shard_clips)
        found[measured["corpus"]] = {
            "clips": total,
            "clips_per_s": rate,
            "hours": {cores: round(total / rate / cores / 3600, 2) for cores in CORES},
            "driver_s": None if driver_ms is None else round(units * driver_ms / 1e3, 2),
        }
    return {"driver_ms": driver_ms, "corpora": found}


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a table in Markdown."""
    head = ["corpus", "clips", "clips/s a core", *(f"h on {n}" for n in CORES), "s of the driver"]
    rows = [head, ["---"] * len(head)]
    for name, one in record["corpora"].items():
        driver = "-" if one["driver_s"] is None else f"{one['driver_s']:.1f}"
        hours = [f"{value:.2f}" for value in one["hours"].values()]
        rows.append([name, f"{one['clips']:,}", f"{one['clips_per_s']:.1f}", *hours, driver])
    return [f"| {' | '.join(row)} |" for row in rows]
