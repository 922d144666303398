"""Damaged records of evaluations, recipes and logs of runs, and judges of words."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from avb.pipeline.stream.index import load_index
from avb.train import checkpoint
from avb.train.evaluate.stored_mels import front_end
from avb.train.evaluate.words.trained import SlotReader, Training
from avb.train.kept import fingerprint
from fuzzing.mutate import Rng, mutate, mutate_tree


def damaged_json(rng: Rng, path: Path) -> str:
    """Change a file of JSON in place: its bytes, or one value; what was done, for people."""
    if rng.random() < 0.3:
        done, data = mutate(rng, path.read_bytes())
        path.write_bytes(data)
        return f"{path.name} {done}"
    tree = json.loads(path.read_text())
    done = mutate_tree(rng, tree)
    path.write_text(json.dumps(tree))
    return f"{path.name} {done}"


def damaged_run(rng: Rng, run: Path, record: Path, folder: Path) -> str:
    """A copy of what a report reads of a run, with one file damaged; what was done."""
    for name in ("recipe.yaml", "metrics.jsonl", "best.pt"):
        shutil.copy(run / name, folder / name)
    shutil.copy(record, folder / "test.json")
    how = int(rng.integers(4))
    if how < 2:
        return damaged_json(rng, folder / "test.json")
    if how == 2:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        entry = json.loads(lines[0])
        done = mutate_tree(rng, entry)
        (folder / "metrics.jsonl").write_text("\n".join([json.dumps(entry), *lines[1:]]) + "\n")
        return f"metrics.jsonl {done}"
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    done = mutate_tree(rng, tree)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree), "utf-8", errors="replace")
    return f"recipe.yaml {done}"


def make_judge(path: Path, shards: Path) -> Path:
    """A judge that learned nothing, with all that a trained one says of itself."""
    index = load_index(shards)
    mel, rate = front_end(index), int(index.dataset["settings"]["sample_rate"])
    torch.manual_seed(0)
    judge = SlotReader(mel.n_mels)
    wer = {"wer": {"value": 0.5, "low": 0.4, "high": 0.6}}
    state: dict[str, Any] = {
        "task": "judge", "weights": judge.state_dict(), "mel": dataclasses.asdict(mel),
        "sample_rate": rate, "training": dataclasses.asdict(Training(epochs=1)), "clips": 2,
        "data": {"corpus": "table", "fingerprint": "", "split": "s", "split_source": "",
                 "speakers": None, "listed": None, "keys": ["a/b"]},
        "val": {"real": wer, "griffin_lim": wer, "other_sentence": wer, "clips": 1},
        "hash": fingerprint(judge),
    }  # fmt: skip
    checkpoint.save(path, state)
    return path
