"""The plan: every listed clip, in which shard it belongs, and the settings that decide its bytes.

One Arrow file with a record batch a unit, so that a unit, one shard, is a pure function of (plan
file, number). (Of Parquet with a row group a unit, everyone who opens it reads the index of all:
0.5 s and 155 MB at 10,000 units.) The listing is sorted in memory: 400 MB for LRW-1000's 718,018.
"""

import dataclasses
import hashlib
import itertools
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from avb.pipeline.config import Corpus, stable_hash
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import TEXTS, Clip, Listing, refuse_name, written_out
from avb.pipeline.corpora.lags import Lags
from avb.pipeline.corpora.source_files import listing_faults_named, sources_of
from avb.pipeline.corpora.stored import listed_tree
from avb.pipeline.errors import UsageError
from avb.pipeline.files import open_atomic
from avb.pipeline.parse import checked
from avb.pipeline.settings import Settings
from avb.pipeline.shards.metadata import FORMAT
from avb.pipeline.storage.store import Folder, Store
from avb.pipeline.storage.store import place as folder_at

LISTED_ROWS = 4096  # listed clips that are Python objects at one time


@dataclass(frozen=True)
class Unit:
    """One shard to make: its number in the plan, its name, its clips, a hash of all it rests on."""

    number: int
    name: str
    clips: int
    digest: str
    sources: str = ""  # a hash of the sizes and times of its clips' files, "" where not known
    labels: str = ""  # a hash of the numbers of their labels, which another label can move


@dataclass
class Plan:
    """The head of a plan file: everything but the rows."""

    path: Path
    root: Folder
    settings: Settings
    labels: list[str]
    layout: str
    units: list[Unit]
    notices: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    given: Folder | None = None  # what was given as the corpus: its root, or the table

    @property
    def listed(self) -> int:
        """How many clips the plan holds, refused ones included."""
        return sum(unit.clips for unit in self.units)

    def rows(self, unit: int) -> list[tuple[str, Clip]]:
        """Key and clip of every row of one unit, in shard order."""
        return [_to_clip(row) for row in self.table(unit).to_pylist()]

    def table(self, unit: int) -> pa.Table:
        """The rows of one unit as they are stored, in shard order."""
        with pa.OSFile(str(self.path)) as file:
            return pa.Table.from_batches([ipc.open_file(file).get_batch(unit)])


def plan_path(folder: Path) -> Path:
    """Where the plan of a dataset folder lies."""
    return folder / ".avb" / "plan.arrow"


def schema() -> pa.Schema:
    """Columns of a plan file."""
    word = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
    file = pa.struct([("name", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64())])
    text = ("group", "source", "split", "speaker", "label", "audio", "text")
    return pa.schema(
        [("key", pa.string())]
        + [(name, pa.string()) for name in text]
        + [("start", pa.float64()), ("end", pa.float64())]
        + [("words", pa.list_(word)), ("status", pa.string()), ("error", pa.string())]
        + [("flags", pa.list_(pa.string())), ("sources", pa.list_(file))]
        + [("lag_ms", pa.float64())]
    )


def _listed(listing: Listing, settings: Settings, root: Path) -> pa.Table:
    """All listed clips in the order of the listing, with the stable hash of each key."""
    columns = schema().insert(0, pa.field("hash", pa.uint64()))
    fields, texts = operator.attrgetter(*schema().names[1:]), operator.attrgetter(*TEXTS)
    batches, clips = [], iter(listing.clips)
    while some := list(itertools.islice(clips, LISTED_ROWS)):
        for clip in some:
            if settings.audio == "optional" and clip.status == "missing_audio":
                clip.status = clip.error = ""
            try:
                "".join(filter(None, texts(clip))).encode()
            except UnicodeEncodeError:
                refuse_name(clip)
            else:
                clip.sources = sources_of(root, clip, listing.met)
        keys = [f"{clip.group}/{clip.name}" for clip in some]
        others = [list(column) for column in zip(*map(fields, some), strict=True)]
        arrays = [[*map(stable_hash, keys)], keys, *others]
        batches.append(pa.record_batch(arrays, schema=columns))
    return pa.Table.from_batches(batches, columns)


