"""LRW: every layout and trap of its release, as what they are."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest
from films import write_film
from importers import importer, touch

WORDS = ("ABOUT", "PRICE", "YOUNG")
SPLITS = ("train", "val", "test")


def empty_tree(base: Path, words: tuple[str, ...] = WORDS, each: int = 2) -> Path:
    """Names alone: discovery opens no clip."""
    clips = itertools.product(words, SPLITS, range(1, each + 1), ("mp4", "txt"))
    return touch(base, *(f"{word}/{split}/{word}_{n:05d}.{end}" for word, split, n, end in clips))


def copy_clip(drawn: Any, root: Path, text: bytes | None) -> None:
    """One good clip under its name, with the given text beside it."""
    source = drawn.root / "lipread_mp4/ABOUT/train/ABOUT_00001.mp4"
    target = root / "lipread_mp4/ABOUT/train/ABOUT_00001.mp4"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    if text is not None:
        target.with_suffix(".txt").write_bytes(text)


# Layouts


@pytest.mark.parametrize(
    "layout", ["lipread_mp4", "lrw_mp4", "LRW/lipread_mp4", "lrw", ".", "Été 2024 база 口型"]
)
def test_the_root_may_have_any_name(tmp_path: Path, layout: str) -> None:
    base = empty_tree(tmp_path / layout)
    (base / "ABOUT/train/._ABOUT_00001.mp4").touch()  # a shadow of macOS
    if layout != ".":
        (tmp_path / "features/train").mkdir(parents=True)  # somebody's own, beside the words
    lrw = importer("lrw", tmp_path)
    clips = lrw.clips()
    assert len(clips) == 18
    assert {clip.split for clip in clips} == set(SPLITS)
    assert all((tmp_path / clip.source).is_file() for clip in clips)
    shown = "" if layout == "." else f"{layout}/"
    assert lrw.listing().layout == f"{shown}WORD/{{train,val,test}}/WORD_00001.mp4"


@pytest.mark.parametrize("corpus", ["lrw", "lrw1000"])
def test_listing_looks_at_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    empty_tree(tmp_path, each=100)
    folder = tmp_path / f"images/{'0' * 32}"
    touch(tmp_path, f"images/{folder.name}/1.jpg", "info/trn_1000.txt")
    lines = [f"{folder.name},{i},x,x,{i},{i + 0.4}\n" for i in range(900)]
    (tmp_path / "info/trn_1000.txt").write_text("".join(lines))
    stat = Mock(wraps=os.stat)
    monkeypatch.setattr(os, "stat", stat)
    assert len(importer(corpus, tmp_path).clips()) == 900
    looks = [str(call.args[0]) for call in stat.call_args_list]
    assert len(looks) < 60 and not [path for path in looks if "_000" in path or folder.name in path]


# Classes


def test_a_stray_folder_takes_no_class_id(drawn_lrw: Any) -> None:
    base = drawn_lrw.root / "lipread_mp4"
    naive = sorted(os.listdir(base))
    listing = importer("lrw", drawn_lrw.root).listing()
    assert {".DS_Store", "lists"} < set(naive)
    assert naive.index("YOUNG") == listing.labels.index("YOUNG") + 1  # .DS_Store shifted it
    assert listing.labels == [w for w in naive if w not in (".DS_Store", "lists")]
    assert "not word folders, left out: lists" in listing.notices


def test_clips_in_the_folder_of_another_word_take_no_class_and_are_refused(tmp_path: Path) -> None:
    base = empty_tree(tmp_path, each=1)
    shutil.copytree(base / "YOUNG", base / "BACKUP")
    (base / "YOUNG/test/YOUNG_00001.mp4").rename(base / "YOUNG/test/ABOUT_00077.mp4")
    listing = importer("lrw", tmp_path).listing()
    assert listing.labels == list(WORDS)
    assert any("BACKUP" in notice for notice in listing.notices)
    refused = [(c.status, c.error) for c in listing.clips if c.status]
    strays = [("bad_name", "YOUNG_00001.mp4 lies in the folder of BACKUP")] * 3
    assert sorted(refused) == [("bad_name", "ABOUT_00077.mp4 lies in the folder of YOUNG"), *strays]
    planned = importer("lrw", tmp_path).planned(tmp_path / "plan.arrow").values()
    assert sum(clip.status == "" for clip in planned) == 8  # also where a stray is listed first


def test_class_ids_are_those_of_the_words_whatever_is_there_or_taken_of_them(
    tmp_path: Path,
) -> None:
    base = empty_tree(tmp_path)
    for gone in ("ABOUT/val", "PRICE/val", "PRICE/test"):  # not downloaded whole
        shutil.rmtree(base / gone)
    for path in (base / "PRICE/train").iterdir():
        path.unlink()
    plan = importer("lrw", tmp_path, limit=1).plan(tmp_path / "plan.arrow")
    assert plan.listed == 1 and plan.labels == list(WORDS)


# The word boundary

GOOD = (
    "Disk reference: 5954350123456789012\nChannel: BBC One\nProgram start: 2010-07-27 22:35\n"
    "Clip start: 17.8\n"
)


@pytest.mark.parametrize(
    ("text", "boundary", "flags"),
    [
        (f"{GOOD}Duration: 0.53 seconds\n", (0.315, 0.845), set()),
        (f"{GOOD}Duration: 0.40", (0.38, 0.78), set()),
        (f"{GOOD}Duration: 0.53 seconds\nNote: x\n", (0.315, 0.845), set()),
        # One more line before it: the fifth is another number.
        (f"{GOOD}Length: 1.16 seconds\nDuration: 0.53 seconds\n", (0.315, 0.845), set()),
        ("Duration: 0.53 seconds\n", (0.315, 0.845), set()),
        (f"{GOOD}Duration: 0.53 seconds\n".replace("\n", "\r\n"), (0.315, 0.845), {"crlf"}),
        (f"{GOOD}Duration: 9.9 seconds\n", (0.0, 1.16), {"boundary_clamped"}),
        (f"{GOOD}Duration: 0 seconds\n", None, {"no_boundary"}),
        (f"{GOOD}Duration: unknown\n", None, {"no_boundary"}),
        (f"{GOOD}Channel: BBC \xe9\nDuration: 0.53\n", (0.315, 0.845), set()),
        ("", None, {"no_boundary"}),
        (None, None, {"no_boundary"}),
    ],
)
def test_the_boundary_is_found_by_key_and_odd_texts_are_kept_and_flagged(
    drawn_lrw: Any,
    tmp_path: Path,
    text: str | None,
    boundary: tuple[float, float] | None,
    flags: set[str],
) -> None:
    copy_clip(drawn_lrw, tmp_path, None if text is None else text.encode("latin-1"))
    got = importer("lrw", tmp_path).load()
    [(word, start, end)] = got.words
    assert word == "ABOUT" and got.flags == flags
    assert (start, end) == (pytest.approx(boundary) if boundary else (None, None))


@pytest.mark.parametrize("duration", [0.11, 0.26, 0.40, 0.53, 0.77, 1.02])
def test_boundaries_are_of_public_code(drawn_lrw: Any, tmp_path: Path, duration: float) -> None:
    copy_clip(drawn_lrw, tmp_path, f"Duration: {duration} seconds\n".encode())
    [(_, start, end)] = importer("lrw", tmp_path).load().words
    public = int(14.5 - 12.5 * duration), int(14.5 + 12.5 * duration)
    assert (int(start * 25), int(end * 25)) == public


# Pictures and sound


def test_a_clip_of_30_frames_is_long(tmp_path: Path) -> None:
    pictures = [np.full((64, 64), 40 + i, np.uint8) for i in range(30)]
    path = tmp_path / "ABOUT/train/ABOUT_00001.mp4"
    write_film(path, pictures, np.arange(30) / 25, np.zeros(19200))
    refusal = importer("lrw", tmp_path).refusal()
    assert refusal.status == "long" and "30 frames, expected 29" in refusal.error


def test_the_priming_of_aac_is_skipped_and_the_sound_is_18560_samples(tmp_path: Path) -> None:
    from avb.tools.synth import media

    path = tmp_path / "ABOUT/train/ABOUT_00001.mp4"
    click = np.zeros(18560, np.float32)
    click[9280] = 0.9  # in the middle of the clip
    media.write_mp4(path, [np.full((256, 256, 3), 90, np.uint8)] * 29, click)

    def decode(**options: str) -> np.ndarray:
        with av.open(str(path), options=options) as container:
            return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])

    with av.open(str(path)) as container:
        assert len([p for p in container.demux(audio=0) if p.size]) == 20
    late = decode(ignore_editlist="1")
    # FFmpeg 9 drops the padding of the last frame.
    assert len(late) in (20_480, 18_560 + 1024) and np.abs(late).argmax() == 9280 + 1024  # 64 ms
    naive = decode()
    if len(naive) == 18_560:  # FFmpeg 9 drops the padding of the last AAC frame itself
        pytest.skip("this decoder leaves nothing to cut")
    assert len(naive) == 19_456
    centred = naive[(19_456 - 18_560) // 2 :][:18_560]  # the paper's code cuts in the middle
    assert np.abs(centred).argmax() == 9280 - 448  # 28 ms

    got = importer("lrw", tmp_path).load()
    sound, pad = got.fitted()
    assert sound.shape == (18_560,) and pad == 18_560 - len(naive)
    assert abs(int(np.abs(sound).argmax()) - 9280) <= 1
    mel = got.log_mel()
    assert mel.shape == (80, 116) and mel.sum(axis=0).argmax() == 58
