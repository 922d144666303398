"""`avb verify`: are the shards what their manifest and `dataset.json` say, byte for byte?

The manifest is streamed, and whatever process checks a shard holds the rows of that shard alone:
memory does not grow with the clips, but for 8 bytes each to find keys that stand twice.
"""

import contextlib
import hashlib
import itertools
import math
import multiprocessing
import operator
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from avb.pipeline.clip.codec import decode_video
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.clip.npy import parse_npy
from avb.pipeline.config import stable_hash
from avb.pipeline.errors import RunError, UsageError, shown
from avb.pipeline.machine import follow_parent
from avb.pipeline.shards.dataset import can_hold, read_dataset, read_manifest
from avb.pipeline.shards.metadata import read_facts
from avb.pipeline.shards.tar import sample_members
from avb.pipeline.storage.store import Folder, Store, local_copy

MOST_LINES = 10  # of one shard: with more than that it is made again, not mended

_PLACE = "offset", "nbytes", "n_frames", "n_mel"
_COLUMNS = "key shard status offset nbytes n_frames n_mel speaker label".split()


@dataclass
class Verdict:
    """What was looked at in one dataset folder, and every fault found, a line each."""

    folder: str
    shards: int = 0
    samples: int = 0
    stored: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Check:
    """One shard to check: its entry in `dataset.json`, if any, and rows of its samples.

    `stored` rows are in the manifest. `record` is what of `dataset.json` every sample has to meet.
    """

    path: Folder
    shard: dict[str, Any] | None
    stored: int
    rows: list[dict[str, Any]]
    record: dict[str, Any]


def parse_share(text: str | None) -> float:
    """`--sample` as a part of one: "5%" is 0.05, None is 1; UsageError for others."""
    if text is None:
        return 1.0
    with contextlib.suppress(ValueError):
        if text.endswith("%") and 0 < (percent := float(text[:-1])) <= 100:
            return percent / 100
    raise UsageError(f"--sample {text}: a percentage above 0 and up to 100, such as 5%")


def verify(
    folder: Folder,
    progress: Callable[[int], object] | None = None,
    jobs: int = 1,
    share: float = 1.0,
) -> Verdict:
    """Check one dataset folder: hashes, manifest against tars, and that every sample decodes.

    `jobs` shards are looked at at once, above one in processes of their own. With a `share` below
    1, only this part of the samples of each shard, at least one and each time the same, and of the
    shard the size but not the hash, which takes all its bytes. `progress` gets the samples since
    its last call.
    """
    verdict = Verdict(str(folder))
    try:
        record = read_dataset(folder)
        verdict.faults += _account_faults(folder, record)
        verdict.shards = len(record["shards"])
        checks = _checks(folder, record, share)
        for check, samples, faults in _check_all(checks, min(jobs, verdict.shards)):
            verdict.samples += samples
            verdict.stored += check.stored
            verdict.faults += faults
            if progress is not None:
                progress(samples)
    except (UsageError, RunError) as error:
        verdict.faults.append(str(error))
    return verdict


def _account_faults(folder: Folder, record: dict[str, Any]) -> list[str]:
    """Do the counts add up, and are the shards those that are listed?"""
    faults = []
    status: Counter[str] = Counter()
    for batch in read_manifest(folder, ["status"]):
        status.update(batch["status"].to_pylist())
    counts = record["counts"]
    rows = status.total()
    if rows != counts["listed"]:
        faults.append(f"manifest.parquet: {rows} rows, dataset.json lists {counts['listed']}")
    if dict(status) != counts["status"]:
        faults.append(f"manifest.parquet: statuses {dict(status)}, expected {counts['status']}")
    faults += [f"{key}: stands more than once in the manifest" for key in _twice(folder, rows)]
    labels = hashlib.sha256("\n".join(record["labels"]).encode()).hexdigest()
    if labels != record["labels_sha256"]:
        faults.append("dataset.json: the hash of the label map does not match its labels")
    listed = {f"{shard['name']}.tar" for shard in record["shards"]}
    if isinstance(folder, Store):
        names = list(folder.entries())
    else:
        names = [path.name for path in folder.glob("*.tar")]
    there = {name for name in names if name.endswith(".tar") and "/" not in name}
    return faults + [f"{name}: not in dataset.json" for name in sorted(there - listed)]


