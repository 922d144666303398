"""The commands as they are typed, with addresses: what comes out is what a folder gives."""

import hashlib
import json
from pathlib import Path
from typing import Any

import prepared
import pytest
from commands import avb, did, refused
from prepared import draw

from avb.pipeline.shards.verify import _Check, _check_shard
from avb.pipeline.storage.cache import the_cache
from avb.pipeline.storage.store import Store
from avb.tools import doctor
from avb.tools.export.published import read_words

TINY = ["--recipe", "tiny", "--set", "unit=clip", "--set", "batch_size=4", "--set", "model.width=8"]


def apart(*words: object, expected: int = 0) -> str:
    """Standard output of a command in a process of its own."""
    run = prepared.run(*words)
    assert run.returncode == expected, run.stderr[-2000:]
    assert "hidden-secret" not in run.stdout + run.stderr
    return run.stdout


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("clips_per_s", "seconds", "data_wait", "time", "memory")
    return [{k: v for k, v in x.items() if "loss" in k and k not in timed} for x in lines]


@pytest.mark.slow
def test_from_the_corpus_to_the_record(bucket: Any, tmp_path: Path) -> None:
    raw = bucket.upload(draw("lrw", tmp_path / "raw", 12, odd=True), "raw")
    flags = ("--shard-clips", 6, "--jobs", 2)
    apart("prep", "lrw", "--root", tmp_path / "raw", "--out", tmp_path, *flags, expected=3)
    apart("prep", "lrw", "--root", raw, "--out", bucket.store, *flags, expected=3)
    here, there = tmp_path / "lrw", bucket.store / "lrw"
    assert all(bucket.read(f"lrw/{tar.name}") == tar.read_bytes() for tar in here.glob("*.tar"))
    apart("verify", there)
    apart("verify", there, "--sample", "50%", "--jobs", 1)
    stats = [json.loads(apart("stats", where, "--json")) for where in (here, there)]
    for one in stats:
        del one["mean_ms"]
    assert stats[0] == stats[1]
    for name, where in (("here", here), ("there", there)):
        apart("preview", where, "--out", tmp_path / f"{name}.png")
        run = tmp_path / name
        apart("train", "lip", "--data", where, *TINY, "--steps", 2, "--seed", 1, "--out", run)
        record = tmp_path / f"{name}.json"
        apart("eval", "lip", "--data", where, "--ckpt", run, "--part", "val", "--out", record)
        words = ("--to", "safetensors", "--out", tmp_path / f"{name}-export")
        apart("export", "--ckpt", tmp_path / "here", "--data", where, *words)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    for path in (tmp_path / "here-export").glob("*"):
        assert path.read_bytes() == (tmp_path / "there-export" / path.name).read_bytes()
    assert losses(tmp_path / "here") == losses(tmp_path / "there") != []
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "there")]
    assert len(records[0]["clips"]) == records[0]["flags"]["n"] > 0  # what was said of each clip
    one, other = (
        json.dumps({key: record[key] for key in ("metrics", "clips", "confusions", "addressing")})
        for record in records
    )
    assert one == other


STORED = "s3://bucket/run/best.pt"
LOCAL_ONLY = {
    "infer lip": ["infer", "lip", "me.mp4", "--ckpt", STORED],
    "infer l2s": ["infer", "l2s", "me.mp4", "--ckpt", STORED],
    "eval": ["eval", "lip", "--data", "shards", "--ckpt", STORED],
    "export": ["export", "--ckpt", STORED, "--to", "onnx", "--out", "out"],
    "ui": ["ui", "--ckpt", "best.pt", "--ckpt", STORED],
    "import": ["import-checkpoint", STORED, "--out", "out.pt"],
    "train": ["train", "lip", "--out", STORED],
    "bench read": ["bench", "read", STORED],
}


@pytest.mark.parametrize("words", LOCAL_ONLY.values(), ids=LOCAL_ONLY)
def test_an_address_where_none_is_taken_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(*words)
    assert line.startswith(f"avb: {STORED}: an address") and "copy it here" in line
    assert not list(tmp_path.iterdir())


@pytest.fixture
def there(lrw: Any, bucket: Any) -> Store:
    """Shards to train on, in a bucket."""
    record = json.loads((lrw.folder / "dataset.json").read_text())
    clips = len(lrw.clips)
    record |= {"title": "drawn", "counts": {"listed": clips, "ok": clips, "status": {"ok": clips}}}
    record["pixels"] = {crop: {"mean": 128.0, "std": 50.0} for crop in record["crops"]}
    there = bucket.upload(lrw.folder, "lrw")
    bucket.write("lrw/dataset.json", json.dumps(record).encode())
    return there


def test_words_come_from_shards_in_a_store(lrw: Any, there: Store) -> None:
    assert read_words(None, there) == (lrw.labels, there)


@pytest.mark.slow
def test_a_corpus_in_a_store_is_looked_at(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bbaf2n", "lwbz9s"):
        bucket.write(f"raw/s1/{name}.mpg", b"")
    code = doctor._CORPUS.format(name="grid", datasets=None)
    for folder, ok in (("raw", True), ("nothing", False)):
        monkeypatch.setenv("AVB_GRID_ROOT", str(bucket.store / folder))
        line = doctor.probe("corpus grid", code, "set it")
        wanted = "2 clips" if ok else "nothing"
        assert line.ok == ok and line.found.startswith(f"{wanted} at {bucket.store / folder}")


def test_a_bench_streams_from_a_store(there: Store, bucket: Any) -> None:
    small = [*TINY, "--batch-size", "2", "--steps", "1", "--rounds", "1", "--json"]
    record = json.loads(did("bench", "train", "lip", "--data", there, *small).stdout)
    assert record["data"] == str(there) and record["data_wait"] is not None
    assert any(".tar" in path for _, path in bucket.door.seen)


def test_a_flipped_byte_in_a_store_is_named(grid: Any, bucket: Any) -> None:
    tar = next(iter(sorted(grid.folder.glob("s1-*.tar"))))
    data = bytearray(tar.read_bytes())
    shard = {"name": tar.stem, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    data[len(data) // 2] ^= 1
    bucket.write(tar.name, bytes(data))
    checks = [_Check(bucket.store / name, shard, 1, [], {}) for name in (tar.name, "no.tar")]
    assert "sha256" in _check_shard(checks[0])[1][0]
    assert "missing" in _check_shard(checks[1])[1][0]


def test_cache_options_reach_every_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AVB_CACHE", "AVB_CACHE_GB"):
        monkeypatch.setenv(name, "")
    avb("--cache", tmp_path / "here", "--cache-gb", "2", "stats", tmp_path)
    assert the_cache().folder == tmp_path / "here" and the_cache().max_bytes == 2_000_000_000
