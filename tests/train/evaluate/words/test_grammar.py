"""Promise: word errors are edit distances, pooled over all words."""

import random

import pytest

from avb.models.ctc import edit_distance
from avb.train.evaluate.words.grammar import SLOT_WORDS, slot_targets, word_error_rate, word_errors

pytest.importorskip("jiwer", reason="word errors are counted by jiwer, in the extra eval")

SAID = "bin blue at f two now".split()


def test_targets_and_words_are_inverse() -> None:
    assert [words[i] for words, i in zip(SLOT_WORDS, slot_targets(SAID), strict=True)] == SAID
    with pytest.raises(ValueError, match="'w' is no letter"):
        slot_targets("bin blue at w two now".split())
    with pytest.raises(ValueError, match="2 words"):
        slot_targets(["bin", "blue"])


def test_errors_are_the_edit_distance() -> None:
    draw = random.Random(0)
    words = ["a", "b", "c"]
    for _ in range(200):
        said = draw.choices(words, k=draw.randint(1, 6))
        heard = draw.choices(words, k=draw.randint(0, 7))
        errors, wrong = word_errors(said, heard)
        assert errors == edit_distance(said, heard)
        # What is not wrong is aligned, and what of the hypothesis is not aligned is inserted.
        inserted = errors - sum(wrong)
        assert max(len(heard) - len(said), 0) <= inserted <= len(heard) - wrong.count(False)


def test_an_insertion_moves_no_slot() -> None:
    assert word_errors(SAID, "bin blue blue at f two now".split()) == (1, [False] * 6)


def test_rate_is_pooled_and_by_slot() -> None:
    heard = ["bin blue at f two now".split(), "bin blue at s two soon".split(), []]
    found = word_error_rate([SAID] * 3, heard, draws=100)
    assert found["wer"]["value"] == pytest.approx((0 + 2 + 6) / 18)
    slots = {name: s["value"] for name, s in found["per_slot"].items()}
    third = pytest.approx(1 / 3)
    assert slots["command"] == third and slots["letter"] == slots["adverb"] == pytest.approx(2 / 3)
    longer = word_error_rate([["bin"], SAID], [["lay"], SAID], draws=100)
    assert longer["wer"]["value"] == pytest.approx(1 / 7) and longer["per_slot"] == {}
