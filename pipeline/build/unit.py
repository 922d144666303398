"""One unit of work: one shard, made from a plan file and a unit number and nothing else.

No state outlives a unit but caches, so units run in any process, in any order, on any machine
that sees the corpus. Every clip of the unit ends as exactly one row.
"""

import contextlib
import dataclasses
import functools
import hashlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avb.pipeline.build.plan import Plan, Unit, read_plan, short_hash
from avb.pipeline.build.plan import schema as plan_schema
from avb.pipeline.build.process import encode_sample, prepare_clip, sums
from avb.pipeline.clip.status import STATUSES, Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.corpora.clip import Clip, Source, Word
from avb.pipeline.corpora.source_files import SourceFault, attempts
from avb.pipeline.corpora.stored import clip_files
from avb.pipeline.errors import RunError
from avb.pipeline.files import open_atomic
from avb.pipeline.shards.metadata import STAGES, read_facts, write_facts
from avb.pipeline.shards.tar import Buffer, ShardWriter, sample_members
from avb.pipeline.storage.mirror import fetch_plan, fetch_unit, send_unit
from avb.pipeline.storage.store import Store, read_piece

#: What a crash that no `except` sees leaves in the row.
CRASHED = "its worker died, also when it was tried alone (a crash in a decoder, or out of memory)"

#: What a worker leaves that had to be stopped.
HUNG = "it took longer than --clip-timeout allows, and its worker was stopped (a film without end?)"

#: How long a file that cannot be read is waited for, in seconds: a server that starts again.
WAITS_S = (1.0, 2.0, 4.0, 8.0)

#: What reading Parquet raises where bytes of it are not as they were written.
DAMAGED = (OSError, ValueError, LookupError, pa.ArrowException)

#: Row and members of one clip; a refused one has no members.
Taken = tuple[dict[str, Any], Mapping[str, Buffer] | None]


@dataclass(frozen=True)
class Task:
    """Make the shard and the rows of one unit, or try some of its clips and write nothing."""

    plan: Path
    folder: Path
    number: int
    clips: range | None = None  # those to try; None: make the shard
    crashed: frozenset[int] = frozenset()  # clips that are refused unopened
    hung: frozenset[int] = frozenset()
    # How often an executor that loses workers for reasons of its own, such as a machine taken
    # away, may start it again.
    retries: int = 3
    store: Store | None = None  # what the folder stands for
    # How long one clip may take (None: for ever), of the wall. A worker is one thread, so it bounds
    # the processor as well.
    limit_s: float | None = None


def row_schema() -> Any:
    """Columns of the manifest."""
    text = ("key", "source", "group", "split", "speaker", "label", "status", "error")
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [("flags", pa.list_(pa.string())), ("shard", pa.string())]
        + [("n_frames", pa.int32()), ("n_mel", pa.int32()), ("face_misses", pa.int32())]
        + [plan_schema().field("words"), ("offset", pa.int64()), ("nbytes", pa.int64())]
        + [("sync_ms", pa.float32())]
        + [(f"{stage}_ms", pa.float32()) for stage in STAGES]
        + [("sums", pa.list_(pa.float64())), plan_schema().field("sources")]
        + [("digest", pa.string())]
    )


def rows_folder(folder: Path) -> Path:
    """Where the rows of finished units lie, a file a unit."""
    return folder / ".avb" / "rows"


def rows_path(folder: Path, unit: Unit) -> Path:
    """Where the rows of a finished unit lie."""
    return rows_folder(folder) / f"{unit.name}.parquet"


def finished(folder: Path, unit: Unit, any_plan: bool = False) -> pa.Table | None:
    """The rows of a unit, with their head as metadata, if it is done under this very plan.

    None where they are damaged, too: then it is made again. `any_plan`: done under another, too.
    """
    try:
        with pq.ParquetFile(rows_path(folder, unit)) as file:
            rows = file.read(use_threads=False)  # threads cost more than so small a file
        head = rows.schema.metadata or {}
        size, tar = int(head[b"bytes"]), folder / f"{unit.name}.tar"
        there = tar.stat().st_size == size if tar.is_file() else size == 0
        same = head[b"digest"].decode() == unit.digest
        return rows if there and (same or any_plan) else None
    except DAMAGED:
        return None


