"""Promise: whatever film a table names ends as its sample or its row, in a worker below 1 GB."""

import csv
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import importers
import numpy as np
import pytest
from films import ffmpeg
from importers import importer, refusal

from avb.pipeline.build import process
from avb.pipeline.clip import audio, codec, pyav
from avb.pipeline.clip.codec import decode_video
from avb.pipeline.clip.decode import read_video, stream_video
from avb.pipeline.shards.tar import read_members
from avb.pipeline.shards.verify import verify
from avb.pipeline.stream.index import load_index


def prepared(films: list[Path], **flags: Any) -> tuple[Any, dict[str, Any]]:
    """The summary of `avb prep table` for these films, and the sample of each by its stem."""
    folder = films[0].parent
    table = folder / "films.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["video"], *([film.name] for film in films)])
    summary = importer("table", table, **flags).prep(folder / "out")
    samples: dict[str, Any] = {}
    for tar in (folder / "out/mine").glob("*.tar"):
        for name, data in read_members(tar.read_bytes()).items():
            key, extension = name.split("/", 1)[-1].split(".", 1)
            samples.setdefault(key, {})[extension] = bytes(data)
    return summary, samples


def shot(film: Path, size: str = "96x96", s: float = 1, more: str = "", sound: str = "") -> Path:
    """A film of `s` seconds as ffmpeg draws it, with a tone or the given sound."""
    drawn = ["-i", f"testsrc=s={size}:r=25:d={s}", "-f", "lavfi"]
    ffmpeg("-f", "lavfi", *drawn, "-i", sound or f"sine=300:r=16000:d={s}",
           *f"-c:v ffv1 -c:a flac {more}".split(), film)  # fmt: skip
    return film


def flags_of(sample: dict[str, bytes]) -> set[str]:
    return set(json.loads(sample["json"])["flags"].split())


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def test_faces_come_out_upright_and_of_their_shape(tmp_path: Path, drawn_grid: Any) -> None:
    source = drawn_grid.root / "s1/video/bbaf2n.mpg"
    names = {
        "upright": "null", "side": "transpose=1", "other": "transpose=2", "over": "hflip,vflip",
        "narrow": "scale=270:288,setsar=4/3", "wide": "scale=720:288,setsar=1/2",
    }  # fmt: skip
    films = [tmp_path / f"{name}.mp4" for name in names]
    for film, graph in zip(films, names.values(), strict=True):
        ffmpeg("-i", source, "-vf", graph, "-c:v", "libx264", "-qp", "8", "-c:a", "aac", film)
    summary, samples = prepared(films)
    assert summary.status == {"ok": len(names)}
    crops = {name: decode_video(found["face.mp4"], "mp4") for name, found in samples.items()}
    for name, found in samples.items():
        assert alike(crops[name][30], crops["upright"][30]) > 0.95, name
        assert ("turned" in flags_of(found)) == (name in ("side", "other", "over")), name


def test_sound_that_nobody_can_hear_is_flagged(tmp_path: Path) -> None:
    levels = {"loud": 0.5, "faint": 0.004, "noise": 0.0003, "nothing": 0.0}
    films = [
        shot(tmp_path / f"{name}.mkv", sound=f"aevalsrc={level}*sin(2*PI*300*t):s=16000:d=1")
        for name, level in levels.items()
    ]
    _, samples = prepared(films, box="whole", crop="lips")
    silent = {name for name, found in samples.items() if "silent" in flags_of(found)}
    assert silent == {"noise", "nothing"}


