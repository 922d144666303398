"""Promise: intervals are those of a bootstrap over clips, or over talkers and then clips."""

import math
import tracemalloc

import numpy as np
import pytest

from avb.train.evaluate.metrics import intervals
from avb.train.evaluate.metrics.intervals import (
    mcnemar,
    mean_interval,
    ratio_draws,
    ratio_interval,
    resample_counts,
    sign_flips,
)


def width(interval: dict[str, float | None]) -> float:
    low, high = interval["low"], interval["high"]
    assert low is not None and high is not None
    return high - low


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_interval_of_many_clips_is_the_normal_and_of_an_accuracy_the_binomial_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = mean_interval(values)
    assert found["value"] == pytest.approx(values.mean(), abs=1e-12)
    assert width(found) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.04)
    # evaluation.md section 6: a standard error of 1.12 points at 1,000 clips.
    found = mean_interval(np.arange(1000) < 854)
    assert width(found) / 2 / 1.96 == pytest.approx(0.0112, abs=0.0004)


def test_two_clips_give_the_three_means_that_there_are() -> None:
    means = ratio_draws(column(0, 1), column(1, 1))[:, 0]
    shares = [float((means == value).mean()) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert mean_interval([0, 1]) == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_talkers_are_drawn_before_clips() -> None:
    above, below = column(0, 0, 1, 1), column(1, 1, 1, 1)
    clips = ratio_draws(above, below)[:, 0]
    talkers = ratio_draws(above, below, ["a", "a", "b", "b"])[:, 0]
    assert (clips == 0).mean() == pytest.approx(1 / 16, abs=0.01)
    # Both draws of a talker hit the same one half the time, and clips of one talker are alike.
    assert (talkers == 0).mean() == pytest.approx(1 / 4, abs=0.02)
    assert set(talkers.tolist()) == {0.0, 0.5, 1.0}


def test_a_drawn_talker_brings_as_many_clips_as_it_has() -> None:
    counts = np.concatenate(list(resample_counts(5, ["a", "a", "a", "b", "b"], draws=2000)))
    of_a, of_b = counts[:, :3].sum(1), counts[:, 3:].sum(1)
    assert set(zip(of_a.tolist(), of_b.tolist(), strict=True)) == {(6, 0), (3, 2), (0, 4)}
    assert counts.mean(0) == pytest.approx(np.ones(5), abs=0.06)


def test_every_resampling_draws_as_many_clips_as_there_are() -> None:
    chunks = list(resample_counts(3000, draws=1001))
    assert len(chunks) > 1 and sum(map(len, chunks)) == 1001
    assert {int(n) for chunk in chunks for n in chunk.sum(1)} == {3000}


def test_seed_decides_and_nothing_else() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_talkers_weigh_alike_and_what_could_not_be_scored_counts_nowhere() -> None:
    values, talkers = [1, 1, 1, 0], ["a", "a", "a", "b"]
    assert mean_interval(values, talkers)["value"] == 0.75
    assert mean_interval(values, talkers, talker_mean=True)["value"] == 0.5
    nan = math.nan
    assert mean_interval([1, nan, 3])["value"] == 2
    talkers = ["a", "a", "b", "b", "c"]
    found = mean_interval([1, nan, 3, 5, nan], talkers, talker_mean=True)
    assert found["value"] == (1 + 4) / 2
    assert mean_interval([nan, nan]) == {"value": None, "low": None, "high": None}


def test_a_ratio_is_pooled() -> None:
    assert ratio_interval([1, 0], [1, 9])["value"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "only_first, only_second, p", [(1, 6, 16 / 128), (5, 0, 2 / 32), (0, 0, 1.0), (3, 3, 1.0)]
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    first = [True] * only_first + [False] * only_second + [True, False]
    second = [False] * only_first + [True] * only_second + [True, False]
    found = mcnemar(first, second)
    assert (found["a_better"], found["b_better"]) == (only_first, only_second)
    assert found["p"] == pytest.approx(p, abs=1e-12)


def test_of_no_clips_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="no clips"):
        mean_interval([])


def test_sign_flips_are_the_binomial_test_where_each_unit_has_one_word() -> None:
    for first, second in ((9, 1), (12, 8), (30, 11)):
        p = sign_flips([1.0] * first + [-1.0] * second + [0.0] * 5, draws=40_000)
        exact = mcnemar([True] * first + [False] * second, [False] * first + [True] * second)["p"]
        assert p == pytest.approx(exact, rel=0.1, abs=2e-4)
    assert sign_flips([0.0, 0.0]) == 1.0


def test_signs_of_any_number_of_units_are_drawn_in_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 50)
    whole = sign_flips(values)
    monkeypatch.setattr(intervals, "_CHUNK", 1000)
    assert sign_flips(values) == whole
    monkeypatch.undo()
    tracemalloc.start()
    sign_flips(np.ones(20_000), draws=1000)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_words_of_one_sentence_count_together() -> None:
    """Four sentences of five words each are no proof, twenty words alone would be."""
    assert sign_flips([5.0] * 4) == pytest.approx(1 / 8, rel=0.1)
    assert sign_flips([1.0] * 20) < 0.001
