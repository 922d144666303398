"""GRID: every layout and trap of its copies, each shown by a plain reading before avb's."""

from __future__ import annotations

import collections
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avb.pipeline.build.plan import make_plan
from avb.pipeline.clip.status import Refused
from avb.pipeline.corpora.grid import SLOTS, VOCABULARY, parse_align, words_of
from avb.pipeline.errors import UsageError
from avb.tools.synth import media, raw

SENTENCE = "bin blue at f two now".split()
# Units of 1/25000 s, as in the corpus.
ALIGN = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 at\n35500 41000 f\n" \
        "41000 47250 two\n47250 53000 now\n53000 74500 sil\n"  # fmt: skip


def touch(root: Path, *names: str) -> Path:
    """Names alone: discovery opens no clip."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_pictures(folder: Path, names: list[str]) -> None:
    """Small textured pictures; picture i has the mean level 60 + i."""
    folder.mkdir(parents=True)
    texture = np.tile([[-20, 20], [20, -20]], (24, 32)).repeat(8, 0).repeat(8, 1)[:48, :64]
    for i, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), (texture + 60 + i).astype(np.uint8))


def numbers(pictures: list[np.ndarray]) -> list[int]:
    return [round(float(p.mean())) - 60 for p in pictures]


@pytest.fixture(scope="module")
def good(drawn_grid: Any) -> Path:
    """A good mpg of talker 1."""
    return drawn_grid.root / "s1/video/bbaf2n.mpg"


def place(good: Path, root: Path, video: str = "s1/video/bbaf2n.mpg") -> Path:
    target = root / video
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(good, target)
    return target


# Names


def test_a_name_spells_its_sentence() -> None:
    assert words_of("bbaf2n") == SENTENCE
    assert words_of("swiz3n") == "set white in z three now".split()
    assert words_of("LRAQZS") == "lay red at q zero soon".split()
    assert [len(slot) for slot in SLOTS] == [4, 4, 4, 25, 10, 4]
    assert len(VOCABULARY) == 51 and "sil" not in VOCABULARY and "w" not in VOCABULARY


@pytest.mark.parametrize("name", ["bbaw2n", "bbaf0n", "xbaf2n", "bbaf2", "bbaf2nn", "notes"])
def test_a_video_that_is_no_sentence_is_refused_by_name(
    tmp_path: Path, importer: Any, name: str
) -> None:
    grid = importer("grid", touch(tmp_path, "s1/bbaf2n.mpg", f"s1/{name}.mpg"))
    [bad] = [clip for clip in grid.clips() if clip.status]
    assert bad.status == "bad_name" and f"s1/{name}.mpg" in bad.error


# Layouts

LAYOUTS = {
    "flat": ("s1/{}.mpg", "sN/NAME.mpg"),
    "talker/video": ("s1/video/{}.mpg", "sN/video/NAME.mpg"),
    "high rate": ("s1/video/mpg_6000/{}.mpg", "sN/video/mpg_6000/NAME.mpg"),
    "part folders": (
        "s1.mpg_6000.part1/s1/video/mpg_6000/{}.mpg",
        "sN/sN/video/mpg_6000/NAME.mpg",
    ),
    "disc": ("id1_vcd_{}.mpg", "idN_vcd_NAME.mpg"),
    "inside a folder": ("GRID/video/s1/{}.mpg", "GRID/video/sN/NAME.mpg"),
    "mp4": ("s1/video/{}.mp4", "sN/video/NAME.mp4"),
    "capitals": ("S1/VIDEO/{}.MPG", "sN/VIDEO/NAME.MPG"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_with_its_talker(tmp_path: Path, importer: Any, layout: str) -> None:
    pattern, shown = LAYOUTS[layout]
    touch(tmp_path, pattern.format("bbaf2n"), pattern.format("swwp2s"))
    globs = ("s*/*.mpg", "s*/video/*.mpg", "s*/video/mpg_6000/*.mpg")
    assert sum(not list(tmp_path.glob(glob)) for glob in globs) >= 2  # "Found 0 videos"
    grid = importer("grid", tmp_path)
    found = {clip.name: (clip.speaker, clip.group, clip.status) for clip in grid.clips()}
    assert found == {name: ("s1", "s1", "") for name in ("bbaf2n", "swwp2s")}
    assert grid.listing().layout == shown


def test_a_mixture_of_layouts_is_named_and_read_as_one_corpus(
    tmp_path: Path, importer: Any
) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "s10/video/bbaf3n.mpg", "id34_vcd_swwp2s.mpg")
    touch(tmp_path, "s2.mpg_6000.part2/s2/video/mpg_6000/lbaf2n.mpg")
    grid = importer("grid", tmp_path)
    assert sorted(clip.group for clip in grid.clips()) == ["s1", "s10", "s2", "s34"]
    assert grid.listing().layout.count(", ") == 3


def test_the_root_may_be_one_talker(tmp_path: Path, importer: Any) -> None:
    grid = importer("grid", touch(tmp_path / "s7", "video/bbaf2n.mpg"))
    assert [clip.speaker for clip in grid.clips()] == ["s7"]


def test_a_clip_without_talker_is_refused(tmp_path: Path, importer: Any) -> None:
    grid = importer("grid", touch(tmp_path / "clips", "bbaf2n.mpg"))
    [clip] = grid.clips()
    assert clip.status == "no_speaker" and "bbaf2n.mpg" in clip.error


def test_a_folder_without_the_layout_is_an_error_that_names_the_pattern(
    tmp_path: Path, importer: Any
) -> None:
    touch(tmp_path, "s1/holiday.mpg", "s1/party.mpg")
    with pytest.raises(UsageError) as error:
        importer("grid", tmp_path).listing()
    for part in (str(tmp_path), "six-letter names like bbaf2n.mpg", "2 other videos"):
        assert part in str(error.value)
    with pytest.raises(UsageError, match="no such folder.*AVB_GRID_ROOT"):
        importer("grid", tmp_path / "nowhere").listing()


def test_archive_litter_is_no_clip(tmp_path: Path, importer: Any) -> None:
    litter = ("s1/._bbaf2n.mpg", "__MACOSX/s1/._bbaf2n.mpg", "__MACOSX/s1/bbaf2n.mpg")
    touch(tmp_path, "s1/bbaf2n.mpg", ".Trash/s1/lbaf2n.mpg", *litter)
    assert len(list(tmp_path.rglob("*.mpg"))) == 5
    assert [clip.source for clip in importer("grid", tmp_path).clips()] == ["s1/bbaf2n.mpg"]


def test_the_talker_without_video_is_one_notice(drawn_grid: Any, importer: Any) -> None:
    assert "s21" in [p.name for p in drawn_grid.root.glob("s*")]  # a talker without a clip
    grid = importer("grid", drawn_grid.root)
    assert grid.listing().notices == ["talkers without a video: s21"]
    assert "s21" not in {clip.group for clip in grid.clips()}


def test_talkers_behind_links_are_found_and_a_link_to_above_ends(
    tmp_path: Path, importer: Any
) -> None:
    touch(tmp_path / "disk", "s1/bbaf2n.mpg", "s2/lbaf2n.mpg")
    (tmp_path / "grid").mkdir()
    for talker in ("s1", "s2"):
        (tmp_path / "grid" / talker).symlink_to(tmp_path / "disk" / talker)
    (tmp_path / "disk/s1/up").symlink_to(tmp_path / "grid")
    naive = [file for _, _, files in os.walk(tmp_path / "grid") for file in files]
    assert naive == []
    clips = importer("grid", tmp_path / "grid").clips()
    assert [(clip.speaker, clip.name) for clip in clips] == [("s1", "bbaf2n"), ("s2", "lbaf2n")]


def test_folders_with_blanks_and_other_alphabets_work(
    good: Path, tmp_path: Path, importer: Any
) -> None:
    place(good, tmp_path / "Été 2024 база 口型")
    for decoder in ("pyav", "ffmpeg"):
        got = importer("grid", tmp_path / "Été 2024 база 口型", decoder=decoder).load()
        assert len(got.media.frames) == 75 and got.clip.source == "s1/video/bbaf2n.mpg"


# Folders of pictures

FOLDERS = {
    "mouth_000.png": ("s1/bbaf2n", [f"mouth_{i:03d}.png" for i in range(75)]),
    "1.jpg": ("lip/s1/video/mpg_6000/bbaf2n", [f"{i}.jpg" for i in range(1, 76)]),
    "00.png": ("s1/video/bbaf2n", [f"{i:02d}.png" for i in range(75)]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_pictures_are_read_in_the_order_of_their_numbers(
    tmp_path: Path, importer: Any, kind: str
) -> None:
    folder, names = FOLDERS[kind]
    write_pictures(tmp_path / folder, names)
    media.write_wav(tmp_path / "audio_25k/s1/bbaf2n.wav", np.full(48000, 0.1, np.float32))
    assert list(tmp_path.rglob("*.mpg")) == []
    naive = sorted(os.listdir(tmp_path / folder))
    assert (naive != names) == (kind == "1.jpg")  # 1, 10, 11, ... where it is not padded
    grid = importer("grid", tmp_path)
    assert "folders of pictures" in grid.listing().layout
    got = grid.load()
    assert (got.clip.speaker, got.clip.source) == ("s1", folder)
    found = numbers(got.media.frames)
    assert len(found) == 75 and np.abs(np.array(found) - np.arange(75)).max() <= 1
    assert got.flags == {"separate_audio", "no_alignment"}
    assert got.log_mel().shape == (80, 300)


def test_a_missing_picture_is_filled_and_nothing_moves_forward(
    tmp_path: Path, importer: Any
) -> None:
    folder, names = FOLDERS["mouth_000.png"]
    write_pictures(tmp_path / folder, names)
    (tmp_path / folder / "mouth_040.png").unlink()
    naive = sorted((tmp_path / folder).iterdir())
    assert len(naive) == 74 and naive[40].name == "mouth_041.png"  # taken for 74 good frames
    media.write_wav(tmp_path / "s1/audio/bbaf2n.wav", np.full(48000, 0.1, np.float32))
    got = importer("grid", tmp_path).load()
    found = numbers(got.media.frames)
    assert len(found) == 75 and found[40] in (39, 41) and found[41:] == list(range(41, 75))
    assert got.flags == {"separate_audio", "no_alignment", "filled_frames"}


@pytest.mark.parametrize(
    "wav",
    [
        "audio_25k/s1/bbaf2n.wav",
        "audio_25k/audio_25k/s1/bbaf2n.wav",
        "s1/audio/bbaf2n.wav",
        "s1/BBAF2N.WAV",
    ],
)
def test_separate_sound_is_found_by_its_name(tmp_path: Path, importer: Any, wav: str) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1])
    (tmp_path / wav).parent.mkdir(parents=True, exist_ok=True)
    media.write_wav(tmp_path / wav, np.full(48000, 0.1, np.float32))
    assert importer("grid", tmp_path).load().clip.audio == wav


def test_pictures_without_sound_are_refused(tmp_path: Path, importer: Any) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1])
    with pytest.raises(Refused, match=r"pictures only, and no bbaf2n\.wav") as refusal:
        importer("grid", tmp_path).load()
    assert refusal.value.status == "no_audio"


def test_trimmed_sound_is_not_laid_under_pictures(tmp_path: Path, importer: Any) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1])
    trimmed = np.full(28800, 0.1, np.float32)  # 1.2 s of silence cut off, as distributed
    media.write_wav(tmp_path / "s1/bbaf2n.wav", trimmed)
    assert len(trimmed) / 16000 < 75 / 25 - 1  # used anyway, speech would lead the lips
    with pytest.raises(Refused, match=r"-1\.20 s against 75 pictures") as refusal:
        importer("grid", tmp_path).load()
    assert refusal.value.status == "missing_audio"


def test_the_sound_of_the_film_is_preferred_to_the_separate_wav(
    good: Path, tmp_path: Path, importer: Any
) -> None:
    place(good, tmp_path)
    media.write_wav(tmp_path / "s1/audio/bbaf2n.wav", np.full(28800, 0.1, np.float32))
    got = importer("grid", tmp_path).load()
    assert (got.media.rate, len(got.media.sound)) == (44100, 131328)
    assert "separate_audio" not in got.flags


# Alignments


@pytest.mark.parametrize(
    "align",
    [
        "align/bbaf2n.align",
        "align/s1/align/bbaf2n.align",
        "GRID_align_txt/s1/align/bbaf2n.align",
        "alignments/s1/bbaf2n.align",
        "s1/align/bbaf2n.align",
        "s1/align/BBAF2N.align",
    ],
)
def test_an_alignment_is_found_anywhere_by_its_name(
    good: Path, tmp_path: Path, importer: Any, align: str
) -> None:
    place(good, tmp_path)
    fixed = [tmp_path / p / "bbaf2n.align" for p in ("align", "align/s1", "s1/align")]
    (tmp_path / align).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / align).write_text(ALIGN)
    assert sum(path.is_file() for path in fixed) <= 1  # a reader with one place misses the others
    got = importer("grid", tmp_path).load()
    assert got.clip.text == align and got.flags == set()
    assert [word for word, _, _ in got.words] == SENTENCE


def test_alignment_units_are_thousandths_of_a_frame() -> None:
    naive = [int(line.split()[0]) / 1000 for line in ALIGN.splitlines()]
    assert naive[1] == 23.75 > 3.0  # "23.75 s" in a clip of 3 s
    words = parse_align(ALIGN, set())
    assert words[0] == ("bin", 0.95, 1.18) and words[-1] == ("now", 1.89, 2.12)
    assert [round(start * 25, 2) for _, start, _ in words][0] == 23.75  # a picture number
    assert max(end for _, _, end in words) < 74_500 / 25_000 == 2.98


def test_word_times_are_those_at_which_the_words_are_spoken(drawn_grid: Any, importer: Any) -> None:
    spoken = raw.grid_clip(1, "bbaf2n").words
    got = importer("grid", drawn_grid.root).load("s1/video/bbaf2n")
    assert [word for word, _, _ in got.words] == SENTENCE
    for (_, start, end), (_, from_s, to_s) in zip(got.words, spoken, strict=True):
        assert (start, end) == (pytest.approx(from_s), pytest.approx(to_s))
    sound, _ = got.fitted()
    start, end = got.words[0][1], got.words[-1][2]
    inside = np.square(sound[int(start * 16000) : int(end * 16000)]).mean()
    before = np.square(sound[: int((start - 0.05) * 16000)]).mean()
    assert inside > 100 * before


def test_short_pauses_are_no_words(drawn_grid: Any, importer: Any) -> None:
    source = drawn_grid.odd["short_pause"]
    align = drawn_grid.root / source.replace("video", "align").replace(".mpg", ".align")
    naive = [line.split()[2] for line in align.read_text().splitlines()]
    naive = [word for word in naive if word != "sil"]
    assert len(naive) == 7 and "sp" in naive  # a 52nd word
    got = importer("grid", drawn_grid.root).load(source)
    assert len(got.words) == 6 and {word for word, _, _ in got.words} < set(VOCABULARY)
    assert got.flags == {"short_pause"}


def test_windows_line_ends_are_read_and_flagged(drawn_grid: Any, importer: Any) -> None:
    source = drawn_grid.odd["crlf_align"]
    align = drawn_grid.root / source.replace("video", "align").replace(".mpg", ".align")
    naive = [line.split(" ")[2] for line in align.read_bytes().decode().split("\n") if line]
    assert naive[0] == "sil\r" != "sil"
    got = importer("grid", drawn_grid.root).load(source)
    assert [word for word, _, _ in got.words] == words_of(got.clip.name)
    assert got.flags == {"crlf"}


def test_an_alignment_in_another_talkers_folder_is_used_and_flagged(
    good: Path, tmp_path: Path, importer: Any
) -> None:
    # Zenodo's alignments of 19 talkers lie in the wrong folder.
    place(good, tmp_path, "s10/bbaf2n.mpg")
    (tmp_path / "alignments/s13").mkdir(parents=True)
    (tmp_path / "alignments/s13/bbaf2n.align").write_text(ALIGN)
    assert not (tmp_path / "alignments/s10/bbaf2n.align").exists()
    got = importer("grid", tmp_path).load()
    assert got.words[0] == ("bin", 0.95, 1.18) and got.flags == {"misfiled_alignment"}


def test_a_missing_alignment_leaves_the_words_of_the_name(drawn_grid: Any, importer: Any) -> None:
    source = drawn_grid.odd["no_align"]
    got = importer("grid", drawn_grid.root).load(source)
    assert got.words == [(word, None, None) for word in words_of(got.clip.name)]
    assert got.flags == {"no_alignment"}


@pytest.mark.parametrize(
    "text",
    [
        ALIGN.replace("bin", "lay"),  # another sentence
        ALIGN.replace("47250 53000 now\n", ""),  # five words
        ALIGN.replace("23750 29500", "29500 23750"),  # ends before it starts
        ALIGN.replace("74500", "75500"),  # past the clip
        ALIGN.replace("29500 34000 blue", "29500 blue"),
        ALIGN.replace("29500", "1.18"),  # seconds
        "",
        "\x00\xff",
    ],
)
def test_an_alignment_that_contradicts_the_name_or_itself_is_not_believed(
    good: Path, tmp_path: Path, importer: Any, text: str
) -> None:
    place(good, tmp_path)
    (tmp_path / "s1/bbaf2n.align").write_text(text, "latin-1")
    got = importer("grid", tmp_path).load()
    assert got.words == [(word, None, None) for word in SENTENCE]
    assert got.flags == {"bad_alignment"}


# Pictures and sound


def test_74_frames_are_kept_with_296_columns(drawn_grid: Any, importer: Any) -> None:
    grid = importer("grid", drawn_grid.root)
    whole, short = grid.load("s1/video/bbaf2n"), grid.load(drawn_grid.odd["frames_74"])
    with pytest.raises(ValueError, match="same shape"):  # deep in training
        np.stack([np.stack(whole.media.frames), np.stack(short.media.frames)])
    assert len(short.media.frames) == 74 and short.flags == {"one_frame_short"}
    assert short.log_mel().shape == (80, 296) and whole.log_mel().shape == (80, 300)


def test_a_grey_start_is_refused_though_75_frames_decode(drawn_grid: Any, importer: Any) -> None:
    source = drawn_grid.odd["grey_start"]
    capture, naive = cv2.VideoCapture(str(drawn_grid.root / source)), []
    while (read := capture.read())[0]:
        naive.append(read[1])
    assert len(naive) == 75 and naive[0].std() < 1  # nothing seems wrong
    with pytest.raises(Refused, match="12 pictures without content, the first is 0") as refusal:
        importer("grid", drawn_grid.root).load(source)
    assert refusal.value.status == "blank_frames"


def test_the_sound_is_22_ms_short_and_padded_to_48000_samples(
    drawn_grid: Any, importer: Any
) -> None:
    got = importer("grid", drawn_grid.root).load("s1/video/bbaf2n")
    assert len(got.media.sound) == 131_328 and got.media.rate == 44_100
    assert len(got.media.sound) / 44_100 == pytest.approx(2.978, abs=1e-4)
    sound, pad = got.fitted()
    assert (len(sound), pad) == (48_000, 352) and not sound[-352:].any()


def test_the_larger_of_two_files_of_a_sentence_is_the_duplicate(
    drawn_grid: Any, importer: Any, tmp_path: Path
) -> None:
    source = drawn_grid.odd["large_twin"]
    naive = collections.Counter(path.stem for path in drawn_grid.root.rglob("*.mpg"))
    assert naive[Path(source).stem] == 2
    grid = importer("grid", drawn_grid.root)
    twins = {c.source: c.status for c in grid.clips() if c.name == Path(source).stem}
    assert twins == {source: "duplicate", source.replace("mpg_6000/", ""): ""}
    plan = make_plan(grid.corpus, grid.settings, grid.root, tmp_path / "plan.arrow")
    assert plan.statuses["duplicate"] == 1


@pytest.mark.parametrize(("large", "small"), [("a", "b"), ("b", "a")])
def test_of_two_sizes_the_smaller_picture_is_taken_whatever_the_folders_are_called(
    drawn_grid: Any, importer: Any, tmp_path: Path, large: str, small: str
) -> None:
    source = drawn_grid.root / drawn_grid.odd["large_twin"]
    name = source.stem
    place(source, tmp_path, f"{large}/s2/{name}.mpg")
    place(source.parent.parent / source.name, tmp_path, f"{small}/s2/{name}.mpg")
    statuses = {c.source: c.status for c in importer("grid", tmp_path).clips()}
    assert statuses == {f"{large}/s2/{name}.mpg": "duplicate", f"{small}/s2/{name}.mpg": ""}


def test_which_of_two_is_kept_is_not_decided_by_a_failing_disk(
    drawn_grid: Any, importer: Any, tmp_path: Path
) -> None:
    source = drawn_grid.root / drawn_grid.odd["large_twin"]
    place(source, tmp_path, f"a/s2/{source.name}")
    bad = tmp_path / "b" / "s2" / source.name
    bad.parent.mkdir(parents=True)
    bad.symlink_to("/proc/self/mem")  # opens, and gives EIO when it is read
    with pytest.raises(OSError, match="Input/output error"):
        importer("grid", tmp_path).clips()


def test_a_clip_that_exists_only_large_is_kept(
    drawn_grid: Any, importer: Any, tmp_path: Path
) -> None:
    source = drawn_grid.odd["large_twin"]
    place(drawn_grid.root / source, tmp_path, source)
    got = importer("grid", tmp_path).load()
    assert got.media.frames[0].shape == (576, 720) and len(got.media.frames) == 75


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_the_drawn_corpus_ends_as_it_was_broken(
    drawn_grid: Any, importer: Any, decoder: str
) -> None:
    grid = importer("grid", drawn_grid.root, decoder=decoder)
    clips = {clip.source: clip for clip in grid.clips()}
    wanted: dict[str, tuple[str, set[str]]] = {
        "frames_74": ("ok", {"one_frame_short"}),
        "frames_70": ("short", set()),
        "grey_start": ("blank_frames", set()),
        "other_words": ("ok", {"bad_alignment"}),
        "no_audio": ("no_audio", set()),
        "damaged": ("ok", {"damaged"}),
        "large_twin": ("duplicate", set()),
        "empty": ("bad_decode", set()),
        "text": ("bad_decode", set()),
        "truncated": ("short", set()),
        "no_face": ("ok", set()),  # the tracker's to say
        "wrong_talker_align": ("ok", {"misfiled_alignment"}),
    }
    for case, (status, flags) in wanted.items():
        clip = clips[drawn_grid.odd[case]]
        found, seen = clip.status, set()
        if not found:
            try:
                found, seen = "ok", grid.read(clip).media.flags
            except Refused as refusal:
                found = refusal.status
                assert Path(clip.source).name in refusal.error
        if decoder == "ffmpeg":  # it says nothing of damage that it conceals
            flags = flags - {"damaged"}
        assert (found, seen) == (status, flags), case


# Real clips


def test_real_clips_are_all_listed_with_their_alignments(real_grid: Path, importer: Any) -> None:
    clips = importer("grid", real_grid).clips()
    assert len(clips) == len(list(real_grid.rglob("*.mp[4g]")))
    aligned = {path.stem for path in real_grid.glob("s*/align/*.align")}
    assert {clip.name for clip in clips if clip.text} == aligned & {clip.name for clip in clips}
    assert {clip.status for clip in clips if "mpg_6000" not in clip.source} == {""}


@pytest.mark.parametrize(
    ("name", "status", "flags"),
    [
        ("bbaf2n", "ok", set()),
        ("lrae3s", "ok", {"one_frame_short"}),
        ("lrarzn", "blank_frames", set()),
        ("pbio7a", "blank_frames", set()),
        ("swwp2s", "ok", {"crlf"}),
        ("pwij3p", "ok", {"no_alignment"}),
        ("bbiz2p", "ok", {"short_pause"}),
        ("sgib8n", "ok", set()),  # damaged as shipped, concealed where it was encoded again
    ],
)
def test_odd_real_clips_come_out_as_what_they_are(
    real_grid: Path, importer: Any, name: str, status: str, flags: set[str]
) -> None:
    if not list(real_grid.glob(f"s*/video/{name}.*")):
        pytest.skip(f"{name} is not in {real_grid}")
    try:
        got = importer("grid", real_grid).load(f"/video/{name}.")
        assert (status, flags) == ("ok", got.flags - {"damaged"})
        shipped = got.clip.source.endswith(".mpg")
        assert ("damaged" in got.flags) == (name == "sgib8n" and shipped)
        assert got.log_mel().shape == (80, 4 * len(got.media.frames))
    except Refused as refusal:
        assert refusal.status == status
