"""The mean over talkers weighs every talker alike, whatever the number of clips."""

from __future__ import annotations

from typing import Any

import pytest

from avb.pipeline.config import UsageError
from avb.train.per_talker import join

SAID = "bin blue at f two now".split()
WRONG = "bin blue at b six now".split()  # two of six words


def record(talker: str, values: list[float], heard: list[str]) -> dict[str, Any]:
    clips = [
        {
            "key": f"{talker}/clip{i}",
            "talker": talker,
            "words": SAID,
            "values": {"estoi": value},
            "failures": {},
            "heard_judge": heard,
        }
        for i, value in enumerate(values)
    ]
    flags = {"speakers": [talker], "checkpoint_sha256": talker, "n": len(clips)}
    rest: dict[str, Any] = {"metrics": {}, "ceiling": {}, "floors": {}, "addressing": None}
    return {"task": "l2s", "flags": flags, "clips": clips} | rest


def test_talkers_count_alike_and_word_errors_are_pooled() -> None:
    joined = join([record("s1", [0.2, 0.4, 0.6], SAID), record("s2", [0.8], WRONG)])
    assert joined["metrics"]["estoi"]["value"] == pytest.approx((0.4 + 0.8) / 2)
    assert joined["metrics"]["wer_judge"]["value"] == pytest.approx(2 / 24)
    assert "wer_pocketsphinx" not in joined["metrics"]
    assert joined["flags"]["n"] == 4 and joined["flags"]["speakers"] == ["s1", "s2"]


def test_words_are_right_by_talker() -> None:
    def words(talker: str, right: list[bool]) -> dict[str, Any]:
        clips = [{"key": f"{talker}/a#{i}", "right": r} for i, r in enumerate(right)]
        return record(talker, [], SAID) | {"task": "lip", "clips": clips}

    joined = join([words("s1", [True, True, False, False]), words("s2", [True])])
    assert joined["metrics"]["top1"]["value"] == pytest.approx(0.75)


def test_one_clip_in_two_records_is_refused() -> None:
    with pytest.raises(UsageError, match="same clips"):
        join([record("s1", [0.2], SAID), record("s1", [0.3], SAID)])
