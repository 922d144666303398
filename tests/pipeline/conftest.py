"""Tiny shard folders, written with the package's own codec and writer in well under a second."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared import draw

from avb.pipeline.clip.codec import encode_video
from avb.pipeline.clip.flac import encode_flac
from avb.pipeline.files import write_atomic
from avb.pipeline.shards.tar import ShardWriter

SIDES = {"lips": 32, "face": 24}
FLOOR = 1e-5
SENTENCE = ["bin", "blue", "at", "f", "two", "now"]
# Times in seconds of the six words of every sentence; the first and last windows leave the clip.
TIMES = [(0.1, 0.3), (0.3, 0.62), (0.62, 0.8), (0.9, 1.2), (1.2, 1.5), (2.5, 2.9)]


@dataclass
class StoredClip:
    """What went into one clip of a folder, to compare with what comes out."""

    key: str
    row: dict[str, Any]
    video: dict[str, np.ndarray] = field(default_factory=dict)
    mel: np.ndarray | None = None
    sound: np.ndarray | None = None


@dataclass
class StoredFolder:
    folder: Path
    clips: dict[str, StoredClip]  # those with status ok
    labels: list[str]

    @property
    def aligned(self) -> list[str]:
        """Keys of the sentences whose words have times."""
        words = {key: clip.row["words"] for key, clip in self.clips.items()}
        return [k for k, w in words.items() if len(w) == 6 and w[0]["start"] is not None]


def moving_blobs(num_frames: int, side: int, seed: int) -> np.ndarray:
    """Bright blobs wandering over a grey ramp that spans all levels: uint8 [T, side, side]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    frames = np.tile(255 * x, (num_frames, 1, 1))
    t = np.arange(num_frames)[:, None, None]
    for _ in range(3):
        cx, cy, speed = rng.uniform(0.2, 0.8, 3)
        radius2 = (x - cx - 0.2 * np.sin(speed * t / 4)) ** 2 + (y - cy) ** 2
        frames += rng.uniform(-120, 120) * np.exp(-60 * radius2)
    # The frame number in a corner, as a level, tells frames apart after compression.
    frames[:, :8, :8] = 3 * t
    return np.clip(frames, 0, 255).astype(np.uint8)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_folder(
    folder: Path,
    rows: list[dict[str, Any]],
    labels: list[str],
    shard_clips: int,
    codec: str = "mp4",
    mel_dtype: str = "float16",
    keep_audio: bool = False,
) -> StoredFolder:
    """Write shards, manifest and dataset.json as preparation leaves them."""
    scale, offset = 15.0 / 255, float(np.log(FLOOR))
    clips, shards, listed = {}, [], []
    for group in dict.fromkeys(row["group"] for row in rows):
        members_of = [row for row in rows if row["group"] == group]
        for start in range(0, len(members_of), shard_clips):
            name = f"{group}-{start // shard_clips:06d}"
            with ShardWriter(folder / f"{name}.tar") as writer:
                for row in members_of[start : start + shard_clips]:
                    row = row | {"shard": None, "offset": None, "nbytes": None, "flags": []}
                    listed.append(row)
                    if row["status"] != "ok":
                        continue
                    clip = StoredClip(row["key"], row)
                    seed = int(hashlib.sha256(row["key"].encode()).hexdigest()[:8], 16)
                    length = row["n_frames"]
                    members = {}
                    for crop, side in SIDES.items():
                        clip.video[crop] = moving_blobs(length, side, seed)
                        extension, data = encode_video(clip.video[crop], codec, crf=8)
                        members[f"{crop}.{extension}"] = data
                    rng = np.random.default_rng(seed)
                    clip.mel = rng.uniform(-11, 3, (80, 4 * length)).astype(np.float32)
                    # Columns count up too, so that a shift by one column shows.
                    clip.mel[0] = np.arange(4 * length) / 100
                    stored = clip.mel.astype(np.float16)
                    if mel_dtype == "uint8":
                        stored = np.rint((clip.mel - offset) / scale).clip(0, 255).astype(np.uint8)
                    members["mel.npy"] = npy(stored)
                    if keep_audio:
                        clip.sound = rng.uniform(-0.5, 0.5, 640 * length).astype(np.float32)
                        members["flac"] = encode_flac(clip.sound, 16000)
                    members["json"] = json.dumps({"key": row["key"]}).encode()
                    row["offset"], row["nbytes"] = writer.write(row["key"], members)
                    row["shard"] = name
                    clips[row["key"]] = clip
            if writer.samples:
                shards.append({"name": name, "samples": writer.samples, "bytes": writer.nbytes,
                               "sha256": writer.sha256})  # fmt: skip
    _write_manifest(folder, listed)
    ok = sum(row["status"] == "ok" for row in listed)
    dataset = {
        "schema": 1,
        "corpus": "grid",
        "title": "made up",
        "counts": {"listed": len(listed), "ok": ok, "status": {"ok": ok}},
        "pixels": {crop: {"mean": 128.0, "std": 60.0} for crop in SIDES},
        "fingerprint": "0" * 64,
        "settings": {"fps": 25, "sample_rate": 16000},
        "crops": {c: {"size": s - 8, "stored": s, "margin": 4} for c, s in SIDES.items()},
        "mel": {"dtype": mel_dtype, "scale": scale, "offset": offset, "floor": FLOOR,
                "n_mels": 80, "hop": 160},
        "labels": labels,
        "labels_sha256": hashlib.sha256("\n".join(labels).encode()).hexdigest(),
        "shards": shards,
    }  # fmt: skip
    write_atomic(folder / "dataset.json", json.dumps(dataset).encode())
    return StoredFolder(folder, clips, labels)


