"""`avb verify`: are the shards what their manifest and `dataset.json` say, byte for byte?"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.codec import decode_flac, decode_video
from avb.pipeline.config import UsageError
from avb.pipeline.shard import read_members


@dataclass
class Verdict:
    """What was looked at in one dataset folder, and every fault found, a line each."""

    folder: str
    shards: int = 0
    samples: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def dataset_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a dataset, else its children that do.

    Raises:
        UsageError: there is none, finished or not.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.parquet").is_file():
        return [folder]
    found = sorted(p.parent for p in folder.glob("*/dataset.json"))
    if found:
        return found
    if (folder / ".avb").is_dir() or any(folder.glob("*/.avb")):
        raise UsageError(f"{folder}: prep has not finished here; run the same avb prep again")
    raise UsageError(f"{folder}: no dataset.json here or one folder down; give OUT/<corpus>")


def read_dataset(folder: Path) -> dict[str, Any]:
    """`dataset.json` of a finished folder.

    Raises:
        UsageError: it is missing or is no JSON object.
    """
    path = folder / "dataset.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: no dataset.json; prep has not finished, run it again"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    if not isinstance(record, dict):
        raise UsageError(f"{path}: expected a JSON object")
    return record


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Rows of `manifest.parquet`.

    Raises:
        UsageError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "manifest.parquet"
    try:
        return pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: no manifest.parquet; prep has not finished, run it again"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            f"{path}: damaged ({str(error).splitlines()[0]}); run avb prep again"
        ) from None


def verify(folder: Path, progress: Callable[[int], object] | None = None) -> Verdict:
    """Check one dataset folder: hashes, manifest against tars, and that every sample decodes.

    Args:
        progress: called with the number of samples checked since the last call.
    """
    verdict = Verdict(str(folder))
    try:
        record = read_dataset(folder)
        rows = read_manifest(folder)
    except UsageError as error:
        verdict.faults.append(str(error))
        return verdict
    verdict.faults += _account_faults(record, rows)
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ok":
            kept.setdefault(row["shard"], []).append(row)
    listed = {shard["name"]: shard for shard in record["shards"]}
    for name in sorted(kept.keys() - listed.keys()):
        verdict.faults.append(f"{name}.tar: in the manifest, not in dataset.json")
    for path in sorted(folder.glob("*.tar")):
        if path.stem not in listed:
            verdict.faults.append(f"{path.name}: not in dataset.json")
    for name, shard in listed.items():
        verdict.shards += 1
        verdict.faults += _shard_faults(folder / f"{name}.tar", shard)
        for fault in _sample_faults(folder / f"{name}.tar", kept.get(name, []), record):
            verdict.samples += 1
            verdict.faults += fault
            if progress is not None:
                progress(1)
    return verdict


def _account_faults(record: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Do the counts add up?"""
    faults = []
    status = Counter(row["status"] for row in rows)
    counts = record["counts"]
    if len(rows) != counts["listed"]:
        faults.append(f"manifest.parquet: {len(rows)} rows, dataset.json lists {counts['listed']}")
    if dict(status) != counts["status"]:
        faults.append(f"manifest.parquet: statuses {dict(status)}, expected {counts['status']}")
    twice = [key for key, n in Counter(row["key"] for row in rows).items() if n > 1]
    faults += [f"{key}: stands more than once in the manifest" for key in twice[:10]]
    labels = hashlib.sha256("\n".join(record["labels"]).encode()).hexdigest()
    if labels != record["labels_sha256"]:
        faults.append("dataset.json: the hash of the label map does not match its labels")
    return faults


def _shard_faults(path: Path, shard: dict[str, Any]) -> list[str]:
    if not path.is_file():
        return [f"{path.name}: missing"]
    size = path.stat().st_size
    if size != shard["bytes"]:
        return [f"{path.name}: {size} bytes, expected {shard['bytes']}"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard["sha256"]:
        return [f"{path.name}: sha256 {found[:12]}..., expected {shard['sha256'][:12]}..."]
    return []


def _sample_faults(
    path: Path, rows: list[dict[str, Any]], record: dict[str, Any]
) -> Iterator[list[str]]:
    """Faults of each sample of a shard, in manifest order."""
    if not path.is_file():
        yield from ([f"{row['key']}: its shard is missing"] for row in rows)
        return
    with path.open("rb") as file:
        for row in rows:
            file.seek(row["offset"])
            try:
                members = read_members(file.read(row["nbytes"]))
                yield [
                    f"{path.name}: {row['key']}: {f}" for f in _member_faults(members, row, record)
                ]
            except (ValueError, EOFError) as error:
                yield [f"{path.name}: {row['key']}: {error}"]


def _member_faults(
    members: dict[str, memoryview], row: dict[str, Any], record: dict[str, Any]
) -> Iterator[str]:
    """What is wrong inside one sample; ValueError for what cannot be read at all."""
    prefix = row["key"] + "."
    by_extension = {name.removeprefix(prefix): data for name, data in members.items()}
    if not all(name.startswith(prefix) for name in members):
        yield f"members of another key: {', '.join(members)}"
        return
    frames, columns = row["n_frames"], row["n_mel"]
    for kind, crop in record["crops"].items():
        extension = next((e for e in by_extension if e.startswith(f"{kind}.")), None)
        if extension is None:
            yield f"no {kind} crop"
            continue
        out = np.empty((frames, crop["stored"], crop["stored"]), np.uint8)
        decode_video(by_extension[extension], extension.split(".")[1], out)
    mel = np.load(io.BytesIO(by_extension.get("mel.npy", b"")), allow_pickle=False)
    wanted_mel = (record["mel"]["n_mels"], columns), record["mel"]["dtype"]
    if (mel.shape, str(mel.dtype)) != wanted_mel:
        yield f"mel is {mel.dtype} {mel.shape}, expected {wanted_mel[1]} {wanted_mel[0]}"
    if record["settings"]["keep_audio"]:
        wanted = frames * record["settings"]["sample_rate"] // record["settings"]["fps"]
        found = len(decode_flac(bytes(by_extension.get("flac", b""))))
        if found != wanted:
            yield f"sound has {found} samples, expected {wanted}"
    facts = json.loads(bytes(by_extension.get("json", b"")))
    for name in ("key", "speaker", "label", "n_frames", "n_mel"):
        if facts.get(name) != row[name]:
            yield f"json says {name} {facts.get(name)!r}, the manifest {row[name]!r}"
