"""Nothing below the root goes unmentioned: it is a clip, or a notice says how many and where."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import avb, fault, refused
from importers import importer, touch

from avb.pipeline.corpora.leftover import VIDEOS

WORDS = ("ABOUT", "BECAUSE", "YOUNG")


def listed(corpus: str, root: Path) -> tuple[list[Any], list[str]]:
    """Clips and notices, which are complete when the clips were read."""
    listing = importer(corpus, root).listing()
    return list(listing.clips), listing.notices


@pytest.mark.parametrize("parts", [("part1", "part2"), ("part1/lipread_mp4", "lipread_mp4"), ("",)])
def test_an_lrw_in_several_places_is_one(tmp_path: Path, parts: tuple[str, ...]) -> None:
    every = [
        f"{parts[i % len(parts)]}/{word}/{split}/{word}_{n:05d}.mp4".lstrip("/")
        for i, word in enumerate(WORDS)
        for split in ("train", "val", "test")
        for n in (1, 2)
    ]
    touch(tmp_path, *every)
    listing = importer("lrw", tmp_path).listing()
    clips = list(listing.clips)
    assert {c.source for c in clips} == set(every) and not any(c.status for c in clips)
    assert listing.labels == list(WORDS) and not listing.notices
    assert all(part in listing.layout for part in parts)


def test_clips_and_texts_of_lrw_are_found_in_capitals(tmp_path: Path) -> None:
    names = ["ABOUT/TRAIN/ABOUT_00001.MP4", "ABOUT/Val/ABOUT_00002.Mp4"]
    touch(tmp_path, *names, "ABOUT/TRAIN/ABOUT_00001.TXT", "ABOUT/Val/ABOUT_00002.txt")
    clips, notices = listed("lrw", tmp_path)
    assert [c.source for c in clips] == names and not notices
    assert [c.split for c in clips] == ["train", "val"]
    assert [c.text for c in clips] == [
        "ABOUT/TRAIN/ABOUT_00001.TXT", "ABOUT/Val/ABOUT_00002.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", sorted(VIDEOS))
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_every_kind_of_film_is_a_clip_of_grid(tmp_path: Path, suffix: str, case: Any) -> None:
    name = f"s1/bbaf2n{case(suffix)}"
    clips, notices = listed("grid", touch(tmp_path, name))
    assert [c.source for c in clips] == [name] and not notices


LEFT = {
    "lrw": [
        ("ABOUT/train/ABOUT_00001.avi", "1 .avi in ABOUT/train"),
        ("a/b/c/d/YOUNG/train/YOUNG_00001.MP4", "1 .mp4 in a/b/c/d/YOUNG/train"),
        ("lrw-v1-partaa", "1 piece of an archive in ."),
        ("more.tar", "1 .tar in ."),
        ("ABOUT/extra/ABOUT_00009.mp4", "1 .mp4 in ABOUT/extra"),
    ],
    "grid": [
        ("s2.mpg_6000.part1.zip", "1 .zip in ."),
        ("music/song.mp3", "1 .mp3 in music"),
        ("s3/pictures/1.png", "1 .png in s3/pictures"),
    ],
}


@pytest.mark.parametrize(
    ("corpus", "name", "told"), [(c, *left) for c, found in LEFT.items() for left in found]
)
def test_what_is_no_clip_is_told_with_its_folder(
    tmp_path: Path, corpus: str, name: str, told: str
) -> None:
    clip = {"lrw": "ABOUT/train/ABOUT_00001.mp4", "grid": "s1/bbaf2n.mpg"}[corpus]
    clips, notices = listed(corpus, touch(tmp_path, clip, name))
    assert len(clips) == 1 and [n for n in notices if n == f"not taken: {told}"]


def test_many_are_counted_and_one_place_named(tmp_path: Path) -> None:
    names = [f"{word}/train/{word}_{n:05d}.mkv" for word in WORDS for n in range(4)]
    touch(tmp_path, "ABOUT/train/ABOUT_00001.mp4", *names, "x.rar")
    _, notices = listed("lrw", tmp_path)
    assert "not taken: 12 .mkv in ABOUT/train and 2 more folders; 1 .rar in ." in notices


def test_the_sound_and_the_pictures_of_a_sentence_are_not_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "audio_25k/s1/bbaf2n.wav", "s2/bbaf2n/1.jpg", ".x/a.mp4")
    clips, notices = listed("grid", tmp_path)
    assert len(clips) == 2 and not notices


@pytest.mark.parametrize(
    ("corpus", "names", "told"),
    [
        ("grid", ["s1/holiday.mpg", "one/two/party.MOV"],
         ["six-letter names like bbaf2n.mpg", "2 other vid", "1 .mov in one/two"]),
        ("lrw", ["videos/ABOUT_00001.mp4", "one/two/holiday.MOV"],
         ["WORD/{train,val,test}/WORD_00001.mp4", "1 .mov in one/two", "--root"]),
        ("lrw1000", ["images/1.jpg"], ["trn_1000.txt", "tst_1000.txt", "info, labels, filelist"]),
    ],
)  # fmt: skip
def test_a_folder_without_the_layout_says_what_is_wanted_and_what_was_met(
    tmp_path: Path, corpus: str, names: list[str], told: list[str]
) -> None:
    line = fault(importer(corpus, touch(tmp_path, *names)).listing)
    assert not [part for part in (str(tmp_path), *told) if part not in line], line
    gone = fault(importer(corpus, tmp_path / "nowhere").listing)
    assert "nowhere: no " in gone and ("--root, or set AVB_GRID_ROOT" in gone or corpus != "grid")


@pytest.mark.parametrize("corpus", ["lrw", "grid"])
def test_a_name_that_is_no_utf_8_refuses_its_clip_and_no_other(tmp_path: Path, corpus: str) -> None:
    good = {"lrw": "ABOUT/test/ABOUT_00001.mp4", "grid": "s1/bbaf2n.mpg"}[corpus]
    touch(tmp_path / "raw", good)
    ending = os.fsencode(Path(good).suffix)
    odd = [os.fsencode(tmp_path / "raw") + b"/" + name + ending
           for name in (b"caf\xe9/test/caf\xe9_00001", b"s2/bbaf2n\xe9")]  # fmt: skip
    for path in odd[: 1 if corpus == "lrw" else 2]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
    words = ("prep", corpus, "--root", tmp_path / "raw", "--out", tmp_path, "--jobs", 1)
    assert avb(*words, "--dry-run").exit_code == 0
    for _ in range(2):  # no clip passes; each ends as its row, however often it is run
        assert avb(*words).exit_code == 1
    record = json.loads((tmp_path / corpus / "dataset.json").read_text())
    assert record["counts"]["status"] == {"bad_decode": 1, "bad_name": 1 + (corpus == "grid")}
    errors = json.loads(avb("stats", tmp_path / corpus, "--refused", "--json").stdout)
    assert any(r"caf\xe9/test/caf\xe9_00001" in error for error in errors.values())


def test_of_the_files_of_a_clip_the_one_to_rename_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "raw", "s1/bbaf2n.mpg", os.fsdecode(b"caf\xe9/bbaf2n.align"))
    plan = importer("grid", tmp_path / "raw").plan(tmp_path / "plan.arrow")
    [(_, clip)] = plan.rows(0)
    assert clip.error == r"caf\xe9/bbaf2n.align: a name that is no UTF-8; rename it"


@pytest.mark.parametrize("corpus", ["lrw", "grid", "table"])
def test_a_root_that_is_a_link_to_itself_is_one_line(tmp_path: Path, corpus: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    where = ("--name", "own") if corpus == "table" else ("--root",)
    done = avb("prep", corpus, *where, tmp_path / "loop", "--out", tmp_path / "out")
    assert done.exit_code in (1, 2) and done.stderr.count("\n") == 1
    assert str(tmp_path / "loop") in done.stderr


def test_folders_of_lrw1000_without_a_row_are_told(drawn_lrw1000: Any) -> None:
    images = drawn_lrw1000.root / importer("lrw1000", drawn_lrw1000.root).clips()[0].source
    extra = images.with_name("without-a-row")
    extra.mkdir()
    try:
        _, notices = listed("lrw1000", drawn_lrw1000.root)
    finally:
        extra.rmdir()
    assert "1 folders of pictures without a row, such as without-a-row" in notices


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("corpus", ["lrw", "grid"])
@pytest.mark.parametrize("command", ["prep", "inspect"])
def test_a_folder_that_cannot_be_listed_is_one_line_and_no_short_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, command: str, code: int
) -> None:
    root = touch(tmp_path / "raw", *{
        "lrw": [f"{word}/train/{word}_00001.mp4" for word in WORDS],
        "grid": ["s1/bbaf2n.mpg", "BECAUSE/bbaf3n.mpg"],
    }[corpus])  # fmt: skip
    scandir = os.scandir

    def fails(path: Any = ".") -> Iterator[Any]:
        if str(path).endswith("BECAUSE"):
            raise OSError(code, os.strerror(code), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    words = [command, corpus, "--root", root]
    words += ["--out", tmp_path / "out"] if command == "prep" else []
    assert f"{root}/BECAUSE: {os.strerror(code)}" in refused(*words, code=1)
    assert not list(tmp_path.glob("out/*/*.tar"))
