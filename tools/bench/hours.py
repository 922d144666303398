"""`avb bench hours`: how long whole corpora take on so many cores, from clips that are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.tools.bench.prep import bench_prep

CORES = (1, 16, 64, 256)


def bench_hours(roots: list[Path], clips: int = 40, datasets: Path | None = None) -> dict[str, Any]:
    """Hours by cores of `avb prep` for the published number of clips of each corpus.

    A core is as fast as this one, measured by `bench_prep` in processor time, and cores do not get
    into each other's way: reading from a disk that many share comes on top. Ray's driver adds some
    milliseconds a shard, whatever the number of cores (tests/scale/ray_driver.py).
    """
    corpora = load_corpora(datasets)
    hours: dict[str, Any] = {}
    for root in roots:
        measured = bench_prep(root, clips=clips, datasets=datasets)
        corpus = corpora[measured["corpus"]]
        total = corpus.expected.get("clips")
        if not total:
            raise UsageError(f"{root}: nobody published how many clips {corpus.title} has")
        rate = measured["clips_per_s"]
        hours[measured["corpus"]] = {
            "clips": total,
            "clips_per_s": rate,
            "hours": {cores: round(total / rate / cores / 3600, 2) for cores in CORES},
        }
    return {"corpora": hours}


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a table in Markdown."""
    head = ["corpus", "clips", "clips/s a core", *(f"h on {n}" for n in CORES)]
    rows = [head, ["---"] * len(head)]
    for name, one in record["corpora"].items():
        hours = [f"{value:.2f}" for value in one["hours"].values()]
        rows.append([name, f"{one['clips']:,}", f"{one['clips_per_s']:.1f}", *hours])
    return [f"| {' | '.join(row)} |" for row in rows]