def changed_sources(folder: Path, plan: Plan, units: list[int]) -> list[str]:
    """In a line: how many clips of finished units have other files than they were made from."""
    changed: list[str] = []
    for unit in (plan.units[number] for number in units):
        rows = finished(folder, unit)
        if rows is not None and rows.schema.metadata[b"sources"].decode() != unit.sources:
            now = {key: _as_rows(clip.sources) for key, clip in plan.rows(unit.number)}
            made = rows.select(["key", "sources"]).to_pylist()
            changed += [row["key"] for row in made if row["sources"] != now[row["key"]]]
    if not changed:
        return []
    return [f"{len(changed)} clips have new or other files, such as {changed[0]}: taken again"]


def run_unit(task: Task) -> Iterator[bool | None]:
    """Make a shard and its rows in the task's folder or store, the rows last; or try some clips.

    Clips that passed in an earlier run are copied from the shard, so that trying the refused ones
    again, or a listing that has grown, costs only what is new. Yields None when a clip, or another
    try of it, begins, and then whether it passed; SourceFault where a file of the corpus cannot be
    read for longer than `WAITS_S`.
    """
    folder, store = task.folder, task.store
    for wait_s in (*WAITS_S, None):
        with _patient(wait_s):
            plan = _open_plan(task.plan, store)
            break
    unit = plan.units[task.number]
    if task.clips is not None:
        others = frozenset(range(unit.clips)) - frozenset(task.clips)
        for taken in _take(plan, unit, folder, others, task.hung):
            yield None if taken is None else taken[0]["status"] == "ok"
        return
    tar = folder / f"{unit.name}.tar"
    if store is not None:
        fetch_unit(store, folder, rows_path(folder, unit), tar)
    rows: list[dict[str, Any]] = []
    with ShardWriter(tar) as writer:
        for taken in _take(plan, unit, folder, task.crashed, task.hung):
            if taken is None:
                yield None
                continue
            row, members = taken
            if members is not None:
                start = time.perf_counter()
                row["offset"], row["nbytes"] = writer.write(row["key"], members)
                row["shard"] = unit.name
                row["shard_ms"] = (time.perf_counter() - start) * 1e3
            rows.append(row)
            yield row["status"] == "ok"
    _write_rows(folder, unit, rows, writer.sha256, writer.nbytes)
    if store is not None:
        send_unit(store, folder, rows_path(folder, unit), tar)


def _take(
    plan: Plan, unit: Unit, folder: Path, crashed: frozenset[int], hung: frozenset[int]
) -> Iterator[Taken | None]:
    """Row and members of every clip of a unit, in shard order, and None where a try begins."""
    labels = {label: i for i, label in enumerate(plan.labels)}
    earlier = _earlier_rows(folder, unit)
    settings = short_hash([plan.settings.deciding()])
    for position, (key, clip) in enumerate(plan.rows(unit.number)):
        # All that decides a sample but the content of its files.
        digest = short_hash([settings, key, dataclasses.asdict(clip) | {"sources": None}])
        if position in crashed and not clip.status:
            clip.status, clip.error = "crashed", CRASHED
        if position in hung and not clip.status:
            clip.status, clip.error = "timeout", HUNG
        row = earlier.get(key, {})
        if row.get("digest") == digest and row["sources"] == _as_rows(clip.sources):
            block = read_piece(folder, f"{unit.name}.tar", row["offset"], row["nbytes"])
            taken: Taken = row, _numbered(sample_members(block, key), labels)
        else:
            for wait_s in (*WAITS_S, None):
                yield None
                with _patient(wait_s):
                    taken = _try_clip(key, clip, plan, labels)
                    break
        taken[0]["digest"] = digest
        yield taken


def _numbered(members: dict[str, memoryview], labels: dict[str, int]) -> Mapping[str, Buffer]:
    """The members of a sample made earlier, with the number that its label has now."""
    facts = read_facts(members["json"])
    number = labels.get(facts["label"])
    if facts["label_id"] == number:
        return members
    return {**members, "json": write_facts(facts | {"label_id": number})}