def _laid_out(clips: pa.Table, twins_kept: bool) -> pa.Table:
    """The clips by group and stable hash, each under a key of its own.

    A key met again is a `duplicate` under another key; of equal ones those that the listing refuses
    come last. Where the listing keeps twins, those that differ get their keys by what they are
    before, so that no other row moves them.
    """
    refused = pc.not_equal(clips["status"], "").to_numpy()
    numbers = np.arange(len(clips)) + len(clips) * refused
    clips = clips.append_column("number", pa.array(numbers))
    if twins_kept:
        clips = _told_apart(_told_apart(clips, _film), _content)
    while True:
        clips = clips.sort_by([(name, "ascending") for name in ("group", "hash", "number")])
        after, before = clips.slice(1), clips.slice(0, max(0, len(clips) - 1))
        same = (pc.equal(after[name], before[name]) for name in ("group", "hash"))
        again = np.append(False, pc.and_(*same).to_numpy()) if len(clips) else np.zeros(0, bool)
        if not again.any():
            return clips
        places = np.flatnonzero(again)
        rows = clips.take(places).to_pylist()
        count, last = 1, -1
        for row, at in zip(rows, places.tolist(), strict=True):
            count = count + 1 if at == last + 1 else 2
            last = at
            if not row["status"]:
                row |= {"status": "duplicate", "error": f"{row['key']} was listed before"}
            row["key"] += f"~{count}"
            row["hash"] = stable_hash(row["key"])
        first = clips.filter(pa.array(~again))
        clips = pa.concat_tables([first, pa.Table.from_pylist(rows, clips.schema)])


def _told_apart(clips: pa.Table, what: Callable[[dict[str, Any]], str]) -> pa.Table:
    """The clips; those of one key that differ in `what` they are get a hash of it into theirs."""
    met = pc.value_counts(clips["hash"])
    met = met.filter(pc.greater(met.field("counts"), 1)).field("values")
    is_twin = pc.is_in(clips["hash"], value_set=met)
    rows = clips.filter(is_twin).to_pylist()
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(row["key"], set()).add(what(row))
    for row in rows:
        if len(kinds[row["key"]]) > 1:
            row["key"] += f"-{hashlib.sha256(what(row).encode()).hexdigest()[:8]}"
            row["hash"] = stable_hash(row["key"])
    twins = pa.Table.from_pylist(rows, clips.schema)
    return pa.concat_tables([clips.filter(pc.invert(is_twin)), twins])


def _film(row: dict[str, Any]) -> str:
    """Which film a clip is of, and which span of it."""
    return repr([row[name] for name in ("source", "start", "end")])


def _content(row: dict[str, Any]) -> str:
    """All that a listing says of a clip but its place; not its files, which may change."""
    place = {"key", "hash", "number", "sources"}
    return repr([value for name, value in row.items() if name not in place])


def _chosen(clips: pa.Table, settings: Settings) -> pa.Table:
    """Of the clips those of the talkers, and of them the `limit` lowest hashes."""
    if settings.speakers is not None:
        clips = clips.filter(pc.is_in(clips["speaker"], pa.array(settings.speakers, pa.string())))
    if settings.limit is not None:
        hashes = clips["hash"].to_numpy()
        clips = clips.filter(pa.array(hashes <= np.sort(hashes)[: settings.limit][-1]))
    return clips


def _lagged(clips: pa.Table, lags: Lags, plan: Plan) -> pa.Table:
    """The clips with their lags; how many have none is told. UsageError: none has one."""
    keys = clips["key"].to_pylist()
    if len(keys) == (unknown := sum(key not in lags.ms for key in keys)):
        raise UsageError(
            f"{lags.path}: lags of {len(lags.ms)} clips, such as {next(iter(lags.ms), 'none')};"
            f" none of them is listed here, such as {keys[0]}"
        )
    if unknown:
        plan.notices.append(
            f"{unknown} of {len(keys)} clips are not in {lags.path}: kept as they are"
        )
    column = pa.array([lags.ms.get(key) for key in keys], pa.float64())
    return clips.set_column(clips.schema.get_field_index("lag_ms"), "lag_ms", column)


def _cut(clips: pa.Table, most: int) -> Iterator[pa.RecordBatch]:
    """The clips of each group in runs of at most `most`."""
    group, at = clips["group"].combine_chunks(), 0
    for end in pc.run_end_encode(group).run_ends.to_pylist():
        for start in range(at, end, most):
            part = clips.slice(start, min(most, end - start)).select(schema().names)
            yield from part.combine_chunks().to_batches()
        at = end


def _to_clip(row: dict[str, Any]) -> tuple[str, Clip]:
    key = row.pop("key")
    row["words"] = [(w["word"], w["start"], w["end"]) for w in row["words"]]
    row["sources"] = [(s["name"], s["size"], s["mtime_ns"]) for s in row["sources"]]
    return key, Clip(name=key.split("/", 1)[1], **row)


def make_plan(
    corpus: Corpus, settings: Settings, root: Folder, path: Path, lags: Lags | None = None
) -> Plan:
    """List the corpus, lay its clips into shards, and write the plan file `path`.

    Clips of a group are laid in the order of a stable hash of their key and cut into shards of
    `shard_clips` listed clips, so that a shard is a random sample whatever the listing's order.
    Raises UsageError where none is left to take, SourceFault where the root cannot be listed.
    """
    with listed_tree(root) as here, listing_faults_named(root):
        listing = adapter(settings.corpus).discover(here, corpus)
        tree = listing.root
        if isinstance(root, Store):  # a table lies in its root
            listing.root = root if listing.root == here else root.parent
        return lay_out(listing, settings, path, tree, root, lags)


