"""Two records of the same clips: figures by hand, intervals by theory, and what is refused."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import did, fault, refused
from networks import evaluated, recipe
from scipy.stats import binomtest

from avb.pipeline.config import load_corpora
from avb.pipeline.stream.index import Index
from avb.train import trainer
from avb.train.evaluate.compare import compare, one_side, read_side
from avb.train.evaluate.metrics.intervals import mean_interval
from avb.train.evaluate.metrics.lip import HITS
from avb.train.split import split_rows

FLAGS = {"part": "test", "split": "grid-hash", "fingerprint": "f", "unit": "word", "slots": 44}
WORDS = ["bin", "blue", "at", "f", "two", "now"]


def write(path: Path, task: str, clips: list[dict[str, Any]], **flags: Any) -> str:
    known = FLAGS | {"seed": 0, "step": 10, "checkpoint_sha256": path.name} | flags
    slots = {"per_slot": {"letter": 0.5}} if clips[5:] and "#5" in clips[5]["key"] else {}
    path.write_text(json.dumps({"task": task, "flags": known, "clips": clips} | slots))
    return str(path)


def words(path: Path, right: Sequence[Any], keys: Sequence[str] | None = None, **flags: Any) -> str:
    keys = keys or [f"s1/c{i}" for i in range(len(right))]
    clips = [{"key": k, "right": bool(r)} for k, r in zip(keys, right, strict=True)]
    return write(path, "lip", clips, **flags)


def speech(path: Path, stoi: Sequence[Any], talkers: Sequence[str], **flags: Any) -> str:
    clips = [{"key": f"{t}/c{i}", "talker": t, "words": WORDS, "values": {"stoi": v}}
             for i, (v, t) in enumerate(zip(stoi, talkers, strict=True))]  # fmt: skip
    return write(path, "l2s", clips, **flags)


def test_one_side_is_the_mean_of_its_seeds_with_the_interval_of_clips(tmp_path: Path) -> None:
    hits = np.random.default_rng(0).integers(0, 2, (2, 40))
    keys = [f"s1/c{i:02}" for i in range(40)]
    paths = [words(tmp_path / f"w{i}", row, keys, seed=i) for i, row in enumerate(hits)]
    found = one_side(",".join(paths), "top1", draws=2000)
    expected = mean_interval(hits.mean(axis=0), draws=2000)
    assert found.pop("each") == pytest.approx(hits.mean(axis=1).tolist())
    assert found == pytest.approx(expected)
    values, talkers = np.arange(12) / 12, ["s1"] * 8 + ["s2"] * 4
    path = speech(tmp_path / "s", values.tolist(), talkers)
    found = one_side(path, "stoi", draws=2000)
    assert found["value"] == pytest.approx((values[:8].mean() + values[8:].mean()) / 2)
    expected = mean_interval(values, talkers, talker_mean=True, draws=2000)
    assert (found["low"], found["high"]) == (expected["low"], expected["high"])


# Words --------------------------------------------------------------------------------------------


def test_counts_and_mcnemar_are_those_of_the_pairs(tmp_path: Path) -> None:
    a = [1] * 60 + [1] * 21 + [0] * 9 + [0] * 10
    b = [1] * 60 + [0] * 21 + [1] * 9 + [0] * 10
    found = compare(words(tmp_path / "a", a), words(tmp_path / "b", b), draws=4000)
    assert found["counts"] == {"both_right": 60, "only_a": 21, "only_b": 9, "neither": 10}
    exact = found["mcnemar"]
    assert (exact["a_better"], exact["b_better"]) == (21, 9)
    assert exact["p"] == pytest.approx(binomtest(21, 30).pvalue)
    top1 = found["metrics"]["top1"]
    assert (top1["a"], top1["b"], top1["n"]) == (0.81, 0.69, 100)
    assert top1["difference"]["value"] == pytest.approx(0.12)
    # Per clip +1, -1 or 0: the deviation of their mean is that of the paired difference.
    half = 1.96 * np.sqrt((0.3 - 0.12**2) / 100)
    assert top1["difference"]["low"] == pytest.approx(0.12 - half, abs=0.012)
    assert top1["difference"]["high"] == pytest.approx(0.12 + half, abs=0.012)
    assert "per_slot" not in found


def test_words_of_one_sentence_are_drawn_together_and_shown_by_slot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = [f"s1/c{i}#{k}" for i in range(50) for k in range(6)]
    luck = rng.integers(0, 2, (2, 50))
    a, b = (np.repeat(one, 6) for one in luck)  # all six words of a sentence right, or none
    found = compare(words(tmp_path / "a", a, keys), words(tmp_path / "b", b, keys), draws=4000)
    difference = found["metrics"]["top1"]["difference"]
    gap = luck[0] - luck[1].astype(float)
    half = 1.96 * gap.std() / np.sqrt(50)
    assert difference["high"] - difference["low"] == pytest.approx(2 * half, rel=0.06)
    assert list(found["per_slot"]) == "command colour preposition letter digit adverb".split()
    for slot in found["per_slot"].values():
        assert slot["n"] == 50
        assert slot["difference"]["value"] == pytest.approx(gap.mean())
    exact = found["mcnemar"]  # six times the words, the same evidence
    assert exact["p_by_sentence"] > exact["p"] and "by_sentence" in " ".join(found["notes"])
    uneven = int((luck[0] > luck[1]).sum()), int((luck[0] < luck[1]).sum())
    p = binomtest(uneven[0], sum(uneven)).pvalue
    assert exact["p_by_sentence"] == pytest.approx(p, rel=0.1)


def test_talkers_are_the_clips_own_where_keys_begin_with_a_split(tmp_path: Path) -> None:
    """And of strangers, which records tell, they are drawn whether it is asked for or not."""
    right = np.random.default_rng(1).integers(0, 2, (2, 60))
    strangers = {"intervals": "of talkers drawn, then clips"}

    def compared(asked: bool, group: str = "s{}", talkers: int = 3, **flags: Any) -> Any:
        sides = []
        for side, row in zip("ab", right, strict=True):
            clips = [{"key": f"{group.format(i // 20)}/c{i:02}#0", "talker": f"s{i % talkers}",
                      "right": bool(r)} for i, r in enumerate(row)]  # fmt: skip
            sides.append(write(tmp_path / f"{group}{side}", "lip", clips, **flags))
        found = compare(*sides, by_talker=asked, draws=200)
        alone = one_side(sides[0], "top1", draws=200)
        return found["by_talker"], found["metrics"]["top1"], alone

    drawn, entry, _ = compared(True)
    assert drawn and compared(True, "test")[1] == entry != compared(False)[1]
    assert compared(False, **strangers)[:2] == (True, entry)
    assert compared(False, **strangers)[2] != compared(False)[2]
    assert not compared(False, talkers=1, **strangers)[0]


@pytest.mark.parametrize("length", [3, 9])
def test_words_of_sentences_that_are_not_grid_s_have_no_slots(tmp_path: Path, length: int) -> None:
    keys = [f"s1/c{i}#{k}" for i in range(4) for k in range(length)]
    paths = []
    for name, right in (("a", 1), ("b", 0)):
        clips = [{"key": key, "right": bool(right)} for key in keys]
        flags = FLAGS | {"seed": 0, "checkpoint_sha256": name}
        record = {"task": "lip", "flags": flags, "clips": clips, "per_slot": {}}
        (tmp_path / name).write_text(json.dumps(record))
        paths.append(str(tmp_path / name))
    found = compare(*paths, draws=50)
    assert "per_slot" not in found and found["mcnemar"]["p_by_sentence"] < 0.2


def test_slots_hold_their_own_words(tmp_path: Path) -> None:
    keys = [f"s1/c{i}#{k}" for i in range(4) for k in range(6)]
    a = [key.endswith("#3") for key in keys]
    found = compare(words(tmp_path / "a", a, keys), words(tmp_path / "b", [0] * 24, keys), draws=50)
    shown = {name: slot["difference"]["value"] for name, slot in found["per_slot"].items()}
    assert shown == {name: float(name == "letter") for name in shown}


def test_seeds_are_pooled_by_clip_and_shown_one_by_one(tmp_path: Path) -> None:
    a = [words(tmp_path / f"a{s}", r, seed=s) for s, r in ((0, [1, 1, 0, 0]), (1, [1, 1, 1, 1]))]
    (tmp_path / "b").mkdir()
    for s, r in ((0, [1, 0, 0, 0]), (1, [1, 1, 0, 0])):
        words(tmp_path / "b" / f"{s}.json", r, seed=s, slots=0)
    found = compare(",".join(a), str(tmp_path / "b"), draws=100)
    top1 = found["metrics"]["top1"]
    assert top1["a_each"] == [0.5, 1] and top1["b_each"] == [0.25, 0.5]
    assert top1["a"] == 0.75 and top1["a_sd"] == pytest.approx(0.5 / 2**0.5)
    assert top1["difference"]["value"] == pytest.approx(0.375)
    assert top1["each_difference"] == {"0": 0.25, "1": 0.5}
    counts = {"both_right": 1.5, "only_a": 1.5, "only_b": 0, "neither": 1}
    assert found["counts"] == counts
    assert (found["mcnemar"]["a_better"], found["mcnemar"]["b_better"]) == (3, 0)
    assert [one["slots"] for one in found["b"]] == [0, 0]
    assert any("fewer than 3 seeds" in note for note in found["notes"])
    other = compare(a[0], str(tmp_path / "b" / "1.json"), draws=100)
    assert "seeds differ: 0 against 1" in other["notes"]
    record = json.loads(Path(a[0]).read_text())
    record["flags"]["vocoder"] = {"hash": "e" * 64}
    (tmp_path / "refined.json").write_text(json.dumps(record))
    found = compare(str(tmp_path / "refined.json"), a[0], draws=100)
    assert any(note.endswith(f"vocoder {'e' * 12} against Griffin-Lim") for note in found["notes"])
    assert "each_difference" not in other["metrics"]["top1"]


# Speech -------------------------------------------------------------------------------------------


def test_metrics_are_means_by_talker_over_the_clips_both_have(tmp_path: Path) -> None:
    talkers = ["s1"] * 6 + ["s2"] * 2
    a = [0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.2, None]
    b = [0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.4, 0.1]
    first, second = speech(tmp_path / "a", a, talkers), speech(tmp_path / "b", b, talkers)
    stoi = compare(first, second, draws=500)["metrics"]["stoi"]
    assert stoi["n"] == 7 and stoi["a"] == pytest.approx(0.4) and stoi["b"] == pytest.approx(0.45)
    assert stoi["difference"]["value"] == pytest.approx((0.1 - 0.2) / 2)
    turned = compare(second, first, draws=500)["metrics"]["stoi"]["difference"]
    assert turned["value"] == -stoi["difference"]["value"]
    assert turned["low"] == -stoi["difference"]["high"]
    # Two talkers that disagree: drawn as a whole, they leave more open than their clips.
    by_talker = compare(first, second, by_talker=True, draws=500)["metrics"]["stoi"]["difference"]
    assert by_talker["high"] == pytest.approx(0.1) and by_talker["low"] == pytest.approx(-0.2)
    some = [speech(tmp_path / name, a[:6] + [0.1], ["s1"] * 7) for name in "cd"]
    assert "all 7 clips are of s1" in fault(compare, *some, by_talker=True)


def test_what_no_record_has_is_said(tmp_path: Path) -> None:
    sides = [speech(tmp_path / n, v, ["s1"] * 2) for n, v in (("a", [1, None]), ("b", [None, 1]))]
    stoi = compare(*sides)["metrics"]["stoi"]
    assert stoi["a"] is None and stoi["reason"] == "no clip has it in every record"


def test_word_errors_are_pooled_over_words(tmp_path: Path) -> None:
    pytest.importorskip("jiwer", reason="word errors are counted with the extra eval")
    heard_a = [WORDS[:5], [*WORDS[:3], "soon"]]  # one deleted, one inserted
    heard_b = [WORDS, ["bin", "red", "at"]]  # one substituted

    def record(field: str, heard: list[list[str]]) -> str:
        said = {"s1/a": WORDS, "s1/b": WORDS[:3]}
        clips = [{"key": key, "talker": "s1", "words": words, "values": {}, field: one}
                 for (key, words), one in zip(said.items(), heard, strict=True)]  # fmt: skip
        return write(tmp_path / f"{field}{len(heard[0])}", "l2s", clips)

    metrics = compare(record("heard", heard_a), record("heard", heard_b), draws=50)["metrics"]
    assert list(metrics) == ["wer_pocketsphinx"]  # no judge heard both
    judged = record("heard_judge", heard_b), record("heard_judge", heard_a)
    difference = compare(*judged, draws=50)["metrics"]["wer_judge"]["difference"]
    assert difference["value"] == pytest.approx(-1 / 9)
    wer = metrics["wer_pocketsphinx"]
    assert wer["a"] == pytest.approx(2 / 9) and wer["b"] == pytest.approx(1 / 9)
    assert wer["difference"]["value"] == pytest.approx(1 / 9)


def test_sentences_are_pooled_over_talkers_as_their_records_have_them(tmp_path: Path) -> None:
    def sentences(name: str, right: list[int]) -> str:
        clips = [{"key": f"s{1 + (i > 2)}/{i}", "talker": f"s{1 + (i > 2)}", "words": WORDS,
                  "values": {"sentences_free": r}} for i, r in enumerate(right)]  # fmt: skip
        return write(tmp_path / name, "sentence", clips)

    found = compare(sentences("a", [1, 1, 1, 0]), sentences("b", [0] * 4), draws=50)
    assert found["metrics"]["sentences_free"]["a"] == 0.75
    assert found["metrics"]["sentences_free"]["difference"]["value"] == 0.75


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"part": "val"}, "flag part is val, and test in"),
        ({"split": "official"}, "flag split is official"),
        ({"fingerprint": "g"}, "flag fingerprint is g"),
        ({"unit": "clip"}, "flag unit is clip"),
        ({"boundary": True}, "flag boundary is True, and None in"),
        ({"gl_iters": 32}, "flag gl_iters is 32"),
        ({"wer_judge": {"hash": "1", "epochs": 3}}, "flag wer_judge is 1, and 0 in"),
    ],
)
def test_other_flags_are_refused(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    judge = {"wer_judge": {"hash": "0", "epochs": 3}} if "wer_judge" in flags else {}
    first = words(tmp_path / "a", [1, 0], **judge)
    second = words(tmp_path / "b", [1, 0], **flags)
    assert message in fault(compare, first, second)


def test_another_model_step_or_machine_is_what_is_compared(tmp_path: Path) -> None:
    free = {"slots": 0, "seed": 3, "step": 9, "device": "cuda", "torch": "2", "trained_on": "x"}
    free |= {"split_source": "published weights", "mean_mel": {"clips": 3}, "speakers": ["s1"]}
    free |= {"per_talker": True}
    judged = {"wer_judge": {"hash": "0", "epochs": 3}}
    sides = words(tmp_path / "a", [1, 0], **judged), words(tmp_path / "b", [1, 0], **free)
    assert compare(*sides, draws=10)["metrics"]["top1"]["difference"]["value"] == 0


def test_other_clips_tasks_and_files_are_named(tmp_path: Path) -> None:
    first = words(tmp_path / "a", [1, 0, 1])
    beside = partial(fault, compare, first)
    fewer = words(tmp_path / "b", [1, 0], ["s1/c0", "s1/x"])
    assert "1 only here, 2 only there, such as s1/x" in beside(fewer)
    assert "of l2s, and" in beside(speech(tmp_path / "c", [1], ["s1"]))
    assert "slots 0, and 44 in" in beside(f"{first},{words(tmp_path / 'd', [1, 0, 1], slots=0)}")
    # Baseline, control and adaptation have no slots, all of them.
    arms: list[dict[str, Any]] = [{"model": {"slots": 0}, "init": None}]
    arms += [{"model": {"slots": 0, "audio_term": True}, "init": None}, arms[0] | {"init": "sync"}]
    plain, control, adapted = (
        words(tmp_path / f"arm{i}", [1, 0, 1], seed=i, slots=0, **arm) for i, arm in enumerate(arms)
    )
    assert "audio_term" in beside(f"{plain},{control}")
    assert "init sync, and None in" in beside(f"{plain},{adapted}")
    old = words(tmp_path / "old", [1, 0, 1], seed=9, slots=0)  # of before it was told
    assert len(read_side(f"{old},{control}")) == 2
    last = words(tmp_path / "last", [1, 0, 1], step=12)  # of the same run, another checkpoint
    assert "a seed counts once" in beside(f"{first},{last}")
    assert "a seed counts once" in beside(f"{first},{first}")
    assert "cannot be read" in beside(str(tmp_path / "nobody"))
    (tmp_path / "e").write_text("[]")
    assert "not a record of avb eval" in beside(str(tmp_path / "e"))
    (tmp_path / "empty").mkdir()
    assert "holds no record" in beside(str(tmp_path / "empty"))
    assert "1 different clips in 2 entries" in beside(words(tmp_path / "f", [1, 0], ["x", "x"]))


# As it is typed -----------------------------------------------------------------------------------


def test_records_of_avb_eval_are_compared_as_typed(lrw: Index, tmp_path: Path) -> None:
    parts = split_rows(lrw, load_corpora()["lrw"], "official", need=("train", "val"))
    for seed in (0, 1):
        trainer.train(recipe("lip", steps=1, seed=seed), lrw, parts, tmp_path / str(seed))
        record = evaluated("lip", tmp_path / str(seed) / "best.pt", lrw, "all")
        (tmp_path / f"{seed}.json").write_text(json.dumps(record, default=float))
    sides = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    run = did("compare", *sides)
    assert "top1" in run.stdout and "points, n 12" in run.stdout and "McNemar" in run.stdout
    record = json.loads(did("compare", *sides, "--json").stdout)
    assert record["clips"] == 12 and record["flags"]["split"] == "official"
    assert sum(record["counts"].values()) == 12
    for name, hit in HITS.items():  # every path of the reader, from the values of each clip
        own = [np.mean([c[hit] for c in read_side(side)[0].clips.values()]) for side in sides]
        entry = record["metrics"][name]
        assert (entry["a"], entry["b"]) == pytest.approx(tuple(own))
        assert entry["difference"]["value"] == pytest.approx(own[0] - own[1])
    run_folder = tmp_path / "1"
    assert "holds no record (test.json)" in refused("compare", sides[0], run_folder)
    (tmp_path / "1.json").rename(run_folder / "test.json")
    for name in ("val.json", "trained.json"):  # of another part, of avb reproduce
        (run_folder / name).write_text("{}")
    assert did("compare", sides[0], run_folder).stdout == run.stdout


def test_the_table_shows_each_seed(tmp_path: Path) -> None:
    talkers = ["s1", "s1", "s2"]
    first = [speech(tmp_path / f"a{s}", [0.5, 0.6, 0.1 * s], talkers, seed=s) for s in (0, 1)]
    second = speech(tmp_path / "b", [0.5, None, 0.1], talkers)
    run = did("compare", ",".join(first), second)
    assert "A by seed: 0.2500 0.3000 (sd 0.0354)" in run.stdout
    assert ", n 2" in run.stdout and "note: seeds differ: 0, 1 against 0" in run.stderr


def test_before_and_after_sync_are_paired_and_said(tmp_path: Path) -> None:
    before = speech(tmp_path / "a", [0.5, 0.6], ["s1"] * 2, sync=None, fingerprint="1" * 64)
    moved = {"sync": "e" * 64, "fingerprint": "2" * 64}
    after = speech(tmp_path / "b", [0.7, 0.7], ["s1"] * 2, **moved)
    found = compare(after, before, draws=100)
    assert found["metrics"]["stoi"]["difference"]["value"] == pytest.approx(0.15)
    assert any("was moved" in note for note in found["notes"])
    again = speech(tmp_path / "d", [0.6, 0.7], ["s1"] * 2, **moved, seed=1)
    notes = compare(f"{after},{again}", after, draws=100)["notes"]
    assert any("seeds differ" in note for note in notes) and "was moved" not in str(notes)
    other = speech(tmp_path / "c", [0.7, 0.7], ["s1"] * 2, sync=None, fingerprint="2" * 64)
    assert "flag fingerprint" in fault(compare, other, before)
    assert "one side is one model" in fault(compare, f"{before},{after}", other)
