"""Splits: by talker, by the hash rule, from a file; what is missing is named."""

import re
import types
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from commands import fault

from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.pipeline.stream.index import Index
from avb.train.split import read_split_file, split_rows

GRID, TABLE = (load_corpora()[name] for name in ("grid", "table"))


def keys(index: Index, rows: object) -> set[str]:
    return {index.key(int(i)) for i in rows}  # type: ignore[attr-defined]


def test_speaker_independent_is_the_public_list_and_says_so(grid: Index) -> None:
    parts = split_rows(grid, GRID, "speaker-independent")
    assert parts.name == "vcagan-16-7-10"
    talkers = {p: {k.split("/")[0] for k in keys(grid, r)} for p, r in parts.rows.items()}
    assert talkers == {"train": {"s1", "s3"}, "val": {"s9"}, "test": {"s2"}}


def test_missing_talkers_and_empty_parts_are_named(grid: Index) -> None:
    line = fault(split_rows, grid, GRID, "speaker-independent", speakers=["s1", "s2"])
    assert re.search("nothing for val.*talkers without a clip: s4, s5, s6", line)
    line = fault(split_rows, grid, GRID, "grid-hash", speakers=["s77"])
    assert re.search(r"nothing for train and val \(talkers .*: s77\)", line)
    line = fault(split_rows, grid, GRID, "independant")
    assert re.search("no split 'independant'; known: .*speaker-independent", line)


def test_talkers_that_were_asked_for_and_are_not_there_are_told(grid: Index) -> None:
    public = split_rows(grid, GRID, "speaker-independent")
    there = {"s1", "s2", "s3", "s9"}
    assert set(public.absent) == {f"s{n}" for n in range(1, 35) if n != 21} - there
    assert public.absent[:2] == ("s4", "s5")  # by number
    few = split_rows(grid, GRID, "speaker-independent", speakers=["s1", "s9", "s77"])
    assert few.absent == ("s77",) and not len(few.rows["test"])
    assert few.speakers == ["s1", "s9", "s77"] and few.listed is None
    assert {k.split("/")[0] for k in keys(grid, few.rows["train"])} == {"s1"}


def test_a_split_file_in_any_public_form(grid: Index, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("val/s20/prwo5p\ntrain s1/video/bwim6p.mp4\n\ntest,s2/mpg_6000/x.mpg\n")
    assert read_split_file(file) == {
        "s20/prwo5p": "val", "s1/bwim6p": "train", "s2/x": "test",
    }  # fmt: skip
    file.write_text("s1/bwim6p\n")
    assert re.search("mine.txt:1: .* names no part and talker", fault(read_split_file, file))
    file.write_text("train/A_1\nA/train/A_2.mp4\nval/train/A_3\ntest lipread_mp4/A/train/A_4.mp4\n")
    keys_of_lrw = {"train/A_1": "train", "train/A_2": "train", "train/A_3": "val"}
    assert read_split_file(file, "lrw") == keys_of_lrw | {"train/A_4": "test"}
    file.write_text("A/A_1\n")
    line = fault(read_split_file, file, "lrw")
    assert line.endswith("names no part; expected a line such as val/train/ABOUT_00001")
    some = sorted(grid.key(i) for i in range(len(grid)))
    file.write_text(f"train/{some[0]}\nval/{some[1]}\n")
    parts = split_rows(grid, GRID, "", file=file)
    assert keys(grid, parts.rows["train"]) == {some[0]} and parts.name == "mine.txt"
    assert parts.listed == {some[0]: "train", some[1]: "val"} and parts.speakers is None
    again = split_rows(grid, GRID, parts.name, listed=parts.listed)
    assert again.name == "mine.txt" and again.source == parts.source
    assert all((again.rows[part] == rows).all() for part, rows in parts.rows.items())
    file.write_text("\n")
    line = fault(split_rows, grid, GRID, "", file=file)
    assert "mine.txt leaves nothing for train and val" in line


def table_of(*keys: str) -> Index:
    """Clips of a corpus of one's own; their talkers are their groups."""
    rows = [types.SimpleNamespace(key=key, speaker=key.split("/")[0], split=None) for key in keys]
    names = sorted({row.speaker for row in rows})
    fake: Any = mock.MagicMock(
        dataset={"corpus": "mine"}, folder=Path("mine"), row=rows.__getitem__,
        key=lambda i: rows[i].key, speaker=types.SimpleNamespace(names=names),
    )  # fmt: skip
    fake.__len__.return_value = len(rows)
    return fake


def test_talkers_of_a_table_are_chosen_by_their_exact_names() -> None:
    mine = table_of("1/a", "02/a", "s01/a", "s1/a")
    for name in ("1", "02", "s01", "s1"):
        parts = split_rows(mine, TABLE, "hash", [name], need=())
        assert parts.speakers == [name] and parts.absent == ()
        assert settings_for("mine", TABLE, speakers=f"{name}, x").speakers == [name, "x"]
    assert settings_for("grid", GRID, speakers="1,s02,s10").speakers == ["s1", "s2", "s10"]


def test_talkers_of_grid_may_be_numbers_in_training_as_in_prep(grid: Index) -> None:
    parts = split_rows(grid, GRID, "grid-hash", speakers=["1", " s09"], need=())
    assert parts.speakers == ["s1", "s9"] and parts.absent == ()


def test_a_split_file_lists_any_talker_and_what_is_not_stored_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("train/ann/a\nval s01/a.mp4\ntest/train/c\nval/ann/gone\n")
    mine = table_of("ann/a", "s01/a", "train/c")
    with caplog.at_level("INFO"):
        parts = split_rows(mine, TABLE, "", file=file)
    assert {part: rows.tolist() for part, rows in parts.rows.items()} == {
        "train": [0], "val": [1], "test": [2],
    }  # fmt: skip
    assert caplog.messages == [f"{file}: 1 of 4 listed clips are not in mine"]


def test_a_split_file_that_contradicts_itself_or_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    for data, says in (
        (b"train/ann/a\nval/ann/a\n", "mine.txt:2: ann/a is in val, and in train above"),
        (b"train/anna\n", "mine.txt:1: 'train/anna' names no part and talker"),
        (b"train/\xff/a\n", "mine.txt: byte 6 is no UTF-8"),
    ):
        file.write_bytes(data)
        assert says in fault(read_split_file, file, "mine")
    file.write_text("train/ann/a\ntrain/ann/a\n")
    assert read_split_file(file, "mine") == {"ann/a": "train"}