def lay_out(
    listing: Listing,
    settings: Settings,
    path: Path,
    tree: Folder | None = None,
    given: Folder | None = None,
    lags: Lags | None = None,
) -> Plan:
    """`make_plan` of what has been listed, with the files that lie in `tree`, else in its root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = tree or listing.root
    assert isinstance(tree, Path)
    clips = _listed(listing, settings, tree)
    if not len(clips):
        raise UsageError(f"{listing.root}: 0 clips listed ({listing.layout})")
    notices = [*map(written_out, listing.notices)]
    if settings.speakers is not None:
        speakers = {name for name in clips["speaker"].unique().to_pylist() if name}
        absent = [s for s in settings.speakers if s not in speakers]
        if len(absent) == len(settings.speakers):
            known = ", ".join(sorted(speakers)) or "none"
            raise UsageError(f"no clip of {', '.join(settings.speakers)}; talkers here: {known}")
        if absent:
            notices.append(f"talkers without a clip here: {', '.join(absent)}")
    labels, layout = [*map(written_out, listing.labels)], written_out(listing.layout)
    plan = Plan(path, listing.root, settings, labels, layout, [], notices)
    plan.given = given
    clips = _chosen(_laid_out(clips, listing.twins_kept), settings)
    if lags is not None:
        clips = _lagged(clips, lags, plan)
    _write(plan, _cut(clips, settings.shard_clips))
    return plan


def _write(plan: Plan, shards: Iterator[pa.RecordBatch]) -> None:
    """Write one record batch a unit, count them in the plan, and write its head, last."""
    settings = plan.settings.as_dict()
    decides = json.dumps(plan.settings.deciding(), sort_keys=True)
    base = hashlib.sha256(decides.encode()).hexdigest()
    statuses: Counter[str] = Counter()
    label_ids = {label: number for number, label in enumerate(plan.labels)}
    options = ipc.IpcWriteOptions(compression="zstd")
    with open_atomic(plan.path) as file, ipc.new_file(file, schema(), options=options) as writer:
        for part in shards:
            digest = hashlib.sha256(base.encode())
            idle = {"sources"} if plan.settings.sync else {"sources", "lag_ms"}
            rows = part.select([n for n in part.schema.names if n not in idle]).to_pylist()
            digest.update(json.dumps(rows).encode())
            files, ids = part["sources"].to_pylist(), map(label_ids.get, part["label"].to_pylist())
            group = part["group"][0].as_py()
            before = plan.groups.get(group, 0)
            name = f"{group}-{before // plan.settings.shard_clips:06d}"
            number, hashes = len(plan.units), (short_hash(files), short_hash([*ids]))
            plan.units.append(Unit(number, name, len(part), digest.hexdigest(), *hashes))
            plan.groups[group] = before + len(part)
            statuses.update(status or "ok" for status in part["status"].to_pylist())
            writer.write_batch(part)
        head = {
            "schema": FORMAT,
            "root": str(plan.root.resolve()),
            "given": plan.given and str(plan.given.resolve()),
            "settings": settings,
            "labels": plan.labels,
            "layout": plan.layout,
            "units": [dataclasses.asdict(unit) for unit in plan.units],
        }
        # Behind the units, as it is known only now: a batch without rows.
        nothing = pa.RecordBatch.from_pylist([], schema())
        writer.write_batch(nothing, {"avb": json.dumps(head)})
    plan.statuses = dict(statuses)


def short_hash(values: list[Any]) -> str:
    """A hash of plain values in 16 digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def read_plan(path: Path) -> Plan:
    """The head of a plan file that `make_plan` wrote; UsageError where it is none, or damaged."""
    try:
        with pa.OSFile(str(path)) as file:
            reader = ipc.open_file(file)
            last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        head = json.loads(last.custom_metadata[b"avb"])
    except (pa.ArrowException, KeyError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path}: no plan of avb prep, or damaged ({line}); remove it") from None
    if (written := head.get("schema", 1)) != FORMAT:
        raise UsageError(
            f"{path}: of shards of format {written}, now it is {FORMAT}: readers take them"
            " as they are; to make them anew give another --out, or --overwrite"
        )
    return Plan(
        path,
        folder_at(head["root"]),
        checked(Settings, head["settings"], "plan"),
        head["labels"],
        head["layout"],
        [Unit(**unit) for unit in head["units"]],
        given=folder_at(head["given"]) if head["given"] else None,
    )
