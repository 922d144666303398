"""The order of clips alone: a pure function of shards, seed and epoch."""

import itertools

import numpy as np

from avb.pipeline.stream.order import EndlessOrder, epoch_order, share, word_order


def test_every_epoch_is_another_permutation() -> None:
    shards = np.repeat(np.arange(12), 50)
    orders = [epoch_order(shards, 7, epoch, 100) for epoch in range(4)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(600))
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(shards[order][:3]) for order in orders}) > 1  # new shard order as well
    assert np.array_equal(orders[2], epoch_order(shards, 7, 2, 100))
    assert not np.array_equal(orders[0], epoch_order(shards, 8, 0, 100))


def test_reading_stays_within_the_shards_of_the_buffer() -> None:
    shards = np.repeat(np.arange(20), 50)
    order = shards[epoch_order(shards, 0, 0, 200)]
    spans = [len(set(order[start : start + 200].tolist())) for start in range(0, 1000, 200)]
    assert max(spans) == 4 and len(set(order[:20].tolist())) > 1
    apart = shards[epoch_order(shards, 0, 0, 1)]
    assert len(list(itertools.groupby(apart.tolist()))) == 20


def test_order_does_not_change_between_versions() -> None:
    # Pinned: a checkpoint taken with one version resumes with another.
    shards = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert epoch_order(shards, 1, 0, 4).tolist() == [1, 7, 0, 6, 5, 2, 4, 3]
    slots = [[2, 0, 5, 3, 4, 1], [2, 1, 3, 4, 5, 0]]
    for clips in ([0, 1], [1, 1, 0]):
        drawn = word_order(np.array(clips), 1, 0, np.array([0, 6, 12]))
        assert [order.tolist() for order in drawn] == [slots[clip] for clip in clips]


def test_epochs_follow_each_other_without_a_seam() -> None:
    order = EndlessOrder(np.zeros(7, np.int64), seed=3, buffer=4)
    clips, epochs = order.take(0, 70)
    assert epochs.tolist() == [e for e in range(10) for _ in range(7)]
    for epoch in range(10):
        assert sorted(clips[epochs == epoch]) == list(range(7))
    again = [EndlessOrder(np.zeros(7, np.int64), 3, 4).take(i, i + 5)[0] for i in range(0, 70, 5)]
    assert np.array_equal(np.concatenate(again), clips)


def test_shares_are_contiguous_and_even() -> None:
    for count in (1, 5, 32):
        for world in (1, 2, 3, 5):
            parts = [share(count, rank, world) for rank in range(world)]
            joined = [i for part in parts for i in range(count)[part]]
            sizes = [part.stop - part.start for part in parts]
            assert joined == list(range(count)) and max(sizes) - min(sizes) <= 1
