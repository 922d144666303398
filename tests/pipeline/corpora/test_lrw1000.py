"""LRW-1000: every layout and trap of its release, each shown by a plain reading before avb's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avb.pipeline import corpora
from avb.pipeline.build.plan import make_plan
from avb.pipeline.clip.status import Refused
from avb.pipeline.corpora.clip import Clip
from avb.pipeline.corpora.lrw1000 import frame_span
from avb.pipeline.errors import UsageError
from avb.tools.synth import media

HASH = "57f7d1d11ca308f3f24728cb5c930574"
OTHER = "0123456789abcdef0123456789abcdef"
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
    "index above": ("LRW1000/images", "LRW1000/audio", "labels"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_read(tmp_path: Path, importer: Any, layout: str) -> None:
    images, audio, info = LAYOUTS[layout]
    write_tree(tmp_path, ONE, images, audio, info)
    # Scripts glob for one layout; each of them misses most of the others.
    naive = [
        list(tmp_path.glob(f"{pattern}/*/*.jpg"))
        for pattern in ("LRW1000_Public/images", "CAS-VSR-W1k/lip_images/lip_images", "images")
    ]
    assert sum(not found for found in naive) >= 2
    lrw1000 = importer("lrw1000", tmp_path)
    listing = lrw1000.listing()
    assert listing.notices == []
    info = "." if info == "." else info
    assert listing.layout == f"pictures in {images}, sound in {audio}, index in {info}"
    got = lrw1000.load()
    assert got.clip.source == f"{images}/{HASH}" and got.clip.audio == f"{audio}/0.wav"
    assert len(got.media.frames) > 20 and np.abs(got.media.sound).max() > 0.5


def test_a_folder_without_an_index_is_an_error_that_names_the_places(
    tmp_path: Path, importer: Any
) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError) as error:
        importer("lrw1000", tmp_path).listing()
    for part in (str(tmp_path), "trn_1000.txt", "tst_1000.txt", "info, labels, filelist"):
        assert part in str(error.value)


def test_folders_with_blanks_and_other_alphabets_work(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path / "Été 2024 база 口型", ONE)
    assert len(importer("lrw1000", root).load().media.frames) > 20


def test_listing_looks_at_no_picture_and_no_wav(
    tmp_path: Path, importer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("trn", HASH, "x", "x", 100 * i, 100 * i + 40) for i in range(1, 201)]
    root = write_tree(tmp_path, rows, last=1, sounds=False)
    looks, stat = [], os.stat

    def counting(path: Any, **options: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", counting)
    clips = importer("lrw1000", root).clips()
    assert len(clips) == 200 and len(looks) < 60
    assert not [path for path in looks if HASH in str(path)]


def test_missing_parts_are_named(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE, sounds=False)
    (root / "LRW1000_Public/info/val_1000.txt").unlink()
    (root / "LRW1000_Public/audio").rmdir()
    notices = " ".join(importer("lrw1000", root).listing().notices)
    assert "index files missing: val_1000.txt" in notices
    assert "no sound folder; looked for audio/LRW1000_Public/audio" in notices


# Index files


def test_both_index_formats_are_read(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    five = importer("lrw1000", root).clips()
    line = f"{HASH},0,扫描,sao miao,0.80,1.40\n"
    with pytest.raises(ValueError, match="too many values"):
        _, _, pinyin, start, end = line.split(",")
    (root / "LRW1000_Public/info/trn_1000.txt").write_text(line, "utf-8")
    (root / "LRW1000_Public/info/all_audio_video.txt").unlink()
    assert importer("lrw1000", root).clips() == five
    assert five[0].name == f"{HASH}_80_140" and five[0].label == "sao miao"
    assert (five[0].start, five[0].end, five[0].status) == (0.8, 1.4, "")


def test_the_class_is_the_pinyin_and_not_the_characters(tmp_path: Path, importer: Any) -> None:
    words = [("事实", "shi shi"), ("实施", "shi shi"), ("扫描", "sao miao")]
    rows = [("trn", HASH, w, p, 30 + 60 * i, 70 + 60 * i) for i, (w, p) in enumerate(words)]
    root = write_tree(tmp_path, rows)
    text = (root / "LRW1000_Public/info/trn_1000.txt").read_text("utf-8")
    assert len({line.split(",")[1] for line in text.splitlines()}) == 3
    lrw1000 = importer("lrw1000", root)
    listing = lrw1000.listing()
    assert [c.label for c in listing.clips] == ["shi shi", "shi shi", "sao miao"]
    assert listing.labels == ["sao miao", "shi shi"]


def test_class_ids_are_the_same_in_every_split(tmp_path: Path, importer: Any) -> None:
    order = {"trn": ["zhong guo", "bei jing"], "val": ["bei jing"], "tst": ["an quan", "zhong guo"]}
    rows = [(x, HASH, "x", p, 100 * i + 30, 100 * i + 70)
            for i, (x, p) in enumerate((x, p) for x in order for p in order[x])]  # fmt: skip
    root = write_tree(tmp_path, rows)
    as_met = {x: list(dict.fromkeys(found)) for x, found in order.items()}
    assert len({found.index("zhong guo") for found in (as_met["trn"], as_met["tst"])}) == 2
    for limit in (None, 1):
        lrw1000 = importer("lrw1000", root, limit=limit)
        plan = make_plan(lrw1000.corpus, lrw1000.settings, root, tmp_path / "plan.arrow")
        assert plan.labels == ["an quan", "bei jing", "zhong guo"]


def test_numbers_printed_differently_still_join(tmp_path: Path, importer: Any) -> None:
    rows = [("trn", HASH, "x", "x", start, start + 50) for start in (30, 120, 160)]
    root = write_tree(tmp_path, rows)
    info = root / "LRW1000_Public/info"
    names = {
        (p[0], *p[3:]): p[1]
        for p in (
            line.split(",") for line in (info / "all_audio_video.txt").read_text().splitlines()
        )
    }
    keys = [
        (p[0], *p[2:])
        for p in (line.split(",") for line in (info / "trn_1000.txt").read_text().splitlines())
    ]
    assert [key in names for key in keys] == [False, False, False]  # 1.20 against 1.2
    assert [c.audio for c in importer("lrw1000", root).clips()] == [
        f"LRW1000_Public/audio/{i}.wav" for i in range(3)
    ]
    # A sum of floats, as another writer prints it.
    (info / "trn_1000.txt").write_text(f"{HASH},x,x,1.2000000000000002,1.7\n")
    [clip] = importer("lrw1000", root).clips()
    assert clip.audio == "LRW1000_Public/audio/1.wav"


def test_a_row_without_its_sound_in_the_join_is_listed_and_refused(
    tmp_path: Path, importer: Any
) -> None:
    root = write_tree(tmp_path, ONE)
    join = root / "LRW1000_Public/info/all_audio_video.txt"
    join.write_text(f"{HASH},0,扫描,sao miao,0.81,1.40\n", "utf-8")
    [clip] = importer("lrw1000", root).clips()
    assert clip.status == "missing_audio"
    assert "no audio id" in clip.error and "sao miao 0.8-1.4" in clip.error
    assert "trn_1000.txt:1" in clip.error


def test_a_byte_order_mark_is_no_part_of_the_first_hash(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    path = root / "LRW1000_Public/info/trn_1000.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    naive = path.read_text("utf-8").split(",")[0]
    assert naive != HASH and not (root / "LRW1000_Public/images" / naive).is_dir()
    got = importer("lrw1000", root).load()
    assert got.clip.source.endswith(HASH) and got.flags == set()


def test_the_index_is_utf8_whatever_the_locale_and_gb18030_is_flagged(
    tmp_path: Path, importer: Any
) -> None:
    root = write_tree(tmp_path, ONE)
    path = root / "LRW1000_Public/info/trn_1000.txt"
    for locale in ("ascii", "gbk"):  # what open() takes where the locale says so
        try:
            assert "扫描" not in path.read_text(locale)
        except UnicodeDecodeError:
            pass
    [clip] = importer("lrw1000", root).clips()
    assert clip.flags == [] and clip.label == "sao miao"
    path.write_text(path.read_text("utf-8"), "gb18030")
    with pytest.raises(UnicodeDecodeError):
        path.read_text("utf-8")
    [clip] = importer("lrw1000", root).clips()
    assert clip.flags == ["encoding"]
    assert (clip.label, clip.name, clip.status) == ("sao miao", f"{HASH}_80_140", "")


def test_windows_line_ends_do_not_end_up_in_the_times(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    for path in (root / "LRW1000_Public/info").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    [clip] = importer("lrw1000", root).clips()
    assert (clip.end, clip.audio) == (1.4, "LRW1000_Public/audio/0.wav")


@pytest.mark.parametrize(
    "line",
    ["hash,word,pinyin,start,end", f"{HASH},扫描", f"{HASH},a,b,c,d,1.0,2.0", f"{HASH},x,x,1.0,"],
)
def test_a_line_that_is_no_row_is_refused_with_its_place(
    tmp_path: Path, importer: Any, line: str
) -> None:
    root = write_tree(tmp_path, ONE)
    path = root / "LRW1000_Public/info/trn_1000.txt"
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", "utf-8")
    good, bad = importer("lrw1000", root).clips()  # the blank line between them is none
    assert good.status == ""
    assert bad.status == "bad_name" and "trn_1000.txt:3" in bad.error and line[:20] in bad.error


def test_zero_length_and_repeated_rows_are_refused_and_counted(
    tmp_path: Path, importer: Any
) -> None:
    rows = [*ONE, *ONE, ("trn", HASH, "x", "x", 90, 90), ("trn", HASH, "x", "x", 95, 90)]
    rows.append(("val", HASH, "扫描", "sao miao", 80, 140))  # another split: another clip
    lrw1000 = importer("lrw1000", write_tree(tmp_path, rows))
    assert [c.status for c in lrw1000.clips()] == ["", "", "zero_length", "zero_length", ""]
    plan = make_plan(lrw1000.corpus, lrw1000.settings, tmp_path, tmp_path / "plan.arrow")
    assert plan.statuses == {"ok": 2, "duplicate": 1, "zero_length": 2} and plan.listed == 5
    planned = [clip for unit in plan.units for _, clip in plan.rows(unit.number)]
    [twin] = [clip for clip in planned if clip.status == "duplicate"]
    assert f"train/{HASH}_80_140 was listed before" in twin.error


# Pictures


def test_frames_are_counted_in_whole_hundredths() -> None:
    exact = [4 * k for k in range(3000)]  # hundredths at which a picture starts
    naive = [int(t / 100 * 25) for t in exact]
    early = [t / 100 for t, frame in zip(exact, naive, strict=True) if frame != t // 4]
    assert len(early) == 144 and early[:4] == [1.16, 2.28, 2.32, 4.52]
    assert [frame_span(t + 20, t + 80)[0] for t in exact] == [k + 1 for k in range(3000)]
    assert [frame_span(t + 60, t + 80)[1] for t in exact] == [k + 26 for k in range(3000)]


def test_the_last_frame_is_included_and_the_margin_is_02_s() -> None:
    # The example line of the release: 15.78 to 16.16, widened to 15.58 .. 16.36. Picture 390
    # covers 15.56 .. 15.60, picture 410 covers 16.36 .. 16.40.
    first, last = frame_span(1578, 1616)
    assert (first, last) == (390, 410)
    assert len(range(first, last)) == 20  # the exclusive reading loses the last picture
    assert frame_span(10, 50) == (1, 18)  # no picture before the first
    assert frame_span(0, 50)[0] == 1


def test_pictures_are_read_in_the_order_of_their_numbers(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    folder = root / "LRW1000_Public/images" / HASH
    naive = [int(name.split(".")[0]) for name in sorted(os.listdir(folder))]
    assert naive[:4] == [1, 10, 11, 12]
    got = importer("lrw1000", root).load()
    assert numbers(got.media.frames) == list(range(16, 42))  # (80-20)//4+1 .. (140+20)//4+1
    assert got.flags == set()


def test_a_missing_picture_is_filled_and_nothing_moves_forward(
    tmp_path: Path, importer: Any
) -> None:
    root = write_tree(tmp_path, ONE)
    folder = root / "LRW1000_Public/images" / HASH
    (folder / "20.jpg").unlink()
    (folder / "30.jpg").write_bytes(b"")  # as good as missing
    naive = [n for n in range(16, 42) if (folder / f"{n}.jpg").is_file()]
    assert naive[10] == 27  # the picture of 26 shown one frame early
    got = importer("lrw1000", root).load()
    found = numbers(got.media.frames)
    assert len(found) == 26 and got.flags == {"filled_frames"}
    assert found[4] in (19, 21) and found[14] in (29, 31)
    assert [n for i, n in enumerate(found) if i not in (4, 14)] == [
        n for n in range(16, 42) if n not in (20, 30)
    ]


def test_pictures_missing_at_the_end_of_the_film_repeat_the_last(
    tmp_path: Path, importer: Any
) -> None:
    root = write_tree(tmp_path, ONE, last=38)
    got = importer("lrw1000", root).load()
    assert numbers(got.media.frames)[-4:] == [38, 38, 38, 38]
    assert got.flags == {"filled_frames"}


@pytest.mark.parametrize("last", [34, 0])
def test_too_many_missing_pictures_are_refused_here_and_not_shown_black(
    tmp_path: Path, importer: Any, last: int
) -> None:
    root = write_tree(tmp_path, ONE, last=last)
    if not last:
        (root / "LRW1000_Public/images" / HASH).rmdir()
    with pytest.raises(Refused) as refusal:
        importer("lrw1000", root).load()
    assert refusal.value.status == "missing_frames"
    assert f"{41 - last if last else 26} of 26" in refusal.value.error
    assert f"{HASH}/{last + 1 if last else 16}.jpg" in refusal.value.error


def test_words_longer_than_40_frames_are_kept(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, [("tst", HASH, "x", "x", 40, 220)])
    got = importer("lrw1000", root).load()
    assert len(got.media.frames) == (220 + 20) // 4 + 1 - 5 == 56  # VIPL's reader drops it
    assert got.log_mel().shape == (80, 4 * 56)


def test_pictures_of_changing_size_become_one_size(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    write_pictures(root / "LRW1000_Public/images" / HASH, 60, side=33, first=25)
    with pytest.raises(ValueError, match="same shape"):
        files = [root / "LRW1000_Public/images" / HASH / f"{n}.jpg" for n in (24, 25)]
        np.stack([cv2.imread(str(file)) for file in files])
    got = importer("lrw1000", root).load()
    assert {p.shape for p in got.media.frames} == {(24, 24)}
    assert numbers(got.media.frames) == list(range(16, 42))


# Sound


@pytest.mark.parametrize("start", [80, 81, 82, 83, 1578])
def test_the_sound_is_placed_at_its_own_start(tmp_path: Path, importer: Any, start: int) -> None:
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
def test_a_word_near_the_start_is_placed_by_its_known_left_margin(
    tmp_path: Path, importer: Any, zero_filled: bool
) -> None:
    start, end = 6, 46
    root = write_tree(tmp_path, [("trn", HASH, "x", "x", start, end)])
    wav = clicking(start, end, left=20 if zero_filled else start)
    media.write_wav(root / "LRW1000_Public/audio/0.wav", wav)
    got = importer("lrw1000", root).load()
    wanted = len(got.media.frames) * 640
    naive = int(np.abs(wav).argmax()) + (wanted - len(wav)) // 2  # centred, as the authors do
    assert abs(naive / 16000 - 0.06) > 0.006
    sound, _ = got.fitted()
    assert int(np.abs(sound).argmax()) == pytest.approx(0.06 * 16000, abs=1)
    assert got.flags == {"short_margin"}
    assert got.words == [("x", 0.06, 0.46)]


def test_drawn_words_near_the_start_are_heard_where_they_are_seen(
    drawn_lrw1000: Any, importer: Any
) -> None:
    lrw1000 = importer("lrw1000", drawn_lrw1000.root)
    for case in ("early_cut", "early_zero_filled"):
        folder, _, start, end = drawn_lrw1000.odd[case].split(",")
        got = lrw1000.load(f"{folder}_{round(float(start) * 100)}_{round(float(end) * 100)}")
        assert "short_margin" in got.flags
        sound, _ = got.fitted()
        loud = np.abs(sound) > 0.05
        assert np.flatnonzero(loud)[0] / 16000 == pytest.approx(float(start), abs=0.06)


def test_sound_a_few_samples_short_is_padded_at_the_end(drawn_lrw1000: Any, importer: Any) -> None:
    folder, _, start, end = drawn_lrw1000.odd["audio_30_short"].split(",")
    s, e = round(float(start) * 100), round(float(end) * 100)
    got = importer("lrw1000", drawn_lrw1000.root).load(f"{folder}_{s}_{e}")
    assert len(got.media.sound) == (e - s + 40) * STEP - 30
    sound, pad = got.fitted()
    lead = round(got.media.sound_start_s * 16000)
    assert len(sound) == 640 * len(got.media.frames)
    assert pad == len(sound) - lead - len(got.media.sound) and 30 <= pad <= 640 + 30
    assert not sound[-30:].any() and sound[: len(sound) - pad].any()


def test_the_released_wav_is_read_and_no_npy_is_asked_for(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE)
    assert list((root / "LRW1000_Public/audio").glob("*.npy")) == []  # three empty folders
    got = importer("lrw1000", root).load()
    assert (len(got.media.sound), got.media.rate) == (100 * STEP, 16000)


def test_missing_sound_is_refused_by_name_and_all_rows_are_counted(
    tmp_path: Path, importer: Any
) -> None:
    rows = [*ONE, ("trn", HASH, "x", "x", 60, 100), ("val", HASH, "x", "x", 60, 110)]
    root = write_tree(tmp_path, rows, sounds=False)
    (root / "LRW1000_Public/audio/1.wav").write_bytes(b"not a sound")
    lrw1000 = importer("lrw1000", root)
    statuses = []
    for clip in lrw1000.clips():
        with pytest.raises(Refused) as refusal:
            _load(lrw1000, clip)
        statuses.append((refusal.value.status, refusal.value.error.split(":")[0]))
    assert statuses == [("missing_audio", f"{i}.wav") for i in range(3)]


def test_a_corpus_without_its_sound_archive_lists_every_row(tmp_path: Path, importer: Any) -> None:
    root = write_tree(tmp_path, ONE, sounds=False)
    (root / "LRW1000_Public/audio").rmdir()
    (root / "LRW1000_Public/info/all_audio_video.txt").unlink()
    listing = importer("lrw1000", root).listing()
    assert [clip.status for clip in listing.clips] == ["missing_audio"]
    assert any("all_audio_video.txt is missing" in notice for notice in listing.notices)


def _load(lrw1000: Any, clip: Clip) -> Any:
    return corpora.adapter("lrw1000").load(lrw1000.root, clip, lrw1000.settings)


# The drawn corpus, with everything odd in it at once


def test_the_drawn_corpus_ends_as_it_was_broken(drawn_lrw1000: Any, importer: Any) -> None:
    lrw1000 = importer("lrw1000", drawn_lrw1000.root)
    found: dict[str, list[str]] = {}
    for clip in lrw1000.clips():
        try:
            status = clip.status or _load(lrw1000, clip) and "ok"
        except Refused as refusal:
            status = refusal.status
        found.setdefault(clip.name, []).append(status)
    wanted = {
        "frame_missing": ["ok"],
        "audio_missing": ["missing_audio"],
        "zero_length": ["zero_length"],
        "duplicate": ["ok", "ok"],  # the plan refuses the second
        "audio_30_short": ["ok"],
        "folder_missing": ["missing_frames"],
        "early_cut": ["ok"],
        "early_zero_filled": ["ok"],
    }
    for case, statuses in wanted.items():
        folder, _, start, end = drawn_lrw1000.odd[case].split(",")
        name = f"{folder}_{round(float(start) * 100)}_{round(float(end) * 100)}"
        assert found[name] == statuses, case
