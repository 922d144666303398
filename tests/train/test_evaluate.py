"""Evaluation: each sample once, means from the per-clip values, beside ceiling and floors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.config import UsageError, load_corpora
from avb.pipeline.index import Index
from avb.train import loop
from avb.train.evaluate import evaluate
from avb.train.split import split_rows


def trained(kind: str, recipe: Any, index: Index, out: Path, **changes: Any) -> Path:
    corpus = load_corpora()[index.dataset["corpus"]]
    plan = recipe(kind, steps=2, validate_every=2, **changes)
    parts = split_rows(index, corpus, plan.split, need=("train", "val"))
    loop.train(plan, index, parts, out)
    return out / "best.pt"


def test_words_are_counted_once_and_the_mean_is_that_of_the_clips(
    lrw: Index, recipe: Any, tmp_path: Path
) -> None:
    best = trained("lip", recipe, lrw, tmp_path)
    corpus = load_corpora()["lrw"]
    record = evaluate("lip", best, lrw, corpus, "all")
    json.dumps(record, default=float)
    keys = [clip["key"] for clip in record["clips"]]
    assert sorted(keys) == sorted(lrw.key(i) for i in range(len(lrw)))
    right = np.mean([clip["right"] for clip in record["clips"]])
    top1 = record["metrics"]["top1"]
    assert top1["value"] == pytest.approx(right) and top1["low"] <= right <= top1["high"]
    assert record["floors"]["most_frequent"] >= record["floors"]["chance"]
    assert record["flags"]["split"] == "official" and record["flags"]["part"] == "all"
    held = evaluate("lip", best, lrw, corpus, "val")
    assert {clip["key"].split("/")[0] for clip in held["clips"]} == {"val"}


def test_speech_stands_beside_its_ceiling_and_floors(
    grid: Index, recipe: Any, tmp_path: Path
) -> None:
    pytest.importorskip("pystoi", reason="speech is measured with the extra eval")
    best = trained("l2s", recipe, grid, tmp_path, split="vcagan-16-7-10")
    record = evaluate("l2s", best, grid, load_corpora()["grid"], "train", limit=2)
    estoi = {"model": record["metrics"]["estoi"]["value"]}
    estoi |= {k: v["estoi"]["value"] for k, v in record["floors"].items()}
    ceiling = record["ceiling"]["estoi"]["value"]
    assert ceiling > 0.6 and all(v < ceiling - 0.2 for v in estoi.values())
    assert [clip["key"] for clip in record["clips"]] and record["flags"]["limit"] == 2


def test_another_task_another_label_map_and_an_empty_part_are_named(
    lrw: Index, grid: Index, recipe: Any, tmp_path: Path
) -> None:
    best = trained("lip", recipe, lrw, tmp_path)
    corpora = load_corpora()
    with pytest.raises(UsageError, match="a checkpoint for lip, not for l2s"):
        evaluate("l2s", best, grid, corpora["grid"])
    with pytest.raises(UsageError, match="label map is not the one"):
        evaluate("lip", best, grid, corpora["grid"])
    with pytest.raises(UsageError, match="leaves nothing for test"):
        evaluate("lip", best, lrw, corpora["lrw"])  # twelve drawn clips have no test part