def _twice(folder: Folder, num_rows: int, most: int = 10) -> list[str]:
    """The first few keys of the manifest that stand there more than once."""

    def keys() -> Iterator[str]:
        for batch in read_manifest(folder, ["key"]):
            yield from batch["key"].to_pylist()

    hashes = np.fromiter(map(hash, keys()), np.int64, num_rows)
    hashes.sort()
    repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    counts: Counter[str] = Counter()
    if repeated:
        for key in keys():
            if hash(key) in repeated and (key in counts or len(counts) < most):
                counts[key] += 1
    return [key for key, count in counts.items() if count > 1]


def _checks(folder: Folder, record: dict[str, Any], share: float) -> Iterator[_Check]:
    """Every shard of the manifest and of `dataset.json`, with its rows."""
    shards = {shard["name"]: shard for shard in record["shards"]}
    if share < 1:  # a hash takes all bytes of a shard
        shards = {name: shard | {"sha256": None} for name, shard in shards.items()}
    wanted = {name: record[name] for name in ("crops", "mel", "settings")}
    wanted["labels"] = {label: number for number, label in enumerate(record["labels"])}
    stored = (
        batch.filter(pc.equal(batch["status"], "ok")) for batch in read_manifest(folder, _COLUMNS)
    )
    seen = set()
    every = (row for batch in stored for row in batch.to_pylist())
    for name, group in itertools.groupby(every, operator.itemgetter("shard")):
        seen.add(name)
        rows = list(group)
        entry, few = shards.get(name), _sample(rows, share)
        yield _Check(folder / f"{name}.tar", entry, len(rows), few, wanted)
    for name in sorted(shards.keys() - seen):
        yield _Check(folder / f"{name}.tar", shards[name], 0, [], wanted)


