"""Promise: accuracies are counts over clips, equal logits go to the lower class index."""

from typing import Any

import numpy as np
import pytest

from avb.train.evaluate.metrics.lip import blind, confusions, label_ranks, score

CLASSES = ["bin", "lay", "at", "a", "b", "six", "again"]


def one_hot(predicted: list[int], classes: int = len(CLASSES)) -> np.ndarray:
    return np.eye(classes)[predicted]


def scored(predicted: list[int], labels: list[int], **options: Any) -> dict[str, Any]:
    return score(one_hot(predicted), labels, CLASSES, draws=200, **options)


def test_ranks_are_those_of_a_plain_sort() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 9)).astype(float)  # full of ties
    labels = rng.integers(0, 9, 200)
    wanted = [sorted(range(9), key=lambda c: (-row[c], c)).index(label)
              for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]  # fmt: skip
    assert label_ranks(logits, labels).tolist() == wanted


def test_of_equal_logits_the_lower_index_wins() -> None:
    found = score(np.zeros((7, 7)), range(7), CLASSES, draws=50)
    assert [clip["right"] for clip in found["clips"]] == [True] + [False] * 6
    assert [clip["top5"] for clip in found["clips"]] == [True] * 5 + [False] * 2
    assert [clip["said"] for clip in found["clips"]] == ["bin"] * 7


def test_micro_and_macro_differ_where_classes_do() -> None:
    found = scored([0, 0, 0, 0], [0, 0, 0, 1])
    assert found["metrics"]["top1"]["value"] == 0.75
    assert found["metrics"]["macro"]["value"] == 0.5  # over the classes that occur
    classes = {name: (c["value"], c["n"]) for name, c in found["per_class"].items()}
    assert classes == {"bin": (1.0, 3), "lay": (0.0, 1)}
    top1 = found["metrics"]["top1"]
    assert top1["low"] < 0.75 < top1["high"] == 1.0


def test_places_and_lengths_have_their_own_accuracy() -> None:
    found = scored(
        [0, 1, 2, 3, 3, 5, 6, 5], [0, 0, 2, 3, 4, 5, 6, 6], places=[0, 0, 2, 3, 3, 4, 5, 5]
    )
    slots = {name: (s["value"], s["n"]) for name, s in found["per_slot"].items()}
    half = dict.fromkeys(("command", "letter", "adverb"), (0.5, 2))
    assert slots == half | {"preposition": (1.0, 1), "digit": (1.0, 1)}
    lengths = {name: (s["value"], s["n"]) for name, s in found["per_length"].items()}
    assert lengths == {"1": (0.5, 2), "2": (1.0, 1), "3": (2 / 3, 3), "5": (0.5, 2)}


def test_confusions_are_counted_by_direction_and_twenty_at_most() -> None:
    found = confusions([1, 1, 0, 3, 4, 5], [0, 0, 1, 4, 3, 5], CLASSES)
    counted = [("bin", "lay", 2), ("lay", "bin", 1), ("a", "b", 1), ("b", "a", 1)]
    assert [(c["said"], c["heard"], c["count"]) for c in found] == counted
    names = [str(i) for i in range(30)]
    assert len(confusions([*range(1, 30), 0], list(range(30)), names)) == 20


def test_order_of_clips_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 7)), rng.integers(0, 7, 60)
    order = rng.permutation(60)
    first, second = (score(logits[o], labels[o], CLASSES, draws=50) for o in (np.arange(60), order))
    for name in ("top1", "top5", "macro"):
        assert first["metrics"][name]["value"] == pytest.approx(second["metrics"][name]["value"])
    assert first["confusions"] == second["confusions"]


def test_clusters_widen_the_interval() -> None:
    right = np.repeat([0, 1], 60).tolist()  # ten sentences all right, ten all wrong
    sentences = np.repeat(np.arange(20), 6).tolist()
    plain = scored(right, [0] * 120)["metrics"]["top1"]
    clustered = scored(right, [0] * 120, units=sentences)["metrics"]["top1"]
    assert clustered["high"] - clustered["low"] > 1.8 * (plain["high"] - plain["low"])


def test_what_can_be_read_without_a_look_is_what_training_has_most() -> None:
    """Place 0 is bin (twice) or lay, which is longer; at place 1 nothing was trained."""
    known_cues, known = np.array([[0, 5], [0, 5], [0, 9], [2, 4]]), np.array([0, 0, 1, 2])
    cues, right = np.array([[0, 5], [0, 9], [0, 7], [1, 4], [2, 8]]), np.array([0, 1, 0, 2, 2])
    found = blind(known_cues, known, cues, right)
    assert found["slot"] == pytest.approx(3 / 5)  # lay is taken for bin, and place 1 is not known
    assert found["slot_and_length"] == pytest.approx(4 / 5)  # 7 frames as the place alone says


def test_talkers_are_drawn_and_then_their_sentences() -> None:
    """Words of a sentence are as one: six times each is no more than once."""
    right, talkers = [0, 1, 0, 0, 1, 1], ["a", "a", "a", "b", "b", "b"]

    def top1(times: int) -> Any:
        each = [np.repeat(values, times) for values in (right, talkers, range(6))]
        predicted, by, sentences = each
        options = {"talkers": by.tolist(), "units": sentences.tolist()}
        found = scored(predicted.tolist(), [1] * len(predicted), **options)
        return found["metrics"]["top1"], found["per_class"]["lay"]["low"]

    assert top1(6) == top1(1)
