"""Promise: a judge learns from training clips alone, and its file says all that its figures need.

Whether it hears well is proved on real speech (test_recogniser.py, make slow).
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from commands import avb, did, fault, refused
from networks import other_front_end

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import load_corpora
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate import stored_mels
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.words import trained, training
from avb.train.evaluate.words.grammar import slot_targets, word_error_rate
from avb.train.evaluate.words.trained import SlotReader, Training, transcribe
from avb.train.kept import fingerprint
from avb.train.split import Parts, split_rows

pytest.importorskip("jiwer", reason="word errors are counted with the extra eval")
SPLIT = "vcagan-16-7-10"  # train s1 s3, val s9, test s2


def split(index: Index) -> Parts:
    return split_rows(index, load_corpora()["grid"], SPLIT)


def keys(index: Index, rows: Any) -> set[str]:
    return {index.key(int(row)) for row in rows}


@pytest.fixture(scope="module")
def file(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "made" / "judge.pt"
    words = ["--split", "speaker-independent", "--epochs", 2, "--seed", 5, "--device", "cpu"]
    text = did("train", "judge", "--data", grid.folder, *words, "--out", path).stderr
    assert f"split {SPLIT}" in text and "epoch 2/2 loss" in text
    assert "word error on real of 2 validation clips" in text and "word error on griffin" in text
    return path


def test_only_training_clips_are_learnt_from_and_only_validation_clips_measured(
    grid: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(grid)
    real_read, fit = stored_mels.read_mels, Mock(return_value=SlotReader().eval())
    read_mels = Mock(wraps=real_read)
    monkeypatch.setattr(stored_mels, "read_mels", read_mels)
    monkeypatch.setattr(training, "fit", fit)
    plan = Training(epochs=1, seed=3)
    state = training.train(grid, parts, plan, torch.device("cpu"))
    train, val = (keys(grid, parts.rows[part]) for part in ("train", "val"))
    assert [keys(*call.args) for call in read_mels.call_args_list] == [train, val]
    assert set(state["data"]["keys"]) == train
    mels, words, how = fit.call_args.args
    rows = parts.rows["train"]
    mel = stored_mels.front_end(grid)
    stored = [one for batch in real_read(grid, rows) for one in batch]
    assert len(mels) == len(words) == 2 * len(rows) and how == plan
    assert torch.equal(mels[: len(rows)], torch.stack(stored))
    again = [torch.from_numpy(log_mel(s, mel, 16_000)) for s in invert_all(stored, mel)]
    torch.testing.assert_close(mels[len(rows) :], torch.stack(again))
    spoken = [slot_targets([w for w, _, _ in grid.words(row)]) for row in rows]
    assert words.tolist() == spoken * 2


def test_the_file_holds_plain_values_and_all_that_a_figure_needs(grid: Index, file: Path) -> None:
    state = torch.load(file, weights_only=True)
    parts = split(grid)
    assert state["format"] == checkpoint.FORMAT and state["task"] == "judge"
    assert state["mel"] == dataclasses.asdict(stored_mels.front_end(grid))
    assert state["data"]["split"] == SPLIT and state["data"]["corpus"] == "grid"
    assert state["data"]["split_source"] == parts.source and state["data"]["speakers"] is None
    assert state["data"]["fingerprint"] == grid.dataset["fingerprint"]
    assert state["training"]["epochs"] == 2 and state["training"]["seed"] == 5
    assert state["clips"] == len(parts.rows["train"]) and state["revision"] and state["torch"]
    network = trained.load(file, grid).network
    assert fingerprint(network) == state["hash"] and not network.training
    held = [one for batch in stored_mels.read_mels(grid, parts.rows["val"]) for one in batch]
    words = [[w for w, _, _ in grid.words(row)] for row in parts.rows["val"]]
    own = word_error_rate(words, transcribe(network, held))
    assert state["val"]["real"]["wer"] == own["wer"] and state["val"]["clips"] == len(held)
    assert set(state["val"]["real"]["per_slot"]) == set(own["per_slot"])
    swapped = word_error_rate(words, transcribe(network, held[::-1]))
    assert state["val"]["other_sentence"]["wer"] == swapped["wer"]


def test_what_a_figure_is_printed_with_names_split_and_error(grid: Index, file: Path) -> None:
    stored = trained.load(file, grid)
    flags = stored.flags()
    json.dumps(flags)
    assert flags["hash"] == fingerprint(stored.network) and flags["split"] == SPLIT
    assert set(flags["own_wer"]) == {"real", "griffin_lim", "other_sentence"}
    assert "keys" not in flags and flags["clips"] == 4
    parts = split(grid)
    train, test = (sorted(keys(grid, parts.rows[part])) for part in ("train", "test"))
    assert stored.saw(test, "grid") == 0 and stored.saw(test + train[:1], "grid") == 1
    assert stored.saw(train, "mine") is None


def test_talkers_and_lists_narrow_the_training(grid: Index, tmp_path: Path) -> None:
    rows = {part: sorted(keys(grid, found)) for part, found in split(grid).rows.items()}
    lines = [f"{part}/{key}\n" for part in ("train", "val") for key in rows[part]]
    (tmp_path / "mine.txt").write_text("".join(lines))
    for words in (["--split-file", tmp_path / "mine.txt"], ["--split", SPLIT]):
        out = tmp_path / f"{words[0][2:]}.pt"
        words += ["--data", grid.folder, "--epochs", 1, "--device", "cpu", "--out", out]
        did("train", "judge", "--speakers", "s1,s9", *words)
        data = torch.load(out, weights_only=True)["data"]
        assert data["speakers"] == ["s1", "s9"]
        assert sorted(data["keys"]) == [key for key in rows["train"] if key.startswith("s1/")]
        assert bool(data["listed"]) == (words[0] == "--split-file")


def test_other_lengths_hold_their_last_column(grid: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [300, 296]
    mels = [torch.randn(80, n) for n in lengths]
    monkeypatch.setattr(stored_mels, "read_mels", lambda index, rows: iter([mels]))
    monkeypatch.setattr(training, "griffin_lim_copies", lambda mels, mel: [m + 1 for m in mels])
    index = dataclasses.replace(grid, num_mel=np.array(lengths))
    mel = stored_mels.front_end(grid)
    found = training.with_copies(index, np.arange(2), mel, torch.device("cpu"))
    assert found.shape == (4, 80, 300) and torch.equal(found[0], mels[0])
    assert torch.equal(found[1, :, :296], mels[1])
    assert torch.equal(found[1, :, 296:], mels[1][:, -1:].expand(-1, 4))
    assert torch.equal(found[2:], found[:2] + 1)


def test_no_judge_for_these_shards_is_one_line(grid: Index, file: Path, tmp_path: Path) -> None:
    load = trained.load
    lip = tmp_path / "lip.pt"
    checkpoint.save(lip, {"recipe": {"task": "lip"}, "model": {}})
    line = fault(load, lip, grid)
    assert "a checkpoint for lip, not for judge; make one with avb train judge" in line
    found = fault(load, file, other_front_end(grid, window=400, power=2.0))
    assert "window 800, there 400; power 1.0, there 2.0" in found
    load(file, other_front_end(grid, uint8_max=2.0))  # only says how mels are stored
    state = torch.load(file, weights_only=True)
    state["weights"]["gru.weight_ih_l0"][0, 0] += 1e-3
    checkpoint.save(tmp_path / "bent.pt", state)
    assert "not those of its hash" in fault(load, tmp_path / "bent.pt", grid)
    for part, value, said in (
        ("data", math.nan, "data: expected a mapping, found nan"),
        ("sample_rate", "x" * 3000, "sample_rate: expected int, found 'xxx"),
        ("val", {}, "val: the key 'real' is missing"),
        ("training", {"epochs": None}, "epochs: expected int"),
        ("training", {"epochs": 2}, "training: the key 'batch_size' is missing"),
    ):
        checkpoint.save(tmp_path / "odd.pt", state | {part: value})
        assert said in (line := fault(load, tmp_path / "odd.pt", grid)) and len(line) < 400
    del state["weights"]["gru.weight_ih_l0"]
    checkpoint.save(tmp_path / "old.pt", state)
    assert "of another version" in fault(load, tmp_path / "old.pt", grid)


def test_a_clip_of_other_words_is_left_out_and_named(
    grid: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts, real, out = split(grid), training._spoken, tmp_path / "judge.pt"
    odd = {int(parts.rows["train"][1]), int(parts.rows["val"][0])}
    monkeypatch.setattr(training, "_spoken", lambda i, r: ["hello"] if r in odd else real(i, r))
    words = ["--split", SPLIT, "--epochs", 1, "--device", "cpu", "--out", out]
    said = did("train", "judge", "--data", grid.folder, *words).stderr
    state, left_out = torch.load(out, weights_only=True), keys(grid, odd)
    assert set(state["data"]["keys"]) == keys(grid, parts.rows["train"]) - left_out
    assert state["clips"] == len(parts.rows["train"]) - 1
    assert "1 of 4 clips of train left out" in said and all(key in said for key in left_out)
    assert "word error on real of 1 validation clips" in said


def test_a_wrong_word_is_one_line_and_nothing_is_overwritten(
    lrw: Index, grid: Index, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = tmp_path / "judge.pt", file.read_bytes()
    for data, target, more, message in (
        (grid.folder, file, [], "is there already"),
        (grid.folder, out, ["--split", "nobody"], "no split 'nobody'"),
        (grid.folder, file / "below.pt", ["--split", SPLIT], "cannot be written"),
    ):
        assert message in refused("train", "judge", "--data", data, "--out", target, *more)
    words = ["--data", lrw.folder, "--out", out, "--device", "cpu"]
    assert "a judge learns GRID's six slots" in avb("train", "judge", *words).stderr
    assert not out.exists() and file.read_bytes() == before
    monkeypatch.setitem(sys.modules, "jiwer", None)
    line = fault(training.train, grid, split(grid), Training(epochs=1), torch.device("cpu"))
    assert "jiwer not installed: pip install jiwer" in line