@contextlib.contextmanager
def _patient(wait_s: float | None) -> Iterator[None]:
    """Wait so long where a disk or the network fails in the block; None: give up."""
    try:
        yield
    except SourceFault:
        if wait_s is None:
            raise
        time.sleep(wait_s)


def _open_plan(path: Path, store: Store | None) -> Plan:
    """The plan, where it and its corpus are there: or every clip would be refused as unreadable."""
    if store is not None:
        fetch_plan(store, path)
    plan = _read_plan_once(path, path.stat().st_mtime_ns) if path.is_file() else None
    host = socket.gethostname()
    seen = "every machine must see --root and --out under the same path"
    if plan is None:
        raise RunError(f"{path} is not there on {host}: {seen}")
    if isinstance(plan.root, Path):
        try:
            plan.root.stat()
        except OSError as error:
            raise SourceFault(
                f"{plan.root} is not there on {host} ({error.strerror}): {seen}"
            ) from None
    return plan


@functools.lru_cache(maxsize=1)
def _read_plan_once(path: Path, written_ns: int) -> Plan:
    """A worker reads the head of its plan once for all its units."""
    return read_plan(path)


def _try_clip(key: str, clip: Clip, plan: Plan, labels: dict[str, int]) -> Taken:
    """Row and members of one clip; SourceFault where a file that was there cannot be read."""
    row = {f.name: getattr(clip, f.name) for f in dataclasses.fields(Clip)}
    row = {k: row[k] for k in ("source", "group", "split", "speaker", "label", "flags")}
    row |= {"key": key, "status": clip.status or "ok", "error": clip.error or None, "words": []}
    row["sources"] = _as_rows(clip.sources)
    if clip.status:
        return row, None
    if clip.sources is not None and clip.text not in [name for name, *_ in clip.sources]:
        clip.text = None  # listed, but a link to nowhere
    clock = Clock()
    members = None
    try:
        with clip_files(plan.root, clip) as root:
            for attempt in attempts(clip, root):
                with attempt:
                    done = prepare_clip(clip, root, plan.settings, clock)
                    attempt.flags = done.flags
    except Refused as refusal:
        assert refusal.status in STATUSES
        row |= {"status": refusal.status, "error": refusal.error}
    else:
        with clock("encode"):
            label_id = None if clip.label is None else labels.get(clip.label)
            members = encode_sample(key, clip, done, plan.settings, label_id)
        row |= {
            "flags": done.flags,
            "n_frames": done.num_frames,
            "n_mel": done.num_columns,
            "face_misses": done.face_misses,
            "words": word_rows(done.words),
            "sums": sums(done),
            "sync_ms": done.sync_ms if plan.settings.sync else None,
        }
    row |= {f"{stage}_ms": ms for stage, ms in clock.ms.items()}
    return row, members


def word_rows(words: list[Word]) -> list[dict[str, Any]]:
    """Words as they stand in the manifest."""
    return [{"word": word, "start": start, "end": end} for word, start, end in words]


def _as_rows(sources: list[Source] | None) -> list[dict[str, Any]] | None:
    if sources is None:
        return None
    return [{"name": n, "size": size, "mtime_ns": time} for n, size, time in sources]


def _earlier_rows(folder: Path, unit: Unit) -> dict[str, dict[str, Any]]:
    """Rows of the clips that passed when a unit of this name was last made, by key.

    None where its shard is not the one they tell of: it was damaged, or it was made anew by a run
    that ended before its rows were written.
    """
    rows = finished(folder, unit, any_plan=True)
    if rows is None or not (sha256 := rows.schema.metadata[b"sha256"].decode()):
        return {}
    with (folder / f"{unit.name}.tar").open("rb") as tar:
        if hashlib.file_digest(tar, "sha256").hexdigest() != sha256:
            return {}
    return {row["key"]: row for row in rows.to_pylist() if row["status"] == "ok"}


def _write_rows(
    folder: Path, unit: Unit, rows: list[dict[str, Any]], sha256: str, nbytes: int
) -> None:
    table = pa.Table.from_pylist(rows, row_schema())
    head = {"digest": unit.digest, "sha256": sha256 or "", "bytes": str(nbytes)}
    head |= {"sources": unit.sources, "labels": unit.labels}
    path = rows_path(folder, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        pq.write_table(table.replace_schema_metadata(head), file, compression="zstd")
