"""Lip reading: what the logits of a test set say, by class, by place and by length."""

from collections import Counter
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
    own = np.take_along_axis(scores, right[:, None], axis=1)
    lower_index = np.arange(scores.shape[1]) < right[:, None]
    return ((scores > own) | ((scores == own) & lower_index)).sum(axis=1)


def score(
    logits: ArrayLike, labels: ArrayLike, classes: Sequence[str], *,
    talkers: Sequence[Any] | None = None, units: Sequence[Any] | None = None,
    places: Sequence[int] | None = None, draws: int = DRAWS,
) -> dict[str, Any]:  # fmt: skip
    """Every figure of one pass over a test set, from logits [n x classes] and labels [n].

    With `talkers`, intervals draw talkers, then samples. Samples of one of `units`, such as the
    words of a sentence, are drawn together. `places` are those of each word in its sentence (0 to
    5, the `#3` of its key).

    Returns:
        `metrics` (`top1`, `top5`, `macro`: the mean over classes that occur), `per_class`,
        `per_slot` and `per_length` (by letters of the word), all as {"value", "low", "high"}, the
        last three with `n`; `confusions`: the 20 most frequent, `said` read as `heard`; `clips`:
        `label`, `said`, `top5` and `right` of each sample.
    """
    right = np.asarray(labels, np.int64)
    ranks = label_ranks(logits, right)
    predicted = np.asarray(logits).argmax(axis=1)  # the first of equals, so the lower index
    hits, ones = ranks == 0, np.ones(len(right))
    lengths = np.array([len(name) for name in classes])[right]
    drawing: dict[str, Any] = {"talkers": talkers, "draws": draws, "units": units}
    per_class, macro = _by_group(hits, right, classes, drawing)
    per_length, _ = _by_group(hits, lengths, range(lengths.max() + 1), drawing)
    per_slot: dict[str, Any] = {}
    if places is not None:
        per_slot, _ = _by_group(hits, np.array(places), SLOT_NAMES, drawing)
    return {
        "metrics": {
            "top1": ratio_interval(hits, ones, **drawing),
            "top5": ratio_interval(ranks < 5, ones, **drawing),
            "macro": macro,
        },
        "per_class": per_class,
        "per_slot": per_slot,
        "per_length": per_length,
        "confusions": confusions(predicted.tolist(), right.tolist(), classes),
        "clips": [
            {"label": classes[label], "said": classes[said], "top5": rank < 5, "right": rank == 0}
            for label, said, rank in zip(
                right.tolist(), predicted.tolist(), ranks.tolist(), strict=True
            )
        ],
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
    predicted: Sequence[int], labels: Sequence[int], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The most frequent mistakes, `said` read as `heard`; of equals the lower indices first."""
    wrong = sorted((said, heard) for said, heard in zip(labels, predicted, strict=True)
                   if said != heard)  # fmt: skip
    return [
        {"said": classes[said], "heard": classes[heard], "count": count}
        for (said, heard), count in Counter(wrong).most_common(NUM_CONFUSIONS)
    ]


def _by_group(
    hits: NDArray[np.bool_], codes: NDArray[np.int64], names: Sequence[Any],
    drawing: dict[str, Any],
) -> tuple[dict[str, dict[str, Any]], Interval]:  # fmt: skip
    """Accuracy of each group that occurs, and their mean, from the same resamplings."""
    from scipy.sparse import csr_array

    present, column = np.unique(codes, return_inverse=True)
    cells = (np.arange(len(codes)), column)
    shape = (len(codes), len(present))
    above = csr_array((hits.astype(np.float64), cells), shape)
    below = csr_array((np.ones(len(codes)), cells), shape)
    ratios = ratio_draws(above, below, **drawing)
    counts = np.bincount(column)
    values = np.bincount(column, weights=hits) / counts
    groups = {
        str(names[code]): {**percentiles(values[k], ratios[:, k]), "n": int(counts[k])}
        for k, code in enumerate(present.tolist())
    }
    # A draw may miss a group; its mean is then over the others.
    return groups, percentiles(values.mean(), np.nanmean(ratios, axis=1))
