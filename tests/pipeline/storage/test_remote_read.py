"""Batches from a store = batches from the folder it is a copy of, first time and cached."""

import io
from typing import Any

import pytest
import torch

from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.stream.index import load_index
from avb.pipeline.stream.stream import Stream


def batches(folder: Any, count: int = 6, **more: Any) -> list[Any]:
    index = load_index(folder)
    stream = Stream(index, batch_size=4, seed=3, buffer=4, **({"workers": 0} | more))
    return [batch for batch, _ in zip(stream, range(count), strict=False)]


def assert_equal(found: list[Any], wanted: list[Any]) -> None:
    assert [b.keys for b in found] == [b.keys for b in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.mel, other.mel)
        assert torch.equal(one.video["lips"], other.video["lips"])


def gets(bucket: Any) -> int:
    return sum(method == "GET" and ".tar" in path for method, path in bucket.door.seen)


@pytest.mark.parametrize(
    "more",
    [{}, {"unit": "word"}, {"once": True}, pytest.param({"workers": 2}, marks=pytest.mark.slow)],
)
def test_batches_are_the_same(grid: Any, bucket: Any, more: dict[str, Any]) -> None:
    there = str(bucket.upload(grid.folder, "grid"))
    assert_equal(batches(there, **more), batches(grid.folder, **more))


def test_each_shard_is_fetched_once(grid: Any, bucket: Any) -> None:
    there = bucket.upload(grid.folder, "grid")
    for _ in range(2):
        batches(there, 12)
        assert gets(bucket) == len(list(grid.folder.glob("*.tar")))


def test_one_shard_of_cache_is_enough(
    grid: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(path.stat().st_size for path in grid.folder.glob("*.tar"))
    monkeypatch.setenv("AVB_CACHE_GB", str(1.1 * largest / 1e9))
    there = bucket.upload(grid.folder, "grid")
    assert_equal(batches(there, 12), batches(grid.folder, 12))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bucket_that_vanishes_is_one_line(grid: Any, bucket: Any, workers: int) -> None:
    there = bucket.upload(grid.folder, "grid")
    stream = Stream(load_index(there), batch_size=4, workers=workers)
    bucket.vanish()
    with pytest.raises(StorageError, match=rf"{there}/.*tar: there is no bucket {bucket.name}"):
        next(iter(stream))


def test_a_shard_that_is_gone_is_told_from_its_bucket(grid: Any, bucket: Any) -> None:
    there = bucket.upload(grid.folder, "grid")
    index = load_index(there)
    for key in bucket.keys():
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    with pytest.raises(FileNotFoundError, match=rf"{there}/.*tar: missing"):
        next(iter(Stream(index, batch_size=4, workers=0)))


def test_a_shard_with_another_content_is_one_line(grid: Any, bucket: Any) -> None:
    there = bucket.upload(grid.folder, "grid")
    shard = min(grid.folder.glob("s1-*.tar"))
    for length, said in ((shard.stat().st_size, "sha256"), (4096, "4096 of ")):
        bucket.write(f"grid/{shard.name}", b"?" * length)
        with pytest.raises(StorageError, match=f"{there}/{shard.name}: {said}"):
            batches(there)


def test_a_store_without_shards_is_one_line(bucket: Any) -> None:
    with pytest.raises(UsageError, match="dataset.json.*avb prep"):
        load_index(bucket.store / "nothing")
    bucket.write("half/manifest.parquet", io.BytesIO().getvalue())
    with pytest.raises(UsageError, match="half: no dataset.json.*not finished"):
        load_index(bucket.store / "half")
