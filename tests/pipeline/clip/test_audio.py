"""Promise: mels are librosa's to 1e-4, four columns a frame, and sound lies where it was heard."""

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from films import speechlike

from avb.pipeline.clip import audio
from avb.pipeline.config import Mel, load_corpora

FRONT_ENDS = {name: load_corpora()[name].mel for name in ("lrw", "grid")}


def librosa_mel(sound: np.ndarray, corpus: str) -> np.ndarray:
    """The front ends as the issue states them, in numbers of their own."""
    librosa = pytest.importorskip("librosa", reason="the independent mel is in the extra dev")
    sound = sound.astype(np.float64)
    if corpus == "lrw":
        window, power, scale, floor = 400, 2.0, {"htk": True, "norm": None}, 1e-10
        low, high = 0.0, 8000.0
    else:
        sound = np.concatenate([sound[:1], sound[1:] - 0.97 * sound[:-1]])
        window, power, scale, floor = 800, 1.0, {"htk": False, "norm": "slaney"}, 1e-5
        low, high = 55.0, 7600.0
    spectrum = np.abs(
        librosa.stft(sound, n_fft=window, hop_length=160, win_length=window, pad_mode="reflect")
    )
    bank = librosa.filters.mel(
        sr=16000, n_fft=window, n_mels=80, fmin=low, fmax=high, dtype=np.float64, **scale
    )
    return np.log(np.maximum(bank @ spectrum**power, floor))


@pytest.mark.filterwarnings("ignore:Empty filters")  # 80 HTK bands are narrower than some bins
@pytest.mark.parametrize("corpus", FRONT_ENDS)
def test_mels_are_those_of_librosa(corpus: str) -> None:
    sound = speechlike(1.16)
    mel = FRONT_ENDS[corpus]
    wanted = librosa_mel(sound, corpus)
    found = audio.log_mel(sound, mel, 16000)
    assert wanted.shape == (80, 117) and found.shape == (80, 116)  # the last is dropped
    wanted = wanted[:, :116]
    away = np.abs(found - wanted)
    above = wanted > math.log(mel.floor) + 1
    # A float32 transform errs by 1e-7 of its loudest bin; within 40 dB of it that is under 1e-4.
    loud = above & (wanted > wanted.max(axis=0) - mel.power * math.log(100))
    assert loud.mean() > 0.3 and above.mean() > 0.9
    assert away[loud].max() < 1e-4 and away[above].max() < 5e-3
    assert found.dtype == np.float32 and found.min() >= math.log(mel.floor) - 1e-4


@pytest.mark.parametrize("corpus", FRONT_ENDS)
@pytest.mark.parametrize("frames", [1, 2, 29, 74, 75, 250])
def test_every_frame_has_four_columns(corpus: str, frames: int) -> None:
    sound = np.zeros(frames * 640, np.float32)
    found = audio.log_mel(sound, FRONT_ENDS[corpus], 16000)
    assert found.shape == (80, 4 * frames)
    assert np.allclose(found, math.log(FRONT_ENDS[corpus].floor))  # silence is the floor


def test_mels_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mel, sound = load_corpora()["lrw"].mel, np.random.default_rng(0).standard_normal(16037)
    whole = audio.log_mel(sound, mel, 16000)
    for part in (1, 7, 100):
        monkeypatch.setattr(audio, "PART", part)
        np.testing.assert_allclose(audio.log_mel(sound, mel, 16000), whole, atol=1e-5)


def test_a_clip_of_whole_parts_is_made_with_an_odd_window() -> None:
    mel = dataclasses.replace(FRONT_ENDS["lrw"], n_fft=401)
    assert audio.log_mel(np.zeros(60 * 16000, np.float32), mel, 16000).shape == (80, 6000)


@pytest.mark.parametrize("corpus", FRONT_ENDS)
def test_a_column_is_centred_on_its_time(corpus: str) -> None:
    for column in (10, 57):
        click = np.zeros(18560, np.float32)
        click[column * 160] = 0.9
        found = audio.log_mel(click, FRONT_ENDS[corpus], 16000)
        assert found.sum(axis=0).argmax() == column


# Storage


def loud_sounds() -> Iterator[np.ndarray]:
    """The loudest there is: full-scale sines and squares on bin centres, and full-scale noise."""
    time = np.arange(16000) / 16000
    for hertz in (60, 100, 200, 500, 1000, 3000, 7000, 7900):
        sine = np.sin(2 * np.pi * hertz * time)
        yield sine.astype(np.float32)
        yield np.sign(sine).astype(np.float32)
    yield np.random.default_rng(0).choice([-1.0, 1.0], 16000).astype(np.float32)
    yield np.ones(16000, np.float32)


@pytest.mark.parametrize(("corpus", "error"), [("grid", 0.03), ("lrw", 0.07)])
def test_uint8_mels_err_by_at_most_half_a_step(corpus: str, error: float) -> None:
    mel = FRONT_ENDS[corpus]
    scale, offset = audio.mel_scale_offset(mel)
    assert scale / 2 <= error
    ramp = np.linspace(math.log(mel.floor), mel.uint8_max, 80 * 400, dtype=np.float32)
    for sound in (None, speechlike(1.16), *loud_sounds()):
        found = ramp.reshape(80, -1) if sound is None else audio.log_mel(sound, mel, 16000)
        stored = audio.store_mel(found, mel, "uint8")
        assert stored.dtype == np.uint8
        assert np.abs(stored * scale + offset - found).max() <= scale / 2 + 1e-5
    assert {0, 255} <= set(audio.store_mel(ramp, mel, "uint8").tolist())


