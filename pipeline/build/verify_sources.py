"""`avb verify --sources`: is the corpus still what the shards were made from?

Both come in the order of a plan, so that memory does not grow with the clips.
"""

import heapq
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from avb.pipeline.build.plan import Plan, make_plan, plan_path, read_plan
from avb.pipeline.build.unit import DAMAGED, rows_path
from avb.pipeline.config import Corpus, stable_hash
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.storage.mirror import mirrored
from avb.pipeline.storage.store import Folder

MOST_LINES = 20

#: Of a clip: the file it comes from, and name, size and time of all its files.
_Files = tuple[str, dict[str, tuple[int, int]]]


def source_faults(folder: Folder, corpora: Mapping[str, Corpus]) -> list[str]:
    """What differs between a dataset folder and its corpus as it is now, a line a clip."""
    with mirrored(folder) as mirror, tempfile.TemporaryDirectory() as scratch:
        path = plan_path(mirror.folder)
        if not path.is_file():
            raise UsageError(f"{mirror}: .avb/plan.arrow is not there to say where its corpus lies")
        plan = read_plan(path)
        corpus = corpora.get(plan.settings.corpus, corpora["table"])
        assert plan.given is not None  # a folder of shards has been planned from one
        now = make_plan(corpus, plan.settings, plan.given, Path(scratch) / "plan.arrow")
        faults: list[str] = []
        more = 0
        for key, made, listed in _pairs(_made(mirror.folder, plan), _listed(now)):
            if (said := _difference(made, listed)) and len(faults) < MOST_LINES:
                faults.append(f"{key}: {said}")
            else:
                more += bool(said)
    if more:
        faults.append(f"{more} more clips whose sources differ")
    return faults


def _made(folder: Path, plan: Plan) -> Iterator[tuple[str, _Files]]:
    for path in (rows_path(folder, unit) for unit in plan.units):
        try:
            rows = pq.read_table(path).to_pylist() if path.is_file() else []
        except DAMAGED as error:
            why = f"damaged ({one_line(error)}); avb prep makes its shard again"
            raise UsageError(f"{path}: {why}") from None
        yield from map(_files_of, rows)


def _listed(plan: Plan) -> Iterator[tuple[str, _Files]]:
    for unit in plan.units:
        yield from map(_files_of, plan.table(unit.number).to_pylist())


def _files_of(row: dict[str, Any]) -> tuple[str, _Files]:
    files = {file["name"]: (file["size"], file["mtime_ns"]) for file in row["sources"]}
    return row["key"], (row["source"], files)


def _pairs(
    made: Iterator[tuple[str, _Files]], listed: Iterator[tuple[str, _Files]]
) -> Iterator[tuple[str, _Files | None, _Files | None]]:
    """Each key of two streams in the order of plans, with what either has of it."""

    def place(item: tuple[str, _Files, str]) -> tuple[bytes, int, str]:
        return item[0].partition("/")[0].encode(), stable_hash(item[0]), item[0]

    sides = ((*item, "made") for item in made), ((*item, "listed") for item in listed)
    for (_, _, key), items in itertools.groupby(heapq.merge(*sides, key=place), place):
        found = {side: files for _, files, side in items}
        yield key, found.get("made"), found.get("listed")


def _difference(made: _Files | None, listed: _Files | None) -> str:
    """What became of the files of one clip, "" for nothing."""
    if made is None or listed is None:
        return "is listed no more" if listed is None else "is listed now, and in no shard"
    if made[0] != listed[0]:
        return f"was made from {made[0]}, and comes from {listed[0]} now"
    before, now = made[1], listed[1]
    parts = [f"{name} is gone" for name in before.keys() - now.keys()]
    parts += [f"{name} is there now" for name in now.keys() - before.keys()]
    for name in before.keys() & now.keys():
        if before[name][0] != now[name][0]:
            parts.append(f"{name} has {now[name][0]} bytes, was made from {before[name][0]}")
        elif before[name] != now[name]:
            parts.append(f"{name} was written since, with as many bytes")
    return "; ".join(sorted(parts))
