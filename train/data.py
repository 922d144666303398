"""From a folder of shards and a recipe to what is trained on: index, recipe, parts, batches."""

import logging
import math
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.config import Corpus, load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.index import Index, load_index
from avb.train.recipe import LIMITS, Recipe
from avb.train.recipe_file import load_recipe, make_recipe
from avb.train.split import Parts, default_split
from avb.train.tasks.task import find_task

log = logging.getLogger(__name__)

#: Values that only tasks with some outputs have a use for, and whose they are.
_ALONE = (
    (("augment.mixup", "label_smoothing"), {"word"}, "single words"),
    (("augment.mask_bins", "augment.mask_columns"), {"word", "sentence"}, "readers of words"),
)


def open_shards(folder: Folder, datasets: Path | None = None) -> tuple[Index, Corpus]:
    """The index of finished shards, and the entry of their corpus; UsageError: there are none."""
    try:
        index = load_index(folder)
    except UsageError as error:
        raise UsageError(f"{error} (or try without a corpus: avb synth, avb demo)") from None
    corpora = load_corpora(datasets)
    name = index.dataset["corpus"]
    return index, corpora.get(name, corpora["table"])


def resolve(
    task: str, index: Index, corpus: Corpus, recipe: str, overrides: list[str],
    unit: str | None = None, split: str | None = None, steps: int | None = None,
    seed: int | None = None,
) -> Recipe:  # fmt: skip
    """The named recipe with flags over it, fitted to the corpus that is there.

    UsageError: no such recipe, value or split, a value that the task has no use for, or the shards
    have not the recipe's crop.
    """
    wanted = load_recipe(task, recipe, overrides)
    labelled = bool((index.label_id >= 0).any())
    changes: dict[str, Any] = {
        "corpus": index.dataset["corpus"],
        "unit": unit or find_task(wanted.task).fitting_unit(wanted, labelled, timed(index)),
        "split": split or default_split(index, corpus, wanted.split),
        "steps": steps,
        "seed": seed,
    }
    if changes["unit"] == "characters" or (changes["unit"] == "sentence" and not timed(index)):
        changes["window"] = 0  # nobody knows which of them lie in it
    changes = {name: value for name, value in changes.items() if value is not None}
    held = ", ".join(index.dataset["crops"])
    if not find_task(wanted.task).sees and wanted.crop not in index.dataset["crops"]:
        changes["crop"] = next(iter(index.dataset["crops"]))  # of any, for none is looked at
    resolved = make_recipe(task, wanted.as_dict() | changes, "--recipe " + recipe)
    made = find_task(resolved.task).makes
    for keys, makers, whose in _ALONE:
        named = [key for key in keys if attrgetter(key)(resolved)]
        if named and made not in makers:
            off = " ".join(f"--set {key}=0" for key in named)
            raise UsageError(f"--recipe {recipe}: {' and '.join(named)}: of {whose} alone; {off}")
    if resolved.crop not in index.dataset["crops"]:
        raise UsageError(f"{index.folder}: holds {held}, no {resolved.crop}; avb prep --crop")
    return resolved


def timed(index: Index) -> bool:
    """Whether any clip has a word with times."""
    return bool(len(index.of_unit("word").timed_words(np.arange(len(index)))[1]))


def talkers_of(index: Index, parts: Parts) -> list[str]:
    """Talkers with clips to train on; UsageError: none is known, or one names no folder."""
    all_of_them = [index.row(i).speaker for i in parts.rows["train"]]
    if not (found := {*all_of_them} - {None}):
        raise UsageError(f"{index.folder}: no clip has a talker; --per-talker needs them")
    if nobody := all_of_them.count(None):
        log.info(f"note: {nobody} clips without a talker teach no model of --per-talker")
    names = sorted(map(str, found), key=lambda name: (len(name), name))
    if odd := [name for name in names if name in (".", "..") or "/" in name]:
        raise UsageError(f"--per-talker: no folder can be called {odd[0]!r}; leave that talker out")
    return names


def steps_in(epochs: float, index: Index, parts: Parts, recipe: Recipe) -> int:
    """Steps of the recipe's batch that pass so often over what is trained on.

    UsageError: more than a recipe may have, or `epochs` is no number.
    """
    rows = parts.rows["train"]
    samples = len(index.timed_words(rows)[1]) if recipe.unit == "word" else len(rows)
    steps = epochs * samples / recipe.batch_size
    if not steps <= LIMITS["steps"][1]:  # NaN is not
        raise UsageError(f"--epochs {epochs:g}: no training has so many; give some, as 10 or 0.5")
    return math.ceil(steps)