@pytest.mark.parametrize("corpus", FRONT_ENDS)
def test_float16_mels_err_by_at_most_a_hundredth(corpus: str) -> None:
    found = audio.log_mel(speechlike(1.16), FRONT_ENDS[corpus], 16000)
    stored = audio.store_mel(found, FRONT_ENDS[corpus], "float16")
    assert stored.dtype == np.float16 and np.abs(stored.astype(np.float32) - found).max() < 0.01


# Under the pictures


@pytest.mark.parametrize(
    ("length", "start_s", "frames", "pad"),
    [
        (18560, 0.0, 29, 0),
        (19456, 0.0, 29, -896),
        (18432, 0.0, 29, 128),
        (18560, 0.02, 29, -320),  # placed 20 ms later, so its end is cut
        (18560, -0.064, 29, 1024),  # its start is cut, its end padded
        (18560, 5.0, 29, -80000),  # begins behind the pictures
        (18560, -5.0, 29, 18560),  # ends before them
        (0, 0.0, 29, 18560),
        (100, 0.0, 1, 540),
    ],
)
def test_sound_is_cut_or_padded_at_the_end_to_640_samples_a_frame(
    length: int, start_s: float, frames: int, pad: int
) -> None:
    sound = np.arange(1, length + 1, dtype=np.float32)
    found, padded = audio.fit(sound, 16000, start_s, frames, 25, 16000)
    assert len(found) == 640 * frames and padded == pad
    shift = round(start_s * 16000)
    for at in (0, 5, 640 * frames // 2, 640 * frames - 1):
        source = at - shift
        assert found[at] == (source + 1 if 0 <= source < length else 0)


def test_sound_of_44100_hz_keeps_pitch_and_place() -> None:
    rate = 44100
    time = np.arange(round(2.978 * rate)) / rate
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    tone[: rate // 2] = 0  # begins at 0.5 s
    found, pad = audio.fit(tone, rate, 0.0, 75, 25, 16000)
    assert len(found) == 48000 and pad == 48000 - math.ceil(len(tone) * 160 / 441)
    assert np.flatnonzero(np.abs(found) > 0.3)[0] == pytest.approx(8000, abs=8)
    part = found[16000:24000]
    assert np.abs(np.fft.rfft(part)).argmax() * 2 == 1000


def test_resampling_lets_no_ultrasound_through() -> None:
    rate = 44100
    time = np.arange(rate) / rate
    high = np.sin(2 * np.pi * 12000 * time).astype(np.float32)
    assert np.abs(audio.resample(high, rate, 16000)[1000:-1000]).max() < 0.01
    low = np.sin(2 * np.pi * 5000 * time).astype(np.float32)
    kept = audio.resample(low, rate, 16000)
    assert np.abs(kept[1000:-1000]).max() == pytest.approx(1, abs=0.02)


# torchaudio


BROKEN = """
from torchaudio import _extension
assert _extension._IS_TORCHAUDIO_EXT_AVAILABLE is False
assert _extension.fail_if_no_align("unchanged") == "unchanged"
found = "the Python part"
"""


@pytest.fixture
def no_torchaudio() -> Iterator[None]:
    """Take torchaudio out of this process for one test."""
    names = [n for n in sys.modules if n.split(".")[0] == "torchaudio"]
    saved = {name: sys.modules.pop(name) for name in names}
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    sys.modules.update(saved)


def write_package(folder: Path, init: str, extension: str) -> None:
    (folder / "torchaudio/_extension").mkdir(parents=True)
    (folder / "torchaudio/__init__.py").write_text(init)
    (folder / "torchaudio/_extension/__init__.py").write_text(extension)


@pytest.mark.parametrize(
    "fault",
    [
        OSError("libc10_cuda.so: cannot open shared object"),
        RuntimeError("PyTorch and TorchAudio were compiled with different CUDA versions"),
    ],
)
def test_a_torchaudio_for_another_cuda_is_used_without_its_compiled_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_torchaudio: None, fault: Exception
) -> None:
    write_package(tmp_path, BROKEN, f"raise {fault!r}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(type(fault), match=str(fault)):
        import torchaudio  # noqa: F401
    assert audio.torchaudio.__wrapped__().found == "the Python part"


def test_a_torchaudio_that_works_is_left_alone_and_none_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_torchaudio: None
) -> None:
    write_package(tmp_path, "from torchaudio._extension import real", "real = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert audio.torchaudio.__wrapped__().real is True
    assert sys.modules["torchaudio._extension"].real is True
    sys.modules["torchaudio"] = None  # type: ignore[assignment] # put right by `no_torchaudio`
    with pytest.raises(ImportError):
        audio.torchaudio.__wrapped__()


def test_mel_settings_are_all_used() -> None:
    """A key that changes nothing would be a wrong key."""
    sound = speechlike(0.5)
    base = FRONT_ENDS["grid"]
    other = {"window": 640, "n_fft": 1024, "power": 2.0, "mel_scale": "htk", "norm": None,
             "f_min": 0.0, "f_max": 8000.0, "preemphasis": 0.0, "floor": 1e-2}  # fmt: skip
    wanted = audio.log_mel(sound, base, 16000)
    for key, value in other.items():
        changed = Mel(**{**base.__dict__, key: value})
        found = audio.log_mel(sound, changed, 16000)
        assert found.shape == wanted.shape and np.abs(found - wanted).max() > 0.1, key
    assert audio.log_mel(sound, Mel(**{**base.__dict__, "n_mels": 40}), 16000).shape == (40, 50)
    assert audio.log_mel(sound, Mel(**{**base.__dict__, "hop": 320}), 16000).shape == (80, 25)
