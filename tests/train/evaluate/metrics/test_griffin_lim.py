"""Promise: a log-mel comes back as the sound it was made of, at the moment where it was heard."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve, hilbert, lfilter

from avb.pipeline.clip.audio import log_mel, mel_matrix
from avb.pipeline.config import Mel, load_corpora
from avb.train.evaluate.metrics.griffin_lim import (
    deemphasise,
    griffin_lim,
    invert_mel,
    linear_magnitude,
)

RATE = 16_000
FRONT_ENDS = {name: load_corpora()[name].mel for name in ("grid", "lrw")}


def mel_of(sound: np.ndarray, mel: Mel) -> torch.Tensor:
    return torch.from_numpy(log_mel(sound, mel, RATE))


def lag_of(first: np.ndarray, second: np.ndarray) -> int:
    """Samples by which the second is late, by cross-correlation of 10 ms amplitude envelopes."""
    a, b = (fftconvolve(np.abs(hilbert(s)), np.hanning(160), "same") for s in (first, second))
    crossed = fftconvolve(b - b.mean(), (a - a.mean())[::-1])
    return int(np.argmax(crossed)) - (len(a) - 1)


def bursts(seed: int) -> np.ndarray:
    """Noise that comes and goes; a voice would leave the place within a pitch period open."""
    rng = np.random.default_rng(seed)
    level = np.interp(np.arange(48_000), np.arange(0, 48_001, 800), rng.random(61) ** 4)
    return (level * rng.normal(size=48_000)).astype(np.float32)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_round_trip_has_no_lag(name: str) -> None:
    mel = FRONT_ENDS[name]
    for sound in map(bursts, range(3)):
        back = invert_mel(mel_of(sound, mel), mel, RATE).numpy()
        assert back.shape == sound.shape and back.dtype == np.float32
        assert abs(lag_of(sound, back)) <= 16  # a tenth of a column
        # The measure itself sees a column.
        assert lag_of(sound, np.roll(back, 160)) == pytest.approx(160, abs=16)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_mel_of_the_inverse_is_the_mel(name: str, speechlike: list[np.ndarray]) -> None:
    mel = FRONT_ENDS[name]
    wanted = mel_of(speechlike[0], mel)
    back = mel_of(invert_mel(wanted, mel, RATE).numpy(), mel)
    heard = wanted > wanted.max() - np.log(1e3) * mel.power
    to_db = 20 / mel.power / np.log(10)
    assert float((back - wanted)[heard].abs().mean()) * to_db < 1.5


@pytest.mark.parametrize("columns", [1, 2, 116, 280, 300])
def test_output_has_a_hop_for_every_column(columns: int, mel: Mel) -> None:
    found = invert_mel(torch.zeros(2, 80, columns), mel, RATE, iterations=2)
    assert found.shape == (2, columns * 160) and torch.isfinite(found).all()


def test_magnitude_is_that_of_the_pseudo_inverse(mel: Mel) -> None:
    librosa = pytest.importorskip("librosa", reason="the independent filters are in the extra dev")
    bank = librosa.filters.mel(sr=RATE, n_fft=800, n_mels=80, fmin=55.0, fmax=7600.0)
    mels = np.random.default_rng(0).normal(size=(80, 7))
    wanted = np.maximum(np.linalg.pinv(bank.astype(np.float64)) @ np.exp(mels), 1e-10)
    found = linear_magnitude(torch.from_numpy(mels).float()[None], mel, RATE)[0]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-3, atol=2e-3 * wanted.max())


def test_a_power_mel_gives_magnitudes_too() -> None:
    mel = dataclasses.replace(FRONT_ENDS["grid"], power=2.0)
    magnitude = 1 + 0.5 * torch.cos(torch.arange(401 * 5) / 40).view(5, 401).T[None]
    log_power = (mel_matrix(mel, RATE).T @ magnitude.square()).log()
    found = linear_magnitude(log_power, mel, RATE)
    power = mel_matrix(mel, RATE).T @ found.square()
    torch.testing.assert_close(power, log_power.exp(), rtol=0.05, atol=1e-4)


def test_deemphasis_undoes_preemphasis() -> None:
    sound = np.random.default_rng(0).normal(size=(2, 3000)).astype(np.float32)
    wanted = lfilter([1.0], [1.0, -0.97], sound.astype(np.float64))
    np.testing.assert_allclose(deemphasise(torch.from_numpy(sound), 0.97), wanted, atol=1e-5)


def inconsistency(sound: torch.Tensor, magnitude: torch.Tensor, mel: Mel) -> float:
    window = torch.hann_window(mel.window)
    found = torch.stft(sound, mel.n_fft, mel.hop, mel.window, window, return_complex=True).abs()
    return float((found - magnitude).norm() / magnitude.norm())


def test_momentum_beats_twice_the_rounds(mel: Mel, speechlike: list[np.ndarray]) -> None:
    window = torch.hann_window(mel.window)
    sound = torch.from_numpy(np.stack(speechlike))
    magnitude = torch.stft(sound, 800, 160, 800, window, return_complex=True).abs()
    error = {how: inconsistency(griffin_lim(magnitude, mel, *how), magnitude, mel)
             for how in ((0, 0.0), (32, 0.99), (32, 0.0), (64, 0.0))}  # fmt: skip
    assert error[32, 0.99] < error[64, 0.0] < error[32, 0.0] < error[0, 0.0]


def test_without_momentum_it_is_the_textbook_algorithm(mel: Mel) -> None:
    """One round in plain NumPy from the same phase."""
    magnitude = torch.rand(1, 401, 30)
    before, after = (griffin_lim(magnitude, mel, n, 0.0, seed=5) for n in (0, 1))
    window = torch.hann_window(800)
    seen = torch.stft(before, 800, 160, 800, window, return_complex=True).numpy()
    spectrum = magnitude.numpy() * np.exp(1j * np.angle(seen))
    total, weight = np.zeros(29 * 160 + 800), np.zeros(29 * 160 + 800)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    for column in range(30):
        place = slice(column * 160, column * 160 + 800)
        total[place] += hann * np.fft.irfft(spectrum[0, :, column])
        weight[place] += hann**2
    wanted = (total / np.maximum(weight, 1e-11))[400:-400]
    np.testing.assert_allclose(after[0].numpy(), wanted, atol=1e-4)


def test_seed_decides_the_phase(mel: Mel, speechlike: list[np.ndarray]) -> None:
    mels = mel_of(speechlike[0][:16000], mel)
    first, again, other = (invert_mel(mels, mel, RATE, iterations=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    state = torch.get_rng_state()
    invert_mel(mels, mel, RATE, iterations=1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "mels, message",
    [
        (torch.zeros(79, 10), "expected \\[80 x M\\]"),
        (torch.zeros(80, 0), "expected \\[80 x M\\]"),
        (torch.full((80, 4), float("nan")), "not finite"),
    ],
)
def test_no_mel_is_refused(mels: torch.Tensor, message: str, mel: Mel) -> None:
    with pytest.raises(ValueError, match=message):
        invert_mel(mels, mel, RATE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_gives_the_sound_of_the_cpu(mel: Mel, speechlike: list[np.ndarray]) -> None:
    mels = mel_of(speechlike[0], mel)
    here, there = (invert_mel(mels.to(d), mel, RATE, iterations=4) for d in ("cpu", "cuda"))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-2, atol=1e-3)
