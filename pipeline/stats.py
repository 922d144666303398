"""`avb stats`: what a dataset folder holds, from its manifest alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.unit import STAGES
from avb.pipeline.verify import read_dataset, read_manifest


def stats(folder: Path) -> dict[str, Any]:
    """Counts, hours, lengths, bytes and milliseconds of one dataset folder.

    Raises:
        UsageError: the folder holds no finished dataset.
    """
    record = read_dataset(folder)
    rows = read_manifest(folder)
    kept = [row for row in rows if row["status"] == "ok"]
    frames = np.array([row["n_frames"] for row in kept] or [0])
    nbytes = np.array([row["nbytes"] for row in kept] or [0])
    stages = {
        stage: round(float(np.mean([row[f"{stage}_ms"] or 0.0 for row in kept] or [0.0])), 2)
        for stage in STAGES
    }
    return {
        "corpus": record["corpus"],
        "fingerprint": record["fingerprint"],
        "listed": len(rows),
        "ok": len(kept),
        "hours": round(float(frames.sum()) / record["settings"]["fps"] / 3600, 3),
        "frames": dict(sorted(Counter(frames.tolist()).items())) if kept else {},
        "shards": len(record["shards"]),
        "bytes": int(nbytes.sum()),
        "bytes_per_clip": round(float(nbytes.mean())),
        "groups": dict(sorted(Counter(row["group"] for row in kept).items())),
        "speakers": len({row["speaker"] for row in kept if row["speaker"]}),
        "labels": len(record["labels"]),
        "words": sum(len(row["words"] or ()) for row in kept),
        "aligned_words": sum(
            word["start"] is not None for row in kept for word in row["words"] or ()
        ),
        "status": record["counts"]["status"],
        "flags": record["counts"]["flags"],
        "face_misses": sum(row["face_misses"] or 0 for row in kept),
        "mean_ms": stages,
        "pixels": record["pixels"],
        "mel": {k: record["mel"][k] for k in ("mean", "std", "dtype")},
    }
