"""Speech weighs every talker alike, whatever the number of clips; words are pooled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.errors import UsageError
from avb.tools.report.runs import Result
from avb.tools.report.tables import metrics_table, slots_table
from avb.train.evaluate.per_talker import join

SAID = "bin blue at f two now".split()
WRONG = "bin blue at b six now".split()  # two of six words


def record(talker: str, values: list[float], heard: list[str]) -> dict[str, Any]:
    told = {"talker": talker, "words": SAID, "failures": {}, "heard_judge": heard}
    clips = [told | {"key": f"{talker}/clip{i}", "values": {"estoi": value}}
             for i, value in enumerate(values)]  # fmt: skip
    flags = {"speakers": [talker], "checkpoint_sha256": talker, "n": len(clips)}
    rest: dict[str, Any] = {"metrics": {}, "ceiling": {}, "floors": {}, "addressing": None}
    return {"task": "l2s", "flags": flags, "clips": clips} | rest


def test_talkers_count_alike_and_word_errors_are_pooled() -> None:
    joined = join([record("s1", [0.2, 0.4, 0.6], SAID), record("s2", [0.8], WRONG)])
    assert joined["metrics"]["estoi"]["value"] == pytest.approx((0.4 + 0.8) / 2)
    assert joined["metrics"]["wer_judge"]["value"] == pytest.approx(2 / 24)
    assert "wer_pocketsphinx" not in joined["metrics"]
    assert joined["flags"]["n"] == 4 and joined["flags"]["speakers"] == ["s1", "s2"]


def test_ceiling_floors_and_real_sound_are_means_over_talkers() -> None:
    def measured(talker: str, value: float, noise: float | None) -> dict[str, Any]:
        figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
        none = {"value": noise, "low": None, "high": None}
        return record(talker, [0.2], SAID) | {
            "ceiling": {"estoi": figure},
            "real": {"wer_judge": figure},
            "floors": {"mean_mel": {"estoi": figure}, "noise": {"estoi": none}},
            "per_slot": {"real": {"judge": {"digit": figure}}},
        }

    joined = join([measured("s1", 0.5, 0.1), measured("s2", 0.7, None)])
    assert joined["ceiling"] == {"estoi": pytest.approx(0.6)}
    assert joined["real"] == {"wer_judge": pytest.approx(0.6)}
    assert joined["floors"]["mean_mel"]["estoi"] == pytest.approx(0.6)
    assert joined["floors"]["noise"]["estoi"] is None
    assert joined["per_slot"]["real"]["judge"]["digit"] == pytest.approx(0.6)
    assert joined["models"]["s2"]["ceiling"]["estoi"]["low"] == pytest.approx(0.6)
    result = Result(Path("x.json"), "joined", joined)
    assert metrics_table(result) and slots_table(result)  # the report takes it as any other


def test_what_one_talker_has_not_is_none_and_counts_are_over_all() -> None:
    """The second has no sound at all, and its test clips were heard by the judge."""
    records = []
    for talker, ceiling, mute in (
        ("s1", {"value": 0.5, "low": 0.4, "high": 0.6}, 0),
        ("s2", None, 3),
    ):
        one = record(talker, [0.2], SAID) | {"ceiling": {"top1_audio": ceiling}}
        judge = {"hash": "x", "judge_saw_test": mute}
        one["flags"] |= {"no_audio": mute, "silent": 1, "wer_judge": judge, "vocoder": None}
        records.append(one)
    records[1]["flags"]["left_out"] = 2  # is there where there are any
    joined = join(records)
    assert joined["ceiling"] == {"top1_audio": None} == join(records[::-1])["ceiling"]
    flags = joined["flags"]
    assert [flags[name] for name in ("no_audio", "silent", "left_out")] == [3, 2, 2]
    assert flags["wer_judge"] == {"hash": "x", "judge_saw_test": 3} and flags["vocoder"] is None


def test_runs_that_name_no_talkers_keep_their_figures_and_what_no_judge_heard_is_counted() -> None:
    """As those of lists of clips: two talkers, and one of them twice."""
    records = [record(talker, [0.2], SAID) for talker in ("s1", "s2", "s2")]
    for number, one in enumerate(records):
        one["clips"][0]["key"] += str(number)
        one["flags"]["speakers"] = None
    del records[1]["clips"][0]["heard_judge"]  # it has not the words of a sentence
    joined = join(records)
    assert list(joined["models"]) == ["s1", "s2 (2)", "s2 (3)"] == joined["flags"]["speakers"]
    assert joined["metrics"]["wer_judge"]["left_out"] == 1


def test_words_are_right_over_all_clips_as_of_one_model() -> None:
    def words(talker: str, right: list[bool]) -> dict[str, Any]:
        clips = [{"key": f"{talker}/a#{i}", "right": r, "top5": True} for i, r in enumerate(right)]
        return record(talker, [], SAID) | {"task": "lip", "clips": clips}

    joined = join([words("s1", [True, True, False, False]), words("s2", [True])])
    assert joined["metrics"]["top1"]["value"] == pytest.approx(3 / 5)
    assert set(joined["metrics"]) == {"top1", "top5"}  # the clips tell no more
    assert joined["metrics"]["top5"]["value"] == 1


def test_words_of_one_sentence_are_drawn_together() -> None:
    """All right or all wrong, six words of a sentence tell no more than one."""
    rng = np.random.default_rng(0)
    right = {f"s{t}/{i}": bool(rng.random() < 0.5) for t in (1, 2) for i in range(40)}

    def top1(words: int) -> dict[str, float]:
        clips = [{"key": f"{key}#{n}", "right": hit}
                 for key, hit in right.items() for n in range(words)]  # fmt: skip
        halves = {"s1": clips[: 40 * words], "s2": clips[40 * words :]}
        records = [record(talker, [], SAID) | {"task": "lip", "clips": own}
                   for talker, own in halves.items()]  # fmt: skip
        return join(records)["metrics"]["top1"]  # type: ignore[no-any-return]

    assert top1(6) == pytest.approx(top1(1))


def test_errors_of_sentences_are_pooled() -> None:
    def read(talker: str, heard: list[str], count: int) -> dict[str, Any]:
        clips = [{"key": f"{talker}/{i}", "words": SAID, "heard_free": heard} for i in range(count)]
        parts = {"both": {"wer_free": {"value": count / 10, "low": 0, "high": 1}}}
        return record(talker, [], SAID) | {"task": "sentence", "clips": clips} | parts

    joined = join([read("s1", SAID, 3), read("s2", WRONG, 1)])
    assert joined["metrics"]["wer_free"]["value"] == pytest.approx(2 / 24)
    assert joined["metrics"]["sentences_free"]["value"] == pytest.approx(3 / 4)
    letters = len(" ".join(SAID))
    assert joined["metrics"]["cer_free"]["value"] == pytest.approx(4 / (4 * letters))  # f, two
    assert joined["both"] == {"wer_free": pytest.approx(0.2)}
    assert metrics_table(Result(Path("x.json"), "joined", joined))


def test_one_clip_in_two_records_is_refused() -> None:
    with pytest.raises(UsageError, match="same clips"):
        join([record("s1", [0.2], SAID), record("s1", [0.3], SAID)])


@pytest.mark.parametrize("name", ["model", "boundary"])
def test_models_of_other_settings_are_not_joined(name: str) -> None:
    records = [record(talker, [0.2], SAID) for talker in ("s1", "s2")]
    records[1]["flags"][name] = {"slots": 0}
    with pytest.raises(UsageError, match=f"these checkpoints differ in {name}"):
        join(records)
