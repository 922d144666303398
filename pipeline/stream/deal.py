"""Which words make up batch after batch: words of the same few clips together, each clip apart.

To decode a clip once and not once a word, clips are taken in blocks that hold the words of about
`DEALT` batches. A block's words are dealt in rounds, one of every clip a round, into batches of
equal size; what is left over begins the next batch with the words of the next block. All is a pure
function of (words a clip, order of the clips, seed), so that a position is one number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avb.pipeline.stream.order import EndlessOrder, Ints, word_order

#: Batches that a block of clips makes: of sentences of six words, as many clips as a batch has.
DEALT = 6


class Deal:
    """Words of clips in the order in which batches take them.

    Attributes:
        num_words: words in an epoch.
        block: clips that are decoded together.
    """

    def __init__(self, first: Ints, places: Ints, batch_size: int, seed: int) -> None:
        """From what `Index.timed_words` finds: clip i has the words `places[first[i]:first[i+1]]`.

        Args:
            first: int64 [clips + 1].
            places: int64 [words], place of each word in its clip.
            batch_size: words in a global batch.
            seed: of the stream.
        """
        self._first, self._places = first, places
        self._size, self._seed = batch_size, seed
        self.num_words = len(places)
        self.block = max(1, round(DEALT * batch_size * (len(first) - 1) / self.num_words))

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

    def cuts(self, begun: int, num_words: int) -> Iterator[tuple[int, int, int]]:
        """First word, the one after the last, and where its batch begins, of each batch in a block.

        Args:
            begun: words that came before the block.
            num_words: words in the block. Places count from its first word; a batch may begin
                before it and end after it.
        """
        start = -(begun % self._size)
        for batch in range(start, num_words, self._size):
            yield max(batch, 0), min(batch + self._size, num_words), batch
