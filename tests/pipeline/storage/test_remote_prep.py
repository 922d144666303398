"""`avb prep` between stores: the bytes of a local run; nothing half, nothing lost."""

import dataclasses
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import refused
from prepared import dataset, rows, untimed

from avb.pipeline.build.prep import Part, Summary, prep
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora.stored import listed_tree
from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.settings import settings_for
from avb.pipeline.storage.mirror import mirrored
from avb.pipeline.storage.store import place

#: The rest of the faults; what they do to one object is in `test_storage`.
SLOW = {what: pytest.param(what, marks=pytest.mark.slow) for what in ("500", "503", "deaf", "slow")}


@pytest.fixture(scope="module")
def raw(drawn_lrw: Any) -> Path:
    return drawn_lrw.root


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    run(raw, out)
    return out


def run(root: Any, out: Any, corpus: str = "lrw", given: Any = None, **more: Any) -> Summary:
    entry = load_corpora()[corpus]
    settings = settings_for(corpus, entry, **({"shard_clips": 5} | (given or {})))
    return prep(entry, settings, place(root), place(out), **more)


def manifest(data: bytes) -> list[dict[str, Any]]:
    return untimed(pq.read_table(io.BytesIO(data)).to_pylist())


def assert_same(bucket: Any, done: Path) -> None:
    """Shards, manifest and dataset.json in the bucket are those of the folder, and no more."""
    wanted = {f"lrw/{path.name}" for path in (done / "lrw").glob("*.*") if path.is_file()}
    found = bucket.keys()
    assert {key for key in found if "/.avb/" not in key} == wanted
    assert not [key for key in found if "tmp" in key or "lock" in key]
    for name in wanted:
        if name.endswith(".tar"):
            there, here = bucket.read(name), (done / name).read_bytes()
            assert hashlib.sha256(there).digest() == hashlib.sha256(here).digest(), name
    record = json.loads(bucket.read("lrw/dataset.json"))
    assert record.pop("timings") and record == dataset(done)
    assert manifest(bucket.read("lrw/manifest.parquet")) == untimed(rows(done))


def test_the_bytes_are_of_a_local_run_and_no_secret(raw: Path, done: Path, bucket: Any) -> None:
    summary = run(raw, bucket.store)
    assert_same(bucket, done)
    assert summary.out == f"s3://{bucket.name}/lrw"
    again = run(raw, bucket.store)
    assert again.made == 0
    untold = {"made": 0, "seconds": 0, "clips_per_s": 0}
    assert dataclasses.replace(again, **untold) == dataclasses.replace(summary, **untold)
    for key in bucket.keys():
        data = bucket.read(key)
        assert b"hidden-secret" not in data and b"testing" not in data
    assert b"s3://" not in bucket.read("lrw/dataset.json")


def test_what_is_missing_is_made_and_no_more(raw: Path, done: Path, bucket: Any) -> None:
    run(raw, bucket.store)
    tar = sorted(key for key in bucket.keys() if key.endswith(".tar"))[0]
    bucket.write("lrw/left-000000.tar", bucket.read(tar))  # of another plan
    bucket.client.delete_object(Bucket=bucket.name, Key=tar)
    own = {f"lrw/{name}": name.encode() for name in ("backup-261127.tar", "films.zip")}
    for key, data in own.items():
        bucket.write(key, data)
    bucket.door.seen.clear()
    run(raw, bucket.store)
    assert not [path for method, path in bucket.door.seen if path.endswith("films.zip")]
    for key, data in own.items():  # somebody's own, called like a shard or not
        assert bucket.read(key) == data
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    assert_same(bucket, done)
    sent = [path for method, path in bucket.door.seen if method == "PUT" and ".tar" in path]
    assert sent == [f"/{bucket.name}/{tar}"]


def test_retrying_and_overwriting_take_what_passed_from_the_store(
    raw: Path, done: Path, bucket: Any, tmp_path: Path
) -> None:
    run(raw, bucket.store)
    run(raw, bucket.store, retry_failed=True)
    assert_same(bucket, done)
    with pytest.raises(UsageError, match=rf"s3://{bucket.name}/lrw was made with other.*crf"):
        run(raw, bucket.store, given={"crf": 30})
    run(raw, bucket.store, given={"crf": 30, "shard_clips": 4}, overwrite=True)
    run(raw, tmp_path, given={"crf": 30, "shard_clips": 4})
    assert_same(bucket, tmp_path)


