"""In which order clips are read: pure functions of (shards of the clips, seed, epoch).

No data is read and no process takes part, so every rank and worker can know the whole order, and
a position in it is one number. Randomness comes from raw PCG64 bits, whose stream NumPy promises
to keep from version to version.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shards = NDArray[np.int32] | NDArray[np.int64]

_SHARDS, _CLIPS, _MIX, _SLOTS = range(4)  # what a draw is for


def _bits(*entropy: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(entropy))


def _draw(size: int, *entropy: int) -> NDArray[np.uint64]:
    return np.asarray(_bits(*entropy).random_raw(size), np.uint64)


def epoch_order(shards: Shards, seed: int, epoch: int, buffer: int) -> Ints:
    """A permutation of the clips for one epoch.

    Shards come in a new order each epoch, clips shuffled inside their shard, then shuffled once
    more within each run of `buffer` clips, which mixes neighbouring shards. Reading stays within
    the few shards that a run spans.

    Args:
        shards: [N], the shard that each clip lies in, numbered from 0.
        seed: of the whole stream, >= 0.
        epoch: counted from 0.
        buffer: clips in a run; 1 leaves the shards apart.

    Returns:
        int64 [N], each of 0..N-1 once.
    """
    num_clips = len(shards)
    shard_rank = _draw(int(shards.max()) + 1, seed, epoch, _SHARDS)[shards]
    order = np.lexsort((_draw(num_clips, seed, epoch, _CLIPS), shard_rank))
    del shard_rank  # 80 MB of ten million clips
    mix = _draw(num_clips, seed, epoch, _MIX)
    whole = num_clips // buffer * buffer
    for part, length in ((slice(whole), buffer), (slice(whole, None), num_clips - whole)):
        if length:
            runs = order[part].reshape(-1, length)
            mixed = np.argsort(mix[part].reshape(-1, length), axis=1, kind="stable")
            runs[:] = np.take_along_axis(runs, mixed, axis=1)
    return order


def word_slots(clips: Ints, seed: int, epoch: int, num_words: int) -> Ints:
    """`word_order` of clips that all have `num_words`: int64 [len(clips), num_words]."""
    first = np.arange(int(clips.max()) + 2) * num_words
    return np.stack(list(word_order(clips, seed, epoch, first)))


def word_order(clips: Ints, seed: int, epoch: int, first: Ints) -> Iterator[Ints]:
    """In which order the words of each of these clips are dealt, int64 [its words].

    Clip i has the words from `first[i]` to `first[i + 1]` of all; its order does not depend on
    which others are asked for.
    """
    bits = _bits(seed, epoch, _SLOTS)
    at = 0
    for clip in clips.tolist():
        start, stop = int(first[clip]), int(first[clip + 1])
        bits.advance((start - at) % 2**128)  # the generator's period: backwards as well
        yield np.argsort(np.asarray(bits.random_raw(stop - start), np.uint64), kind="stable")
        at = stop


class EndlessOrder:
    """The epochs' orders one after the other, without end and without a seam."""

    def __init__(self, shards: Shards, seed: int, buffer: int) -> None:
        self._shards = shards
        self._seed = seed
        self._buffer = buffer
        self._orders: dict[int, Ints] = {}

    def take(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Clips and epochs at the places `start` to `stop` of the endless order, each int64 [n]."""
        epochs, places = np.divmod(np.arange(start, stop), len(self._shards))
        clips = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            clips[here] = self._order(int(epoch))[places[here]]
        return clips, epochs

    def _order(self, epoch: int) -> Ints:
        if epoch not in self._orders:
            order = epoch_order(self._shards, self._seed, epoch, self._buffer)
            # A batch may straddle two epochs; older ones are not asked for again.
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = order
        return self._orders[epoch]


def share(num_clips: int, rank: int, world: int) -> slice:
    """The contiguous part of a global batch that one process takes; parts differ by one at most."""
    return slice(num_clips * rank // world, num_clips * (rank + 1) // world)