def _write_manifest(folder: Path, rows: list[dict[str, Any]]) -> None:
    word = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
    text = ("key", "group", "split", "speaker", "label", "status", "shard")
    schema = pa.schema(
        [(name, pa.string()) for name in text]
        + [("n_frames", pa.int32()), ("n_mel", pa.int32()), ("flags", pa.list_(pa.string()))]
        + [("words", pa.list_(word)), ("offset", pa.int64()), ("nbytes", pa.int64())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "manifest.parquet")


def clip_row(key: str, num_frames: int, **more: Any) -> dict[str, Any]:
    group = key.split("/")[0]
    row: dict[str, Any] = dict.fromkeys(("split", "speaker", "label"))
    row |= {"key": key, "group": group, "status": "ok", "words": []}
    row |= {"n_frames": num_frames, "n_mel": 4 * num_frames}
    return row | more


@pytest.fixture(scope="session")
def store() -> Callable[..., StoredFolder]:
    """Writes a folder of clips, each (key, number of frames, what else is in its row)."""

    def write(
        folder: Path, clips: list[tuple[str, int, dict[str, Any]]], labels: list[str]
    ) -> StoredFolder:
        return write_folder(folder, [clip_row(k, n, **more) for k, n, more in clips], labels, 6)

    return write


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StoredFolder:
    """Sentences of two talkers in five shards; one of 74 frames, one untimed, one refused."""
    words = [{"word": w, "start": s, "end": e} for w, (s, e) in zip(SENTENCE, TIMES, strict=True)]
    untimed = [{"word": w, "start": None, "end": None} for w in SENTENCE]
    rows = [clip_row(f"s1/bbaf{i}n", 75, speaker="s1", words=words) for i in range(8)]
    rows += [clip_row(f"s20/bbaf{i}n", 75, speaker="s20", words=words) for i in range(5)]
    rows[2] |= {"n_frames": 74, "n_mel": 296}
    rows[4] |= {"words": untimed}
    rows[6] |= {"status": "blank_frames", "n_frames": None, "n_mel": None}
    folder = tmp_path_factory.mktemp("grid")
    return write_folder(folder, rows, sorted(SENTENCE), shard_clips=3, keep_audio=True)


@pytest.fixture(scope="session")
def lrw(tmp_path_factory: pytest.TempPathFactory) -> StoredFolder:
    """Single words with official splits, bare H.264 and 8-bit mels, two lengths."""
    rows = []
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        for i in range(count):
            label = ("ABOUT", "ZEBRA")[i % 2]
            word = [{"word": label, "start": 0.4, "end": 0.8 if i else None}]
            word[0]["start"] = 0.4 if i else None
            rows.append(
                clip_row(f"{split}/{label}_{i:05d}", 29 if i % 3 else 20, split=split,
                         label=label, words=word)
            )  # fmt: skip
    folder = tmp_path_factory.mktemp("lrw")
    labels = ["ABOUT", "MIDDLE", "ZEBRA"]
    return write_folder(folder, rows, labels, 4, codec="h264", mel_dtype="uint8")


@pytest.fixture(scope="session")
def good_lrw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn LRW of 12 good clips; what changes it takes a copy."""
    return draw("lrw", tmp_path_factory.mktemp("good") / "lrw", 12)


@pytest.fixture
def raw(good_lrw: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(good_lrw, tmp_path / "raw"))


@pytest.fixture
def copy(grid: Any, tmp_path: Path) -> Path:
    """A copy of the folder of sentences, to be damaged."""
    return Path(shutil.copytree(grid.folder, tmp_path / "copy"))


# Crashes ------------------------------------------------------------------------------------------

FAULTS = """
import os, signal, subprocess, sys

def fault(event, args):
    if event != "open" or not str(args[0]).endswith(".txt"):
        return
    for line in open({table!r}):
        kind, ending = line.split()
        if not str(args[0]).endswith(ending):
            continue
        if kind == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "no-memory":
            raise MemoryError
        if kind == "hang":  # in a program, as with --decoder ffmpeg
            subprocess.run(["sleep", "3600"])
        try:
            os.mkdir({table!r} + ".fell")
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(fault)
"""


@dataclass
class Faults:
    """Every Python process started with `environment` falls over the clips that are named."""

    table: Path
    environment: dict[str, str]

    def at(self, kind: str, *clips: str) -> None:
        """Names clips of LRW by the end of their path, for a kind of fault, or "once"."""
        with self.table.open("a") as table:
            table.writelines(f"{kind} {clip}.txt\n" for clip in clips)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    folder = tmp_path_factory.mktemp("faults")
    table = folder / "faults.tsv"
    table.touch()
    (folder / "sitecustomize.py").write_text(FAULTS.format(table=str(table)))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return Faults(table, os.environ | {"PYTHONPATH": path})
