"""The plan: every listed clip, in which shard it belongs, and the settings that decide its bytes.

A plan is one Parquet file with a row group a unit, so that a unit of work, one shard, is a pure
function of (plan file, unit number) and reads nothing else of the plan.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avb.pipeline.config import Corpus, Crop, Mel, UsageError, build
from avb.pipeline.corpora import adapter
from avb.pipeline.records import Clip, Listing

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of the shards, next to the corpus itself."""

    corpus: str
    crops: dict[str, Crop]
    box: str
    codec: str
    crf: int
    decoder: str
    mel_dtype: str
    keep_audio: bool
    face_every: int
    shard_clips: int
    fps: int
    sample_rate: int
    mel: Mel
    fixed_box: list[int] | None = None
    picture: list[int] | None = None
    frames: int | None = None
    limit: int | None = None
    speakers: list[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """A plain mapping, as it goes into JSON."""
        return dataclasses.asdict(self)

    def difference(self, other: Settings) -> list[str]:
        """One line for each setting in which `other` differs."""
        mine, theirs = self.as_dict(), other.as_dict()
        return [f"{k}: {theirs[k]} there, {mine[k]} now" for k in mine if mine[k] != theirs[k]]


@dataclass(frozen=True)
class Unit:
    """One shard to make: its number in the plan, its name, its clips, a hash of all it rests on."""

    number: int
    name: str
    clips: int
    digest: str


@dataclass
class Plan:
    """The head of a plan file: everything but the rows."""

    path: Path
    root: Path
    settings: Settings
    labels: list[str]
    layout: str
    units: list[Unit]
    notices: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """How many clips the plan holds, refused ones included."""
        return sum(unit.clips for unit in self.units)

    def rows(self, unit: int) -> list[tuple[str, Clip]]:
        """Key and clip of every row of one unit, in shard order."""
        import pyarrow.parquet as pq

        table = pq.ParquetFile(self.path).read_row_group(unit)
        return [_to_clip(row) for row in table.to_pylist()]


def stable_hash(key: str) -> int:
    """The first 64 bits of SHA-256 of a key: the order of clips, and what `--limit` takes."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def schema() -> pa.Schema:
    """Columns of a plan file."""
    import pyarrow as pa

    word = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
    text = ("group", "source", "split", "speaker", "label", "audio", "text")
    return pa.schema(
        [("key", pa.string())]
        + [(name, pa.string()) for name in text]
        + [("start", pa.float64()), ("end", pa.float64())]
        + [("words", pa.list_(word)), ("status", pa.string()), ("error", pa.string())]
        + [("flags", pa.list_(pa.string()))]
    )


def _batches(listing: Listing, order: list[int], size: int = 8192) -> Iterator[pa.RecordBatch]:
    """Listed clips as record batches, one batch of Python objects alive at a time.

    Fills `order` with the stable hash of every key. A key met twice is a refused `duplicate`
    under another key, so that keys stay unique.
    """
    import pyarrow as pa

    wanted = schema()
    columns: dict[str, list] = {name: [] for name in wanted.names}
    taken: set[int] = set()
    for clip in listing.clips:
        key = f"{clip.group}/{clip.name}"
        if stable_hash(key) in taken:
            if not clip.status:
                clip.status, clip.error = "duplicate", f"{key} was listed before"
            key = next(k for n in itertools.count(2) if stable_hash(k := f"{key}~{n}") not in taken)
        order.append(stable_hash(key))
        taken.add(order[-1])
        columns["key"].append(key)
        for name in wanted.names[1:]:
            columns[name].append(getattr(clip, name))
        columns["words"][-1] = [
            {"word": word, "start": start, "end": end} for word, start, end in clip.words
        ]
        if len(columns["key"]) == size:
            yield pa.record_batch([columns[n] for n in wanted.names], schema=wanted)
            columns = {name: [] for name in wanted.names}
    yield pa.record_batch([columns[n] for n in wanted.names], schema=wanted)


def _to_clip(row: dict[str, Any]) -> tuple[str, Clip]:
    key = row.pop("key")
    row["words"] = [(w["word"], w["start"], w["end"]) for w in row["words"]]
    return key, Clip(name=key.split("/", 1)[1], **row)


def make_plan(corpus: Corpus, settings: Settings, root: Path, path: Path) -> Plan:
    """List the corpus, lay its clips into shards, and write the plan file `path`.

    Clips of a group are laid in the order of a stable hash of their key and cut into shards of
    `shard_clips` listed clips, so that a shard is a random sample whatever the listing's order.

    Raises:
        UsageError: nothing was found, or nothing is left of the selection.
    """
    import numpy as np
    import pyarrow as pa

    listing = adapter(settings.corpus).discover(root, corpus)
    hashes: list[int] = []
    table = pa.Table.from_batches(_batches(listing, hashes), schema())
    if table.num_rows == 0:
        raise UsageError(f"{root}: 0 clips listed ({listing.layout})")
    notices = list(listing.notices)
    order = np.argsort(np.array(hashes, np.uint64))
    if settings.speakers is not None:
        speakers = table["speaker"].to_pylist()
        present = {s for s in speakers if s}
        absent = [s for s in settings.speakers if s not in present]
        if absent:
            notices.append(f"talkers without a clip here: {', '.join(absent)}")
        order = np.array([i for i in order if speakers[i] in settings.speakers], np.int64)
        if len(order) == 0:
            known = ", ".join(sorted(present)) or "none"
            raise UsageError(f"no clip of {', '.join(settings.speakers)}; talkers here: {known}")
    order = order[: settings.limit]
    groups_of = np.array(table["group"].to_pylist())[order]
    # Stable, so that within a group the hash order stays.
    table = table.take(order[np.argsort(groups_of, kind="stable")])
    units, groups = _write(table, settings, listing, path)
    counts = Counter(status or "ok" for status in table["status"].to_pylist())
    plan = Plan(path, listing.root, settings, list(listing.labels), listing.layout, units)
    plan.notices, plan.groups, plan.statuses = notices, groups, dict(counts)
    return plan


def _write(
    table: pa.Table, settings: Settings, listing: Listing, path: Path
) -> tuple[list[Unit], dict[str, int]]:
    """Write rows as one row group a unit; the head goes into the file's metadata at the end."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counts = pc.value_counts(table["group"]).to_pylist()
    groups = {c["values"]: c["counts"] for c in counts}
    base = hashlib.sha256(json.dumps(settings.as_dict(), sort_keys=True).encode()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    units: list[Unit] = []
    with pq.ParquetWriter(temporary, schema(), compression="zstd") as writer:
        at = 0
        for group, count in groups.items():
            for number, start in enumerate(range(0, count, settings.shard_clips)):
                part = table.slice(at + start, min(settings.shard_clips, count - start))
                digest = hashlib.sha256(base.encode())
                digest.update(json.dumps(part.to_pylist()).encode())
                name = f"{group}-{number:06d}"
                units.append(Unit(len(units), name, part.num_rows, digest.hexdigest()))
                writer.write_table(part, row_group_size=part.num_rows)
            at += count
        head = {
            "root": str(listing.root.resolve()),
            "settings": settings.as_dict(),
            "labels": listing.labels,
            "layout": listing.layout,
            "units": [dataclasses.asdict(unit) for unit in units],
        }
        writer.add_key_value_metadata({"avb": json.dumps(head)})
    temporary.replace(path)
    return units, groups


def read_plan(path: Path) -> Plan:
    """The head of a plan file that `make_plan` wrote."""
    import pyarrow.parquet as pq

    head = json.loads(pq.ParquetFile(path).metadata.metadata[b"avb"])
    return Plan(
        path,
        Path(head["root"]),
        build(Settings, head["settings"], "plan"),
        head["labels"],
        head["layout"],
        [Unit(**unit) for unit in head["units"]],
    )
