"""One unit of work: one shard, made from a plan file and a unit number and nothing else.

Reads like the pipeline: decode, track, crop, mel, encode, shard; every clip ends as one row. No
state outlives a unit but caches, so units run in any process, in any order, on any machine that
sees the corpus.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline import audio, crop
from avb.pipeline.codec import encode_flac, encode_video
from avb.pipeline.corpora import adapter
from avb.pipeline.plan import Plan, Settings, Unit, read_plan
from avb.pipeline.records import FLAGS, STATUSES, Clip, Refused, Word
from avb.pipeline.shard import ShardWriter, read_members, write_atomic
from avb.pipeline.track import track

STAGES = ("decode", "track", "crop", "mel", "encode", "shard")
#: Sound further than this from the first picture is flagged.
PLACED_S = 0.005
#: Silence appended beyond one picture is flagged.
SHORT_S = 0.040

Tick = Callable[[bool], None]


@dataclass
class Sample:
    """One finished clip: the members of its sample and what its row says of it."""

    members: dict[str, bytes]
    row: dict[str, Any]


@dataclass
class Clock:
    """Milliseconds spent in each stage by one clip."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[stage] = self.ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3


def make_sample(
    key: str, clip: Clip, root: Path, settings: Settings, label_id: int | None, clock: Clock
) -> Sample:
    """Decode, track, crop, mel and encode one clip.

    Raises:
        Refused: the clip cannot be used; status and finding are in it.
    """
    with clock("decode"):
        media, words = adapter(settings.corpus).load(root, clip, settings)
    frames = media.frames
    num_frames, (height, width) = len(frames), frames[0].shape
    flags = {*media.flags, *clip.flags, *_picture_flags(height, width, settings)}
    misses = 0
    points = None
    if settings.box == "tracked":
        with clock("track"):
            found = track(frames, settings.face_every)
        points, misses = found.points, found.misses
        if misses:
            flags.add("face_gaps")
    with clock("crop"):
        boxes = {kind: _boxes(kind, points, height, width, settings) for kind in settings.crops}
        crops = {k: crop.cut(frames, boxes[k], spec) for k, spec in settings.crops.items()}
        if any(crop.leaves_picture(b, height, width) for b in boxes.values()):
            flags.add("edge_padded")
    with clock("mel"):
        sound, pad = audio.fit(
            media.sound, media.rate, media.sound_start_s, num_frames, settings.fps,
            settings.sample_rate,
        )  # fmt: skip
        log_mels = audio.log_mel(sound, settings.mel, settings.sample_rate)
        stored_mel = audio.store_mel(log_mels, settings.mel, settings.mel_dtype)
    if abs(media.sound_start_s) > PLACED_S:
        flags.add("audio_misplaced")
    if pad > SHORT_S * settings.sample_rate:
        flags.add("audio_short")
    with clock("encode"):
        members = {}
        for kind, pictures in crops.items():
            extension, data = encode_video(pictures, settings.codec, settings.crf)
            members[f"{kind}.{extension}"] = data
        members["mel.npy"] = _npy(stored_mel)
        if settings.keep_audio:
            members["flac"] = encode_flac(sound, settings.sample_rate)
    assert flags <= FLAGS.keys(), flags
    facts = _facts(key, clip, settings, label_id, words, num_frames)
    facts |= {
        "crop_boxes": {kind: b.tolist() for kind, b in boxes.items()},
        "face_misses": misses,
        "audio_pad": pad,
        "flags": sorted(flags),
    }
    members["json"] = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    row = {
        "flags": sorted(flags),
        "n_frames": num_frames,
        "n_mel": log_mels.shape[1],
        "face_misses": misses,
        "words": [{"word": w, "start": s, "end": e} for w, s, e in words],
        "sums": [*(x for c in crops.values() for x in _sums(c)), *_sums(log_mels)],
    }
    return Sample(members, row)


def _boxes(
    kind: str, points: np.ndarray | None, height: int, width: int, settings: Settings
) -> np.ndarray:
    if points is not None:
        return crop.tracked_boxes(points, kind, settings.fps)
    if settings.box == "whole":
        return crop.whole_boxes(height, width)
    picture = settings.picture or [width, height]
    return crop.fixed_boxes(settings.fixed_box or [0, 0, *picture], picture, height, width)


def _picture_flags(height: int, width: int, settings: Settings) -> set[str]:
    if settings.picture is None or [width, height] == settings.picture:
        return set()
    larger = width * height > math.prod(settings.picture)
    return {"large_picture" if larger else "small_picture"}


