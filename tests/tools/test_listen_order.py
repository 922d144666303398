"""The listening test by numbers: its order keeps its rules, its level leaves out pauses."""

import itertools
from collections import Counter

import numpy as np
import pytest

from avb.tools.listen import order, score
from avb.tools.listen.level import TARGET_DBOV, active_level_dbov, to_level

RATE = 16_000


@pytest.mark.parametrize(("systems", "sentences"), [(5, 24), (4, 6), (2, 5), (7, 7)])
def test_the_order_keeps_its_rules_for_every_seed(systems: int, sentences: int) -> None:
    orders = set()
    for seed in range(200):
        clips, repeats = order.rating_order(systems, sentences, seed)
        every = set(itertools.product(range(systems), range(sentences)))
        assert set(clips) == every and len(clips) == len(every)
        for start in range(0, len(clips), systems):  # every system once a block
            block = clips[start : start + systems]
            assert {system for system, _ in block} == set(range(systems))
            assert len({sentence for _, sentence in block}) == systems
        heard = clips + repeats
        assert all(a[1] != b[1] for a, b in itertools.pairwise(heard))
        assert len(set(repeats)) == 4 and len({system for system, _ in repeats}) == min(4, systems)
        assert clips == order.rating_order(systems, sentences, seed)[0]
        orders.add(tuple(clips))
    assert len(orders) > 190


def test_no_system_is_heard_first_more_often_than_chance() -> None:
    first = Counter(order.rating_order(5, 24, seed)[0][0][0] for seed in range(1000))
    assert max(abs(count - 200) for count in first.values()) < 60  # 4.7 standard deviations


@pytest.mark.parametrize(("systems", "sentences"), [(1, 10), (5, 4), (3, 4)])
def test_too_few_of_either_is_said(systems: int, sentences: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        order.rating_order(systems, sentences, 0)


def test_pauses_do_not_count_for_the_level() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 3 * RATE).astype(np.float32)
    assert active_level_dbov(noise) == pytest.approx(-20, abs=0.1)  # steady: that of the whole
    paused = np.concatenate([noise, np.zeros(6 * RATE, np.float32)])
    whole = 10 * np.log10(np.mean(np.square(paused)))
    assert whole == pytest.approx(-24.8, abs=0.1)
    assert active_level_dbov(paused) == pytest.approx(-20.3, abs=0.4)  # 0.2 s of it still count
    assert active_level_dbov(to_level(paused)) == pytest.approx(TARGET_DBOV, abs=0.05)
    with pytest.raises(ValueError, match="silent"):
        active_level_dbov(np.zeros(RATE, np.float32))


def test_holm_is_that_of_the_book() -> None:
    assert score.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert score.holm([0.5, 0.9]) == pytest.approx([1, 1]) and score.holm([]) == []
