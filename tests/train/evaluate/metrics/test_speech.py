"""Promise: figures are those of evaluation.md, for any level, and failures are never averaged."""

import sys
from typing import Any

import numpy as np
import pytest

from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.speech import (
    METRICS,
    NO_PESQ,
    cut,
    halve_rate,
    mel_distance,
    score_clip,
    summarise,
)

pytest.importorskip("pystoi", reason="STOI is measured by pystoi, in the extra eval")

RATE = 16_000


@pytest.fixture(scope="module")
def needs_pesq() -> None:
    pytest.importorskip("pesq", reason="PESQ is in the extra pesq, which needs a C compiler")


def values(reference: np.ndarray, output: np.ndarray, mel: Mel, **options: Any) -> dict[str, float]:
    found = score_clip(reference, output, mel, **options)
    assert not found["failures"]
    return found["values"]


def delayed(sound: np.ndarray, milliseconds: int) -> np.ndarray:
    shift = milliseconds * 16
    moved = np.roll(sound, shift)
    moved[slice(0, shift) if shift > 0 else slice(len(sound) + shift, None)] = 0
    return moved


def noisy(sound: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=len(sound)) * 0.3 * sound.std()
    return (sound + noise).astype(np.float32)


@pytest.mark.usefixtures("needs_pesq")
def test_original_against_itself_is_perfect(mel: Mel, speechlike: list[np.ndarray]) -> None:
    found = values(speechlike[0], speechlike[0], mel)
    assert list(found) == list(METRICS)
    assert found["stoi"] == pytest.approx(1, abs=1e-6)
    assert found["estoi"] == pytest.approx(1, abs=1e-6)
    # The top of both mappings to MOS-LQO.
    assert found["pesq_nb8"] == found["pesq_nb16"] == pytest.approx(4.549, abs=1e-3)
    assert found["pesq_wb16"] == pytest.approx(4.644, abs=1e-3)
    assert (found["mel_distance"], found["best_lag_ms"]) == (0, 0)


@pytest.mark.usefixtures("needs_pesq")
def test_level_changes_nothing(mel: Mel, speechlike: list[np.ndarray]) -> None:
    reference, output = speechlike[0], noisy(speechlike[0])
    wanted = values(reference, output, mel)
    for gains in ((1, 0.1), (0.1, 1), (0.3, 3)):
        found = values(gains[0] * reference, gains[1] * output, mel)
        assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.usefixtures("needs_pesq")
def test_reference_comes_first(mel: Mel, speechlike: list[np.ndarray]) -> None:
    import pesq as independent
    import pystoi

    clean, damaged = speechlike[1], noisy(speechlike[1])
    found, swapped = values(clean, damaged, mel), values(damaged, clean, mel)
    assert found["stoi"] == pytest.approx(pystoi.stoi(clean, damaged, RATE), abs=1e-9)
    estoi = pystoi.stoi(clean, damaged, RATE, extended=True)
    assert found["estoi"] == pytest.approx(estoi, abs=1e-9)
    for name, mode in (("pesq_nb16", "nb"), ("pesq_wb16", "wb")):
        assert found[name] == pytest.approx(independent.pesq(RATE, clean, damaged, mode), abs=1e-3)
    for name in METRICS[:5]:
        assert abs(found[name] - swapped[name]) > 0.01, name


@pytest.mark.usefixtures("needs_pesq")
def test_eight_kilohertz_are_those_of_soxr(mel: Mel, speechlike: list[np.ndarray]) -> None:
    librosa = pytest.importorskip("librosa", reason="soxr comes with librosa, in the extra dev")
    import pesq

    clean, damaged = speechlike[2], noisy(speechlike[2])
    low = [librosa.resample(s, orig_sr=RATE, target_sr=8000) for s in (clean, damaged)]
    wanted = pesq.pesq(8000, *low, "nb")
    assert values(clean, damaged, mel)["pesq_nb8"] == pytest.approx(wanted, abs=1e-3)
    tones = np.sin(2 * np.pi * np.array([1000.0, 5000.0])[:, None] * np.arange(RATE) / RATE)
    kept, removed = (halve_rate(tone)[100:-100] for tone in tones)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(100, 7900) / 8000)
    np.testing.assert_allclose(kept, wanted, atol=1e-4)
    assert np.abs(removed).max() < 1e-4


@pytest.mark.parametrize("milliseconds", [-40, -10, 10, 20, 40])
def test_lag_is_found_and_costs_stoi(
    milliseconds: int, mel: Mel, speechlike: list[np.ndarray]
) -> None:
    reference, late = speechlike[0], delayed(speechlike[0], milliseconds)
    found = score_clip(reference, late, mel)["values"]
    assert found["best_lag_ms"] == milliseconds
    assert found["stoi"] < 0.95 and found["estoi"] < 0.95


