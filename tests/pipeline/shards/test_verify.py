"""`avb verify` finds any flipped byte, and names each fault, however many processes look.

A sample of P % is the same clips each time, some of every shard and of every place in it.
"""

import errno
import hashlib
import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import avb, did, fault

from avb.pipeline.clip.codec import encode_video
from avb.pipeline.clip.flac import encode_flac
from avb.pipeline.config import stable_hash
from avb.pipeline.errors import UsageError
from avb.pipeline.shards import verify as module
from avb.pipeline.shards.stats import stats
from avb.pipeline.shards.verify import parse_share, verify
from avb.tools.preview import preview


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    folder = prepared.shards("lrw", 6, root, keep_audio=True, shard_clips=4).folder
    verdict = verify(folder)
    assert not verdict.faults and verdict.samples == 6 and verdict.shards >= 2
    return Path(folder)


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "lrw"))


def test_a_manifest_without_rows_is_counted_and_named(copy: Path) -> None:
    manifest = copy / "manifest.parquet"
    pq.write_table(pq.read_table(manifest)[:0], manifest)
    assert stats(copy)["ok"] == stats(copy)["listed"] == 0
    assert "manifest.parquet: 0 rows, dataset.json lists 6" in verify(copy).faults


@pytest.mark.parametrize("name", ["group", "n_frames"])
def test_a_clip_of_no_group_or_length_is_one_line_of_stats(copy: Path, name: str) -> None:
    values = pq.read_table(copy / "manifest.parquet")[name].to_pylist()
    prepared.set_column(copy, name, [None, *values[1:]])
    assert "manifest.parquet: a clip without group or n_frames" in fault(stats, copy)


def test_one_flipped_byte_anywhere_is_found(copy: Path) -> None:
    rng = random.Random(0)
    for tar in sorted(copy.glob("*.tar")):
        whole = tar.read_bytes()
        for place in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(6))]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            tar.write_bytes(damaged)
            assert any(tar.name in fault for fault in verify(copy).faults), place
        tar.write_bytes(whole)
    assert not verify(copy).faults


def test_a_cut_or_missing_shard_is_found_and_a_damaged_manifest_is_one_fault(copy: Path) -> None:
    first, *_, last = sorted(copy.glob("*.tar"))
    last.unlink()
    first.write_bytes(first.read_bytes()[:-512])
    faults = "\n".join(verify(copy).faults)
    assert f"{last.name}: missing" in faults
    assert f"{first.name}: " in faults and "expected" in faults
    (copy / "manifest.parquet").write_bytes(b"PAR1 nonsense")
    [fault] = verify(copy).faults
    assert "manifest.parquet" in fault
    (copy / "dataset.json").unlink()
    [fault] = verify(copy).faults
    assert "run `avb prep` again" in fault


