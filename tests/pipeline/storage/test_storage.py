"""What arrived = what was sent, or one line that names the object, whatever the way does."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from avb.pipeline.corpora.stored import listed_tree
from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.storage import store as storage
from avb.pipeline.storage.mirror import mirrored
from avb.pipeline.storage.store import Store, place

DATA = bytes(range(256)) * 2000


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    path.write_bytes(DATA)
    return path


def names(store: Store) -> dict[str, int]:
    return {name: entry.size for name, entry in store.entries().items()}


def test_a_folder_as_it_was_typed(tmp_path: Path) -> None:
    assert place("s3://bucket/shards/") == Store("s3://bucket/shards")
    assert place(f"file://{tmp_path}") == tmp_path
    assert place("shards/grid") == Path("shards/grid")
    assert place(tmp_path) is tmp_path
    assert str(Store("s3://bucket") / "grid") == "s3://bucket/grid"
    with pytest.raises(UsageError, match="credentials come") as caught:
        place("s3://me:hidden@host/bucket")
    assert "hidden" not in str(caught.value)
    for text, said in (("s3://", "no bucket"), ("https://host/shards", "copy it here")):
        with pytest.raises(UsageError, match=said):
            place(text)
    pytest.importorskip("fsspec", reason="comes with the extra cloud")
    with pytest.raises(UsageError, match="nothing://bucket: .*nothing"):
        Store("nothing://bucket").entries()


def test_no_room_is_made_for_a_piece_that_no_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    assert storage.read_piece(tmp_path, "a.tar", 4, 2**63 - 1) == b"456789"


def test_there_and_back(bucket: Any, sent: Path, tmp_path: Path) -> None:
    store, back = bucket.store / "a/b", tmp_path / "back"
    with pytest.raises(FileNotFoundError, match="s3://.*/one.tar"):
        store.get("one.tar", back)
    store.put(sent, "one.tar")
    assert bucket.read("a/b/one.tar") == DATA
    assert names(store) == {"one.tar": len(DATA)} and store.size("one.tar") == len(DATA)
    assert store.read("one.tar", 10, 20) == DATA[10:20]
    with pytest.raises(StorageError, match="one.tar: sha256 is .*, expected 000000000000"):
        store.get("one.tar", back, "0" * 64)
    assert not back.exists()
    before = store.version("one.tar")
    store.get("one.tar", back)
    assert back.read_bytes() == DATA
    bucket.write("a/b/one.tar", b"other")
    assert store.version("one.tar") != before
    store.remove("one.tar")
    store.remove("one.tar")
    assert names(store) == {} == names(bucket.store / "empty")


def test_a_bucket_writes_no_file_but_below_the_folder_that_it_is_brought_to(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "mine.json").write_text("mine")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in (f"/{tmp_path}/mine.json", "a/../../../../mine.json", "b/", "c/one.json"):
        bucket.write(f"lrw/{name}", b"of the bucket")
    for brought in (mirrored, listed_tree):
        with brought(bucket.store / "lrw"):
            there = {path.name for path in tmp_path.rglob("*") if path.is_file()}
            assert there == {"mine.json", "one.json"}
    assert (tmp_path / "mine.json").read_text() == "mine"


@pytest.mark.parametrize("what", ["500", "503", "cut", "slow", "deaf"])
def test_passing_faults_are_survived(bucket: Any, sent: Path, tmp_path: Path, what: str) -> None:
    bucket.fail(what, 3, "PUT")
    bucket.store.put(sent, "one.tar")
    assert bucket.read("one.tar") == DATA
    bucket.fail(what, 3, "GET")
    bucket.store.get("one.tar", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA
    bucket.fail(what, 3)
    assert names(bucket.store) == {"one.tar": len(DATA)}


def test_a_silent_store_is_left(bucket: Any, sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SILENCE_S", 0.3)
    monkeypatch.setattr(storage, "SLOWEST_BYTES_PER_S", 10_000_000)
    bucket.fail("silent", 2, "EXPECT")
    bucket.store.put(sent, "one.tar")
    assert bucket.read("one.tar") == DATA


@pytest.mark.parametrize("what", ["500", "cut", "deaf"])
def test_a_fault_that_stays_is_one_line_and_leaves_nothing(
    bucket: Any, sent: Path, tmp_path: Path, what: str
) -> None:
    bucket.fail(what, 99, "PUT")
    with pytest.raises(StorageError, match=rf"s3://{bucket.name}/one.tar: .*tried 6 times") as put:
        bucket.store.put(sent, "one.tar")
    assert "\n" not in str(put.value)
    assert bucket.keys() == {}  # not half of it either
    bucket.door.rule = None
    bucket.store.put(sent, "one.tar")
    bucket.fail(what, 99, "GET")
    with pytest.raises(StorageError, match=rf"s3://{bucket.name}/one.tar: .*tried 6 times"):
        bucket.store.get("one.tar", tmp_path / "back")
    assert list(tmp_path.iterdir()) == [sent]


def test_a_bucket_without_write_permission_is_one_line(bucket: Any, sent: Path) -> None:
    bucket.fail("403", 99, "PUT")
    with pytest.raises(StorageError, match="one.tar: AccessDenied.*do not allow it") as caught:
        bucket.store.put(sent, "one.tar")
    assert "hidden-secret" not in str(caught.value)
    assert len(bucket.door.seen) == 1  # asking again would not help


GONE: dict[str, Any] = {
    "get": lambda store, file: store.get("one.tar", file.with_name("back")),
    "read": lambda store, file: store.read("one.tar"),
    "put": lambda store, file: store.put(file, "two.tar"),
    "entries": lambda store, file: store.entries(),
    "size": lambda store, file: store.size("one.tar"),
    "version": lambda store, file: store.version("one.tar"),
    "remove": lambda store, file: store.remove("one.tar"),
}


@pytest.mark.parametrize("asked", GONE)
def test_a_bucket_that_is_gone_is_told_from_an_object(bucket: Any, sent: Path, asked: str) -> None:
    bucket.store.put(sent, "one.tar")
    bucket.vanish()
    with pytest.raises(StorageError) as caught:
        GONE[asked](bucket.store, sent)
    text = str(caught.value)
    assert f"there is no bucket {bucket.name}" in text and text.startswith(str(bucket.store))
    assert "\n" not in text and "run again" in text
    assert not sent.with_name("back").exists()


def test_an_upload_that_arrives_otherwise_is_sent_again(
    bucket: Any, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    put, calls = s3fs.S3FileSystem._put_file, []

    async def damaged(self: Any, local: str, path: str, **more: Any) -> None:
        calls.append(path)
        if len(calls) < 3:
            other = Path(local).with_suffix(".other")
            other.write_bytes(DATA[:-1] + b"?")
            local = str(other)
        await put(self, local, path, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", damaged)
    bucket.reconnect()
    bucket.store.put(sent, "one.tar")
    assert len(calls) == 3 and bucket.read("one.tar") == DATA


def test_a_hash_that_the_store_does_not_state_is_made_from_the_content(
    bucket: Any, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    info = s3fs.S3FileSystem._info

    async def unstated(*given: Any, **more: Any) -> dict[str, Any]:
        return await info(*given, **more) | {"ETag": '"0-2"'}

    monkeypatch.setattr(s3fs.S3FileSystem, "_info", unstated)
    bucket.reconnect()
    bucket.store.put(sent, "one.tar")
    assert bucket.door.seen[-1][0] == "GET"
    bucket.write("two.tar", DATA[:-1] + b"?")
    assert not storage._same(storage._driver("s3://x"), f"{bucket.name}/two.tar", sent)


def test_of_two_who_write_first_one_is_told(bucket: Any, sent: Path, tmp_path: Path) -> None:
    bucket.store.put(sent, "plan", new=True)
    bucket.store.put(sent, "plan", new=True)  # the same content: its own answer may be lost
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(FileExistsError):
        bucket.store.put(other, "plan", new=True)
    assert bucket.read("plan") == DATA