def _check_all(checks: Iterable[_Check], jobs: int) -> Iterator[tuple[_Check, int, list[str]]]:
    """For each check the samples looked at and the faults, in the order of the checks."""
    if jobs <= 1:
        yield from ((check, *_check_shard(check)) for check in checks)
        return
    # Spawned: what decodes has threads, and they do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, follow_parent)
    waiting: deque[tuple[_Check, Future[tuple[int, list[str]]]]] = deque()

    def results(most: int) -> Iterator[tuple[_Check, int, list[str]]]:
        while len(waiting) > most:
            check, future = waiting[0]
            yield (check, *future.result())
            waiting.popleft()

    try:
        for check in checks:
            waiting.append((check, pool.submit(_check_shard, check)))
            yield from results(2 * jobs)
        yield from results(0)
    except BrokenProcessPool:
        names = ", ".join(sorted(c.path.name for c, future in waiting if future.exception()))
        raise RunError(
            f"a process died (a crash in a decoder, or out of memory) at one of {names};"
            " they and what follows were not looked at"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check_shard(check: _Check) -> tuple[int, list[str]]:
    """How many samples of a shard were looked at, and what is wrong with it."""
    shard = check.shard
    if shard is None:
        return 0, [f"{check.path.name}: in the manifest, not in dataset.json"]
    pieces = None
    if shard["sha256"] is None:
        pieces = [(row["offset"], row["nbytes"]) for row in check.rows]
    try:
        with local_copy(check.path, pieces) as path:
            samples = _sample_faults(path, check.rows, check.record)
            faults = [fault for sample in samples for fault in sample]
            if len(faults) > MOST_LINES:
                more = len(faults) - MOST_LINES
                faults[MOST_LINES:] = [f"{path.name}: {more} more faults of samples"]
            return len(check.rows), _shard_faults(path, shard) + faults
    except OSError as error:  # a bad sector ends no look at the others
        gone = isinstance(error, FileNotFoundError)
        why = "missing" if gone else f"cannot be read ({error.strerror})"
        return 0, [f"{check.path.name}: {why}, and {check.stored} samples with it"]


def _sample(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """A share of the rows, at least one, in their order; a larger share holds every smaller one."""
    if share == 1:
        return rows
    # Not the stable hash of the key itself, by which the clips are laid into shards.
    rank = sorted(range(len(rows)), key=lambda i: stable_hash(f"verify {rows[i]['key']}"))
    return [rows[i] for i in sorted(rank[: math.ceil(share * len(rows))])]


def _shard_faults(path: Path, shard: dict[str, Any]) -> list[str]:
    size = path.stat().st_size
    if size != shard["bytes"]:
        return [f"{path.name}: {size} bytes, expected {shard['bytes']}"]
    if shard["sha256"] is None:
        return []
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != shard["sha256"]:
        return [f"{path.name}: sha256 {digest[:12]}..., expected {shard['sha256'][:12]}..."]
    return []


def _sample_faults(
    path: Path, rows: list[dict[str, Any]], record: dict[str, Any]
) -> Iterator[list[str]]:
    """Faults of each sample of a shard, in manifest order."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for row in rows:
            if not _possible(row, size, record):
                place = ", ".join(f"{name} {row[name]}" for name in _PLACE)
                yield [f"{path.name}: {row['key']}: {place} cannot lie in {size} bytes"]
                continue
            file.seek(row["offset"])
            try:
                members = sample_members(file.read(row["nbytes"]), row["key"])
                yield [
                    f"{path.name}: {row['key']}: {f}" for f in _member_faults(members, row, record)
                ]
            except (ValueError, EOFError) as error:
                yield [f"{path.name}: {row['key']}: {error}"]


def _possible(row: dict[str, Any], size: int, record: dict[str, Any]) -> bool:
    """Whether a sample may lie in `size` bytes of a shard; room is made for what a row says."""
    numbers = [row[name] for name in _PLACE]
    if not all(isinstance(number, int) for number in numbers) or not isinstance(row["key"], str):
        return False
    offset, nbytes, frames, columns = numbers
    return 0 <= offset <= size - nbytes and can_hold(record, nbytes, frames, columns)


def _member_faults(
    by_extension: dict[str, memoryview], row: dict[str, Any], record: dict[str, Any]
) -> Iterator[str]:
    """What is wrong inside one sample; ValueError for what cannot be read at all."""
    frames = row["n_frames"]
    for kind, crop in record["crops"].items():
        extension = next((e for e in by_extension if e.startswith(f"{kind}.")), None)
        if extension is None:
            yield f"no {kind} crop"
            continue
        out = np.empty((frames, crop["stored"], crop["stored"]), np.uint8)
        decode_video(by_extension[extension], extension.split(".")[1], out)
    yield from _sound_faults(by_extension, row, record)
    facts = read_facts(by_extension.get("json", b""))
    for name in ("key", "speaker", "label", "n_frames", "n_mel"):
        if facts.get(name) != row[name]:
            yield f"json says {name} {shown(facts.get(name))}, the manifest {shown(row[name])}"
    number = record["labels"].get(row["label"])
    if facts.get("label_id") != number:
        said = shown(facts.get("label_id"))
        yield f"json says label_id {said}, the list of labels {number}"


def _sound_faults(
    by_extension: dict[str, memoryview], row: dict[str, Any], record: dict[str, Any]
) -> Iterator[str]:
    """What is wrong with the mel and the sound of one sample; a film without sound has neither."""
    frames, columns = row["n_frames"], row["n_mel"]
    if columns == 0:
        yield from (
            f"{name} of a film without sound"
            for name in ("mel.npy", "flac")
            if name in by_extension
        )
        return
    mel = parse_npy(by_extension.get("mel.npy", memoryview(b"")))
    wanted_mel = (record["mel"]["n_mels"], columns), record["mel"]["dtype"]
    if (mel.shape, str(mel.dtype)) != wanted_mel:
        yield f"mel is {mel.dtype} {mel.shape}, expected {wanted_mel[1]} {wanted_mel[0]}"
    if record["settings"]["keep_audio"]:
        wanted = frames * record["settings"]["sample_rate"] // record["settings"]["fps"]
        samples = len(decode_flac(bytes(by_extension.get("flac", b"")), wanted))
        if samples != wanted:
            yield f"sound has {samples} samples, expected {wanted}"
