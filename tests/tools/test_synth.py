"""Promise: a synthetic corpus is the real one's layout, and what is drawn and said is known.

mouth seen(t) ~ mouth drawn(t), sound heard(word) = align(word), same seed -> same bytes.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest
from commands import refused

from avb.pipeline.clip.facemesh import NEAR, Detector, FaceMesh
from avb.tools.synth import face, make, raw, recut, visemes

voice = pytest.importorskip("avb.tools.synth.voice")
pytest.importorskip("espeakng_loader", reason="speech needs the extra prep")

Files = dict[str, bytes]


def read_tree(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes()
            for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".avb_synth"}  # fmt: skip


def decode(path: Path) -> tuple[list[av.VideoFrame], np.ndarray]:
    """Frames, and the sound as float32 at 16 kHz."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        parts = [*container.decode(audio=0), None]
        return frames, np.concatenate(
            [heard.to_ndarray()[0] for part in parts for heard in resampler.resample(part)]
        )


ABOUT = "lipread_mp4/ABOUT/train/ABOUT_00001.mp4"


@pytest.fixture(scope="module")
def recut_lrw(drawn_grid: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of a drawn GRID, which stands in for the real one."""
    pytest.importorskip("ai_edge_litert", reason="faces need the extra prep")
    out = tmp_path_factory.mktemp("recut")
    make("lrw", out, clips=4, from_grid=drawn_grid.root)
    return sorted(out.rglob("*.mp4"))


def lag(heard: np.ndarray, said: np.ndarray) -> int:
    """Samples by which `heard` is late."""
    length = min(len(heard), len(said))
    spectrum = np.fft.rfft(heard[:length]) * np.conj(np.fft.rfft(said[:length]))
    peak = int(np.argmax(np.fft.irfft(spectrum, length)))
    return peak if peak < length // 2 else peak - length


# Voice and face


def test_a_text_sounds_the_same_each_time() -> None:
    # This voice has breath, whose noise espeak-ng seeds with the second of the day.
    first = voice.speak("place red with q nine soon", "en+f5")
    other = voice.speak("place red with q nine soon", "en+m3")
    time.sleep(1.01 - time.time() % 1)
    again = voice.speak("place red with q nine soon", "en+f5")
    assert np.array_equal(first.samples, again.samples)
    assert first.phonemes == again.phonemes
    assert len(other.samples) != len(first.samples)


def test_words_and_phonemes_cover_the_speech_in_order() -> None:
    speech = voice.speak("bin blue at f two now")
    assert [word for word, _, _ in speech.words] == "bin blue at f two now".split()
    starts = [start for _, start, _ in speech.words]
    assert starts == sorted(starts) and speech.words[-1][2] <= speech.duration_s
    assert all(start < end for _, start, end in speech.words)
    assert [p for p, _, _ in speech.phonemes][:3] == ["b", "'I", "n"]
    with pytest.raises(ValueError, match="xx-nowhere"):
        voice.speak("bin", "xx-nowhere")


def test_all_letters_are_spoken_as_letters() -> None:
    # The letter a would be the article; six words must come out whatever the letter is.
    for letter in "aeiqz":
        clip = raw.grid_clip(1, f"bba{letter}2n")
        assert [word for word, _, _ in clip.words][3] == letter
        assert clip.words[3][2] - clip.words[3][1] >= 0.06


def test_lips_close_for_m_and_open_for_a() -> None:
    track = visemes.mouth_track([("m", 0.0, 0.4), ("'A:", 0.4, 0.8), ("_", 0.8, 1.2)], 30)
    # Frame 8 is the last but one of the m, 11 the first but one of the a, 21 of the pause.
    assert track[8, 0] < 0.1 and track[11, 0] > 0.8 and track[21, 0] < 0.1
    assert track[18, 0] > 0.8
    assert np.abs(np.diff(track[:, 0])).max() < 0.9  # smoothed, no jump in one frame


def test_detectors_find_24_of_24_faces_and_see_the_mouth_open() -> None:
    pytest.importorskip("ai_edge_litert", reason="faces need the extra prep")
    mesh, detector = FaceMesh(follow=False), Detector(NEAR)
    drawn, seen, found = [], [], 0
    for person in range(6):
        for opening in (0.0, 0.3, 0.6, 1.0):
            picture = face.draw(face.Identity.from_seed(person), opening, tilt=person - 3)
            rgb = np.ascontiguousarray(picture[..., ::-1])
            marks = mesh.landmarks(rgb)
            found += bool(marks) and bool(detector.find(rgb))
            points = marks[0]
            drawn.append(opening)
            seen.append(points[14, 1] - points[13, 1])
            assert np.hypot(*(points[[61, 291, 13, 14]].mean(axis=0) - (180, 210))) < 6
    assert found == 24
    assert np.corrcoef(drawn, seen)[0, 1] > 0.95


def test_the_mouth_in_a_decoded_clip_follows_the_drawn_one(drawn_lrw: Any) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces need the extra prep")
    clip = raw.lrw_clip("ABOUT", 100)
    mesh = FaceMesh(follow=False)
    seen = []
    for frame in decode(drawn_lrw.root / ABOUT)[0]:
        (marks,) = mesh.landmarks(frame.to_ndarray(format="rgb24"))
        seen.append(marks[14, 1] - marks[13, 1])
    assert clip.opening.max() > 0.6
    assert np.corrcoef(clip.opening, seen)[0, 1] > 0.85
    assert np.corrcoef(clip.opening[:-3], seen[3:])[0, 1] < 0.6  # three frames late would show


# GRID


def test_grid_has_its_exact_layout(drawn_grid: Any) -> None:
    good = sorted(set(read_tree(drawn_grid.root)) - set(drawn_grid.odd.values()))
    assert "s1/video/bbaf2n.mpg" in good and "s1/align/bbaf2n.align" in good
    name = "[blps][bgrw][abiw][a-vx-z][1-9z][anps]"
    pattern = re.compile(rf"s\d+/(video/{name}\.mpg|align/{name}\.align)|odd_cases\.csv")
    assert [path for path in good if not pattern.fullmatch(path)] == []


def test_a_grid_clip_is_mpeg1_with_75_frames_and_the_published_sound(drawn_grid: Any) -> None:
    path = drawn_grid.root / "s1/video/bbaf2n.mpg"
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert container.format.name == "mpeg" and video.codec_context.name == "mpeg1video"
        assert (video.width, video.height, video.average_rate) == (360, 288, 25)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("mp2", 44100, 2)
        assert video.start_time == audio.start_time == 0
        assert sum(frame.samples for frame in container.decode(audio=0)) == 131328
    assert len(decode(path)[0]) == 75
    assert 0.3e6 < path.stat().st_size < 0.6e6


def test_grid_words_sound_where_the_align_file_says(drawn_grid: Any) -> None:
    grid = drawn_grid.root
    lines = (grid / "s1/align/bbaf2n.align").read_text().splitlines()
    rows = [(int(a), int(b), word) for a, b, word in map(str.split, lines)]
    assert [word for _, _, word in rows] == "sil bin blue at f two now sil".split()
    assert rows[0][0] == 0 and rows[-1][1] == 74500
    assert all(a[1] == b[0] for a, b in zip(rows, rows[1:], strict=False))
    _, sound = decode(grid / "s1/video/bbaf2n.mpg")
    assert abs(lag(sound, raw.grid_clip(1, "bbaf2n").samples)) <= 1

    def loudness(start: int, end: int) -> float:
        part = sound[round(start * 0.64) : round(end * 0.64)]
        return float(np.sqrt(np.mean(part**2)))

    silence = max(loudness(*rows[0][:2]), loudness(*rows[-1][:2]))
    assert min(loudness(a, b) for a, b, _ in rows[1:-1]) > 10 * silence


def test_no_grid_sentence_has_two_talkers() -> None:
    names = [name for name, _ in zip(raw.grid_names(0), range(3000), strict=False)]
    assert len(set(names)) == len(names)


# LRW


def test_lrw_has_its_exact_layout_and_metadata(drawn_lrw: Any) -> None:
    odd = {str(Path(what).with_suffix("")) for what in drawn_lrw.odd.values()}
    files = [path for path in read_tree(drawn_lrw.root) if not path.endswith(".DS_Store")]
    good = [path for path in files if str(Path(path).with_suffix("")) not in odd]
    clip = r"lipread_mp4/([A-Z]+)/(train|val|test)/\1_\d{5}\.(mp4|txt)"
    clips = [path for path in good if re.fullmatch(clip, path)]
    assert len(clips) == 8
    assert set(good) - set(clips) == {"odd_cases.csv", "lipread_mp4/lists/train.txt"}
    lines = (drawn_lrw.root / ABOUT).with_suffix(".txt").read_text().splitlines()
    keys = ["Disk reference", "Channel", "Program start", "Clip start", "Duration"]
    assert [line.split(":")[0] for line in lines] == keys
    assert re.fullmatch(r"Duration: 0\.\d\d seconds", lines[4])


def test_an_lrw_clip_sounds_when_it_was_spoken(drawn_lrw: Any) -> None:
    _, sound = decode(drawn_lrw.root / ABOUT)
    assert abs(lag(sound, raw.lrw_clip("ABOUT", 100).samples)) <= 1


@pytest.mark.parametrize("of", ["drawn", "film"])
def test_lrw_files_are_as_the_real_ones(
    drawn_lrw: Any, of: str, request: pytest.FixtureRequest
) -> None:
    """Four files of three words of the corpus: 115,622 to 140,081 bytes."""
    if of == "film":
        paths = request.getfixturevalue("recut_lrw")
    else:
        odd = {drawn_lrw.root / what for what in drawn_lrw.odd.values()}
        paths = sorted({*drawn_lrw.root.rglob("*.mp4")} - odd)
    assert len(paths) == 4
    for path in paths:
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            packets = [packet for packet in container.demux() if packet.size]
            assert container.metadata["major_brand"] == "isom"
            shown = [packet for packet in packets if packet.stream is video]
            heard = [packet for packet in packets if packet.stream is audio]
            assert (video.codec_context.name, video.profile) == ("mpeg4", "Simple Profile")
            assert (video.width, video.height, video.average_rate) == (256, 256, 25)
            assert video.pix_fmt == "yuv420p" and video.time_base == Fraction(1, 12800)
            assert [i for i, packet in enumerate(shown) if packet.is_keyframe] == [0, 12, 24]
            assert [packet.pts for packet in shown] == [packet.dts for packet in shown]
            assert [packet.pts for packet in shown] == [512 * i for i in range(29)]
            assert (audio.codec_context.name, audio.profile, len(heard)) == ("aac", "LC", 20)
            assert (audio.rate, audio.channels, audio.duration) == (16000, 1, 18560)
            assert heard[0].pts == -1024 and heard[-1].duration == 128
        assert 115_000 < path.stat().st_size < 141_000
        assert 50_000 < 8 * sum(packet.size for packet in heard) / 1.16 < 75_000
        frames, sound = decode(path)
        # 19 whole AAC frames with the priming skipped; FFmpeg 9 drops the padding at the end too.
        assert len(frames) == 29 and len(sound) in (18560, 19456)
        pictures = [frame.to_ndarray(format="gray") for frame in frames]
        assert not any(map(np.array_equal, pictures, pictures[1:]))


def test_the_lrw_word_is_in_the_middle_of_a_longer_phrase() -> None:
    clip = raw.lrw_clip("WEATHER", 104)
    (word, start, end) = clip.words[0]
    assert word == "WEATHER" and (start + end) / 2 == pytest.approx(0.58, abs=1e-6)
    places = (round(start * 16000), round(end * 16000))
    parts = np.split(clip.samples[: round(1.16 * 16000)], places)
    hiss = 3e-4
    assert min(float(np.sqrt(np.mean(part**2))) for part in parts) > 20 * hiss


# make


@pytest.mark.parametrize("corpus", ["grid", "lrw", "lrw1000"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, corpus: str) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        summary = make(corpus, tmp_path / name, clips=2, seed=seed)
        assert summary["clips"] == 2 and summary["corpus"] == corpus
    first, again, other = (read_tree(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_its_own_folder_is_made_anew_but_nothing_foreign_in_it(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt.*did not make"):
        make("grid", tmp_path, clips=1)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "thesis.txt").unlink()
    make("lrw1000", tmp_path, clips=2)
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="notes"):
        make("lrw", tmp_path, clips=1)
    (tmp_path / "notes").rmdir()
    make("lrw", tmp_path, clips=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".avb_synth", "lipread_mp4"]


@pytest.mark.parametrize(
    ("corpus", "options", "told"),
    [
        ("lrs3", {}, "corpus 'lrs3': expected one of"),
        ("grid", {"clips": 0}, "clips 0: expected 1 or more"),
        ("lrw1000", {"layout": "C"}, "layout 'C': expected A"),
        ("lrw", {"layout": "B"}, "layout B: of lrw1000 alone"),
        ("grid", {"from_grid": Path("grid")}, "leave out grid and odd"),
        ("lrw", {"from_grid": Path("nothing")}, "nothing: no"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    tmp_path: Path, corpus: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError) as caught:
        make(corpus, tmp_path, **options)
    said = str(caught.value)
    assert told in said and "\n" not in said


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    line = refused("synth", "grid", "--clips", 1, "--out", tmp_path / "file" / "raw")
    assert "raw: cannot be written" in line


def test_a_folder_of_any_bytes_is_told_as_it_is(tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/\xff"
    words = [sys.executable, "-m", "avb", "synth", "grid", "--clips", "1", "--out", out]
    done = subprocess.run(
        words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    )
    assert done.returncode == 0 and out in done.stdout


# Re-cutting


def test_recut_passes_over_a_film_that_is_no_sentence(
    drawn_grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("video/{}.mpg", "align/{}.align"):
        (tmp_path / "grid/s1" / kind).parent.mkdir(parents=True)
        for name in ("bbaf2n", "sample"):
            source = drawn_grid.root / "s1" / kind.format("bbaf2n")
            shutil.copy(source, tmp_path / "grid/s1" / kind.format(name))
    seen = recut.Face(180.0, 210.0, 60.0)
    monkeypatch.setattr(recut, "FaceMesh", Mock())
    monkeypatch.setattr(recut, "find_face", lambda mesh, frames: seen)
    found = recut.find_clips(tmp_path / "grid", 0)
    assert len(found) == 2
    assert [len(clip.frames) for _, clip, _ in recut.sentences(found)] == [75]


def test_recut_lrw_puts_the_mouth_in_the_fixed_box(recut_lrw: list[Path]) -> None:
    mesh = FaceMesh(follow=False)
    for path in recut_lrw:
        frames, sound = decode(path)
        (marks,) = mesh.landmarks(frames[14].to_ndarray(format="rgb24"))
        mouth = marks[[61, 291, 13, 14]].mean(axis=0)
        assert np.abs(mouth - (127, 163)).max() < 6
        text = path.with_suffix(".txt").read_text()
        duration = float(re.search(r"Duration: (\S+)", text)[1])  # type: ignore[index]
        middle = sound[round((0.58 - duration / 2) * 16000) : round((0.58 + duration / 2) * 16000)]
        assert middle.std() > 0.02
