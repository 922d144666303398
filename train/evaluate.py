"""`avb eval`: one pass of a checkpoint over a part of its split, as one JSON record.

Unit, crop, mel and split come from the checkpoint. The record holds every flag that a number needs
to be compared, the per-clip values, and the ceiling and floors on the same clips; the means are
derived from the per-clip values.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.index import Index, Ints
from avb.train import checkpoint, eval_l2s, eval_lip, task
from avb.train.recipe import make_recipe
from avb.train.split import split_rows


def evaluate(
    kind: str,
    path: Path,
    index: Index,
    corpus: Corpus,
    part: str = "test",
    device: str = "cpu",
    limit: int | None = None,
) -> dict[str, Any]:
    """Evaluate the checkpoint `path` on one part (train, val, test or all) of its split.

    Raises:
        UsageError: a checkpoint of another task or label map, or an empty part.
    """
    state = checkpoint.load(path, kind)
    recipe = make_recipe(kind, state["recipe"], path.name)  # type: ignore[arg-type]
    if state["data"]["labels"] != index.labels:
        raise UsageError(f"{index.folder}: its label map is not the one {path} was trained on")
    scaling = task.Scaling(**state["scaling"])
    model = task.build_model(recipe, scaling)
    model.load_state_dict(state["ema"] or state["model"])
    model.eval().to(device)
    rows = part_rows(index, corpus, state["data"]["split"], part)[:limit]
    torch.manual_seed(0)  # the pre-net's dropout stays on
    run = eval_lip.measure if recipe.task == "lip" else eval_l2s.measure
    with torch.no_grad():
        record = run(model, recipe, scaling, index, rows, torch.device(device))
    record["flags"] |= {
        "part": part,
        "split": state["data"]["split"],
        "split_source": state["data"]["split_source"],
        "limit": limit,
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "step": state["counters"]["step"],
        "seed": recipe.seed,
        "slots": recipe.model.get("slots", "default"),
        "fingerprint": index.dataset["fingerprint"],
        "trained_on": state["data"]["fingerprint"],
        "device": device,
        "torch": str(torch.__version__),
    }
    return record


def part_rows(index: Index, corpus: Corpus, split: str, part: str) -> Ints:
    """Rows of one part of a split, or all."""
    if part == "all":
        return np.arange(len(index))
    return split_rows(index, corpus, split, need=(part,)).rows[part]
