"""GRID: every layout and trap of its copies, as what they are."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from importers import importer, touch

from avb.pipeline.corpora.grid import SLOTS, VOCABULARY, parse_align, words_of
from avb.tools.synth import media

SENTENCE = "bin blue at f two now".split()
# Units of 1/25000 s, as in the corpus.
ALIGN = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 at\n35500 41000 f\n" \
        "41000 47250 two\n47250 53000 now\n53000 74500 sil\n"  # fmt: skip


def write_pictures(folder: Path, names: list[str]) -> None:
    """Small textured pictures; picture i has the mean level 60 + i."""
    folder.mkdir(parents=True)
    texture = np.tile([[-20, 20], [20, -20]], (24, 32)).repeat(8, 0).repeat(8, 1)[:48, :64]
    for i, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), (texture + 60 + i).astype(np.uint8))


def numbers(pictures: list[np.ndarray]) -> list[int]:
    return [round(float(p.mean())) - 60 for p in pictures]


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Any]:
    """An importer of a folder with empty files of these names."""

    def make(*names: str, **flags: Any) -> Any:
        return importer("grid", touch(tmp_path, *names), **flags)

    return make


@pytest.fixture
def place(drawn_grid: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a good mpg of talker 1 to a name below the folder."""

    def copy(video: str = "s1/video/bbaf2n.mpg", source: str = "s1/video/bbaf2n.mpg") -> Path:
        (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(drawn_grid.root / source, tmp_path / video))

    return copy


