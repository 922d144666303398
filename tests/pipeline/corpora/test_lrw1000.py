"""LRW-1000: every layout and trap of its release, as what they are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from importers import importer

from avb.pipeline.corpora.lrw1000 import frame_span
from avb.tools.synth import media

HASH = "57f7d1d11ca308f3f24728cb5c930574"
STEP = 160  # samples in a hundredth of a second


def level(number: int) -> int:
    """The grey level of picture `number`, so that pictures can be told apart."""
    return 20 + 2 * number


def write_pictures(folder: Path, last: int, side: int = 24, first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, last + 1):
        picture = np.full((side, side), level(number), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.jpg"), picture)


def numbers(pictures: list[np.ndarray]) -> list[int]:
    return [round((float(p.mean()) - 20) / 2) for p in pictures]


def clicking(start: int, end: int, left: int = 20, right: int = 20) -> np.ndarray:
    """A wav of a word in hundredths, as released, with a click where the word starts."""
    sound = np.zeros((left + end - start + right) * STEP, np.float32)
    sound[left * STEP] = 0.9
    return sound


def write_tree(
    root: Path,
    rows: list[tuple[str, str, str, str, int, int]],
    images: str = "LRW1000_Public/images",
    audio: str = "LRW1000_Public/audio",
    info: str = "LRW1000_Public/info",
    last: int = 60,
    sounds: bool = True,
) -> Path:
    """A corpus of (split, hash, word, pinyin, start, end); the audio id is the row's number."""
    for folder in {row[1] for row in rows}:
        write_pictures(root / images / folder, last)
    (root / audio).mkdir(parents=True, exist_ok=True)
    (root / info).mkdir(parents=True, exist_ok=True)
    for split in ("trn", "val", "tst"):
        lines = [f"{h},{w},{p},{s / 100:.2f},{e / 100:.2f}\n" for x, h, w, p, s, e in rows
                 if x == split]  # fmt: skip
        (root / info / f"{split}_1000.txt").write_text("".join(lines), "utf-8")
    lines = [f"{h},{i},{w},{p},{s / 100:g},{e / 100:g}\n"
             for i, (_, h, w, p, s, e) in enumerate(rows)]  # fmt: skip
    (root / info / "all_audio_video.txt").write_text("".join(lines), "utf-8")
    for i, (*_, start, end) in enumerate(rows):
        if sounds and end > start:
            media.write_wav(root / audio / f"{i}.wav", clicking(start, end))
    return root


INDEX = "LRW1000_Public/info/trn_1000.txt"
ONE = [("trn", HASH, "扫描", "sao miao", 80, 140)]


# Layouts

