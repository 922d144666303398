"""The vocoder's file. How it is trained stands in `training.py`; then it is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avb.models.refiner import Refiner
from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.pipeline.parse import checked
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.kept import Kept, KeptFile, restore

TASK = "vocoder"  # of the file


@dataclass(frozen=True)
class Training:
    """How the refiner is trained; of each clip of a batch it sees `columns` in a row."""

    steps: int = 300
    batch_size: int = 16
    columns: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    validate_every: int = 50
    seed: int = 0


@dataclass(frozen=True)
class _Figures:
    griffin_lim: dict[str, Any]
    refined: dict[str, Any]
    clips: int
    step: int


@dataclass(frozen=True)
class _File(KeptFile):
    training: Training
    val: _Figures


class Vocoder(Kept):
    """A refiner and its file."""

    def flags(self) -> dict[str, Any]:
        """What a figure of sound by this vocoder has to be printed with."""
        return super().flags() | {"steps": self.facts["training"]["steps"]}

    def copies(self, sounds: Sequence[Sound]) -> list[Sound]:
        """What it makes of the true mels of sounds, float32 [n] at 16 kHz."""
        mel: Mel = checked(Mel, self.facts["mel"], "the vocoder's mel")
        mels = [torch.from_numpy(log_mel(sound, mel, RATE)) for sound in sounds]
        return invert_all(mels, mel, refiner=self.network)


def new_refiner(mel: dict[str, Any]) -> Refiner:
    """A network for these log-mels that changes nothing yet."""
    return Refiner(mel["n_mels"], mel["n_fft"] // 2 + 1)


def load(
    path: Path, mel: Mel | None = None, rate: int = RATE, whose: object = "any sound",
    device: str | torch.device = "cpu",
) -> Vocoder:  # fmt: skip
    """The vocoder of a file, for log-mels of `whose` sound at `rate` Hz; None: those it is for.

    UsageError: it is none, or one for other log-mels.
    """
    network, facts = restore(path, TASK, _File, new_refiner, mel, rate, whose)
    return Vocoder(network.to(device), facts)
