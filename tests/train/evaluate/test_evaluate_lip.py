"""Words evaluated: each clip once, and those that the run's split gives."""

import dataclasses
import errno
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from commands import avb, fault
from networks import changed, evaluated, recipe, trained

from avb.models.masks import boundary_as
from avb.pipeline.config import load_corpora
from avb.pipeline.stream.index import Index
from avb.tools.cli import evaluate as command
from avb.train.evaluate import lip as eval_lip
from avb.train.evaluate.evaluate import part_rows
from avb.train.evaluate.metrics import lip
from avb.train.evaluate.metrics.intervals import ratio_interval
from avb.train.evaluate.record import read_record


def test_words_count_once_and_the_mean_is_the_clips(lrw: Index, tmp_path: Path) -> None:
    best = trained("lip", lrw, tmp_path)
    record = evaluated("lip", best, lrw, "all")
    json.dumps(record, default=float)
    keys = [clip["key"] for clip in record["clips"]]
    assert sorted(keys) == sorted(lrw.key(i) for i in range(len(lrw)))
    right = np.mean([clip["right"] for clip in record["clips"]])
    top1 = record["metrics"]["top1"]
    assert top1["value"] == pytest.approx(right) and top1["low"] <= right <= top1["high"]
    for name, hit in lip.HITS.items():
        mean = np.mean([clip[hit] for clip in record["clips"]])
        assert record["metrics"][name]["value"] == pytest.approx(mean)
    assert sum(entry["n"] for entry in record["per_length"].values()) == len(keys)
    assert record["floors"]["most_frequent"] >= record["floors"]["chance"]
    assert record["flags"]["split"] == "official" and record["flags"]["part"] == "all"
    held = evaluated("lip", best, lrw, "val")
    assert {clip["key"].split("/")[0] for clip in held["clips"]} == {"val"}


