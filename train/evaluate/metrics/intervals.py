"""Intervals and paired tests over clips.

A figure is a ratio of two sums over clips, so one bootstrap serves all: clips, or talkers and then
as many clips of each as it has (`talkers`, for a claim about unseen ones), are drawn with
replacement `draws` times. What is drawn depends on `seed`, the number of clips and their talkers
alone: two figures of the same clips are resampled alike, which `scipy.stats.bootstrap` cannot
promise, nor can it draw talkers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Interval = dict[str, float | None]

DRAWS = 10_000
NO_FIGURE: Interval = {"value": None, "low": None, "high": None}
#: Numbers held at once while drawing; 2,000 clips are then drawn some 500 times in one go.
_CHUNK = 1_000_000


def resample_counts(
    num_clips: int, talkers: Sequence[Any] | None = None, draws: int = DRAWS, seed: int = 0
) -> Iterator[Floats]:
    """How often each clip is drawn: chunks [b x clips] that add up to `draws` rows."""
    if num_clips < 1:
        raise ValueError("no clips to draw from: an interval needs at least one")
    members = []
    if talkers is not None:
        codes = np.unique(list(talkers), return_inverse=True)[1]
        members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // num_clips)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        if talkers is None:
            picked = rng.integers(0, num_clips, (rows, num_clips), dtype=np.int32)
            cells = (picked + np.arange(rows)[:, None] * num_clips).reshape(-1)
        else:
            cells = _two_stage(members, rows, num_clips, rng)
        counts = np.bincount(cells, minlength=rows * num_clips)
        yield counts.reshape(rows, num_clips).astype(np.float64)


def _two_stage(
    members: list[NDArray[np.int64]], rows: int, num_clips: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat cells of [rows x clips]: talkers with replacement, then clips of each."""
    drawn = rng.integers(0, len(members), (rows, len(members)))
    cells = []
    for code, clips in enumerate(members):
        row_of = np.repeat(np.arange(rows), (drawn == code).sum(axis=1) * len(clips))
        cells.append(row_of * num_clips + clips[rng.integers(0, len(clips), len(row_of))])
    return np.concatenate(cells)


def ratio_draws(
    numerator: Any, denominator: Any, talkers: Sequence[Any] | None = None, draws: int = DRAWS,
    seed: int = 0, units: Sequence[Any] | None = None,
) -> Floats:  # fmt: skip
    """Ratios [draws x k] of column sums of resampled [clips x k] (or sparse); NaN over nothing.

    With `units`, clips of one unit, such as the words of a sentence, are drawn together.
    """
    if units is not None:
        sums, first = _by_unit(units)
        numerator, denominator = sums @ numerator, sums @ denominator
        talkers = None if talkers is None else [talkers[clip] for clip in first]
    chunks = resample_counts(numerator.shape[0], talkers, draws, seed)
    return np.concatenate([ratio(some @ numerator, some @ denominator) for some in chunks])


def _by_unit(units: Sequence[Any]) -> tuple[Any, NDArray[np.int64]]:
    """What sums clips by their unit, sparse [units x clips], and the first clip of each unit."""
    from scipy.sparse import csr_array

    _, first, of = np.unique(list(units), return_index=True, return_inverse=True)
    return csr_array((np.ones(len(of)), (of, np.arange(len(of))))), first


def ratio(above: Floats, below: Floats) -> Floats:
    """The quotient; NaN over nothing."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def percentiles(value: float, draws: ArrayLike) -> Interval:
    """`value` between the 2.5th and the 97.5th percentile of its finite draws; NaN becomes None."""
    finite = np.asarray(draws, np.float64)
    finite = finite[np.isfinite(finite)]
    if not np.isfinite(value) or not finite.size:
        return dict(NO_FIGURE)
    low, high = np.percentile(finite, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, talkers: Sequence[Any] | None = None,
    draws: int = DRAWS, seed: int = 0, units: Sequence[Any] | None = None,
) -> Interval:  # fmt: skip
    """Sum over sum, [clips] each, such as errors over words, with its 95 % interval.

    What is drawn: see `ratio_draws`.
    """
    above, below = (np.asarray(v, np.float64).reshape(-1, 1) for v in (numerator, denominator))
    value = float(above.sum() / below.sum()) if below.sum() > 0 else float("nan")
    return percentiles(value, ratio_draws(above, below, talkers, draws, seed, units))


def mean_interval(
    values: ArrayLike, talkers: Sequence[Any] | None = None, *, talker_mean: bool = False,
    two_stage: bool = False, draws: int = DRAWS, seed: int = 0,
) -> Interval:  # fmt: skip
    """Mean of [clips] with its 95 % interval; NaN (could not be scored) counts nowhere.

    With `talker_mean`, mean per talker, then over talkers; with `two_stage`, talkers are drawn,
    then clips.
    """
    array = np.asarray(values, np.float64)
    weights = np.isfinite(array).astype(np.float64)
    if talker_mean and talkers is not None:
        codes = np.unique(list(talkers), return_inverse=True)[1]
        weights /= np.maximum(np.bincount(codes, weights=weights), 1)[codes]
    known = np.where(weights > 0, array, 0.0)
    drawn = talkers if two_stage else None
    return ratio_interval(known * weights, weights, drawn, draws, seed)


def mcnemar(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Exact two-sided McNemar test of two systems, bool [clips]: who is right on the same clips."""
    from scipy.stats import binomtest

    a, b = np.asarray(first, bool), np.asarray(second, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"a_better": only_a, "b_better": only_b, "p": p}


def sign_flips(differences: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of [units] whose sign would be by chance if both systems were alike.

    A unit is what is independent, such as a sentence: its words right with the one system less
    those with the other. The share of random signs whose sum is as far from 0 as the one found.
    """
    values = np.asarray(differences, np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(values))
    as_far = 0
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, (min(step, draws - start), len(values))) * 2.0 - 1
        as_far += int((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).sum())
    return (as_far + 1) / (draws + 1)
