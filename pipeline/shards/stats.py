"""`avb stats`: what a dataset folder holds, from its manifest alone."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.shards.dataset import manifest_lags, read_dataset, read_manifest
from avb.pipeline.shards.metadata import STAGES
from avb.pipeline.storage.store import Folder

_COLUMNS = ("status", "group", "speaker", "n_frames", "nbytes", "words", "face_misses")


def stats(folder: Folder) -> dict[str, Any]:
    """Counts, hours, lengths, bytes and milliseconds of one dataset folder."""
    record = read_dataset(folder)
    columns = [*_COLUMNS, *(f"{stage}_ms" for stage in STAGES)]
    listed = 0
    sums = Counter[str]()
    values = {name: Counter[Any]() for name in ("n_frames", "group", "speaker")}
    for batch in read_manifest(folder, columns):
        listed += len(batch)
        kept = batch.filter(pc.equal(batch["status"], "ok"))
        if kept["group"].null_count or kept["n_frames"].null_count:
            raise UsageError(
                f"{folder}/manifest.parquet: a clip without group or n_frames; prepare again"
            )
        sums.update(_sums(kept))
        for name, counter in values.items():
            counter.update(kept[name].to_pylist())
    frames, ok = values["n_frames"], sums["ok"]
    hours = sum(length * clips for length, clips in frames.items())
    synced = {"sync": _lags(folder)} if record["settings"].get("sync") else {}
    return {
        "corpus": record["corpus"],
        "fingerprint": record["fingerprint"],
        "listed": listed,
        "ok": ok,
        "hours": round(hours / record["settings"]["fps"] / 3600, 3),
        "frames": dict(sorted(frames.items())),
        "shards": len(record["shards"]),
        "bytes": sums["nbytes"],
        "bytes_per_clip": round(sums["nbytes"] / max(1, ok)),
        "groups": dict(sorted(values["group"].items())),
        "speakers": sum(map(bool, values["speaker"])),
        "labels": len(record["labels"]),
        "words": sums["words"],
        "aligned_words": sums["aligned_words"],
        "status": record["counts"]["status"],
        "flags": record["counts"]["flags"],
        "face_misses": sums["face_misses"],
        "mean_ms": {stage: round(sums[f"{stage}_ms"] / max(1, ok), 2) for stage in STAGES},
        "pixels": record["pixels"],
        "mel": {k: record["mel"][k] for k in ("mean", "std", "dtype")},
    } | synced


def refused_clips(folder: Folder) -> Iterator[tuple[str, str]]:
    """Each listed clip that is not stored, and why: its status and what was said of it."""
    for batch in read_manifest(folder, ["key", "source", "status", "error"]):
        for row in batch.to_pylist():
            if row["status"] != "ok":
                yield row["key"] or row["source"], f"{row['status']}: {one_line(row['error'])}"


def _lags(folder: Folder) -> dict[str, Any]:
    """By how much sound was moved, milliseconds towards the start."""
    lags = [lag for _, _, lag in manifest_lags(folder)]
    at = (5, 25, 50, 75, 95)
    spread = np.percentile(lags, at).round(1).tolist() if lags else []
    return {"moved": len(lags), "percentiles_ms": dict(zip(map(str, at), spread, strict=False))}


def _sums(kept: pa.RecordBatch) -> dict[str, Any]:
    """What is added up over the stored clips, of some of them."""
    words = kept["words"].flatten()
    added = ("nbytes", "face_misses", *(f"{stage}_ms" for stage in STAGES))
    return {
        "ok": len(kept),
        "words": len(words),
        "aligned_words": len(words) - words.field("start").null_count,
        **{name: pc.sum(kept[name]).as_py() or 0 for name in added},
    }
