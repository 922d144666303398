"""Recipes: small YAML files that say how a model is trained, checked key by key.

A recipe holds only what differs from the defaults below; `model` are arguments of the model's
class. `--set key=value` overrides one value, `model.slots=0` one of a mapping.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import checked, parse_yaml, read_yaml

Task = str  # a name that `find_task` knows
FOLDER = Path(__file__).parent / "recipes"

_COUNTS = "shrink batch_size accumulate steps validate_every buffer".split()
_MOST = 10**9
_SHARES = "flip momentum ema label_smoothing teacher_ratio".split()
#: Least and most of the numbers of a recipe; others are 0 or more.
LIMITS = dict.fromkeys(_COUNTS, (1, _MOST)) | dict.fromkeys(_SHARES, (0, 1))
LIMITS["seed"] = (0, (1 << 23) - 1)  # beside the step, in the 64 bits of torch's seed


@dataclass(frozen=True)
class Augment:
    """Draws for one clip, the same for all its frames.

    Attributes:
        jitter: largest shift of the crop in stored pixels, at most the margin.
        flip: probability of mirroring.
        erase: side in pixels of one erased square; 0 for none.
        mask_bins: most mel bins masked.
        mask_columns: most mel columns masked.
        mask_frames: most frames of video masked (with the clip's mean frame).
        mixup: parameter of the Beta distribution that mixes two clips; 0 for none.
    """

    jitter: int = 4
    flip: float = 0.5
    erase: int = 0
    mask_bins: int = 0
    mask_columns: int = 0
    mask_frames: int = 0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Times are in optimiser steps, sizes in clips.

    Attributes:
        task: `lip` (words) or `l2s` (speech).
        corpus: whose shards it is meant for.
        unit: `clip`, or `word`: 29 frames round each word of a sentence.
        crop: `lips` or `face`.
        split: name of a split of the corpus.
        shrink: pictures are averaged over so many pixels a side first, for small machines.
        model: arguments of `LipReader` or `SpeechReconstructor`.
        batch_size: clips in a global batch, over all processes.
        accumulate: parts in which a global batch is worked off.
        steps: length of the training.
        lr: highest learning rate.
        schedule: `constant`, `cosine` to zero, `plateau` (halved when `patience_lr` validations
            bring nothing), or `released` (0.01 after `released_at` steps, then as `plateau`).
        warmup: steps of linear growth at the start.
        clip_norm: largest gradient norm; 0 for no limit.
        ema: decay of the averaged weights that are evaluated; 0 for none.
        validate_every: steps between validations and checkpoints.
        patience: validations without progress after which training stops; 0 for never.
        teacher_ratio: share of decoder steps that see the true columns (Tacotron).
        keep_silent: train on clips with the flag `silent` too.
        seed: decides weights, order and augmentation.
    """

    task: Task
    corpus: str = "lrw"
    unit: Literal["clip", "word"] = "clip"
    crop: Literal["lips", "face"] = "lips"
    split: str = "official"
    shrink: int = 1
    model: dict[str, Any] = field(default_factory=dict)
    augment: Augment = field(default_factory=Augment)
    batch_size: int = 32
    accumulate: int = 1
    steps: int = 1000
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "plateau", "released"] = "constant"
    warmup: int = 0
    released_at: int = 0
    patience_lr: int = 5
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    saving_weight: float = 1.0
    bridging_weight: float = 1.0
    teacher_ratio: float = 1.0
    ema: float = 0.0
    validate_every: int = 500
    patience: int = 0
    buffer: int = 2048
    keep_silent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_limits(self)
        if not (self.corpus + self.split).isprintable():
            raise ValueError("a corpus or split that cannot be printed")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be worked off in {self.accumulate} equal"
                " parts (accumulate)"
            )

    def as_dict(self) -> dict[str, Any]:
        """A plain mapping, as it is saved with a run."""
        return dataclasses.asdict(self)


def names(task: str) -> list[str]:
    """Names of the recipes of a task that come with the package."""
    return sorted(path.stem for path in (FOLDER / task).glob("*.yaml"))


def load_recipe(task: Task, name: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe `name` of a task, or the file of that name, with `key=value` overrides.

    Raises:
        UsageError: no such recipe, or a key or value is wrong; the nearest right one is named.
    """
    path = FOLDER / task / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, names(task), 1, 0.0)
        raise UsageError(
            f"no recipe {name!r} for {task}; did you mean {near[0] if near else '?'}? Recipes:"
            f" {', '.join(names(task))}, or a file"
        )
    raw = read_yaml(path) or {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: expected a mapping, found {type(raw).__name__}")
    for text in overrides or []:
        _override(raw, text)
    return make_recipe(task, raw, path.name)


def make_recipe(task: Task, raw: dict[str, Any], where: str) -> Recipe:
    """A checked recipe from a plain mapping.

    Raises:
        UsageError: a key or value is wrong, or the recipe is another task's.
    """
    from avb.train.tasks import find_task

    recipe: Recipe = checked(Recipe, {"task": task} | raw, where)
    if recipe.task != task:
        raise UsageError(f"{where} is a recipe for {recipe.task}, not for {task}")
    find_task(task).check_model(recipe.model, where)
    return recipe


def _check_limits(values: Any) -> None:
    """Refuse numbers of a recipe that cannot be."""
    for name, value in vars(values).items():
        low, high = LIMITS.get(name, (0, _MOST))
        if isinstance(value, int | float) and not low <= value <= high:  # NaN is neither
            open_end = high == _MOST and not value > high
            wanted = f"{low} or more" if open_end else f"{low} to {high}"
            raise ValueError(f"{name} {shown(value)}: expected {wanted}")


def _override(raw: dict[str, Any], text: str) -> None:
    """Apply one `key=value` or `mapping.key=value`; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--set {text}: expected key=value")
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise UsageError(f"--set {text}: {part} is no mapping")
    try:
        raw[last] = parse_yaml(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: {value!r} is not valid YAML") from None
