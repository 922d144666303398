"""Promise: damage that `make fuzz` once found is read round or named, without end or gigabytes."""

from pathlib import Path

import numpy as np
import pytest
from films import write_film

from avb.pipeline.clip import audio
from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.sound_track import Sound
from avb.pipeline.clip.status import Refused
from avb.tools.infer.video import pictures, probe

pytest.importorskip("ffmpeg", reason="films are read with the extra prep")

PICTURES = [np.full((64, 64), 20 * i, np.uint8) for i in range(10)]
TONE = 0.2 * np.sin(np.arange(6400) * 0.1)


def test_a_jump_of_the_stamps_is_no_film_of_years(tmp_path: Path) -> None:
    times = [i / 25 + (3e4 if i > 4 else 0) for i in range(10)]
    path = write_film(tmp_path / "jump.mkv", PICTURES, times, TONE)
    for found in (list(pictures(probe(str(path)))), read_video(path, 25).frames):
        levels = [int(picture.mean()) for picture in found]
        assert abs(len(found) - 10) <= 1  # they run on
        assert levels[0] < 5 and abs(levels[-1] - 180) < 5


def test_sound_that_no_decoder_knows_is_no_sound(tmp_path: Path) -> None:
    path = write_film(tmp_path / "sound.mkv", PICTURES, np.arange(10) / 25, TONE)
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_ZZZ"))
    video = probe(str(path))
    assert video.audio is None and len(list(pictures(video))) == 10
    with pytest.raises(Refused, match="audio that no decoder here knows"):
        read_video(path, 25)


@pytest.mark.parametrize(
    ("forms", "rate", "said"),
    [
        ([(1, "f4"), (2, "f4")], 16000, "2 forms"),
        ([(1, "f4"), (1, "i2")], 16000, "2 forms"),
        ([(1, "f4")], 1, "sound at 1 Hz"),
    ],
)
def test_sound_that_changes_its_form_or_has_no_rate_is_refused(
    forms: list[tuple[int, str]], rate: int, said: str
) -> None:
    sound = Sound()
    for number, (count, kind) in enumerate(forms):
        sound.add(np.zeros((count, 9), kind), rate, (), number * 9 / 16000)
    with pytest.raises(Refused, match=said):
        sound.mono("x.ts")


@pytest.mark.parametrize("rate", [8_013, 15_997, 44_101, 383_999])
def test_sound_of_an_odd_rate_does_not_drift_and_takes_no_gigabytes(rate: int) -> None:
    sound = np.zeros(10 * rate, np.float32)
    sound[9 * rate] = 1
    found = audio.resample(sound, rate, 16000)
    assert abs(len(found) - 160_000) < 30 and abs(int(found.argmax()) - 144_000) < 30  # 2 ms


def test_sound_far_behind_its_pictures_is_silence() -> None:
    sound, _ = audio.fit(np.ones(1600, np.float32), 16000, 1e9, 25, 25, 16000)
    assert sound.shape == (16000,) and not sound.any()
