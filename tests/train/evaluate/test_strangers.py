"""A network is measured on talkers that its training did not name, of other shards too."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from commands import fault
from networks import evaluated, trained

from avb.pipeline.config import load_corpora, name_hash
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate.evaluate import evaluate, open_part, unseen_talkers


def test_strangers_of_other_shards_are_measured(
    grid: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert unseen_talkers(grid, np.arange(len(grid)), np.arange(0), ["s77"])
    assert not unseen_talkers(grid, np.arange(len(grid)), np.arange(0), ["s1", "s77"])
    alone = np.array([row for row in range(len(grid)) if grid.speaker[row] == "s1"])
    assert not unseen_talkers(grid, alone, np.arange(0), ["s77"])  # one talker cannot be drawn
    state = checkpoint.load(trained("l2s", grid, tmp_path, split="vcagan-16-7-10"))
    own = {"split": "grid-hash", "speakers": ["s77"], "listed": None, "rule": None}
    checkpoint.save(tmp_path / "x.pt", state | {"data": state["data"] | own})
    given = ("l2s", tmp_path / "x.pt", grid, load_corpora()["grid"], "all")
    with pytest.raises(UsageError, match="holds no clip of the run's split"):
        evaluate(*given)
    caplog.set_level("INFO")
    record = evaluate(*given, speakers=["1", "s02", "s99"], limit=3)
    assert {clip["key"].split("/")[0] for clip in record["clips"]} == {"s1", "s2"}
    assert record["flags"]["speakers"] == ["s1", "s2"]
    assert "talkers without a clip of all here: s99" in caplog.text
    # The clips are those that `prep --limit` would take of these.
    keys = [key for key in map(grid.key, range(len(grid))) if key[:2] in ("s1", "s2")]
    lowest = sorted(keys, key=lambda key: (name_hash(key), key))[:3]
    assert [clip["key"] for clip in record["clips"]] == sorted(lowest, key=keys.index)
    assert record["flags"]["intervals"].startswith("of talkers")


def test_speech_is_measured_on_shards_of_other_words_and_another_corpus(
    grid: Index, tmp_path: Path
) -> None:
    state = checkpoint.load(trained("l2s", grid, tmp_path, split="vcagan-16-7-10"))
    words = [f"word{i}" for i in range(len(grid.labels))]
    settings = grid.dataset["settings"]

    def save(**settings: object) -> Path:
        data = {"labels": words, "split": "official", "speakers": ["s1"], "settings": settings}
        plan = state["recipe"] | {"corpus": "elsewhere"}
        checkpoint.save(tmp_path / "x.pt", state | {"recipe": plan, "data": state["data"] | data})
        return tmp_path / "x.pt"

    corpus = load_corpora()["grid"]  # which has no split called official
    given = ("l2s", save(**settings), grid, corpus, "all", "cpu")
    assert len(open_part(*given)[0].rows) == len(grid)
    rows = open_part(*given, speakers=["s2"])[0].rows
    assert len(rows) and {grid.speaker[row] for row in rows} == {"s2"}
    record = evaluate(*given, limit=3)
    assert len(record["clips"]) == 3 and record["flags"]["speakers"] is None
    # Of two talkers, who are strangers, whatever those of the training were called.
    assert record["flags"]["intervals"].startswith("of talkers")
    other = settings | {"mel": settings["mel"] | {"n_fft": 400}}
    with pytest.raises(UsageError, match="makes other log-mels than those of .*: n_fft 400, there"):
        open_part("l2s", save(**other), grid, corpus, "all", "cpu")
    crops = grid.dataset["crops"] | {"face": grid.dataset["crops"]["face"] | {"margin": 8}}
    wider = dataclasses.replace(grid, dataset=grid.dataset | {"crops": crops})
    with pytest.raises(
        UsageError, match="takes face of 96 pixels with a margin of 4, .* 96 with 8"
    ):
        open_part("l2s", save(), wider, corpus, "all", "cpu")


def test_speech_that_is_no_number_is_one_line(grid: Index, tmp_path: Path) -> None:
    """The weights are numbers, but so large that what they make is none."""
    run = trained("l2s", grid, tmp_path, split="vcagan-16-7-10")
    state = checkpoint.load(run)
    for weight in state["model"].values():
        weight.mul_(1e30) if weight.is_floating_point() else None
    checkpoint.save(run, state)
    assert "not finite; its training diverged" in fault(evaluated, "l2s", run, grid, "train")
