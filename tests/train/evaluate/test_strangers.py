"""A network is measured on talkers that its training did not name, of other shards too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import trained

from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate.evaluate import evaluate, unseen_talkers


def test_strangers_of_other_shards_are_measured(grid: Index, tmp_path: Path) -> None:
    assert unseen_talkers(grid, np.arange(len(grid)), np.arange(0), ["s77"])
    assert not unseen_talkers(grid, np.arange(len(grid)), np.arange(0), ["s1", "s77"])
    state = checkpoint.load(trained("l2s", grid, tmp_path, split="vcagan-16-7-10"))
    own = {"split": "grid-hash", "speakers": ["s77"], "listed": None}
    checkpoint.save(tmp_path / "x.pt", state | {"data": state["data"] | own})
    given = ("l2s", tmp_path / "x.pt", grid, load_corpora()["grid"], "all")
    with pytest.raises(UsageError, match="holds no clip of the run's split"):
        evaluate(*given)
    record = evaluate(*given, speakers=["1", "s02"], limit=2)
    assert {clip["key"].split("/")[0] for clip in record["clips"]} <= {"s1", "s2"}
    assert record["flags"]["speakers"] == ["s1", "s2"]
    assert record["flags"]["intervals"].startswith("of talkers")