def test_a_checkpoint_that_is_replaced_while_it_is_measured_is_the_one_that_was_read(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = trained("lip", lrw, tmp_path)
    sha256 = hashlib.sha256(best.read_bytes()).hexdigest()
    measure = eval_lip.measure

    def beside_a_training(*given: Any) -> Any:
        changed(best, best, split="later")
        return measure(*given)

    monkeypatch.setattr(eval_lip, "measure", beside_a_training)
    record = evaluated("lip", best, lrw, "all")
    assert record["flags"]["checkpoint_sha256"] == sha256


def test_the_record_is_written_where_nobody_reads_the_figures(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind `| head`."""
    best, out = trained("lip", lrw, tmp_path), tmp_path / "record.json"
    closed = Mock(side_effect=BrokenPipeError(errno.EPIPE, "Broken pipe"))
    monkeypatch.setattr(command, "tell", closed)
    words = ("--ckpt", best, "--data", lrw.folder, "--part", "all", "--out", out)
    assert avb("eval", "lip", *words).exit_code == 1
    assert len(read_record(out)["clips"]) == len(lrw)


def test_words_of_sentences_stand_beside_what_needs_no_look(grid: Index, tmp_path: Path) -> None:
    """Told where the word is, guessed as for a film, or not told: the record says which."""
    model = recipe("lip").model | {"word_boundary": True}
    few = {"corpus": "grid", "unit": "word", "split": "vcagan-16-7-10"}
    never = trained("lip", grid, tmp_path / "never", **few)
    assert "is never told where a word lies" in fault(
        evaluated, "lip", never, grid, "test", boundary="none"
    )
    few |= {"model": model}
    best = trained("lip", grid, tmp_path, **few)
    for how, flag in (("told", True), ("guessed", "guessed"), ("none", "none")):
        record = evaluated("lip", best, grid, "test", boundary=how)
        assert record["flags"]["boundary"] == flag
        assert {"slot", "slot_and_length"} <= record["floors"].keys()
    # All of one talker: whole sentences are drawn, as `avb compare` does, and not words of each
    # once more, which made intervals of 99 % of those of 95.
    assert {clip["key"][:2] for clip in record["clips"]} == {"s2"}
    assert record["flags"]["intervals"] == "of clips drawn"
    hits, sentences = zip(*((c["right"], c["key"].split("#")[0]) for c in record["clips"]),
                          strict=True)  # fmt: skip
    assert record["metrics"]["top1"] == ratio_interval(hits, np.ones(len(hits)), units=sentences)
    assert "words_left_out" not in record["flags"] and record["flags"]["talkers_taught"] == 0
    word_s = grid.word_s.copy()
    word_s[grid.first_word[:-1]] = np.nan  # the first word of each sentence
    fewer = evaluated("lip", best, dataclasses.replace(grid, word_s=word_s), "test")
    assert fewer["flags"]["words_left_out"] == len(set(sentences))
    assert fewer["flags"]["n"] == record["flags"]["n"] - len(set(sentences))
    told = torch.zeros(2, 29)
    told[:, 3:9] = 1
    assert boundary_as("told", told) is told and boundary_as("guessed", None) is None
    assert torch.equal(boundary_as("none", told), torch.ones(2, 29))
    guessed = boundary_as("guessed", told)
    assert torch.equal(guessed.sum(dim=1), torch.full((2,), 7.0)) and (guessed[:, 11:18] == 1).all()


@pytest.mark.parametrize("frames", [5, 6, 7, 12, 13, 29])
def test_the_guessed_word_depends_on_no_padding(frames: int) -> None:
    alone = boundary_as("guessed", torch.zeros(1, frames))
    padded = boundary_as("guessed", torch.zeros(2, 40), torch.tensor([frames, 40]))
    assert alone is not None and padded is not None
    assert torch.equal(padded[0, :frames], alone[0]) and alone.sum() == min(frames, 7)


def test_talkers_and_lists_of_it_are_evaluated(lrw: Index, grid: Index, tmp_path: Path) -> None:
    corpora = load_corpora()
    everything = sorted(grid.key(i) for i in range(len(grid)))
    for part, talkers in (("train", {"s1"}), ("test", {"s2"}), ("all", {"s1", "s2"})):
        data = {"split": "vcagan-16-7-10", "speakers": ["s1", "s2"], "listed": None}
        rows = part_rows(grid, corpora["grid"], data, part)
        assert {grid.key(i).split("/")[0] for i in rows} == talkers
    listed = {everything[0]: "test", everything[3]: "train", "s99/none": "test"}
    data = {"split": "mine.txt", "listed": listed}
    assert [grid.key(i) for i in part_rows(grid, corpora["grid"], data, "test")] == everything[:1]
    some = part_rows(grid, corpora["grid"], data, "all")
    assert sorted(grid.key(i) for i in some) == [everything[0], everything[3]]
    line = fault(part_rows, grid, corpora["grid"], data, "val")
    assert "holds no clip of the run's split mine.txt, part val" in line and "--split" not in line
    for known in ({"listed": {"s99/none": "test"}}, {"speakers": ["s99"], "listed": None}):
        gone = {"split": "vcagan-16-7-10"} | known
        line = fault(part_rows, grid, corpora["grid"], gone, "all")
        assert "holds no clip of the run's split" in line
        assert not len(part_rows(grid, corpora["grid"], gone, "train", need=False))
    rule = corpora["grid"].splits["vcagan-16-7-10"].rule()
    same = {"split": "vcagan-16-7-10", "rule": rule}
    assert len(part_rows(grid, corpora["grid"], same, "test"))
    for part in ("train", "test"):
        line = fault(part_rows, grid, corpora["grid"], same | {"rule": "0" * 12}, part)
        assert "has other parts now" in line and "--datasets" in line
    plain = {"split": "vcagan-16-7-10"}  # a checkpoint from before talkers were stored
    assert len(part_rows(grid, corpora["grid"], plain, "all")) == len(grid)
    best = trained("lip", lrw, tmp_path)
    chosen = [lrw.key(i) for i in range(3)]
    changed(best, tmp_path / "x.pt", split="mine.txt", listed=dict.fromkeys(chosen, "test"))
    record = evaluated("lip", tmp_path / "x.pt", lrw)
    assert [clip["key"] for clip in record["clips"]] == chosen
    assert record["flags"]["split"] == "mine.txt"


def test_another_task_labels_and_an_empty_part_are_named(
    lrw: Index, grid: Index, tmp_path: Path
) -> None:
    best = trained("lip", lrw, tmp_path)
    assert "a checkpoint for lip, not for l2s" in fault(evaluated, "l2s", best, grid)
    assert "label map is not the one" in fault(evaluated, "lip", best, grid)
    line = fault(evaluated, "lip", best, lrw)  # twelve drawn clips have no test part
    assert "split official, part test" in line
