"""Checkpoints: whole or not at all; nothing in one is ever run."""

import io
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from commands import fault

from avb.pipeline.errors import UsageError
from avb.train import checkpoint

STATE = {"recipe": {"task": "lip"}, "model": {"w": torch.ones(3)}}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("/tmp/avb-was-here",))


def test_a_failed_write_keeps_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, STATE | {"model": {"w": torch.zeros(3)}})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["last.pt"]


def archive(pickled: bytes) -> bytes:
    """A file of torch with this inside."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in {"data.pkl": pickled, "version": b"3", "byteorder": b"little"}.items():
            out.writestr(f"archive/{name}", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no checkpoint .not a file of torch"),
        (archive(b"\x80\x02K\x01Q."), "damaged or no checkpoint"),  # a storage called 1
        (b"text of no use", "damaged or no checkpoint .not a file of torch"),
        (b"not a checkpoint at all", "refused|damaged"),
        (pickle.dumps(Evil()), "refused|damaged"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(UsageError, match=message):
        warnings.simplefilter("error")
        checkpoint.load(path)
    assert not Path("/tmp/avb-was-here").exists()


def test_pickled_code_in_a_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "recipe": {"task": "lip"}, "evil": Evil()}, tmp_path / "x.pt")
    assert "holds more than weights" in fault(checkpoint.load, tmp_path / "x.pt")


@pytest.mark.parametrize("part", [{"step": torch.ones(1)}, {"data": {"revision": "\ud800"}}])
def test_what_cannot_be_written_again_is_refused(tmp_path: Path, part: dict[str, object]) -> None:
    checkpoint.save(tmp_path / "x.pt", STATE | part)
    assert "where plain values belong" in fault(checkpoint.load, tmp_path / "x.pt")


def nested(depth: int, branches: int) -> list[object]:
    tree: list[object] = []
    for _ in range(depth):
        tree = [tree] * branches
    return tree


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"model": {"w": torch.zeros(1).expand(1 << 28)}}, "1 KB for tensors of 1024 MB"),
        ({"ema": {"w": torch.zeros(1).expand(1 << 20, 1 << 20)}}, "KB for tensors of 4194304 MB"),
        ({"optimizer": {"s": [{"m": torch.zeros(2).expand(1 << 27, 2)}]}}, "KB for tensors of"),
        ({"data": nested(300, 1)}, "nested too deeply"),
        ({"data": nested(40, 2)}, "too many lists in lists"),
    ],
)
def test_a_small_file_is_not_unpacked_into_gigabytes(
    tmp_path: Path, part: dict[str, object], said: str
) -> None:
    checkpoint.save(tmp_path / "x.pt", STATE | part)
    line = fault(checkpoint.load, tmp_path / "x.pt")
    assert "x.pt: damaged or no checkpoint " in line and said in line


def test_a_pickle_that_is_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x.pt", STATE)
    with zipfile.ZipFile(tmp_path / "x.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    whole = members[name]
    for size in range(len(whole)):
        with zipfile.ZipFile(tmp_path / "cut.pt", "w") as target:
            for other, data in members.items():
                target.writestr(other, whole[:size] if other == name else data)
        assert "cut.pt: " in fault(checkpoint.load, tmp_path / "cut.pt")


def test_a_packed_archive_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "ROOM", 1 << 20)
    plain, packed = tmp_path / "x.pt", tmp_path / "packed.pt"
    checkpoint.save(plain, STATE | {"model": {"w": torch.zeros(1 << 20)}})
    with zipfile.ZipFile(plain) as source:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
    assert packed.stat().st_size < 1 << 14
    assert "packed: unpacked it takes more" in fault(checkpoint.load, packed)
    assert checkpoint.load(plain)["model"]["w"].numel() == 1 << 20  # as large as its file


def test_a_cut_file_another_task_and_a_foreign_one_are_named(tmp_path: Path) -> None:
    path, judge, load = tmp_path / "x.pt", tmp_path / "judge.pt", checkpoint.load
    checkpoint.save(path, STATE)
    assert "a checkpoint for lip, not for l2s" in fault(load, path, "l2s")
    assert "for lip, not for judge; make one with avb train judge" in fault(load, path, "judge")
    checkpoint.save(judge, {"task": "judge", "weights": {}})
    assert load(judge, "judge")["task"] == "judge"
    assert "judge.pt: a checkpoint for judge, not for l2s" in fault(load, judge, "l2s")
    path.write_bytes(path.read_bytes()[:-50])
    assert "damaged" in fault(load, path)
    for foreign in ({"state_dict": {}}, {"front.w": torch.ones(2)}, {"format": torch.ones(2)}):
        torch.save(foreign, path)
        assert re.search("not a checkpoint of avb.*avb import-checkpoint", fault(load, path))
    checkpoint.save(path, {"recipe": None, "task": None})
    assert "not a checkpoint of avb" in fault(load, path)
    assert "no such checkpoint" in fault(load, tmp_path / "none.pt")


def test_a_run_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.best_of(tmp_path) == tmp_path / "best.pt"
    assert checkpoint.best_of(tmp_path / "last.pt") == tmp_path / "last.pt"
