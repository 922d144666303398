"""Recipes: small YAML files that say how a model is trained, checked key by key.

A recipe holds only what differs from the defaults below; `model` are arguments of the model's
class. `--set key=value` overrides one value, `model.slots=0` one of a mapping.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import checked, expect_keys

_COUNTS = "shrink batch_size accumulate steps validate_every buffer".split()
_MOST = 10**9
_SHARES = "flip zoom tone ema label_smoothing teacher_ratio teacher_end".split()
_PAST = {"momentum": (0, 0.9999)}  # with 1 nothing is ever forgotten, and Adam takes none
#: Least and most of the numbers of a recipe; others are 0 or more.
LIMITS = dict.fromkeys(_COUNTS, (1, _MOST)) | dict.fromkeys(_SHARES, (0, 1)) | _PAST
LIMITS["seed"] = (0, (1 << 23) - 1)  # beside the step, in the 64 bits of torch's seed
#: Most of the sizes of a model, and of its layers: those are built before weights are looked at.
MOST_OF_A_MODEL, MOST_LAYERS = 1 << 24, 100
#: Arguments of the models that may be 0.
NONE_AT_ALL = ("slots", "blocks", "units", "teacher_dim", "critic_width")


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
        turn: largest rotation of the crop in degrees.
        zoom: largest change of its size, a share.
        tone: largest change of brightness, contrast and gamma each, a share.
    """

    jitter: int = 4
    flip: float = 0.5
    erase: int = 0
    mask_bins: int = 0
    mask_columns: int = 0
    mask_frames: int = 0
    mixup: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    tone: float = 0.0

    def __post_init__(self) -> None:
        _check_limits(self)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Times are in optimiser steps, sizes in clips.

    Attributes:
        task: `lip` (words), `sentence`, `l2s` (speech), `asr` (words from sound), `sync`, or
            `vocos` (sound of mels).
        corpus: whose shards it is meant for.
        unit: `clip`; `word`: 29 frames round each word of a sentence; or clips with the words of
            their `sentence`, or its `characters`.
        crop: `lips` or `face`.
        split: name of a split of the corpus.
        shrink: pictures are averaged over so many pixels a side first, for small machines.
        model: arguments of `LipReader` or `SpeechReconstructor`.
        batch_size: clips in a global batch, over all processes.
        accumulate: parts in which a global batch is worked off.
        steps: length of the training.
        lr: highest learning rate.
        momentum: of SGD, or of Adam's first moment.
        schedule: `constant`, `cosine` to zero, `plateau` (halved when `patience_lr` validations
            bring nothing, never if 0), or `released` (0.01 after `released_at` steps, then as
            `plateau`).
        warmup: steps of linear growth at the start.
        clip_norm: largest gradient norm; 0 for no limit.
        ema: decay of the averaged weights that are evaluated; 0 for none.
        validate_every: steps between validations and checkpoints.
        patience: validations without progress after which training stops; 0 for never.
        distill_weight: of the distance to the features of a teacher (`--teacher`).
        frame_weight: of the cross entropy of frames whose word is known, beside CTC (sentences).
        teacher_ratio, teacher_end: share of decoder steps that see the true columns (Tacotron), at
            the first step and at the last (None: the same), a cosine between.
        window: frames of a clip that a step sees, begun at a drawn one (speech, vocoder, words of
            sentences); 0 for all.
        keep_silent: train on clips with the flag `silent` too.
        seed: decides weights, order and augmentation.
    """

    task: str
    corpus: str = "lrw"
    unit: Literal["clip", "word", "sentence", "characters"] = "clip"
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
    distill_weight: float = 1.0
    frame_weight: float = 0.0
    teacher_ratio: float = 1.0
    teacher_end: float | None = None
    window: int = 0
    ema: float = 0.0
    validate_every: int = 500
    patience: int = 0
    buffer: int = 2048
    keep_silent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher_end is None:
            object.__setattr__(self, "teacher_end", self.teacher_ratio)
        _check_limits(self)
        if not (self.corpus + self.split).isprintable():
            raise ValueError("a corpus or split that cannot be printed")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be worked off in {self.accumulate} equal"
                " parts (accumulate)"
            )

    def teacher_at(self, step: int) -> float:
        """The teacher's share at a step."""
        assert self.teacher_end is not None
        done = min(1.0, step / self.steps)
        fallen = 0.5 * (1 - math.cos(math.pi * done))
        return self.teacher_ratio + (self.teacher_end - self.teacher_ratio) * fallen

    def as_dict(self) -> dict[str, Any]:
        """A plain mapping, as it is saved with a run."""
        return dataclasses.asdict(self)


def _check_limits(values: Any) -> None:
    """Refuse numbers of a recipe that cannot be."""
    for name, value in vars(values).items():
        low, high = LIMITS.get(name, (0, _MOST))
        if isinstance(value, int | float) and not low <= value <= high:  # NaN is neither
            open_end = high == _MOST and not value > high
            wanted = f"{low} or more" if open_end else f"{low} to {high}"
            raise ValueError(f"{name} {shown(value)}: expected {wanted}")


def check_arguments(kind: Any, values: Mapping[str, Any], name: str, where: str) -> Any:
    """The config of a model, made of values of a recipe; `name` is where they stand in it.

    UsageError: a key, a type or a size is wrong.
    """
    fields = [f"{name}.{field.name}" for field in dataclasses.fields(kind)]
    expect_keys([f"{name}.{key}" for key in values], fields, where)
    config = checked(kind, values, f"{where}: {name}")
    for key, value in vars(config).items():
        least = 0 if key in NONE_AT_ALL else 1
        most = MOST_LAYERS if key in ("blocks", "units") else MOST_OF_A_MODEL
        if isinstance(value, float):
            least, most = (0, 1) if "dropout" in key else (-(10**9), 10**9)
        if type(value) in (int, float) and not least <= value <= most:
            wanted = f"{least} or more" if value < least else f"{least} to {most}"
            raise UsageError(f"{where}: {name}.{key} {shown(value)}: expected {wanted}")
        if "kernel" in key and value % 2 == 0:  # it has no middle
            raise UsageError(f"{where}: {name}.{key} {value}: expected an odd number")
    return config