def _facts(
    key: str,
    clip: Clip,
    settings: Settings,
    label_id: int | None,
    words: list[Word],
    num_frames: int,
) -> dict[str, Any]:
    """The part of the sample's JSON that does not depend on pictures and sound."""
    single = words[0] if clip.label is not None and len(words) == 1 else None
    boundary = None if single is None or single[1] is None else [single[1], single[2]]
    return {
        "key": key,
        "corpus": settings.corpus,
        "group": clip.group,
        "split": clip.split,
        "speaker": clip.speaker,
        "label": clip.label,
        "label_id": label_id,
        "words": words,
        "boundary": boundary,
        "n_frames": num_frames,
        "n_mel": num_frames * settings.sample_rate // (settings.fps * settings.mel.hop),
        "fps": settings.fps,
        "sample_rate": settings.sample_rate,
        "duration": num_frames / settings.fps,
        "source": clip.source,
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _sums(values: np.ndarray) -> tuple[float, float]:
    """Sum and sum of squares of an array, for the statistics of the whole corpus."""
    import cv2

    mean, std = (float(x[0, 0]) for x in cv2.meanStdDev(values.reshape(values.shape[0], -1)))
    return mean * values.size, (std * std + mean * mean) * values.size


def row_schema() -> Any:
    """Columns of the manifest."""
    import pyarrow as pa

    word = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
    text = ("key", "source", "group", "split", "speaker", "label", "status", "error")
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [("flags", pa.list_(pa.string())), ("shard", pa.string())]
        + [("n_frames", pa.int32()), ("n_mel", pa.int32()), ("face_misses", pa.int32())]
        + [("words", pa.list_(word)), ("offset", pa.int64()), ("nbytes", pa.int64())]
        + [(f"{stage}_ms", pa.float32()) for stage in STAGES]
        + [("sums", pa.list_(pa.float64()))]
    )


def rows_path(folder: Path, unit: Unit) -> Path:
    """Where the rows of a finished unit lie."""
    return folder / ".avb" / "rows" / f"{unit.name}.parquet"


def run_unit(plan_path: Path, number: int, folder: Path, tick: Tick | None = None) -> None:
    """Make one shard and its rows in `folder`; the rows are written last.

    Clips that passed in an earlier run of the same unit are copied from its shard, so that trying
    the refused ones again costs only them; the tar is rewritten only if one of them now passes.
    """
    plan = read_plan_once(plan_path)
    unit = plan.units[number]
    labels = {label: i for i, label in enumerate(plan.labels)}
    earlier = _earlier_rows(folder, unit)
    rows: list[dict[str, Any]] = []
    with ShardWriter(folder / f"{unit.name}.tar") as writer:
        for key, clip in plan.rows(number):
            row, members = earlier.get(key, (None, None))
            if row is None or members is None:
                row, members = _try_clip(key, clip, plan, labels)
            if members is not None:
                start = time.perf_counter()
                row["offset"], row["nbytes"] = writer.write(key, members)
                row["shard"] = unit.name
                row["shard_ms"] = (time.perf_counter() - start) * 1e3
            rows.append(row)
            if tick is not None:
                tick(row["status"] == "ok")
    _write_rows(folder, unit, rows, writer.sha256, writer.nbytes)


@cache
def read_plan_once(path: Path) -> Plan:
    """A worker reads the head of its plan once."""
    return read_plan(path)


def _try_clip(
    key: str, clip: Clip, plan: Plan, labels: dict[str, int]
) -> tuple[dict[str, Any], dict[str, bytes] | None]:
    """Row and members of one clip; a refused one has no members."""
    row = {f.name: getattr(clip, f.name) for f in dataclasses.fields(Clip)}
    row = {k: row[k] for k in ("source", "group", "split", "speaker", "label", "flags")}
    row |= {"key": key, "status": clip.status or "ok", "error": clip.error or None, "words": []}
    if clip.status:
        return row, None
    clock = Clock()
    try:
        label_id = labels.get(clip.label) if clip.label is not None else None
        sample = make_sample(key, clip, plan.root, plan.settings, label_id, clock)
    except Refused as refusal:
        assert refusal.status in STATUSES
        row |= {"status": refusal.status, "error": refusal.error}
        members = None
    else:
        row |= sample.row
        members = sample.members
    row |= {f"{stage}_ms": ms for stage, ms in clock.ms.items()}
    return row, members


def _earlier_rows(folder: Path, unit: Unit) -> dict[str, tuple[dict[str, Any], dict[str, bytes]]]:
    """Rows and members of the clips that passed when this very unit was last made."""
    import pyarrow.parquet as pq

    path = rows_path(folder, unit)
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    if (table.schema.metadata or {}).get(b"digest") != unit.digest.encode():
        return {}
    kept = {}
    tar = folder / f"{unit.name}.tar"
    for row in table.to_pylist():
        if row["status"] == "ok":
            with tar.open("rb") as file:
                file.seek(row["offset"])
                block = file.read(row["nbytes"])
            prefix = f"{row['key']}."
            members = {n.removeprefix(prefix): bytes(m) for n, m in read_members(block).items()}
            kept[row["key"]] = (row, members)
    return kept


def _write_rows(
    folder: Path, unit: Unit, rows: list[dict[str, Any]], sha256: str, nbytes: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, row_schema())
    head = {"digest": unit.digest, "sha256": sha256 or "", "bytes": str(nbytes)}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(head), sink, compression="zstd")
    path = rows_path(folder, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, sink.getvalue())
