"""A vocoder in use: a refiner's file, or a run of `avb train vocos`; both are frozen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avb.models.refiner import Refiner
from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.pipeline.parse import checked
from avb.train import checkpoint
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.kept import Kept, KeptFile, check_mels, fingerprint, restore
from avb.train.network import built

TASK, VOCOS = "vocoder", "vocos"  # of a refiner's file, and of a run
#: What figures are printed with of the shards that a run learnt from.
SHOWN = ("fingerprint", "split", "split_source", "speakers")


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


@dataclass(frozen=True)
class _Heard:
    mel: dict[str, Any]
    sample_rate: int


@dataclass(frozen=True)
class _OfRun:
    """What a run must say of its shards."""

    settings: _Heard
    keys: list[str]


class Vocoder(Kept):
    """A refiner or the generator of a `Vocos`, and what is known of it."""

    def flags(self) -> dict[str, Any]:
        """What a figure of sound by this vocoder has to be printed with."""
        return super().flags() | {"steps": self.facts["training"]["steps"]}

    def copies(self, sounds: Sequence[Sound]) -> list[Sound]:
        """What it makes of the true mels of sounds, float32 [n] at 16 kHz."""
        mel: Mel = checked(Mel, self.facts["mel"], "the vocoder's mel")
        mels = [torch.from_numpy(log_mel(sound, mel, RATE)) for sound in sounds]
        return invert_all(mels, mel, vocoder=self.network)


def new_refiner(mel: dict[str, Any]) -> Refiner:
    """A network for these log-mels that changes nothing yet."""
    return Refiner(mel["n_mels"], mel["n_fft"] // 2 + 1)


def load(
    path: Path, mel: Mel | None = None, rate: int = RATE, whose: object = "any sound",
    device: str | torch.device = "cpu",
) -> Vocoder:  # fmt: skip
    """The vocoder of a file or run, for log-mels of `whose` sound at `rate` Hz; None: its own.

    UsageError: it is none, or one for other log-mels.
    """
    path = checkpoint.best_of(path)
    state = checkpoint.load(path, TASK, VOCOS)
    if checkpoint.task_of(state) == VOCOS:
        network, facts = _of_run(state, path)
        check_mels(path, VOCOS, facts, mel, rate, whose)
    else:
        network, facts = restore(state, path, _File, new_refiner, mel, rate, whose)
    return Vocoder(network.to(device), facts)


def _of_run(state: dict[str, Any], path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The generator of a run, frozen, on the CPU, and what a file of a refiner says of its own."""
    loaded = built(state, path)
    run: Any = loaded.model
    of_run = checked(_OfRun, loaded.data, f"{path}: data", strict=False)
    facts = {
        **{"mel": of_run.settings.mel, "sample_rate": of_run.settings.sample_rate},
        "data": {k: v for k, v in loaded.data.items() if k in SHOWN}
        | {"corpus": loaded.recipe.corpus, "keys": of_run.keys},
        "training": {"steps": loaded.step, "seed": loaded.recipe.seed},
        "clips": len(of_run.keys),
        "hash": fingerprint(run.generator),
    }
    return run.generator.requires_grad_(False), facts