def test_a_shard_that_the_disk_does_not_give_is_a_fault_and_the_others_are_looked_at(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *others = sorted(path.name for path in copy.glob("*.tar"))
    look = module._sample_faults

    def faulty(path: Path, *more: Any) -> Any:
        if path.name == bad:
            raise OSError(errno.EIO, "Input/output error")
        return look(path, *more)

    monkeypatch.setattr(module, "_sample_faults", faulty)
    verdict = verify(copy)
    [fault] = verdict.faults
    assert fault.startswith(f"{bad}: cannot be read (Input/output error), and ")
    assert verdict.samples > 0 < len(others)


def test_a_foreign_shard_and_wrong_counts_labels_or_names_are_found(copy: Path) -> None:
    (copy / "extra-000000.tar").write_bytes(b"")
    record = json.loads((copy / "dataset.json").read_text())
    record["counts"]["listed"] += 1
    record["labels"].append("ZEBRA")
    (copy / "dataset.json").write_text(json.dumps(record))
    faults = "\n".join(verify(copy).faults)
    for found in ("extra-000000.tar: not in dataset.json", "rows, dataset.json lists", "label map"):
        assert found in faults
    record["labels"][-1:] = []
    record["labels"].insert(0, "AARDVARK")
    record["labels_sha256"] = hashlib.sha256("\n".join(record["labels"]).encode()).hexdigest()
    (copy / "dataset.json").write_text(json.dumps(record))
    faults = "\n".join(verify(copy).faults)
    assert "json says label_id 0, the list of labels 1" in faults and "label map" not in faults
    rewrite(copy, shard=lambda name: name.replace("train", "trani"))
    faults = "\n".join(verify(copy).faults)
    assert "trani-000000.tar: in the manifest, not in dataset.json" in faults


def rewrite(folder: Path, **changed: Any) -> None:
    """The manifest again, with other columns, or with other rows under the name `rows`."""
    table = pq.read_table(folder / "manifest.parquet")
    rows = changed.pop("rows", lambda rows: rows)(table.to_pylist())
    for name, change in changed.items():
        rows = [row | {name: change(row[name])} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "manifest.parquet")


def test_a_key_that_stands_twice_is_named(copy: Path) -> None:
    rewrite(copy, rows=lambda rows: [*rows, rows[1], rows[3], rows[1]])
    twice = [fault for fault in verify(copy).faults if "stands more than once" in fault]
    keys = pq.read_table(copy / "manifest.parquet")["key"].to_pylist()
    assert twice == [f"{keys[i]}: stands more than once in the manifest" for i in (1, 3)]


def test_rows_of_a_shard_that_are_not_together_are_all_looked_at(copy: Path) -> None:
    rewrite(copy, rows=lambda rows: rows[::2] + rows[1::2])
    verdict = verify(copy)
    assert not verdict.faults and verdict.samples == verdict.stored == 6


def test_a_shard_without_rows_is_looked_at_as_well(copy: Path) -> None:
    rewrite(copy, rows=lambda rows: [row for row in rows if row["shard"] != "train-000000"])
    assert not any("train-000000" in fault for fault in verify(copy).faults)
    with (copy / "train-000000.tar").open("r+b") as tar:
        tar.write(b"x")
    assert any("train-000000.tar: sha256" in fault for fault in verify(copy).faults)


def test_many_faults_are_some_lines_and_a_count(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 1)
    rewrite(copy, n_mel=lambda columns: columns + 1)
    faults = verify(copy).faults
    shards = {row["shard"] for row in pq.read_table(copy / "manifest.parquet").to_pylist()}
    assert len([fault for fault in faults if "mel is float16" in fault]) == len(shards)
    assert any(fault.endswith("more faults of samples") for fault in faults)


# Several processes


def damage(folder: Path) -> None:
    """Something wrong with every shard, and a shard gone."""
    first, *others = sorted(folder.glob("*.tar"))
    first.unlink()
    for tar in others:
        data = bytearray(tar.read_bytes())
        data[len(data) // 3 : len(data) // 3 + 64] = bytes(64)
        tar.write_bytes(data)


def test_the_verdict_does_not_depend_on_the_processes(copy: Path) -> None:
    assert verify(copy, jobs=3) == verify(copy)
    damage(copy)
    one, progress = verify(copy), []
    assert one.faults and verify(copy, progress.append, jobs=2) == one
    assert sum(progress) == one.samples


def die(check: object) -> tuple[int, list[str]]:
    os._exit(9)


def test_a_dead_process_is_a_fault_with_its_shards(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_check_shard", die)
    verdict = verify(good, jobs=2)
    [fault] = verdict.faults
    assert "a process died" in fault and "train-000000.tar" in fault and "\n" not in fault


# A sample


def test_a_share_is_a_percentage() -> None:
    assert [parse_share(text) for text in (None, "100%", "5%", "0.1%")] == [1, 1, 0.05, 0.001]
    for text in ("5", "0%", "-1%", "101%", "nan%", "%", "", "5 %x", "five%"):
        with pytest.raises(UsageError, match=f"--sample {text}: a percentage above 0"):
            parse_share(text)


def test_a_sample_is_repeatable_nested_and_from_every_place_of_a_shard() -> None:
    keys = sorted((f"s1/clip{n}" for n in range(2000)), key=stable_hash)  # as they lie in a shard
    rows = [{"key": key} for key in keys]
    places = {}
    for share in (0.0001, 0.01, 0.05, 0.5, 1.0):
        chosen = module._sample(rows, share)
        assert chosen == module._sample(rows, share)
        assert len(chosen) == math.ceil(share * len(rows))
        places[share] = [keys.index(row["key"]) for row in chosen]
        assert places[share] == sorted(places[share])
    sizes = sorted(places)
    assert all(set(places[a]) <= set(places[b]) for a, b in zip(sizes, sizes[1:], strict=False))
    quarters = [sum(q * 500 <= place < q * 500 + 500 for place in places[0.05]) for q in range(4)]
    assert min(quarters) > 10  # of 100


def test_a_sample_looks_into_every_shard_and_at_no_hash(copy: Path) -> None:
    verdict = verify(copy, share=0.1)
    assert not verdict.faults and verdict.samples == verdict.shards and verdict.stored == 6
    tars = sorted(copy.glob("*.tar"))
    for tar in tars:  # what lies behind the samples is hashed, and read by no sample
        tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert not verify(copy, share=0.1).faults and len(verify(copy).faults) == len(tars)
    for tar in tars:
        tar.write_bytes(bytes(tar.stat().st_size))
    faults = verify(copy, share=0.1).faults
    assert all(any(tar.name in fault for fault in faults) for tar in tars)
    tars[0].write_bytes(b"")
    assert f"{tars[0].name}: 0 bytes, expected" in "\n".join(verify(copy, share=0.1).faults)


def test_the_command_says_that_it_looked_at_a_sample(copy: Path) -> None:
    text = did("verify", copy, "--jobs", 1).stderr
    assert text.strip().splitlines()[-1].endswith("6 samples: nothing wrong")
    text = did("verify", copy, "--jobs", 1, "--sample", "10%").stderr
    assert " of 6 " in text and "--sample 10%" in text and "hashes" in text
    record = json.loads(did("verify", copy, "--sample", "10%", "--json").stdout)
    assert record["ok"] and record["sample"] == "10%"
    assert record["samples"] == record["shards"] < record["stored"] == 6
    damage(copy)
    assert avb("verify", copy, "--jobs", 1)[0] == 1
    for words in (("--sample", "5"), ("--jobs", 0), ("--sample", "200%")):
        assert avb("verify", copy, *words)[0] == 2


@pytest.mark.parametrize(
    ("extension", "content", "said"),
    [
        ("json", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        ("json", b'{"key": ' + b"9" * 5000 + b"}", "digits"),
        ("mel.npy", b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 9000, ".npy header is damaged"),
        ("flac", encode_flac(np.zeros(160_000, np.float32), 16_000), "more than 18560 samples"),
        ("lips.mp4", encode_video(np.zeros((40, 512, 512), np.uint8), "mp4")[1], "expected 29"),
    ],
)
def test_a_hostile_member_is_one_line_of_its_sample(
    copy: Path, extension: str, content: bytes, said: str
) -> None:
    key = pq.read_table(copy / "manifest.parquet")["key"][0].as_py()

    def forge(row: dict[str, Any], members: dict[str, bytes]) -> None:
        if row["key"] == key:
            assert extension in members
            members[extension] = content

    prepared.rewrite(copy, copy, forge)
    [fault] = verify(copy).faults
    assert f": {key}: " in fault and said in fault and len(fault) < 300
    if extension != "flac":  # the sheet has no sound
        with pytest.raises(UsageError, match="a clip cannot be read .*; avb verify finds"):
            preview(copy, copy / "sheet.png")


def test_a_sample_without_its_pictures_is_one_line_of_preview(copy: Path) -> None:
    prepared.rewrite(copy, copy, lambda _, members: members.pop("lips.mp4"))
    with pytest.raises(UsageError, match="a clip cannot be read .*; avb verify finds"):
        preview(copy, copy / "sheet.png")


@pytest.mark.parametrize("name", ["offset", "nbytes"])
def test_a_sample_without_a_place_is_one_line_of_preview(copy: Path, name: str) -> None:
    prepared.set_column(copy, name, [None] * 6)
    with pytest.raises(UsageError, match="a clip cannot be read .* does not say where"):
        preview(copy, copy / "sheet.png")


def test_crops_of_any_size_are_drawn(copy: Path) -> None:
    def enlarge(row: dict[str, Any], members: dict[str, bytes]) -> None:
        if "lips.mp4" in members:
            pictures = np.zeros((row["n_frames"], 512, 512), np.uint8)
            members["lips.mp4"] = encode_video(pictures, "mp4")[1]

    prepared.rewrite(copy, copy, enlarge)
    record = json.loads((copy / "dataset.json").read_text())
    record["crops"]["lips"] |= {"size": 504, "stored": 512}
    (copy / "dataset.json").write_text(json.dumps(record))
    assert "clips of lrw drawn" in preview(copy, copy / "sheet.png")
