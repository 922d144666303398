"""A shard is there whole or not at all, and no entry escapes; `test_other_readers` opens them."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from avb.pipeline.files import write_atomic
from avb.pipeline.shards.tar import ShardWriter, read_members, sample_members

SAMPLES = {
    "train/ABOUT_00001": {"lips.mp4": b"v" * 700, "mel.npy": b"m" * 512, "json": b"{}"},
    "train/ABOUT_00002": {"lips.mp4": b"", "mel.npy": b"n" * 3, "json": b'{"a": 1}'},
    "train/" + "LONG_" * 30: {"json": b"[]"},
}


def write(path: Path) -> dict[str, tuple[int, int]]:
    with ShardWriter(path) as writer:
        places = {key: writer.write(key, members) for key, members in SAMPLES.items()}
    assert writer.samples == 3 and writer.nbytes == path.stat().st_size
    assert writer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return places


def test_blocks_hold_their_samples(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    places = write(path)
    data = path.read_bytes()
    for key, (offset, nbytes) in places.items():
        block = data[offset : offset + nbytes]
        assert {n: bytes(m) for n, m in sample_members(block, key).items()} == SAMPLES[key]
        with pytest.raises(ValueError, match=f"its place holds {key}"):
            sample_members(block, key[:-1])
    everything = read_members(memoryview(data))
    assert len(everything) == sum(map(len, SAMPLES.values()))


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0, 0o644)}
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]


def test_an_error_or_no_sample_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    with pytest.raises(RuntimeError), ShardWriter(path) as writer:
        writer.write("train/a", {"json": b"{}"})
        raise RuntimeError
    assert not os.listdir(tmp_path)
    write(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), ShardWriter(path) as writer:
        writer.write("train/a", {"json": b"{}"})
        raise RuntimeError
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    with ShardWriter(path) as writer:
        pass
    assert not os.listdir(tmp_path)
    assert (writer.samples, writer.nbytes, writer.sha256) == (0, 0, "")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_before_the_rename_leaves_no_final_file(tmp_path: Path, call: str) -> None:
    # The process kills itself at the call named: all is written, nothing is published.
    script = f"""
import os, signal, sys
from avb.pipeline.files import write_atomic
from avb.pipeline.shards.tar import ShardWriter
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
os.{call} = die
if sys.argv[1] == "tar":
    with ShardWriter(sys.argv[2]) as writer:
        writer.write("s1/a", {{"json": b"{{}}"}})
else:
    write_atomic(sys.argv[2], b"new")
"""
    for kind in ("file", "tar"):
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(b"old")
        done = subprocess.run([sys.executable, "-c", script, kind, str(path)], cwd=Path.cwd())
        assert done.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"
        assert list(tmp_path.glob("*.tmp"))


def test_writing_replaces_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, b"one")
    write_atomic(path, memoryview(b"two"))
    assert path.read_bytes() == b"two"
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"three")
    assert path.read_bytes() == b"two" and os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("key", ["", "a.b", "train/a.b", "/train/a", "train/", "../a"])
def test_keys_that_a_reader_would_misread_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"), ShardWriter(tmp_path / "x.tar") as writer:
        writer.write(key, {"json": b"{}"})
    assert not os.listdir(tmp_path)


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"x", **more: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    for field, value in more.items():
        setattr(info, field, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "block",
    [
        entry("/etc/passwd"),
        entry("a/../../b.json"),
        entry("a/" + "x" * 120 + "/../../../b.json"),
        entry("a.json", tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("a.json", tarfile.LNKTYPE, linkname="b.json"),
        entry("a.json", tarfile.CHRTYPE),
        entry("a.json", tarfile.FIFOTYPE),
        entry("a", tarfile.DIRTYPE),
    ],
    ids=["absolute", "dots", "long-dots", "symlink", "hardlink", "device", "fifo", "folder"],
)
def test_entries_that_could_escape_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="refused"):
        read_members(block)


def test_cut_or_damaged_blocks_are_errors() -> None:
    block = entry("a.json", data=b"x" * 600)[:1536]
    assert bytes(read_members(block)["a.json"]) == b"x" * 600
    for broken in (block[:100], block[:512], block[:1100], b"\1" * 512, b"y" + block[1:]):
        with pytest.raises(ValueError, match="cut|damaged"):
            read_members(broken)
    with pytest.raises(ValueError, match="twice"):
        read_members(block + block)