def add(path: Path, seconds: float) -> None:
    """A wav of so many seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_wav(path, np.full(round(seconds * 16000), 0.1, np.float32))


# Names


def test_a_name_spells_its_sentence() -> None:
    assert words_of("bbaf2n") == SENTENCE
    assert words_of("swiz3n") == "set white in z three now".split()
    assert words_of("LRAQZS") == "lay red at q zero soon".split()
    assert [len(slot) for slot in SLOTS] == [4, 4, 4, 25, 10, 4]
    assert len(VOCABULARY) == 51 and "sil" not in VOCABULARY and "w" not in VOCABULARY


# Layouts

LAYOUTS = {
    "flat": ("s1/{}.mpg", "sN/NAME.mpg"),
    "talker/video": ("s1/video/{}.mpg", "sN/video/NAME.mpg"),
    "high rate": ("s1/video/mpg_6000/{}.mpg", "sN/video/mpg_6000/NAME.mpg"),
    "part folders": ("s1.mpg_6000.part1/s1/video/mpg_6000/{}.mpg", "sN/sN/video/mpg_6000/NAME.mpg"),
    "disc": ("id1_vcd_{}.mpg", "idN_vcd_NAME.mpg"),
    "inside a folder": ("GRID/video/s1/{}.mpg", "GRID/video/sN/NAME.mpg"),
    "mp4": ("s1/video/{}.mp4", "sN/video/NAME.mp4"),
    "capitals": ("S1/VIDEO/{}.MPG", "sN/VIDEO/NAME.MPG"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_with_its_talker(grid: Any, layout: str) -> None:
    pattern, shown = LAYOUTS[layout]
    found = grid(pattern.format("bbaf2n"), pattern.format("swwp2s"))
    clips = {clip.name: (clip.speaker, clip.group, clip.status) for clip in found.clips()}
    assert clips == {name: ("s1", "s1", "") for name in ("bbaf2n", "swwp2s")}
    assert found.listing().layout == shown


def test_mixed_layouts_are_one_corpus_and_the_root_one_talker(grid: Any, tmp_path: Path) -> None:
    names = ["s1/bbaf2n.mpg", "s10/video/bbaf3n.mpg", "id34_vcd_swwp2s.mpg"]
    mixed = grid(*names, "s2.mpg_6000.part2/s2/video/mpg_6000/lbaf2n.mpg")
    assert sorted(clip.group for clip in mixed.clips()) == ["s1", "s10", "s2", "s34"]
    assert mixed.listing().layout.count(", ") == 3
    alone = tmp_path / "s10"
    assert [clip.speaker for clip in importer("grid", alone).clips()] == ["s10"]
    (alone / "id7_vcd_pwiz9a.mpg").touch()  # what a file says of itself is nearer
    assert sorted(str(c.speaker) for c in importer("grid", alone).clips()) == ["s10", "s7"]


NAMES = ["bbaw2n", "bbaf0n", "xbaf2n", "bbaf2", "bbaf2nn", "notes"]


@pytest.mark.parametrize(
    ("source", "status"),
    [*((f"s1/{name}.mpg", "bad_name") for name in NAMES), ("clips/bbaf2n.mpg", "no_speaker")],
)
def test_no_sentence_or_talker_is_refused_by_name(grid: Any, source: str, status: str) -> None:
    [bad] = [clip for clip in grid("s1/bbaf2n.mpg", source).clips() if clip.status]
    assert bad.status == status and source in bad.error


def test_litter_of_archives_and_systems_is_no_clip(grid: Any) -> None:
    litter = ["s1/._bbaf2n.mpg", "__MACOSX/s1/._bbaf2n.mpg", "__MACOSX/s1/bbaf2n.mpg"]
    litter += [".Trash/s1/lbaf2n.mpg", "lost+found/x.mp4"]
    litter += ["@eaDir/bbaf2n.mpg", "$RECYCLE.BIN/x.avi"]
    listing = grid("s1/bbaf2n.mpg", *litter).listing()
    assert [clip.source for clip in listing.clips] == ["s1/bbaf2n.mpg"] and not listing.notices


def test_talkers_behind_links_are_found_and_a_link_to_above_ends(grid: Any, tmp_path: Path) -> None:
    grid("disk/s1/bbaf2n.mpg", "disk/s2/lbaf2n.mpg")
    (tmp_path / "grid").mkdir()
    for talker in ("s1", "s2"):
        (tmp_path / "grid" / talker).symlink_to(tmp_path / "disk" / talker)
    (tmp_path / "disk/s1/up").symlink_to(tmp_path / "grid")
    clips = importer("grid", tmp_path / "grid").clips()
    assert [(clip.speaker, clip.name) for clip in clips] == [("s1", "bbaf2n"), ("s2", "lbaf2n")]


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_blanks_and_other_alphabets_work(place: Any, tmp_path: Path, decoder: str) -> None:
    place("Été 2024 база 口型/s1/video/bbaf2n.mpg")
    got = importer("grid", tmp_path / "Été 2024 база 口型", decoder=decoder).load()
    assert len(got.media.frames) == 75 and got.clip.source == "s1/video/bbaf2n.mpg"


# Folders of pictures

FOLDERS = {
    "mouth_000.png": ("s1/bbaf2n", [f"mouth_{i:03d}.png" for i in range(75)]),
    "1.jpg": ("lip/s1/video/mpg_6000/bbaf2n", [f"{i}.jpg" for i in range(1, 76)]),
    "00.png": ("s1/video/bbaf2n", [f"{i:02d}.png" for i in range(75)]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_pictures_are_read_in_the_order_of_numbers_and_a_missing_one_is_filled(
    tmp_path: Path, grid: Any, kind: str
) -> None:
    folder, names = FOLDERS[kind]
    write_pictures(tmp_path / folder, names)
    add(tmp_path / "audio_25k/s1/bbaf2n.wav", 3)
    assert "folders of pictures" in grid().listing().layout
    got = grid().load()
    assert (got.clip.speaker, got.clip.source) == ("s1", folder)
    found = numbers(got.media.frames)
    assert len(found) == 75 and np.abs(np.array(found) - np.arange(75)).max() <= 1
    assert got.flags == {"separate_audio", "no_alignment"}
    assert got.log_mel().shape == (80, 300)
    (tmp_path / folder / names[40]).unlink()  # the other 74 look like a film one short
    got = grid().load()
    found = numbers(got.media.frames)
    assert len(found) == 75
    if kind != "1.jpg":  # else levels are a little off
        assert found[40] in (39, 41) and found[41:] == list(range(41, 75))
    assert got.flags == {"separate_audio", "no_alignment", "filled_frames"}


@pytest.mark.parametrize(
    "wav",
    [
        "audio_25k/s1/bbaf2n.wav",
        "audio_25k/audio_25k/s1/bbaf2n.wav",
        "s1/audio/bbaf2n.wav",
        "s1/BBAF2N.WAV",
        "s1/bbaf2n/bbaf2n.wav",
    ],
)
def test_separate_sound_and_alignment_are_found_by_their_names(
    tmp_path: Path, grid: Any, wav: str
) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1])
    add(tmp_path / wav, 3)
    align = f"{wav[:-4]}.align"
    clip = grid(align).load().clip
    assert (clip.audio, clip.text) == (wav, align)


@pytest.mark.parametrize(
    ("seconds", "status", "says"),
    [
        (None, "no_audio", "pictures only, and no bbaf2n.wav"),
        # 1.2 s of silence cut off, as distributed: used anyway, speech would lead the lips.
        (1.8, "missing_audio", "-1.20 s against 75 pictures"),
    ],
)
def test_pictures_without_their_whole_sound_are_refused(
    tmp_path: Path, grid: Any, seconds: float | None, status: str, says: str
) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1])
    if seconds:
        add(tmp_path / "s1/bbaf2n.wav", seconds)
    refusal = grid().refusal()
    assert refusal.status == status and says in refusal.error


def test_pictures_of_which_the_last_is_missing_keep_their_sound(tmp_path: Path, grid: Any) -> None:
    write_pictures(tmp_path / "s1/bbaf2n", FOLDERS["1.jpg"][1][:74])
    add(tmp_path / "s1/bbaf2n.wav", 3)  # 40 ms more, but for the rounding of floats
    assert grid().load().flags == {"separate_audio", "no_alignment", "one_frame_short"}


def test_the_sound_of_the_film_is_preferred_to_the_separate_wav(place: Any, grid: Any) -> None:
    add(place().parent / "bbaf2n.wav", 1.8)
    got = grid().load()
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
def test_alignments_are_found_anywhere(place: Any, tmp_path: Path, grid: Any, align: str) -> None:
    place()
    grid(align)
    (tmp_path / align).write_text(ALIGN)
    got = grid().load()
    assert got.clip.text == align and got.flags == set()
    assert [word for word, _, _ in got.words] == SENTENCE


def test_alignment_units_are_thousandths_of_a_frame() -> None:
    words = parse_align(ALIGN, set())
    assert words[0] == ("bin", 0.95, 1.18) and words[-1] == ("now", 1.89, 2.12)


def test_a_talker_s_own_alignment_comes_before_another_s(tmp_path: Path, grid: Any) -> None:
    grid("s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "s1/align/bbaf2n.align", "s2/align/bbaf2n.align")
    found = {clip.speaker: clip.text for clip in grid().listing().clips}
    assert found == {"s1": "s1/align/bbaf2n.align", "s2": "s2/align/bbaf2n.align"}


def test_another_talkers_folder_is_used_and_flagged(place: Any, tmp_path: Path, grid: Any) -> None:
    # Zenodo's alignments of 19 talkers lie in the wrong folder.
    place("s10/bbaf2n.mpg")
    grid("alignments/s13/bbaf2n.align")
    (tmp_path / "alignments/s13/bbaf2n.align").write_text(ALIGN)
    got = grid().load()
    assert got.words[0] == ("bin", 0.95, 1.18) and got.flags == {"misfiled_alignment"}


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
def test_contradicting_alignments_are_not_believed(place: Any, grid: Any, text: str) -> None:
    place().with_suffix(".align").write_text(text, "latin-1")
    got = grid().load()
    assert got.words == [(word, None, None) for word in SENTENCE]
    assert got.flags == {"bad_alignment"}


# Pictures and sound


@pytest.mark.parametrize(("large", "small"), [("a", "b"), ("b", "a")])
def test_of_two_sizes_the_smaller_picture_is_taken_whatever_the_folders_are_called(
    drawn_grid: Any, grid: Any, place: Any, large: str, small: str
) -> None:
    source = drawn_grid.odd["large_twin"]
    name = Path(source).name
    place(f"{large}/s2/{name}", source)
    got = grid().load()  # alone it is taken
    assert got.media.frames[0].shape == (576, 720) and len(got.media.frames) == 75
    place(f"{small}/s2/{name}", source.replace("mpg_6000/", ""))
    statuses = {c.source: c.status for c in grid().clips()}
    assert statuses == {f"{large}/s2/{name}": "duplicate", f"{small}/s2/{name}": ""}


def test_a_film_is_preferred_to_its_pictures(grid: Any, place: Any, tmp_path: Path) -> None:
    write_pictures(tmp_path / "s1/a/bbaf2n", FOLDERS["1.jpg"][1])
    assert [clip.status for clip in grid("s1/b/bbaf2n/1.jpg").clips()] == ["", "duplicate"]
    place()
    statuses = {clip.source: clip.status for clip in grid().clips()}
    pictures = dict.fromkeys(("s1/a/bbaf2n", "s1/b/bbaf2n"), "duplicate")
    assert statuses == {"s1/video/bbaf2n.mpg": ""} | pictures


def test_a_failing_disk_does_not_decide(grid: Any, place: Any, tmp_path: Path) -> None:
    place("a/s2/bbaf2n.mpg")
    (tmp_path / "b/s2").mkdir(parents=True)
    (tmp_path / "b/s2/bbaf2n.mpg").symlink_to("/proc/self/mem")  # opens, gives EIO when read
    with pytest.raises(OSError, match="Input/output error"):
        grid().clips()
