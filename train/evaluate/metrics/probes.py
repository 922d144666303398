"""Numbers instead of the impression of Figure 5: what a line can separate, what can be found again.

The paper's picture claims that visual and audio features are apart (a linear probe tells them,
near 100 %) and that recalled and real audio are not (near 50 %). Retrieval asks more: whether the
recalled frame of a clip finds the real audio frame of that very moment.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avb.train.evaluate.metrics.addressing import unit_rows
from avb.train.evaluate.metrics.intervals import DRAWS, Interval, ratio_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
CANDIDATES = 100


def probe(
    first: ArrayLike, second: ArrayLike, clips: ArrayLike, *, folds: int = FOLDS,
    penalty: float = 1e-2, draws: int = DRAWS, seed: int = 0,
) -> Interval:  # fmt: skip
    """Held-out accuracy of a ridge classifier that tells two kinds of features [n x C], chance 0.5.

    No clip is on both sides of a fold. `penalty` is of the squared weights, as a share of the
    training rows, features scaled to 1.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    names, clip = np.unique(np.asarray(clips), return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{len(names)} clips for {folds} folds; a probe needs one clip for each")
    rng = np.random.default_rng(seed)
    fold = (rng.permutation(len(names)) % folds)[clip]
    rows, side = np.concatenate([a, b]), np.repeat([1.0, -1.0], len(a))
    fold, clip = np.tile(fold, 2), np.tile(clip, 2)
    right = np.zeros(len(rows))
    for number in range(folds):
        held = fold == number
        decided = _ridge(rows[~held], side[~held], rows[held], penalty)
        right[held] = np.where(decided == 0, 0.5, np.sign(decided) == side[held])
    return ratio_interval(np.bincount(clip, weights=right), np.bincount(clip), None, draws, seed)


def _ridge(rows: Floats, side: Floats, held: Floats, penalty: float) -> Floats:
    """Decision values of the held rows; the bias is not penalised."""
    mean = rows.mean(axis=0)
    scale = rows.std(axis=0) + 1e-8
    known = (rows - mean) / scale
    gram = known.T @ known + penalty * len(known) * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, known.T @ (side - side.mean()))
    return (held - mean) / scale @ weights + side.mean()


def retrieval(
    recalled: ArrayLike, real: ArrayLike, clips: ArrayLike, *, candidates: int = CANDIDATES,
    draws: int = DRAWS, seed: int = 0,
) -> Interval:  # fmt: skip
    """How often a recalled frame [n x C] is closest to its own real one among `candidates`."""
    a, b = (unit_rows(v) for v in (recalled, real))
    names, clip = np.unique(np.asarray(clips), return_inverse=True)
    rng = np.random.default_rng(seed)
    hits = np.zeros(len(a))
    for number in range(len(names)):
        own, others = np.flatnonzero(clip == number), np.flatnonzero(clip != number)
        if len(others) < candidates - 1:
            raise ValueError(
                f"{len(others)} frames of other clips for {candidates - 1} rivals; give more clips"
            )
        for row in own.tolist():
            rivals = b[rng.choice(others, candidates - 1, replace=False)] @ a[row]
            hits[row] = float(a[row] @ b[row] > rivals.max())
    return ratio_interval(np.bincount(clip, weights=hits), np.bincount(clip), None, draws, seed)
