"""Names that a shell and a file system allow, and ffmpeg or Python take for something else."""

import os
import shutil
from pathlib import Path

import pytest
from commands import avb, did, refused

from avb.tools.infer.film import targets

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")


def test_a_link_to_itself_and_names_with_a_colon(
    tiny_models: dict[str, Path], talker_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop.mp4").symlink_to("loop.mp4")
    shutil.copy(talker_clip, "a:b.mp4")
    words = ["infer", "l2s", "loop.mp4", "a:b.mp4", "--ckpt", str(tiny_models["l2s"])]
    words += ["--device", "cpu", "--out", "made", "--mux", "c:d", "--track", "."]
    assert "written over" in refused(*words)  # a:b.mp4 is one of the videos
    Path("c:d").mkdir()
    words[-1] = "e:f"
    done = avb(*words)
    assert done.exit_code == 1, done.stderr
    [fault] = [line for line in done.stderr.splitlines() if line.startswith("avb: ")]
    assert "loop.mp4" in fault
    found = {str(path) for path in Path().rglob("*:*") if path.is_file()}
    assert found == {"a:b.mp4", "made/a:b.wav", "c:d/a:b.mp4", "e:f/a:b.mp4"}
    # Without a folder before the colon.
    words = ["infer", "l2s", "a:b.mp4", "--ckpt", str(tiny_models["l2s"]), "--device", "cpu"]
    did(*words, "--out", "s:t.wav", "--mux", "m:n.mp4")
    assert Path("m:n.mp4").stat().st_size


def test_a_name_that_is_no_utf_8_is_one_line_and_the_others_are_done(
    tiny_models: dict[str, Path], talker_clip: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.mp4")
    shutil.copy(talker_clip, odd)
    link = tmp_path / "link.mp4"
    link.symlink_to(odd)
    words = ["--ckpt", tiny_models["l2s"], "--device", "cpu", "--out", tmp_path / "made"]
    done = avb("infer", "l2s", odd, link, talker_clip, *words)
    assert done.exit_code == 1
    for name in ("odd\\xff.mp4", "link.mp4"):
        assert f"avb: {tmp_path}/{name}: a name that is no UTF-8; rename it" in done.stderr
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["talker.wav"]


def test_a_question_mark_ends_the_name_in_an_address_alone() -> None:
    videos = ["is it?.mp4", "is it?no.mp4", "https://one.example/clip.mp4?token=a.b"]
    made = targets(videos, Path("made"), ".wav")
    assert [path.name for path in made] == ["is it?.wav", "is it?no.wav", "clip.wav"]


def test_two_options_that_would_write_one_file_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "o")
    for words, named in (
        (["l2s", "a.mp4", "b.mp4", "--out", "o", "--mux", "o", "--track", "o"], ("mux", "track")),
        (["l2s", "a.mp4", "--out", "o", "--mux", "o/a.mp4", "--track", "link"], ("mux", "track")),
        (["l2s", "a.mp4", "--out", "o/x.wav", "--mux", "o/x.wav"], ("out", "mux")),
        (["lip", "a.mp4", "--srt", "s.mp4", "--track", "s.mp4"], ("track", "srt")),
    ):
        places = [str(tmp_path / w) if w[0] != "-" else w for w in words[1:]]
        line = refused("infer", words[0], *places, "--device", "cpu")
        assert "would both write it" in line, line
        assert all(f"--{option}" in line for option in named), line
    assert not (tmp_path / "o").exists()


def test_a_sound_beside_the_film_is_not_written_over_unless_it_is_named(
    tiny_models: dict[str, Path], talker_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(talker_clip, "clip.mp4")
    words = ["infer", "l2s", "clip.mp4", "--ckpt", str(tiny_models["l2s"]), "--device", "cpu"]
    Path("clip.wav").write_bytes(b"own")
    line = refused(*words)
    assert "clip.wav: is there already" in line and "--out clip.wav" in line
    assert Path("clip.wav").read_bytes() == b"own"
    assert "call it .wav" in refused(*words, "--out", "clip.mp3") and not Path("clip.mp3").exists()
    assert avb(*words, "--out", "clip.wav").exit_code == 0
    assert Path("clip.wav").read_bytes()[:4] == b"RIFF"
    Path("clip.wav").unlink()
    assert avb(*words).exit_code == 0 and Path("clip.wav").exists()
