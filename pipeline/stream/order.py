"""In which order clips and words are read: pure functions of (shards of the clips, seed, epoch).

No data is read and no process takes part, so every rank and worker can know the whole order, and
a position in it is one number. Randomness comes from raw PCG64 bits, whose stream NumPy promises
to keep from version to version.
"""

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shards = NDArray[np.int32] | NDArray[np.int64]

_SHARDS, _CLIPS, _MIX, _SLOTS = range(4)  # what a draw is for
#: Batches that a block of clips makes: of sentences of six words, as many clips as a batch has.
BATCHES_OF_BLOCK = 6


def _bits(*entropy: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(entropy))


def _draw(size: int, *entropy: int) -> NDArray[np.uint64]:
    return np.asarray(_bits(*entropy).random_raw(size), np.uint64)


def epoch_order(shards: Shards, seed: int, epoch: int, buffer: int) -> Ints:
    """A permutation int64 [N] of the clips for one epoch, from the shard of each, [N] from 0.

    Shards come in a new order each epoch, clips shuffled inside their shard, then shuffled once
    more within each run of `buffer` clips, which mixes neighbouring shards (1 leaves them apart).
    Reading stays within the few shards that a run spans.
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


def word_order(clips: Ints, seed: int, epoch: int, first: Ints) -> Iterator[Ints]:
    """In which order the words of each of these clips are dealt, int64 [its words].

    Clip i has the words from `first[i]` to `first[i + 1]`, and its order does not depend on others.
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
        self._of_epoch = functools.partial(epoch_order, shards, seed, buffer=buffer)
        self._num_clips = len(shards)
        self._orders: dict[int, Ints] = {}

    def take(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Clips and epochs at the places `start` to `stop` of the endless order, each int64 [n]."""
        epochs, places = np.divmod(np.arange(start, stop), self._num_clips)
        clips = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            clips[here] = self._order(int(epoch))[places[here]]
        return clips, epochs

    def _order(self, epoch: int) -> Ints:
        if epoch not in self._orders:
            # A batch may straddle two epochs; older ones are not asked for again.
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = self._of_epoch(epoch)
        return self._orders[epoch]


class WordOrder:
    """Words in the order in which batches take them: those of the same few clips together.

    To decode a clip once and not once a word, clips are taken in a `block` that holds the words of
    about `BATCHES_OF_BLOCK` batches. A block's words are dealt in rounds, one of every clip a
    round, into batches of equal size; what is left over begins the next batch with the words of the
    next block.
    """

    def __init__(self, first: Ints, places: Ints, batch_size: int, seed: int) -> None:
        """From `Index.timed_words`: clip i has the words `places[first[i]:first[i+1]]`."""
        self._first, self._places = first, places
        self._size, self._seed = batch_size, seed
        self.num_words = len(places)
        self.block = max(
            1, round(BATCHES_OF_BLOCK * batch_size * (len(first) - 1) / self.num_words)
        )

    def words(self, clips: Ints, epochs: Ints | None) -> Ints:
        """The words of a block, round after round: int64 [words, 2], clip of the block and place.

        Without `epochs`, for a single pass, words stay in the order of their clip.
        """
        counts = np.diff(self._first)[clips]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rounds = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        taken = rounds.copy()
        if epochs is not None:
            for epoch in np.unique(epochs):
                here = np.flatnonzero(epochs == epoch)
                drawn = word_order(clips[here], self._seed, int(epoch), self._first)
                for i, order in zip(here, drawn, strict=True):
                    taken[starts[i] : starts[i + 1]] = order
        of = np.repeat(np.arange(len(clips)), counts)
        words = np.stack([of, self._places[self._first[clips][of] + taken]], axis=1)
        return words[np.argsort(rounds, kind="stable")]

    def seek(self, position: int, order: EndlessOrder) -> tuple[int, int]:
        """The block in which the batch `position` begins, and how many words come before it."""
        wanted, clips = position * self._size, len(self._first) - 1
        epoch, rest = divmod(wanted, self.num_words)
        ends = np.cumsum(np.diff(self._first)[order.take(epoch * clips, (epoch + 1) * clips)[0]])
        place = epoch * clips + int(np.searchsorted(ends, rest, side="right"))
        block = place // self.block
        epoch, rest = divmod(block * self.block, clips)
        before = order.take(epoch * clips, epoch * clips + rest)[0]
        return block, epoch * self.num_words + int(np.diff(self._first)[before].sum())


def share(num_clips: int, rank: int, world: int) -> slice:
    """The contiguous part of a global batch that one process takes; parts differ by one at most."""
    return slice(num_clips * rank // world, num_clips * (rank + 1) // world)
