"""Lip reading: what the logits of a test set say, by class, by place and by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avb.train.evaluate.metrics.intervals import (
    DRAWS,
    Interval,
    percentiles,
    ratio_draws,
    ratio_interval,
)
from avb.train.evaluate.words.grammar import SLOT_NAMES

NUM_CONFUSIONS = 20
#: Of each figure, the field of a record's clips that it is the mean of.
HITS = {
    "top1": "right",
    "top5": "top5",
    "top1_mirrored": "right_mirrored",
    "top1_audio": "right_audio",
    "top1_both": "right_both",
}


def label_ranks(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Classes before the right one, [n], in logits [n x classes]; of equals the lower is first."""
    scores, right = np.asarray(logits), np.asarray(labels, np.int64)
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise ValueError(f"logits {scores.shape} with labels {right.shape}; expected [n, classes]")
    if right.size and not 0 <= right.min() <= right.max() < scores.shape[1]:
        raise ValueError(f"labels {right.min()}..{right.max()} of {scores.shape[1]} classes")
    bad = int((~np.isfinite(scores).all(axis=1)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(scores)} clips have logits that are not finite")
    own = np.take_along_axis(scores, right[:, None], axis=1)
    lower_index = np.arange(scores.shape[1]) < right[:, None]
    return ((scores > own) | ((scores == own) & lower_index)).sum(axis=1)


def score(
    logits: ArrayLike, labels: ArrayLike, classes: Sequence[str], *,
    talkers: Sequence[Any] | None = None, places: Sequence[int] | None = None, draws: int = DRAWS,
) -> dict[str, Any]:  # fmt: skip
    """Every figure of one pass over a test set, from logits [n x classes] and labels [n].

    With `talkers`, intervals draw talkers, then samples; where words come from few sentences,
    giving the sentences instead widens intervals honestly. `places` are those of each word in its
    sentence (0 to 5, the `#3` of its key).

    Returns:
        `metrics` (`top1`, `top5`, `macro`: the mean over classes that occur), `per_class`,
        `per_slot` and `per_length` (by letters of the word), all as {"value", "low", "high"}, the
        last three with `n`; `confusions`: the 20 most frequent, `said` read as `heard`; `clips`:
        `top1`, `top5` and `predicted` of each sample.
    """
    right = np.asarray(labels, np.int64)
    ranks = label_ranks(logits, right)
    predicted = np.asarray(logits).argmax(axis=1)  # the first of equals, so the lower index
    drawing: dict[str, Any] = {"talkers": talkers, "draws": draws}
    ones = np.ones(len(right))
    lengths = np.array([len(name) for name in classes])[right]
    per_class, macro = _by_group(ranks == 0, right, classes, **drawing)
    return {
        "metrics": {
            "top1": ratio_interval(ranks == 0, ones, **drawing),
            "top5": ratio_interval(ranks < 5, ones, **drawing),
            "macro": macro,
        },
        "per_class": per_class,
        "per_slot": {} if places is None else _by_slot(ranks == 0, places, **drawing),
        "per_length": _by_group(ranks == 0, lengths, range(lengths.max() + 1), **drawing)[0],
        "confusions": confusions(predicted, right, classes),
        "clips": {
            "top1": (ranks == 0).tolist(),
            "top5": (ranks < 5).tolist(),
            "predicted": [classes[i] for i in predicted.tolist()],
        },
    }


def blind(
    known_cues: NDArray[np.int64], known: NDArray[np.int64], cues: NDArray[np.int64],
    right: NDArray[np.int64],
) -> dict[str, float]:  # fmt: skip
    """Accuracy without a look at the mouth, of what was most frequent in training.

    `slot`: at the word's place in the sentence; `slot_and_length`: among words there that are as
    long, where training has one. Cues are places and lengths in frames, [n x 2]; classes [n].
    """
    found = {}
    said = np.full(len(right), -1)
    for name, width in (("slot", 1), ("slot_and_length", 2)):
        for cue in np.unique(cues[:, :width], axis=0):
            heard = known[(known_cues[:, :width] == cue).all(axis=1)]
            if len(heard):
                said[(cues[:, :width] == cue).all(axis=1)] = np.bincount(heard).argmax()
        found[name] = float((said == right).mean())
    return found


def confusions(
    predicted: ArrayLike, labels: ArrayLike, classes: Sequence[str], most: int = NUM_CONFUSIONS
) -> list[dict[str, Any]]:
    """The most frequent mistakes, `said` read as `heard`; of equals the lower indices first."""
    heard, said = np.asarray(predicted, np.int64), np.asarray(labels, np.int64)
    wrong = heard != said
    pairs, counts = np.unique(said[wrong] * len(classes) + heard[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        {"said": classes[i], "heard": classes[j], "count": int(counts[k])}
        for k in order.tolist()
        for i, j in [divmod(int(pairs[k]), len(classes))]
    ]


def _by_group(
    hits: NDArray[np.bool_], codes: NDArray[np.int64], names: Sequence[Any],
    talkers: Sequence[Any] | None, draws: int,
) -> tuple[dict[str, dict[str, Any]], Interval]:  # fmt: skip
    """Accuracy of each group that occurs, and their mean, from the same resamplings."""
    from scipy.sparse import csr_array

    present, column = np.unique(codes, return_inverse=True)
    cells = (np.arange(len(codes)), column)
    shape = (len(codes), len(present))
    above = csr_array((hits.astype(np.float64), cells), shape)
    below = csr_array((np.ones(len(codes)), cells), shape)
    ratios = ratio_draws(above, below, talkers, draws)
    counts = np.bincount(column)
    values = np.bincount(column, weights=hits) / counts
    groups = {
        str(names[code]): {**percentiles(values[k], ratios[:, k]), "n": int(counts[k])}
        for k, code in enumerate(present.tolist())
    }
    # A draw may miss a group; its mean is then over the others.
    return groups, percentiles(values.mean(), np.nanmean(ratios, axis=1))


def _by_slot(
    hits: NDArray[np.bool_], places: Sequence[int], **drawing: Any
) -> dict[str, dict[str, Any]]:
    place = np.asarray(places, np.int64)
    if place.shape != hits.shape or not 0 <= place.min() <= place.max() < len(SLOT_NAMES):
        raise ValueError(
            f"{place.size} places from {place.min()} to {place.max()} for {hits.size} words; "
            f"expected one of 0 to {len(SLOT_NAMES) - 1} for each"
        )
    return _by_group(hits, place, SLOT_NAMES, **drawing)[0]
