"""Promise: `avb infer` as it is typed: what it prints and writes, one line for each fault."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from commands import avb, did, refused
from networks import LABELS
from scipy.io import wavfile
from talkers import cut, encode, ffmpeg, talker, write

from avb.tools.infer.model import Trained, load_trained
from avb.tools.infer.video import pictures, probe

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")


def test_a_clip_of_29_pictures_is_one_window_of_ranked_words(
    tmp_path: Path, checkpoints: dict[str, Path], models: dict[str, Trained]
) -> None:
    clip = write(tmp_path / "clip.mp4", talker(3, 29, (256, 256), 60))
    words = ["infer", "lip", clip, "--ckpt", checkpoints["lip"], "--device", "cpu"]
    done = did(*words, "--json", "--top", 3, "--track", tmp_path / "track.mp4")
    [record] = json.loads(done.stdout)["videos"]
    [window] = record["windows"]
    assert (window["start"], window["end"], record["duration"]) == (0.0, 1.16, 1.16)
    chances = [w["probability"] for w in window["words"]]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    assert record["words"] == window["words"]
    assert set(record["seconds"]) == {"decode", "track", "crop", "network", "vocoder"}
    _, stored = cut(clip, models["lip"])
    video = models["lip"].network_video(torch.from_numpy(stored)[None])
    with torch.no_grad():
        chance = models["lip"].model(video).logits.softmax(1)[0]
    assert chances[0] == pytest.approx(float(chance.max()), abs=1e-4)
    assert window["words"][0]["word"] == LABELS[int(chance.argmax())]
    boxed = list(pictures(probe(str(tmp_path / "track.mp4"))))
    assert len(boxed) == 29 and boxed[0].shape == (256, 256)
    told = did(*words).stdout.split()
    assert told[2:4] == [window["words"][0]["word"], f"{chances[0]:.2f}"]


@pytest.mark.parametrize("num_frames", [20, 75, 110])
def test_speech_is_as_long_as_the_film(
    tmp_path: Path, checkpoints: dict[str, Path], num_frames: int
) -> None:
    film = write(tmp_path / "film.mp4", talker(3, num_frames, (180, 144), 26))
    words = ["infer", "l2s", film, "--ckpt", checkpoints["l2s"], "--device", "cpu", "--json"]
    did(*words, "--out", tmp_path / "s.wav", "--mux", tmp_path / "both.mp4")
    rate, sound = wavfile.read(tmp_path / "s.wav")
    assert (rate, sound.dtype, sound.shape) == (16000, "int16", (num_frames * 640,))
    assert sound.std() > 0
    with av.open(str(tmp_path / "both.mp4")) as container:
        kinds = [stream.type for stream in container.streams]
        length = float(container.duration or 0) / 1e6
    assert kinds == ["video", "audio", "audio"]
    assert length == pytest.approx(num_frames / 25, abs=0.1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.mp4", "film.mp4", "s.wav"]


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """{name: (what is typed, what is said)}."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no film at all\n" * 50)
    huge = b"YUV4MPEG2 W10000 H10000 F25:1 Ip A1:1 C420\nFRAME\n"
    (folder / "huge.y4m").write_bytes(huge + b"0" * 99)
    listed = "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (folder / "list.m3u8").write_text(listed)
    wavfile.write(folder / "sound.wav", 16000, np.zeros(16000, np.int16))
    encode([ffmpeg.input("testsrc2=s=360x288:d=1", f="lavfi")], folder / "nobody.mp4")
    whole = (folder / "nobody.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    return {
        "empty": (str(folder / "empty.mp4"), "0 bytes"),
        "text": (str(folder / "text.mp4"), "not a video"),
        "huge": (str(folder / "huge.y4m"), "10000 x 10000"),
        "playlist": (str(folder / "list.m3u8"), "video"),
        "sound": (str(folder / "sound.wav"), "no video stream"),
        "nobody": (str(folder / "nobody.mp4"), "no face was found"),
        "cut": (str(folder / "cut.mp4"), "not a video"),
        "folder": (str(folder), "a folder"),
        "missing": (str(folder / "nowhere.mp4"), "no such file"),
        "address": ("http://127.0.0.1:9/film.mp4", "--allow-url"),
    }


def test_bad_films_are_one_line_each_and_the_others_are_done(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    cases = bad_files(source)
    out.mkdir()
    words = ["--ckpt", checkpoints["l2s"], "--device", "cpu", "--out", out, "--mux", out]
    code, _, text = avb("infer", "l2s", *(typed for typed, _ in cases.values()), base, *words)
    assert code == 1 and "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("avb: ")]
    assert len(lines) == len(cases), text
    for line, (typed, said) in zip(lines, cases.values(), strict=True):
        assert typed in line and said in line
    assert sorted(p.name for p in out.iterdir()) == ["base.mp4", "base.wav"]


def test_what_cannot_be_written_is_said_before_a_film_is_read(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    (tmp_path / "file").write_text("no folder")
    film, speech, sound = (tmp_path / name for name in ("file/x.mp4", "file/x.wav", "s.wav"))
    both = ["--out", sound, "--mux", film]
    for task, more in (("lip", ["--track", film]), ("l2s", ["--out", speech]), ("l2s", both)):
        line = refused("infer", task, base, "--ckpt", checkpoints[task], *more)
        assert f"{more[-1]}: cannot be written" in line and not sound.exists()


def test_a_checkpoint_of_the_other_task_is_refused(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    (tmp_path / "no.pt").write_bytes(b"nothing")
    for kind, path in (("lip", checkpoints["l2s"]), ("l2s", checkpoints["lip"]),
                       ("lip", tmp_path / "no.pt")):  # fmt: skip
        assert str(path) in refused("infer", kind, base, "--ckpt", path, "--device", "cpu")


def test_no_film_is_written_over(base: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    words = ["infer", "l2s", base, "--ckpt", checkpoints["l2s"], "--device", "cpu"]
    assert "written over" in refused(*words, "--out", tmp_path / "s.wav", "--mux", base)
    assert "folder" in refused(*words, base, "--out", tmp_path / "s.wav")


def test_a_checkpoint_without_settings_takes_those_of_its_corpus(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    state = torch.load(checkpoints["lip"], weights_only=True)
    del state["data"]["settings"]
    torch.save(state, tmp_path / "old.pt")
    old = load_trained("lip", tmp_path / "old.pt")
    said = old.settings
    assert (said.box, said.fixed_box, said.frames) == ("fixed", [59, 95, 195, 231], 29)


@pytest.mark.slow
def test_ten_minutes_take_no_more_memory_than_one(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    probe_rss = "import resource,sys; from avb.tools.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # noqa: E501
    most = {}
    for minutes in (2, 10):
        film = tmp_path / f"{minutes}.mp4"
        encode([ffmpeg.input(str(base), stream_loop=30 * minutes - 1).video], film, vcodec="copy")
        done = subprocess.run(
            [sys.executable, "-c", probe_rss, "infer", "l2s", str(film), "--ckpt",
             str(checkpoints["l2s"]), "--out", str(tmp_path / "s.wav"), "--device", "cpu"],
            capture_output=True, text=True,
        )  # fmt: skip
        most[minutes] = int(done.stdout.split()[-1]) >> 10
        assert len(wavfile.read(tmp_path / "s.wav")[1]) == minutes * 60 * 16000
    assert most[10] < most[2] + 40, most
