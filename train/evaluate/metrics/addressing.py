"""Whether the memory's addresses mean anything: same words alike, other words not.

Every word of every clip is a segment, and its vector is the mean of its frames' addresses. Pairs
come from different clips, for the headline from different talkers; the same word against another
word, at any place of the sentence or at the same one (`within_slot`, the figure that counts: the
place alone gives an AUC of .60). Random memories reach .80, so a figure means nothing without its
null models, measured on the same pairs (evaluation.md section 4).

Shapes: T frames, N slots of the memory, S segments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avb.train.evaluate.metrics.intervals import (
    DRAWS,
    Interval,
    percentiles,
    ratio,
    ratio_interval,
    resample_counts,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Across = Literal["clips", "talkers"]

PAIRS_PER_WORD = 200
MOST_PAIRS = 200_000
_ROUNDS = 30


@dataclass(frozen=True)
class Segments:
    """What is known of S segments, one integer array each: word, place, clip and talker."""

    words: Ints
    places: Ints
    clips: Ints
    talkers: Ints

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Pairs:
    """Pairs of segments, int64 [P x 2] each; the numbers are rows of `Segments`."""

    same: Ints  # the same word
    other: Ints  # another word, anywhere in the sentence
    within: Ints  # another word at the same place


def segment_vectors(frames: ArrayLike, lengths: Ints) -> Floats:
    """Mean vector of each segment [S x N], of frames side by side; of addresses a distribution."""
    parts = np.split(np.asarray(frames, np.float64), np.cumsum(lengths)[:-1])
    return np.stack([part.mean(axis=0) for part in parts])


def permute_within_places(segments: Segments, seed: int = 0) -> Segments:
    """Null model: words shuffled among the segments at the same place, anything else kept."""
    rng = np.random.default_rng(seed)
    words = segments.words.copy()
    for place in np.unique(segments.places):
        rows = np.flatnonzero(segments.places == place)
        words[rows] = words[rng.permutation(rows)]
    return dataclasses.replace(segments, words=words)


def random_addresses(
    features: ArrayLike, slots: int, radius: float = 16.0, seed: int = 0
) -> Floats:
    """Null model: features addressing a memory of random slots, [T x N] (equations 1 and 2)."""
    from scipy.special import softmax

    memory = np.random.default_rng(seed).normal(size=(slots, np.shape(features)[-1]))
    return softmax(radius * unit_rows(features) @ unit_rows(memory).T, axis=-1)


def unit_rows(vectors: ArrayLike) -> Floats:
    """Vectors of length 1 along the last axis; zero stays zero."""
    rows = np.asarray(vectors, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def draw_pairs(
    segments: Segments, across: Across = "clips", seed: int = 0, per_word: int = PAIRS_PER_WORD,
    most: int = MOST_PAIRS,
) -> Pairs:  # fmt: skip
    """Different pairs without repetition; which ones depends on `segments` and the seed alone.

    At most `per_word` of each kind for a word and `most` in all, each kind being thinned to its
    third. ValueError: some kind has no pair at all.
    """
    rng = np.random.default_rng(seed)
    apart = segments.clips if across == "clips" else segments.talkers
    drawn: dict[str, list[Ints]] = {"same": [], "other": [], "within": []}
    for word in np.unique(segments.words):
        own = np.flatnonzero(segments.words == word)
        rest = np.flatnonzero(segments.words != word)
        near = rest[np.isin(segments.places[rest], segments.places[own])]
        for kind, partners in (("same", own), ("other", rest), ("within", near)):
            place = segments.places if kind == "within" else np.zeros_like(segments.places)
            if partners.size:
                drawn[kind].append(_distinct_pairs(own, partners, apart, place, per_word, rng))
    kinds = {
        name: np.concatenate(parts or [np.empty((0, 2), int)]) for name, parts in drawn.items()
    }
    for name, pairs in kinds.items():
        if not len(pairs):
            raise ValueError(
                f"{len(segments)} segments give no pair of kind {name!r} from different {across}"
            )
        if sum(map(len, kinds.values())) > most and len(pairs) > most // 3:
            kinds[name] = pairs[np.sort(rng.choice(len(pairs), most // 3, replace=False))]
    return Pairs(**kinds)


def _distinct_pairs(
    own: Ints, partners: Ints, apart: Ints, place: Ints, limit: int, rng: np.random.Generator
) -> Ints:
    """Up to `limit` pairs that differ in `apart` and agree in `place`, drawn in rounds."""
    pairs = np.empty((0, 2), np.int64)
    for _ in range(_ROUNDS):
        left, right = (rng.choice(side, 4 * limit) for side in (own, partners))
        good = (apart[left] != apart[right]) & (place[left] == place[right])
        drawn = np.stack([left[good], right[good]], axis=1)
        if own is partners:  # the same word: (i, j) is (j, i)
            drawn.sort(axis=1)
        drawn = np.concatenate([pairs, drawn])
        pairs = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
        if len(pairs) >= limit:
            break
    return pairs[:limit]


def similarities(vectors: ArrayLike, pairs: Ints) -> Floats:
    """Cosine of each pair, [P]."""
    unit = unit_rows(vectors)
    return np.einsum("pn,pn->p", unit[pairs[:, 0]], unit[pairs[:, 1]])


class Discrimination:
    """How well segment vectors tell words apart, on given pairs, with resampled values.

    `values` are `same`, `other`, `within` (mean cosines), `auc` and `within_slot_auc`; `draws` the
    same of each resampling of clips, float64 [draws]: two of the same segments and pairs are
    paired.
    """

    def __init__(
        self, vectors: ArrayLike, segments: Segments, pairs: Pairs, draws: int = DRAWS,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Measure [S x anything]: addresses, or features for the null model of the features."""
        clips, clip_of = np.unique(segments.clips, return_inverse=True)
        kinds = {
            kind: _Scored(similarities(vectors, rows), clip_of[rows.T])
            for kind, rows in vars(pairs).items()
        }
        same_place, within_place = (segments.places[p[:, 0]] for p in (pairs.same, pairs.within))
        anywhere = _Contrast(kinds["same"], kinds["other"])
        at_place = [
            _Contrast(kinds["same"].only(same_place == k), kinds["within"].only(within_place == k))
            for k in np.intersect1d(same_place, within_place)
        ]

        def measure(counts_CD: Floats) -> dict[str, Floats]:
            figures = {kind: scored.mean(counts_CD) for kind, scored in kinds.items()}
            figures["auc"] = anywhere.auc(counts_CD)[0]
            won, total = np.zeros((2, counts_CD.shape[1]))
            for value, weight in (contrast.auc(counts_CD) for contrast in at_place):
                won, total = won + value * weight, total + weight
            figures["within_slot_auc"] = ratio(won, total)  # NaN if no place has both kinds
            return figures

        once = measure(np.ones((len(clips), 1)))
        self.values = {name: float(figure[0]) for name, figure in once.items()}
        chunks = [
            measure(np.ascontiguousarray(part.T, np.float32))  # whole numbers, so exact
            for counts in resample_counts(len(clips), None, draws, seed)
            for part in np.array_split(counts, -(-len(counts) // 64))
        ]
        self.draws = {name: np.concatenate([c[name] for c in chunks]) for name in once}

    def intervals(self) -> dict[str, Interval]:
        """Each figure as {"value", "low", "high"}."""
        return {name: percentiles(self.values[name], self.draws[name]) for name in self.values}

    def ahead_of(self, null: Discrimination) -> Interval:
        """How far the within-slot AUC is ahead of the null model's, paired."""
        name = "within_slot_auc"
        draws = self.draws[name] - null.draws[name]
        return percentiles(self.values[name] - null.values[name], draws)


@dataclass(frozen=True)
class _Scored:
    """Pairs with their similarity [P] and the clips of both ends [2 x P].

    How often each clip was drawn comes as counts [clips x D] of D resamplings; a clip drawn twice
    brings each of its pairs twice.
    """

    score: Floats
    clips: Ints

    def only(self, rows: NDArray[Any]) -> _Scored:
        return _Scored(self.score[rows], self.clips[:, rows])

    def weights(self, counts_CD: Floats) -> Floats:
        """[P x D]."""
        return counts_CD[self.clips[0]] * counts_CD[self.clips[1]]

    def mean(self, counts_CD: Floats) -> Floats:
        weights_PD = self.weights(counts_CD)
        # Cosines of a new memory differ in their seventh digit, which float32 would lose.
        middle = self.score.mean() if self.score.size else 0.0
        apart = (self.score - middle).astype(weights_PD.dtype)
        return middle + ratio(apart @ weights_PD, weights_PD.sum(axis=0)).astype(np.float64)


class _Contrast:
    """AUC of positives over negatives under weights that change; ties count half."""

    def __init__(self, positive: _Scored, negative: _Scored) -> None:
        self._positive = positive
        self._negative = negative.only(np.argsort(negative.score, kind="stable"))
        self._below = np.searchsorted(self._negative.score, positive.score, "left")
        self._not_above = np.searchsorted(self._negative.score, positive.score, "right")

    def auc(self, counts_CD: Floats) -> tuple[Floats, Floats]:
        """AUC and total weight of the positives, [D] each; 0 and 0 where a side has none."""
        weights_PD = self._positive.weights(counts_CD)
        passed = np.cumsum(self._negative.weights(counts_CD), axis=0)
        passed = np.concatenate([np.zeros_like(passed[:1]), passed])
        won = passed[self._below]
        if (self._below != self._not_above).any():
            won = (won + passed[self._not_above]) / 2
        total = weights_PD.sum(axis=0)
        value = ratio((weights_PD * won).sum(axis=0), total * passed[-1])
        known = np.isfinite(value)
        return np.where(known, value, 0.0), np.where(known, total, 0.0)


def agreement(
    source: Sequence[ArrayLike], target: Sequence[ArrayLike], draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """How well A_src matches A_tgt, [T x N] of each clip: means over frames, clips resampled.

    `kl` is KL(A_tgt || A_src) in nats, `top1` the share of frames with the same heaviest slot.
    """
    sums: dict[str, list[float]] = {"kl": [], "top1": [], "cosine": []}
    frames = []
    for first, second in zip(source, target, strict=True):
        a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
        tiny = np.finfo(np.float64).tiny
        divergence = b * (np.log(np.maximum(b, tiny)) - np.log(np.maximum(a, tiny)))
        sums["kl"].append(float(divergence.sum()))
        sums["top1"].append(float((a.argmax(1) == b.argmax(1)).sum()))
        sums["cosine"].append(float((unit_rows(a) * unit_rows(b)).sum()))
        frames.append(len(a))
    return {name: ratio_interval(total, frames, None, draws, seed) for name, total in sums.items()}


def slot_usage(addresses: Sequence[ArrayLike]) -> dict[str, float]:
    """How many slots do the work; a dead or a one-hot memory looks good on cosine alone.

    Of addresses [T x N] of each clip: `entropy` of the mean address in nats and `entropy_share` of
    ln N; `used`: slots with a mean weight above 1 / (10 N); `mean_max`: that of the heaviest slot.
    """
    rows = np.concatenate([np.asarray(a, np.float64) for a in addresses])
    mean, slots = rows.mean(axis=0), rows.shape[1]
    entropy = float(-(mean * np.log(np.maximum(mean, np.finfo(np.float64).tiny))).sum())
    return {
        "slots": slots,
        "entropy": entropy,
        "entropy_share": entropy / float(np.log(slots)) if slots > 1 else 1.0,
        "used": int((mean > 1 / (10 * slots)).sum()),
        "mean_max": float(rows.max(axis=1).mean()),
    }