@pytest.mark.parametrize("frames", [1, 24, 175])  # the last tenth of a second is shorter
def test_sound_is_silent_where_every_tenth_of_a_second_is(frames: int) -> None:
    hum = np.full(640 * frames, 0.99e-3, np.float32)  # -60 dBFS is an amplitude of 1e-3
    hum[1::2] *= -1
    assert audio.is_silent(hum, 16000)
    tenth = hum[-(len(hum) // 2) :][:1600]
    tenth[:] *= 2 if len(tenth) == 1600 else 5
    assert not audio.is_silent(hum, 16000)
    assert not audio.is_silent(hum * 10, 16000)


def test_a_box_that_does_not_move_is_stored_once(tmp_path: Path) -> None:
    _, samples = prepared([shot(tmp_path / "film.mkv", s=5)], box="whole", crop="lips")
    facts = json.loads(samples["film"]["json"])
    assert facts["n_frames"] == 125 and facts["crop_boxes"] == {"lips": [[0.0, 0.0, 96, 96]]}


def test_films_without_sound_become_pictures_alone(tmp_path: Path) -> None:
    films = [shot(tmp_path / "mute.mkv", more="-map 0"), shot(tmp_path / "heard.mkv")]
    flags: dict[str, Any] = {"box": "whole", "crop": "lips"}
    summary, _ = prepared(films, **flags)
    assert summary.status == {"no_audio": 1, "ok": 1}
    films = [film.rename(tmp_path / f"{film.stem}2.mkv") for film in films]
    (tmp_path / "out").rename(tmp_path / "out1")
    summary, samples = prepared(films, audio="optional", **flags)
    assert summary.status == {"ok": 2} and summary.flags["no_audio"] == 1
    assert set(samples["mute2"]) == {"lips.mp4", "json"}
    assert set(samples["heard2"]) == {"lips.mp4", "mel.npy", "flac", "json"}
    assert verify(tmp_path / "out/mine").faults == []
    index = load_index(tmp_path / "out/mine")
    heard = sorted(zip(index.no_audio.tolist(), index.num_mel.tolist(), strict=True))
    assert heard == [(False, 100), (True, 0)]


def test_a_clip_whose_crops_a_worker_cannot_hold_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `--max-seconds` lets through; without the bound readers refuse what was stored."""
    monkeypatch.setattr(process, "MOST_CROPS", 50 * 120 * 120)
    films = [shot(tmp_path / f"{seconds}.mkv", s=seconds) for seconds in (1, 3)]
    summary, samples = prepared(films, box="whole", crop="lips", max_seconds=1e6)
    assert summary.status == {"ok": 1, "long": 1} and set(samples) == {"1"}


def test_jpeg_holds_so_many_pictures_and_a_clip_with_more_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "JPEG_MAX_ROWS", 30 * 120)
    films = [shot(tmp_path / f"{count}.mkv", s=2, more=f"-frames:v {count}") for count in (30, 31)]
    summary, samples = prepared(films, box="whole", crop="lips", codec="jpeg")
    assert summary.status == {"ok": 1, "long": 1} and set(samples) == {"30"}


@pytest.mark.parametrize("size", ["4000x2", "2x4000"])
@pytest.mark.parametrize("box", ["whole", "tracked"])
def test_a_film_of_a_few_rows_or_columns_is_a_row(tmp_path: Path, size: str, box: str) -> None:
    summary, _ = prepared([shot(tmp_path / "thin.mkv", size)], box=box, crop="lips")
    assert summary.status == ({"ok": 1} if box == "whole" else {"no_face": 1})


PEAK = """
import sys
from pathlib import Path
from avb.pipeline.machine import peak_bytes
from avb.pipeline.machine import settle_process
sys.path.insert(0, sys.argv[1])
from importers import importer, refusal
settle_process()
mine = importer("table", sys.argv[2], box="whole", crop="lips", max_seconds=float(sys.argv[3]))
found = mine.prep(Path(sys.argv[2]).parent / "out")
print(found.status, peak_bytes())
"""


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_a_film_may_be_called_anything(tmp_path: Path, decoder: str) -> None:
    plain = shot(tmp_path / "plain.mkv")
    names = (
        "a:b", "concat:x", "file:y", "-dash", "50%d", "#?&", "it's", 'a "name"', "two\nlines",
        "Case", "case", "one.two", " blank ", "x" * 200, "[1]", "~", "a,b;c", "名字",
    )  # fmt: skip
    films = [plain.with_name(f"{name}.mkv") for name in names]
    for film in films:
        film.hardlink_to(plain)
    summary, samples = prepared(films, box="whole", crop="lips", decoder=decoder)
    assert summary.status == {"ok": len(films)} and len(samples) == len(films)
    assert len({sample["lips.mp4"] for sample in samples.values()}) == 1


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize(
    ("ending", "form"),
    [
        ("mkv", "-c:v libaom-av1 -cpu-used 8 -crf 20 -c:a libopus -ar 48000"),
        ("webm", "-c:v libvpx-vp9 -deadline realtime -c:a libopus -ar 48000 -live 1"),
        ("mov", "-c:v qtrle -c:a pcm_mulaw -ar 8000"),
        ("mov", "-c:v rawvideo -pix_fmt uyvy422 -c:a pcm_s24le -ar 96000"),
        ("mkv", "-c:v libx265 -pix_fmt yuv420p10le -color_trc smpte2084 -c:a flac"),
        ("mpg", "-c:v mpeg2video -flags +ilme+ildct -q:v 2 -c:a mp2"),
        ("mov", "-c:v prores_ks -c:a alac"),
        ("mkv", "-c:v mjpeg -q:v 2 -c:a libvorbis"),
    ],
)
def test_a_rare_codec_shows_what_went_into_it(
    tmp_path: Path, ending: str, form: str, decoder: str
) -> None:
    plain = read_video(shot(tmp_path / "plain.mkv"), 25, sound="optional")
    film = read_video(shot(tmp_path / f"odd.{ending}", more=form), 25, decoder=decoder)
    assert abs(len(film.frames) - len(plain.frames)) <= 1
    for one, two in zip(film.frames, plain.frames, strict=False):
        assert alike(one, two) > 0.97
    assert film.sound is not None
    heard = film.sound[film.rate // 4 : -film.rate // 4]
    peak = np.abs(np.fft.rfft(heard)).argmax() * film.rate / len(heard)
    assert abs(peak - 300) < 3


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize(
    ("ending", "form"),
    [
        ("mp4", "-c:v libx264 -c:a aac"),
        ("mp4", "-c:v libx264 -c:a aac -movflags frag_keyframe+empty_moov"),
        ("mov", "-c:v libx264 -c:a aac"),
        ("flv", "-c:v flv -c:a aac"),
        ("ogv", "-c:v libvpx -c:a libopus -f ogg -ar 48000"),
        ("asf", "-c:v wmv2 -c:a wmav2"),
    ],
)
def test_of_recordings_that_end_with_the_first_none_is_half_read(
    tmp_path: Path, ending: str, form: str, decoder: str
) -> None:
    parts = [shot(tmp_path / f"{i}.{ending}", s=2, more=form) for i in (0, 1)]
    assert abs(len(read_video(parts[1], 25, decoder=decoder).frames) - 50) <= 2
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    refused = refusal(read_video, path, 25, decoder=decoder)
    assert refused.status == "bad_decode"
    assert f"another recording begins at byte {parts[0].stat().st_size}," in refused.error


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) + 5])
def test_a_box_longer_than_any_file_ends_no_run(tmp_path: Path, size: int) -> None:
    form = "-c:v libx264 -c:a aac -movflags +faststart"
    films = [shot(tmp_path / f"{name}.mp4", more=form) for name in ("good", "odd")]
    with films[1].open("ab") as file:
        file.write(struct.pack(">I4sQ", 1, b"free", size) + bytes(40))
    summary, _ = prepared(films, box="whole", crop="lips")
    assert summary.status in ({"ok": 2}, {"ok": 1, "bad_decode": 1})


@pytest.mark.parametrize(("most_s", "most"), [(30, 760), (None, 1010)])
def test_of_many_small_pictures_few_are_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_s: int | None, most: int
) -> None:
    film = tmp_path / "film.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=s=2x2:r=25:d=80", "-c:v", "rawvideo",
           "-pix_fmt", "yuv420p", film)  # fmt: skip
    made = Mock(side_effect=pyav.luma_of)
    monkeypatch.setattr(pyav, "luma_of", made)
    pictures = stream_video(film, 25, max_s=most_s, sound="optional").pictures()
    assert next(pictures).shape == (2, 2)
    assert 700 < made.call_count < most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pictures", "sound", "most_s", "status"),
    [
        ("testsrc2=s=1920x1080:r=25:d=20", "sine=300:r=16000:d=20", 60, "ok"),
        ("testsrc2=s=3840x2160:r=30:d=6", "sine=300:r=48000:d=6", 60, "ok"),
        ("testsrc=s=160x120:r=30:d=540", "sine=300:r=16000:d=540", 600, "ok"),
        ("testsrc=s=96x96:r=30:d=1080", "sine=300:r=44100:d=1080", 2000, "long"),
        ("testsrc=s=160x120:r=0.5:d=3600", "sine=300:r=16000:d=3600", 60, "long"),
        ("testsrc=s=96x96:r=25:d=3", "anullsrc=r=48000:cl=7.1:d=7200", 60, "ok"),
    ],
)
def test_no_film_takes_a_worker_above_a_gigabyte(
    tmp_path: Path, pictures: str, sound: str, most_s: int, status: str
) -> None:
    ffmpeg("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", sound, "-c:v", "libx264",
           "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "flac",
           tmp_path / "film.mkv")  # fmt: skip
    (tmp_path / "t.csv").write_text("video\nfilm.mkv\n")
    words = ["-c", PEAK, Path(importers.__file__).parent, tmp_path / "t.csv", most_s]
    told = subprocess.check_output([sys.executable, *map(str, words)], text=True)
    found, peak = told.rsplit(maxsplit=1)
    assert found == str({status: 1}) and int(peak) < 1 << 30