LAYOUTS = {
    "A, older": ("LRW1000_Public/images", "LRW1000_Public/audio", "LRW1000_Public/info"),
    "A, root inside": ("images", "audio", "info"),
    "B, newer": (
        "CAS-VSR-W1k/lip_images/lip_images",
        "CAS-VSR-W1k/audio/LRW1000_Public/audio",
        "CAS-VSR-W1k/info",
    ),
    "double folder": ("LRW1000/images/images", "LRW1000/audio", "LRW1000/info"),
    "full version": (
        "LRW_1000_Full_Version/lip_images/lip_images",
        "LRW_1000_Full_Version/audio/audio",
        "LRW_1000_Full_Version/info",
    ),
    "index in labels": ("LRW1000_Public/images", "LRW1000_Public/audio", "LRW1000_Public/labels"),
    "index in filelist": ("images", "audio", "filelist"),
    "index beside": ("images", "audio", "."),
    "blanks and other alphabets": ("Été 口型/images", "Été 口型/audio", "Été 口型/info"),
    "index above": ("LRW1000/images", "LRW1000/audio", "labels"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_read(tmp_path: Path, layout: str) -> None:
    images, audio, info = LAYOUTS[layout]
    lrw1000 = importer("lrw1000", write_tree(tmp_path, ONE, images, audio, info))
    listing = lrw1000.listing()
    assert listing.notices == []
    assert listing.layout == f"pictures in {images}, sound in {audio}, index in {info}"
    got = lrw1000.load()
    assert got.clip.source == f"{images}/{HASH}" and got.clip.audio == f"{audio}/0.wav"
    assert len(got.media.frames) == 26 and np.abs(got.media.sound).max() > 0.5
    assert (len(got.media.sound), got.media.rate) == (100 * STEP, 16000)


def test_missing_parts_are_named_and_every_row_is_listed(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE, sounds=False)
    (root / "LRW1000_Public/info/val_1000.txt").unlink()
    (root / "LRW1000_Public/info/all_audio_video.txt").unlink()
    (root / "LRW1000_Public/audio").rmdir()
    listing = importer("lrw1000", root).listing()
    notices = " ".join(listing.notices)
    assert "index files missing: val_1000.txt" in notices
    assert "all_audio_video.txt is missing" in notices
    assert "no sound folder; looked for audio/LRW1000_Public/audio" in notices
    assert [clip.status for clip in listing.clips] == ["missing_audio"]


# Index files


def test_both_index_formats_are_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    five = importer("lrw1000", root).clips()
    (root / INDEX).write_text(f"{HASH},0,扫描,sao miao,0.80,1.40\n", "utf-8")
    (root / "LRW1000_Public/info/all_audio_video.txt").unlink()
    assert importer("lrw1000", root).clips() == five
    assert five[0].name == f"{HASH}_80_140" and five[0].label == "sao miao"
    assert (five[0].start, five[0].end, five[0].status) == (0.8, 1.4, "")


def test_classes_are_the_pinyin_of_all_splits_and_not_the_characters(tmp_path: Path) -> None:
    words = [("trn", "事实", "shi shi"), ("trn", "实施", "shi shi"), ("val", "扫描", "sao miao")]
    words += [("tst", "安全", "an quan"), ("tst", "扫描", "sao miao")]
    rows = [(x, HASH, w, p, 30 + 60 * i, 70 + 60 * i) for i, (x, w, p) in enumerate(words)]
    root = write_tree(tmp_path, rows)
    assert [c.label for c in importer("lrw1000", root).clips()] == [p for *_, p in words]
    for limit in (None, 1):
        plan = importer("lrw1000", root, limit=limit).plan(tmp_path / "plan.arrow")
        assert plan.labels == ["an quan", "sao miao", "shi shi"]


def test_numbers_printed_differently_still_join(tmp_path: Path) -> None:
    rows = [("trn", HASH, "x", "x", start, start + 50) for start in (30, 120, 160)]
    root = write_tree(tmp_path, rows)  # 1.20 in one index and 1.2 in the other
    sounds = [clip.audio for clip in importer("lrw1000", root).clips()]
    assert sounds == [f"LRW1000_Public/audio/{i}.wav" for i in range(3)]
    # A sum of floats, as another writer prints it.
    (root / INDEX).write_text(f"{HASH},x,x,1.2000000000000002,1.7\n")
    [clip] = importer("lrw1000", root).clips()
    assert clip.audio == "LRW1000_Public/audio/1.wav"


def test_a_row_without_its_sound_in_the_join_is_listed_and_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    join = root / "LRW1000_Public/info/all_audio_video.txt"
    join.write_text(f"{HASH},0,扫描,sao miao,0.81,1.40\n", "utf-8")
    [clip] = importer("lrw1000", root).clips()
    assert clip.status == "missing_audio"
    assert "no audio id" in clip.error and "sao miao 0.8-1.4" in clip.error
    assert "trn_1000.txt:1" in clip.error


def test_a_heading_of_the_join_is_no_row(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    join = root / "LRW1000_Public/info/all_audio_video.txt"
    odd = f"hash,id,word,pinyin,start,end\n{HASH},0,x,y,inf,1\n"
    join.write_text(odd + join.read_text("utf-8"), "utf-8")
    [clip] = importer("lrw1000", root).clips()
    assert (clip.audio, clip.status) == ("LRW1000_Public/audio/0.wav", "")


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    for path in (root / "LRW1000_Public/info").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    got = importer("lrw1000", root).load()
    assert got.clip.source.endswith(HASH) and got.flags == set()
    assert (got.clip.end, got.clip.audio) == (1.4, "LRW1000_Public/audio/0.wav")


def test_the_index_is_utf8_and_gb18030_is_flagged(tmp_path: Path) -> None:
    path = write_tree(tmp_path, ONE) / INDEX
    for encoding, flags in (("utf-8", []), ("gb18030", ["encoding"])):
        path.write_text(path.read_text("utf-8"), encoding)
        [clip] = importer("lrw1000", tmp_path).clips()
        assert clip.flags == flags
        assert (clip.label, clip.name, clip.status) == ("sao miao", f"{HASH}_80_140", "")


@pytest.mark.parametrize(
    "line",
    ["hash,word,pinyin,start,end", f"{HASH},扫描", f"{HASH},a,b,c,d,1.0,2.0", f"{HASH},x,x,1.0,"],
)
def test_a_line_that_is_no_row_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    root = write_tree(tmp_path, ONE)
    path = root / INDEX
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", "utf-8")
    good, bad = importer("lrw1000", root).clips()  # the blank line between them is none
    assert good.status == ""
    assert bad.status == "bad_name" and "trn_1000.txt:3" in bad.error and line[:20] in bad.error


def test_zero_length_and_repeated_rows_are_refused_and_counted(tmp_path: Path) -> None:
    rows = [*ONE, *ONE, ("trn", HASH, "x", "x", 90, 90), ("trn", HASH, "x", "x", 95, 90)]
    rows.append(("val", HASH, "扫描", "sao miao", 80, 140))  # another split: another clip
    lrw1000 = importer("lrw1000", write_tree(tmp_path, rows))
    assert [c.status for c in lrw1000.clips()] == ["", "", "zero_length", "zero_length", ""]
    plan = lrw1000.plan(tmp_path / "plan.arrow")
    assert plan.statuses == {"ok": 2, "duplicate": 1, "zero_length": 2} and plan.listed == 5
    planned = [clip for unit in plan.units for _, clip in plan.rows(unit.number)]
    [twin] = [clip for clip in planned if clip.status == "duplicate"]
    assert f"train/{HASH}_80_140 was listed before" in twin.error


# Pictures


def test_frames_are_counted_in_whole_hundredths_and_the_last_is_included() -> None:
    exact = [4 * k for k in range(3000)]  # hundredths at which a picture starts; 144 floats differ
    assert [frame_span(t + 20, t + 80)[0] for t in exact] == [k + 1 for k in range(3000)]
    assert [frame_span(t + 60, t + 80)[1] for t in exact] == [k + 26 for k in range(3000)]
    # The example line of the release: 15.78 to 16.16, widened to 15.58 .. 16.36. Picture 390
    # covers 15.56 .. 15.60, picture 410 covers 16.36 .. 16.40.
    assert frame_span(1578, 1616) == (390, 410)
    assert frame_span(10, 50) == (1, 18)  # no picture before the first
    assert frame_span(0, 50)[0] == 1
    assert frame_span(40, 220) == (6, 61)  # more than 40: VIPL's reader drops such words


def test_a_missing_picture_is_filled_and_nothing_moves_forward(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    folder = root / "LRW1000_Public/images" / HASH
    got = importer("lrw1000", root).load()  # in the order of their numbers
    assert numbers(got.media.frames) == list(range(16, 42))  # (80-20)//4+1 .. (140+20)//4+1
    assert got.flags == set()
    (folder / "20.jpg").unlink()
    (folder / "30.jpg").write_bytes(b"")  # as good as missing
    got = importer("lrw1000", root).load()
    found = numbers(got.media.frames)
    assert len(found) == 26 and got.flags == {"filled_frames"}
    assert found[4] in (19, 21) and found[14] in (29, 31)
    others = [n for i, n in enumerate(found) if i not in (4, 14)]
    assert others == [n for n in range(16, 42) if n not in (20, 30)]
    for number in range(39, 61):  # those at the end repeat the last
        (folder / f"{number}.jpg").unlink()
    assert numbers(importer("lrw1000", root).load().media.frames)[-4:] == [38, 38, 38, 38]


@pytest.mark.parametrize("last", [34, 0])
def test_too_many_missing_pictures_are_refused_here(tmp_path: Path, last: int) -> None:
    root = write_tree(tmp_path, ONE, last=last)
    if not last:
        (root / "LRW1000_Public/images" / HASH).rmdir()
    refusal = importer("lrw1000", root).refusal()
    assert refusal.status == "missing_frames"
    assert f"{41 - last if last else 26} of 26" in refusal.error
    assert f"{HASH}/{last + 1 if last else 16}.jpg" in refusal.error


def test_pictures_of_changing_size_become_one_size(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ONE)
    write_pictures(root / "LRW1000_Public/images" / HASH, 60, side=33, first=25)
    got = importer("lrw1000", root).load()
    assert {p.shape for p in got.media.frames} == {(24, 24)}
    assert numbers(got.media.frames) == list(range(16, 42))


# Sound


@pytest.mark.parametrize("start", [80, 81, 82, 83, 1578])
def test_the_sound_is_placed_at_its_own_start(tmp_path: Path, start: int) -> None:
    root = write_tree(tmp_path, [("trn", HASH, "x", "x", start, start + 41)], last=1)
    folder = root / "LRW1000_Public/images" / HASH
    first, last = frame_span(start, start + 41)
    for number in range(first, last + 1):
        assert cv2.imwrite(str(folder / f"{number}.jpg"), np.full((24, 24), 90, np.uint8))
    got = importer("lrw1000", root).load()
    [(label, begins, ends)] = got.words
    assert label == "x" and ends - begins == pytest.approx(0.41)
    assert begins == pytest.approx(start / 100 - (first - 1) / 25)
    click = int(np.abs(got.media.sound).argmax())
    assert click == 20 * STEP  # as if the wav began with the word: 0.2 s late
    sound, _ = got.fitted()
    assert abs(int(np.abs(sound).argmax()) / 16000 - begins) < 1e-4
    assert got.log_mel().shape[1] == 4 * len(got.media.frames)


@pytest.mark.parametrize("zero_filled", [False, True])
def test_an_early_word_is_placed_by_its_known_margin(tmp_path: Path, zero_filled: bool) -> None:
    start, end = 6, 46
    root = write_tree(tmp_path, [("trn", HASH, "x", "x", start, end)])
    wav = clicking(start, end, left=20 if zero_filled else start)
    media.write_wav(root / "LRW1000_Public/audio/0.wav", wav)
    got = importer("lrw1000", root).load()
    sound, _ = got.fitted()
    assert int(np.abs(sound).argmax()) == pytest.approx(0.06 * 16000, abs=1)
    assert got.flags == {"short_margin"}
    assert got.words == [("x", 0.06, 0.46)]


def test_missing_sound_is_refused_by_name_and_all_rows_counted(tmp_path: Path) -> None:
    rows = [*ONE, ("trn", HASH, "x", "x", 60, 100), ("val", HASH, "x", "x", 60, 110)]
    root = write_tree(tmp_path, rows, sounds=False)
    (root / "LRW1000_Public/audio/1.wav").write_bytes(b"not a sound")
    for i, name in enumerate(("_80_140", "_60_100", "_60_110")):
        refusal = importer("lrw1000", root).refusal(name)
        assert refusal.status == "missing_audio" and refusal.error.startswith(f"{i}.wav:")
