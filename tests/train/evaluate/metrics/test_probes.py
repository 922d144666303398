"""Promise: a probe tells kinds apart on clips it never saw, retrieval finds the very frame."""

import numpy as np
import pytest

from avb.train.evaluate.metrics.probes import probe, retrieval

CLIPS = np.repeat(np.arange(20), 15)


def features(seed: int, dims: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(300, dims))


def test_probe_of_one_kind_is_at_chance_and_of_two_at_one() -> None:
    same = probe(features(0), features(1), CLIPS, draws=500)
    assert same["low"] < 0.5 < same["high"]  # type: ignore[operator]
    apart = probe(features(0), features(1) + 6, CLIPS, draws=500)
    assert apart == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_probe_accuracy_is_that_of_the_best_line() -> None:
    # Two unit normals d apart: no line does better than Phi(d / 2) = 0.8413 for d = 2.
    shift = np.eye(12)[0] * 2
    found = probe(features(2), features(3) + shift, CLIPS, draws=200)
    assert found["value"] == pytest.approx(0.8413, abs=0.03)


def test_probe_does_not_see_the_clips_it_is_tested_on() -> None:
    """The kind is random in each clip, which the features name: a leak would reach 1."""
    rng = np.random.default_rng(0)
    name = np.eye(20)[CLIPS]
    sign = rng.choice([-1, 1], 20)[CLIPS][:, None]
    found = probe(sign * name, -sign * name, CLIPS, penalty=1e-6, draws=50)
    assert found["value"] < 0.75


def test_probe_needs_a_clip_for_each_fold() -> None:
    with pytest.raises(ValueError, match="2 clips for 5 folds"):
        probe(features(0)[:30], features(1)[:30], CLIPS[:30])


def test_retrieval_finds_the_own_frame_or_guesses() -> None:
    real = features(0)
    exact = retrieval(3 * real, real, CLIPS, draws=100)
    assert exact["value"] == 1
    chance = retrieval(features(1), real, CLIPS, candidates=10, draws=1000)
    assert chance["low"] < 0.1 < chance["high"]  # type: ignore[operator]
    # The mean of the clip, however close, is not the frame.
    constant = retrieval(np.ones_like(real), real, CLIPS, candidates=10, draws=100)
    assert constant["value"] == pytest.approx(0.1, abs=0.06)


def test_rivals_come_from_other_clips() -> None:
    """All frames of a clip are one: only rivals of the own clip could tie and be wrong."""
    real = np.repeat(features(0)[:20], 15, axis=0)
    assert retrieval(real, real, CLIPS, candidates=100, draws=20)["value"] == 1
    with pytest.raises(ValueError, match="15 frames of other clips for 99"):
        retrieval(real[:30], real[:30], CLIPS[:30])