def test_a_shorter_listing_deletes_nothing_there(raw: Path, bucket: Any, tmp_path: Path) -> None:
    root = Path(shutil.copytree(raw, tmp_path / "raw"))
    run(root, bucket.store)
    before = {key: bucket.read(key) for key in bucket.keys()}
    for word in ("ABOUT", "BECAUSE", "PEOPLE", "PRICE"):
        shutil.rmtree(root / "lipread_mp4" / word)
    for more in ({}, {"part": Part(2, 2)}):
        with pytest.raises(UsageError, match=r"no longer lists \d+ finished clips of train"):
            run(root, bucket.store, **more)
        assert {key: bucket.read(key) for key in bucket.keys()} == before
    listed = run(root, bucket.store, prune=True).listed
    assert len(manifest(bucket.read("lrw/manifest.parquet"))) == listed
    names = {shard["name"] for shard in json.loads(bucket.read("lrw/dataset.json"))["shards"]}
    assert {f"lrw/{name}.tar" for name in names} == {k for k in bucket.keys() if ".tar" in k}
    assert len(names) < sum(".tar" in key for key in before)


def test_parts_and_a_last_run_are_one_run(raw: Path, done: Path, bucket: Any) -> None:
    for number in (1, 2):
        run(raw, bucket.store, part=Part(number, 2))
        assert "lrw/dataset.json" not in bucket.keys()
    assert run(raw, bucket.store).made == 0
    assert_same(bucket, done)


