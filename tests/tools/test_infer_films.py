"""Promise: `avb infer` sees what `avb prep` stores, and made speech lies under the lips."""

from pathlib import Path

import av
import numpy as np
import pytest
from commands import did
from films import ffmpeg, write_film
from scipy.io import wavfile
from scipy.signal import correlate

from avb.pipeline.clip.decode import read_video
from avb.tools.infer.video import pictures, probe

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")

COUNT = 50
#: When each picture is shown, in seconds.
TIMES = {
    "25": np.arange(COUNT) / 25,
    "24.8": np.arange(COUNT) / 24.8,
    "29.97": np.arange(COUNT) / 29.97,
    "10": np.arange(COUNT) / 10,
    "late": 0.8 + np.arange(COUNT) / 25,
    "pause": np.arange(COUNT) / 25 + 13.0 * (np.arange(COUNT) > 20),
    "gap": np.arange(COUNT) / 25 + 0.52 * (np.arange(COUNT) > 20),
    "again": np.arange(COUNT) / 25 - 0.04 * (np.arange(COUNT) == 20),  # two with one stamp
}


@pytest.mark.parametrize("times", TIMES)
def test_infer_sees_the_pictures_that_prep_stores(tmp_path: Path, times: str) -> None:
    grey = [np.full((64, 64), 20 + 4 * number, np.uint8) for number in range(COUNT)]
    tone = 0.2 * np.sin(np.arange(16000) * 0.1)
    path = write_film(tmp_path / "film.mkv", grey, TIMES[times], tone)
    stored = np.array([int(picture.mean()) for picture in read_video(path, 25).frames])
    seen = np.array([int(picture.mean()) for picture in pictures(probe(str(path)))])
    assert len(set(stored)) > 15 and stored.max() > 20 + 4 * (COUNT - 2)  # read to its end
    assert len(seen) == len(stored) and np.abs(seen - stored).max() <= 1


@pytest.mark.parametrize("odd", ["pixels", "turned", "cover", "default", "joined", "b-frames"])
def test_infer_sees_an_odd_film_as_prep_does(tmp_path: Path, odd: str) -> None:
    path, film, other = (tmp_path / name for name in ("odd.mkv", "film.mp4", "other.mp4"))
    for where, drawn in ((film, "testsrc"), (other, "testsrc2")):
        ffmpeg("-f", "lavfi", "-i", f"{drawn}=s=160x120:r=25:d=2", "-g", "10", where)
    if odd == "pixels":
        ffmpeg("-i", film, "-vf", "setsar=4/3", path)
    elif odd == "turned":
        path = tmp_path / "odd.mp4"
        ffmpeg("-display_rotation", "90", "-i", film, "-c", "copy", path)
    elif odd == "cover":
        path = tmp_path / "odd.mp4"
        ffmpeg("-i", film, "-frames:v", "1", tmp_path / "cover.png")
        ffmpeg("-i", tmp_path / "cover.png", "-i", film, *"-map 0 -map 1 -c copy".split(),
               "-disposition:v:0", "attached_pic", path)  # fmt: skip
    elif odd == "default":
        ffmpeg("-i", film, "-i", other, *"-map 0 -map 1 -c copy -disposition:v:0 0".split(),
               "-disposition:v:1", "default", path)  # fmt: skip
    elif odd == "joined":
        path = tmp_path / "odd.ts"
        for part in (film, other):
            ffmpeg("-i", part, "-c", "copy", part.with_suffix(".ts"))
        path.write_bytes(b"".join(p.with_suffix(".ts").read_bytes() for p in (film, other)))
    else:
        path = tmp_path / "odd.avi"
        ffmpeg("-i", film, *"-c:v mpeg4 -bf 2 -q:v 2".split(), path)
    stored = list(read_video(path, 25, sound="optional").frames)
    seen = list(pictures(probe(str(path))))
    assert len(stored) >= 50 and len(seen) == len(stored)
    shapes = {"pixels": (120, 213), "turned": (160, 120)}
    assert seen[0].shape == stored[0].shape == shapes.get(odd, (120, 160))
    for one, two in zip(seen, stored, strict=True):
        assert np.abs(one.astype(float) - two).mean() < 2


@pytest.mark.parametrize("late_s", [0.0, 0.8])
def test_speech_lies_under_pictures_that_begin_late(
    tiny_models: dict[str, Path], talker_clip: Path, tmp_path: Path, late_s: float
) -> None:
    drawn = list(read_video(talker_clip, 25).frames)
    tone = 0.2 * np.sin(np.arange(round((1.6 + late_s) * 16000)) * 0.1)
    path = write_film(tmp_path / "film.mkv", drawn, late_s + np.arange(len(drawn)) / 25, tone)
    words = ["infer", "l2s", path, "--ckpt", tiny_models["l2s"], "--device", "cpu"]
    words += ["--out", tmp_path / "s.wav", "--mux", tmp_path / "both.mp4"]
    did(*words)
    speech = wavfile.read(tmp_path / "s.wav")[1] / 32768
    heard = []
    for track in (0, 1):
        with av.open(str(tmp_path / "both.mp4")) as muxed:
            blocks = list(muxed.decode(audio=track))
        assert blocks[0].time is not None and blocks[0].sample_rate == 16000
        sound = np.concatenate([block.to_ndarray().reshape(-1) for block in blocks])
        heard.append((blocks[0].time, sound))
    with av.open(str(tmp_path / "both.mp4")) as muxed:
        shown = next(muxed.decode(video=0)).time
    assert shown is not None
    begin, sound = heard[0]
    scores = correlate(sound, speech, "full", "fft")
    spoken = begin + (int(scores.argmax()) - len(speech) + 1) / 16000
    assert abs(spoken - shown) < 0.02
    begin, sound = heard[1]
    true = begin + int(np.argmax(np.abs(sound) > 0.1)) / 16000
    assert abs(true + late_s - shown) < 0.02
