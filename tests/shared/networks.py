"""Small random networks of all tasks, a vocoder, and their checkpoints as training saves them."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.pipeline.stream.index import Index
from avb.train import checkpoint, trainer
from avb.train.evaluate.evaluate import evaluate
from avb.train.kept import fingerprint
from avb.train.recipe import Recipe
from avb.train.recipe_file import make_recipe
from avb.train.split import Parts, split_rows
from avb.train.tasks.task import Scaling, find_task
from avb.train.vocoder.file import Training, new_refiner

LIP = {"slots": 4, "width": 8, "blocks": 0, "audio_dim": 16, "audio_width": 8, "hidden": 16}
SPEECH = {"decoder": "synchronous", "decoder_sizes": {"width": 16, "units": 1, "post_width": 16}}
#: Of a recipe that trains in seconds.
READER = LIP | {"slots": 8, "blocks": 1}
LABELS = ["about", "bin", "now", "two"]


def save_model(
    path: Path, kind: str, corpus: str = "grid", crop: str = "lips", **changes: Any
) -> tuple[Recipe, torch.nn.Module]:
    """A model of random weights, and batch statistics of its own, in a checkpoint."""
    entry, labels = load_corpora()[corpus], changes.pop("labels", LABELS)
    known = {field.name for field in dataclasses.fields(find_task(kind).config)}
    base = {name: size for name, size in LIP.items() if name in known}
    model = base | (SPEECH if kind == "l2s" else {}) | changes.pop("model", {})
    raw = {"corpus": corpus, "crop": crop, "shrink": 4, "model": model} | changes
    plan = make_recipe(kind, raw, "test")  # type: ignore[arg-type]
    spec = entry.crops[crop]
    scaling = Scaling(130.0, 30.0, -11.5, 3.5, spec.margin, spec.size, len(labels))
    torch.manual_seed(1)
    network = find_task(plan.task).build(plan, scaling).eval()
    for name, value in network.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    settings = settings_for(corpus, entry).as_dict()
    data = {"labels": labels, "settings": settings, "fingerprint": "f" * 64}
    state = {
        "recipe": plan.as_dict(), "scaling": dataclasses.asdict(scaling), "ema": None,
        "model": network.state_dict(), "data": data | {"split": "official", "split_source": "x"},
        "optimizer": None, "counters": {"step": 7},
    }  # fmt: skip
    checkpoint.save(path, state)
    return plan, network


def save_vocoder(path: Path, louder: float = 1.0, corpus: str = "grid") -> Path:
    """A vocoder that makes all magnitudes louder and does nothing else."""
    mel = dataclasses.asdict(load_corpora()[corpus].mel)
    network = new_refiner(mel)
    with torch.no_grad():
        network.last.bias.fill_(math.log(louder))
    state = {
        "task": "vocoder", "weights": network.state_dict(), "mel": mel, "sample_rate": 16_000,
        "data": {"corpus": corpus, "keys": [], "split": "x"}, "clips": 0,
        "training": dataclasses.asdict(Training()), "hash": fingerprint(network),
        "val": {"griffin_lim": {}, "refined": {}, "clips": 0, "step": 0},
    }  # fmt: skip
    checkpoint.save(path, state)
    return path


def recipe(task: str, **changes: Any) -> Recipe:
    """A recipe of seconds, with dropout and batch norm left as they are."""
    base: dict[str, Any] = {"model": READER, "batch_size": 4, "steps": 6, "validate_every": 3}
    if task == "l2s":
        base |= {"corpus": "grid", "crop": "face", "batch_size": 2}
        base["model"] = READER | {"decoder": "synchronous"}
    return make_recipe(task, base | changes, "test")  # type: ignore[arg-type]


def trained(kind: str, index: Index, out: Path, **changes: Any) -> Path:
    """The checkpoint of a training of two steps."""
    corpus = load_corpora()[index.dataset["corpus"]]
    plan = recipe(kind, steps=2, validate_every=2, **changes)
    parts = split_rows(index, corpus, plan.split, need=("train", "val"))
    trainer.train(plan, index, parts, out)
    return out / "best.pt"


def evaluated(task: str, path: Path, index: Index, *given: Any, **options: Any) -> dict[str, Any]:
    """The record of an evaluation on these shards."""
    corpus = load_corpora()[index.dataset["corpus"]]
    return evaluate(task, path, index, corpus, *given, **options)


def changed(path: Path, to: Path, **data: Any) -> None:
    """A copy of a checkpoint with other facts about its data."""
    state = checkpoint.load(path)
    checkpoint.save(to, state | {"data": state["data"] | data})


def other_front_end(index: Index, **changes: Any) -> Index:
    """The shards as if their mels were made in another way."""
    dataset = copy.deepcopy(index.dataset)
    dataset["mel"] |= changes
    return dataclasses.replace(index, dataset=dataset)


def all_parts(index: Index, val: int | None = 3) -> Parts:
    """Every clip to train on and to test, and the first ones to validate with."""
    rows = np.arange(len(index))
    return Parts("all", "test", {"train": rows, "val": rows[:val], "test": rows})


def learn(plan: Recipe, index: Index, out: Path, **options: Any) -> dict[str, Any]:
    """The record of a training on every clip."""
    return trainer.train(plan, index, all_parts(index), out, **options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Those that a run goes on with."""
    return checkpoint.load(out / "last.pt")["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def still(model: torch.nn.Module) -> None:
    """Keep dropout and batch norm out of it, also after `.train()`."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # of a recurrent network
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.eval()
    model.train = lambda mode=True: model  # type: ignore[method-assign, assignment]