def test_of_two_that_start_at_once_the_later_one_keeps_to_the_plan(
    raw: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run writes its plan when this one has looked and found none."""
    from avb.pipeline.storage import mirror

    push, calls = mirror.Mirror.push_plan, []

    def late(self: Any, plan: Path) -> None:
        calls.append(self)
        if len(calls) == 1:
            run(raw, bucket.store, part=Part(1, 2))
        push(self, plan)

    monkeypatch.setattr(mirror.Mirror, "push_plan", late)
    with pytest.raises(UsageError, match="made with other settings.*crf"):
        run(raw, bucket.store, given={"crf": 30})
    calls.clear()
    run(raw, bucket.store)


@pytest.mark.parametrize("what", ["cut", *SLOW.values()])
def test_faults_that_pass_change_nothing(raw: Path, done: Path, bucket: Any, what: str) -> None:
    left = iter([what, what, None, None, None, None, what, None, None] * 3)
    bucket.door.rule = lambda method, path: next(left, None) if method != "EXPECT" else None
    run(raw, bucket.store)
    assert_same(bucket, done)


@pytest.mark.parametrize("what", ["cut", "404", SLOW["500"]])
def test_a_failing_store_is_one_line(raw: Path, done: Path, bucket: Any, what: str) -> None:
    """Nothing half is seen there, what is finished stays, and the next run completes it."""
    puts = iter(range(10**6))
    bucket.door.rule = lambda method, path: (
        what if method == "PUT" and ".tar" in path and next(puts) > 0 else None
    )
    with pytest.raises(StorageError, match=rf"s3://{bucket.name}/lrw/.*tar: ") as caught:
        run(raw, bucket.store)
    assert "\n" not in str(caught.value)
    bucket.door.rule = None
    found = {key: size for key, size in bucket.keys().items() if key.endswith(".tar")}
    assert found == {key: (done / key).stat().st_size for key in found} and len(found) == 1
    assert "lrw/dataset.json" not in bucket.keys()
    run(raw, bucket.store)
    assert_same(bucket, done)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["lrw", "grid", "lrw1000"])
def test_corpora_lie_in_a_store(
    corpus: str, bucket: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(f"drawn_{corpus}").root
    there = run(bucket.upload(root, f"raw/{root.name}"), tmp_path / "there", corpus)
    here = run(root, tmp_path / "here", corpus)
    assert there.status == here.status and there.flags == here.flags
    sides = tmp_path / "there", tmp_path / "here"
    assert dataset(sides[0], corpus) == dataset(sides[1], corpus)
    assert untimed(rows(sides[0], corpus)) == untimed(rows(sides[1], corpus))


def test_names_of_objects_that_no_file_below_the_folder_has_are_passed_over(
    bucket: Any, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    for name in (mine, "s1/", "s1", "s1/video/bbaf2n.tar"):
        bucket.write(f"raw/{name}", b"")
    store = bucket.store / "raw"
    with listed_tree(store) as tree, mirrored(store) as mirror:
        for folder in (tree, mirror.folder):
            names = [str(path.relative_to(folder)) for path in folder.rglob("*.*")]
            assert names == ["s1/video/bbaf2n.tar"]
    assert mine.read_bytes() == b"precious"


def test_a_film_of_a_table_in_a_store_that_is_replaced_is_taken_again(
    drawn_grid: Any, bucket: Any, tmp_path: Path
) -> None:
    film = (drawn_grid.root / "s1/video/bbaf2n.mpg").read_bytes()
    bucket.write("own/table.csv", b"video\na/one.mpg\na/two.mpg\n")
    for name in ("one", "two"):
        bucket.write(f"own/a/{name}.mpg", film)
    given = {"box": "whole", "crop": "lips"}
    made = []
    for change in (None, film + bytes(512), None):
        if change:
            bucket.write("own/a/one.mpg", change)
        found = run(bucket.store / "own/table.csv", tmp_path, "table", given)
        made.append((found.status, found.made, sum("taken again" in n for n in found.notices)))
    assert made == [({"ok": 2}, 2, 0), ({"ok": 2}, 2, 1), ({"ok": 2}, 0, 0)]


@pytest.mark.parametrize("role", ["root", "out"])
def test_a_vanishing_bucket_is_one_line(raw: Path, bucket: Any, tmp_path: Path, role: str) -> None:
    """Of the corpus it would else be clips without a file, and a row each."""
    places: dict[str, Any] = {"root": raw, "out": tmp_path}
    places[role] = bucket.upload(raw, "raw/lrw") if role == "root" else bucket.store
    method, match = ("GET", ".mp4") if role == "root" else ("PUT", ".tar")
    seen = []

    def rule(command: str, path: str) -> None:
        if command == method and match in path:
            seen.append(path)
            if len(seen) == 2:
                bucket.vanish()

    bucket.door.rule = rule
    with pytest.raises(StorageError, match=rf"^{places[role]}.*there is no bucket {bucket.name}"):
        run(places["root"], places["out"])
    assert len(seen) >= 2 and not (tmp_path / "lrw" / "dataset.json").exists()


def test_bad_addresses_are_one_line_each(
    raw: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("prep", "lrw", "--root", raw, "--shard-clips", 5, "--out")
    bucket.fail("403", 10**6, "PUT")
    assert "do not allow it" in refused(*words, bucket.store, code=1)
    bucket.door.rule = None
    gone = f"{bucket.store}-not"
    for command in ((*words, gone), ("stats", gone), ("verify", gone), ("preview", gone)):
        assert f"no bucket {bucket.name}-not" in refused(*command, code=1)
    there = ("--root", bucket.store / "no", "--out", tmp_path / "out")
    assert "no LRW found" in refused("prep", "lrw", *there)
    assert "hidden" not in refused(*words, "s3://me:hidden@bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    bucket.reconnect()
    for command in (words, ("stats",), ("verify",)):
        text = refused(*command, bucket.store, code=1)
        assert f"s3://{bucket.name}" in text and "127.0.0.1:9" in text


def test_wrong_credentials_are_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.client

    def enforce(after: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", bucket.door.port)
        connection.request("POST", "/moto-api/reset-auth", after)
        assert connection.getresponse().status == 200

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    bucket.reconnect()
    enforce("0")
    try:
        text = refused("stats", bucket.store, code=1)
    finally:
        enforce("inf")
    assert "wrong credentials" in text and "wrong-secret" not in text and str(bucket.store) in text