def test_mel_distance_is_in_db_at_equal_level(mel: Mel, speechlike: list[np.ndarray]) -> None:
    librosa = pytest.importorskip("librosa", reason="the independent mel is in the extra dev")

    def decibels(sound: np.ndarray) -> np.ndarray:
        sound = sound / np.sqrt(np.mean(sound.astype(np.float64) ** 2)) * 0.05
        sound = np.concatenate([sound[:1], sound[1:] - 0.97 * sound[:-1]])
        spectrum = np.abs(librosa.stft(sound, n_fft=800, hop_length=160, pad_mode="reflect"))
        bank = librosa.filters.mel(sr=RATE, n_fft=800, n_mels=80, fmin=55.0, fmax=7600.0)
        return 20 * np.log10(np.maximum(bank @ spectrum, 1e-5))[:, :-1]

    first, second = speechlike[0], noisy(speechlike[0])
    wanted = np.abs(decibels(first) - decibels(second)).mean()
    assert mel_distance(first, second, mel) == pytest.approx(wanted, rel=1e-3)


def test_both_are_cut_to_the_shorter() -> None:
    reference, output = cut(np.zeros(48_000, np.float32), np.ones(47_360, np.float32))
    assert len(reference) == len(output) == 47_360
    with pytest.raises(ValueError, match="-41 ms, at most 40"):
        cut(np.zeros(48_000, np.float32), np.ones(47_350, np.float32))
    with pytest.raises(ValueError, match="70of75"):
        cut(np.zeros(48_000, np.float32), np.ones(44_800, np.float32))
    for samples in (44_800, 44_640):  # 280 columns, by either convention
        assert len(cut(np.zeros(48_000), np.ones(samples), "70of75")[0]) == samples
    with pytest.raises(ValueError, match="at most 240"):
        cut(np.zeros(48_000), np.ones(40_000), "70of75")


@pytest.mark.parametrize("side", ["reference", "output"])
@pytest.mark.parametrize("fault", ["silent", "not finite"])
def test_silence_is_a_failure_and_no_zero(
    side: str, fault: str, mel: Mel, speechlike: list[np.ndarray]
) -> None:
    bad = np.full_like(speechlike[0], 0 if fault == "silent" else np.nan)
    pair = (bad, speechlike[0]) if side == "reference" else (speechlike[0], bad)
    found = score_clip(*pair, mel)
    assert set(found["values"].values()) == {None}
    told = [found["failures"][name] for name in METRICS]
    assert all(f"the {side}" in why and fault in why for why in told)


def test_too_little_speech_is_a_failure(mel: Mel, speechlike: list[np.ndarray]) -> None:
    short = speechlike[0][:4000]  # 0.25 s
    found = score_clip(short, short, mel)
    assert found["values"]["stoi"] is None and "0.4 s" in found["failures"]["stoi"]


def test_without_pesq_its_figures_are_null_with_the_reason(
    mel: Mel, speechlike: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    found = score_clip(speechlike[0], speechlike[0], mel)
    for name in METRICS:
        assert (found["values"][name] is None) == name.startswith("pesq")
    assert found["failures"] == {name: NO_PESQ for name in METRICS if name.startswith("pesq")}
    clip = {"key": "s1/x", "talker": "s1", **found}
    summary = summarise([clip, clip], draws=20)
    assert summary["metrics"]["pesq_nb8"] == {
        "value": None, "low": None, "high": None, "n": 0, "reason": NO_PESQ,
    }  # fmt: skip


def record(key: str, talker: str, stoi: float | None) -> dict[str, Any]:
    failures = {} if stoi is not None else {"stoi": "the output is silent"}
    return {"key": key, "talker": talker, "values": {"stoi": stoi}, "failures": failures}


def test_means_are_of_talkers_and_failures_are_listed() -> None:
    stois = {"s1/a": 0.2, "s1/b": 0.4, "s1/c": None, "s2/d": 0.9}
    clips = [record(key, key[:2], stoi) for key, stoi in stois.items()]
    found = summarise(clips, draws=500)
    assert found["metrics"]["stoi"]["value"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["plain"]["stoi"]["value"] == pytest.approx(0.5)
    assert found["metrics"]["stoi"]["n"] == found["plain"]["stoi"]["n"] == 3
    assert found["talkers"] == {"s1": {"stoi": pytest.approx(0.3)}, "s2": {"stoi": 0.9}}
    assert found["failures"] == {"stoi": [{"key": "s1/c", "reason": "the output is silent"}]}
    wide = summarise(clips, unseen_talkers=True, draws=500)["metrics"]["stoi"]
    assert (wide["low"], wide["high"]) == (pytest.approx(0.2, abs=0.11), 0.9)
