"""Each object is fetched once, whoever asks; the folder keeps its size; no file in use goes."""

import hashlib
import itertools
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prepared import wait_for

from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.storage.cache import Cache, fetched_ahead, open_file, the_cache
from avb.pipeline.storage.store import Store

SIZE = 100_000


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def sha256(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


@pytest.fixture
def shards(bucket: Any) -> Any:
    for number in range(8):
        bucket.write(f"{number}.tar", content(number))
    return bucket


def read(cache: Cache, store: Store, number: int) -> bytes:
    descriptor = cache.open(store, f"{number}.tar", sha256(number), SIZE)
    try:
        return os.pread(descriptor, SIZE + 1, 0)
    finally:
        os.close(descriptor)


def kept(cache: Cache) -> set[str]:
    return {path.name for path in (cache.folder / "objects").iterdir()}


def gets(bucket: Any) -> int:
    return sum(method == "GET" for method, _ in bucket.door.seen)


def test_an_object_is_fetched_once(shards: Any, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10 * SIZE)
    assert [read(cache, shards.store, 3) for _ in range(3)] == [content(3)] * 3
    assert gets(shards) == 1
    shards.vanish()
    assert read(cache, shards.store, 3) == content(3)


def test_the_least_recently_read_and_half_files_go(shards: Any, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    for number in (0, 1, 2, 0, 3):
        read(cache, shards.store, number)
        time.sleep(0.01)  # the clock of the file system
    assert kept(cache) == {sha256(number) for number in (2, 0, 3)}
    (cache.folder / "objects" / f"{sha256(1)}.{SIZE}.1.part").write_bytes(b"half")
    read(cache, shards.store, 4)
    assert kept(cache) == {sha256(number) for number in (0, 3, 4)}


def test_a_driver_that_makes_its_file_anew_is_read_as_it_ends(
    shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Google removes what it has written when a download breaks off."""
    get = Store.get

    def breaks_off_once(store: Store, name: str, local: Path, *more: Any) -> None:
        local.write_bytes(b"half")
        local.unlink()
        get(store, name, local, *more)

    monkeypatch.setattr(Store, "get", breaks_off_once)
    cache = Cache(tmp_path / "cache", 10 * SIZE)
    assert [read(cache, shards.store, 3) for _ in range(2)] == [content(3)] * 2


def test_no_file_in_use_goes(shards: Any, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2 * SIZE)
    held = cache.open(shards.store, "0.tar", sha256(0))
    for number in (1, 2, 3):
        read(cache, shards.store, number)
    assert kept(cache) == {sha256(0), sha256(3)}
    os.close(held)
    read(cache, shards.store, 4)
    assert kept(cache) == {sha256(3), sha256(4)}


def test_an_object_that_changed_is_fetched_again(shards: Any) -> None:
    for data in (b"first", b"second"):
        shards.write("dataset.json", data)
        with open_file(shards.store, "dataset.json") as file:
            assert file.read() == data
    with pytest.raises(FileNotFoundError, match="no.json"):
        open_file(shards.store, "no.json")


def test_a_copy_that_was_cut_is_fetched_again(shards: Any, tmp_path: Path) -> None:
    """As of a machine that lost its power; it had been taken for damage in the store."""
    cache = Cache(tmp_path / "cache", 10 * SIZE)
    assert read(cache, shards.store, 3) == content(3)
    os.truncate(cache.folder / "objects" / sha256(3), 10)
    assert read(cache, shards.store, 3) == content(3)
    assert kept(cache) == {sha256(3)} and gets(shards) == 2


def test_another_content_than_promised_is_refused(shards: Any, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(StorageError, match="0.tar: sha256"):
        cache.open(shards.store, "0.tar", sha256(1))
    assert kept(cache) == set()


def test_a_folder_that_cannot_be_written_is_one_line(shards: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file.*another --cache"):
        Cache(tmp_path / "file", SIZE).open(shards.store, "0.tar")


def test_the_size_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVB_CACHE_GB", "2.5")
    assert the_cache().max_bytes == 2_500_000_000
    for text in ("0", "-1", "many", "nan"):
        monkeypatch.setenv("AVB_CACHE_GB", text)
        with pytest.raises(UsageError, match="--cache-gb"):
            the_cache()


def _read_all(cache: Cache, store: Store, first: int, failed: Any) -> None:
    for number in range(12):
        wanted = (first + number * 3) % 8
        if read(cache, store, wanted) != content(wanted):
            failed.set()


def test_processes_share_it(shards: Any, tmp_path: Path) -> None:
    """Three processes, room for three objects of eight: every read is right, the size is kept."""
    assert shards.store.size("0.tar") == SIZE  # a reader of shards, too, has asked before it forks
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    context = multiprocessing.get_context("fork")
    failed = context.Event()
    workers = [
        context.Process(target=_read_all, args=(cache, shards.store, first, failed), daemon=True)
        for first in range(3)
    ]
    for worker in workers:
        worker.start()
    most, deadline = 0, time.monotonic() + 120
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        if (cache.folder / "objects").is_dir():
            most = max(most, len(kept(cache)))
        time.sleep(0.002)
    assert [worker.exitcode for worker in workers] == [0] * 3 and not failed.is_set()
    assert len(kept(cache)) <= 3
    # Beside the three, what each of three may hold or have on its way.
    assert most <= 3 + 3


def test_what_comes_next_is_fetched_while_this_is_read() -> None:
    fetched: list[str] = []
    given = [["a"], ["a"], ["b"], ["b", "c"], ["d"]]
    jobs = fetched_ahead(given, lambda job: job, fetched.append)
    assert next(jobs) == ["a"]
    wait_for(lambda: len(fetched) > 1)
    assert fetched == ["a", "b"]  # before it is asked for, and no more than that
    assert list(jobs) == [["a"], ["b"], ["b", "c"], ["d"]]


def test_looking_ahead_ends_where_nothing_new_comes() -> None:
    jobs = fetched_ahead(itertools.repeat(["a"]), lambda job: job, lambda name: None)
    assert [next(jobs) for _ in range(3)] == [["a"]] * 3
    jobs.close()


def test_what_cannot_be_fetched_ahead_is_left_to_the_reader() -> None:
    fetch = Mock(side_effect=StorageError("gone"))
    assert list(fetched_ahead([["a"], ["b"]], lambda job: job, fetch)) == [["a"], ["b"]]
