"""What became of every clip: rows of the units to `manifest.parquet`, and `dataset.json`, last."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import avb
from avb.pipeline.build.plan import Plan, Unit
from avb.pipeline.build.unit import row_schema, rows_path
from avb.pipeline.clip import audio
from avb.pipeline.clip.facemodels import describe, version_of
from avb.pipeline.config import Corpus
from avb.pipeline.files import open_atomic, write_json
from avb.pipeline.shards.metadata import FORMAT

MANIFEST_ROWS = 1 << 15  # in a row group; the index of a file with one a unit outgrows its rows
LIBRARIES = ("av", "opencv-python-headless", "numpy", "torch", "torchaudio")


def gathered_schema() -> pa.Schema:
    """Columns of `manifest.parquet`: those of the rows, less what only a rerun needs."""
    idle = ("sums", "sources", "digest")
    return pa.schema([field for field in row_schema() if field.name not in idle])


def fingerprint(settings: dict[str, Any], labels: list[str], shards: list[dict[str, Any]]) -> str:
    """By what shards are known: a hash of their format, settings, labels, names and contents."""
    identity = json.dumps([FORMAT, settings, labels, shards], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def write_manifest(folder: Path, plan: Plan) -> None:
    """Gather the rows of all units, in plan order, into `manifest.parquet`."""
    schema = gathered_schema()
    gathered: list[pa.Table] = []
    with (
        open_atomic(folder / "manifest.parquet") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for unit in plan.units:
            gathered.append(_read(folder, unit, schema.names))
            if sum(map(len, gathered)) >= MANIFEST_ROWS or unit is plan.units[-1]:
                writer.write_table(pa.concat_tables(gathered))
                gathered.clear()


def write_dataset(folder: Path, plan: Plan, corpus: Corpus, seconds: float) -> dict[str, Any]:
    """Write `dataset.json`, which says that the folder is complete, and return it."""
    settings = plan.settings
    status, flags = Counter[str](), Counter[str]()
    shards = []
    frames = columns = 0
    sums = [0.0] * (2 * len(settings.crops) + 2)
    for unit in plan.units:
        table = _read(folder, unit, ["status", "flags", "n_frames", "n_mel", "sums"])
        _count(table, status, flags)
        kept = table.filter(pc.equal(table["status"], "ok"))
        frames += sum(kept["n_frames"].to_pylist())
        columns += sum(kept["n_mel"].to_pylist())
        for row in kept["sums"].to_pylist():  # in plan order, whatever the number of processes
            sums = [a + b for a, b in zip(sums, row, strict=True)]
        if kept.num_rows:
            head = table.schema.metadata
            facts = {"bytes": int(head[b"bytes"]), "sha256": head[b"sha256"].decode()}
            shards.append({"name": unit.name, "samples": kept.num_rows} | facts)
    numbers = [frames * crop.stored**2 for crop in settings.crops.values()]
    numbers.append(columns * settings.mel.n_mels)
    *pixels, mel = map(mean_and_std, numbers, sums[::2], sums[1::2])
    scale, offset = audio.mel_scale_offset(settings.mel)
    plain = settings.as_dict()
    record = {
        "schema": FORMAT,
        "corpus": settings.corpus,
        "title": corpus.title,
        "layout": plan.layout,
        "fingerprint": fingerprint(plain, plan.labels, shards),
        "settings": plain,
        "crops": {
            name: {"size": c.size, "stored": c.stored, "margin": c.margin}
            for name, c in settings.crops.items()
        },
        "mel": plain["mel"]
        | {"dtype": settings.mel_dtype, "scale": scale, "offset": offset, **mel},
        "pixels": dict(zip(settings.crops, pixels, strict=True)),  # 0 to 255, as stored
        "counts": _as_counts(status, flags),
        "tracker": describe(settings.tracker) if settings.box == "tracked" else None,
        "labels": plan.labels,
        "labels_sha256": hashlib.sha256("\n".join(plan.labels).encode()).hexdigest(),
        "shards": shards,
        "versions": {"avb": avb.__version__} | _versions(),
        "licence": {"name": corpus.licence.name, "apply": corpus.licence.apply},
        "timings": {"seconds": round(seconds, 3)},
    }
    write_json(folder / "dataset.json", record)
    return record


def count_rows(folder: Path, units: list[Unit]) -> dict[str, Any]:
    """Clips of some finished units by status and flag, as in `dataset.json`."""
    status, flags = Counter[str](), Counter[str]()
    for unit in units:
        _count(_read(folder, unit, ["status", "flags"]), status, flags)
    return _as_counts(status, flags)


def _count(table: pa.Table, status: Counter[str], flags: Counter[str]) -> None:
    status.update(table["status"].to_pylist())
    flags.update(flag for row in table["flags"].to_pylist() for flag in row or ())


def _as_counts(status: Counter[str], flags: Counter[str]) -> dict[str, Any]:
    parts = {"status": dict(sorted(status.items())), "flags": dict(sorted(flags.items()))}
    return {"listed": status.total(), "ok": status["ok"], **parts}


def _read(folder: Path, unit: Unit, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(rows_path(folder, unit)) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        table = file.read(there, use_threads=False)  # threads cost more than so small a file
        for field in (row_schema().field(name) for name in columns if name not in there):
            # Made before there was such a column.
            table = table.append_column(field, pa.nulls(len(table), field.type))
        return table.select(columns)


def mean_and_std(count: float, total: float, squares: float) -> dict[str, float]:
    """Of so many numbers, by their sum and the sum of their squares; 0 of none."""
    mean = total / max(1, count)
    variance = max(0.0, squares / max(1, count) - mean * mean)
    return {"mean": round(mean, 5), "std": round(math.sqrt(variance), 5)}


def _versions() -> dict[str, str]:
    versions = {name: version for name in LIBRARIES if (version := version_of(name))}
    return versions | {"ffmpeg": ".".join(map(str, av.library_versions["libavcodec"]))}
