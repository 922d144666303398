"""The trained recogniser: a small network that reads GRID's six slots from a log-mel, and its file.

Two strided convolutions, a bidirectional GRU, and one attention head and one softmax for each slot
(evaluation.md 3.2: 347k parameters, 1.2 % word errors on held-out sentences of its talker after 890
of his, this one 2.0 % after 724, in six minutes of one core). The attention finds each word
wherever it is: generated speech may be late. How it is trained stands in `training.py`; then it is
frozen.

Shapes: B clips, F mel bins, M columns, T = M / 4 steps, C features.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate import stored_mels
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.evaluate.words.grammar import SLOT_WORDS
from avb.train.kept import Kept, KeptFile, restore, sample_rate

log = logging.getLogger(__name__)
TASK = "judge"  # of the file
_EPSILON = 1e-5


@dataclass(frozen=True)
class Training:
    """How the recogniser is trained; the defaults are those of the figure above.

    `shift`, `time_mask` (widest) are in mel columns, `frequency_mask` in bins; `noise` is the
    largest standard deviation, where the mel's own is 1.
    """

    epochs: int = 60
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    shift: int = 20
    masks: int = 2
    time_mask: int = 15
    frequency_mask: int = 8
    noise: float = 0.3
    seed: int = 0


class SlotReader(nn.Module):
    """Logits of the words of each of the six slots."""

    def __init__(self, n_mels: int = 80, width: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel_size=5, stride=2, padding=2)
            for inputs in (n_mels, width)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Linear(2 * width, len(SLOT_WORDS))
        self.slots = nn.ModuleList(nn.Linear(2 * width, len(words)) for words in SLOT_WORDS)

    def forward(self, mel_BFM: Tensor) -> list[Tensor]:
        """Six tensors of logits, [B x words of the slot], of normalised mels."""
        hidden = mel_BFM
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = self.dropout(functional.relu(norm(convolution(hidden))))
        hidden_BTC = self.dropout(self.gru(hidden.transpose(1, 2))[0])
        weights_BTS = self.attention(hidden_BTC).softmax(dim=1)
        pooled_BSC = self.dropout(weights_BTS.transpose(1, 2) @ hidden_BTC)
        return [slot(pooled_BSC[:, i]) for i, slot in enumerate(self.slots)]


def normalise(mel_BFM: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 of each bin over the clip: level and colour do not matter."""
    centred = mel_BFM - mel_BFM.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True).sqrt() + _EPSILON)


def augment(mel_BFM: Tensor, training: Training, generator: torch.Generator) -> Tensor:
    """Normalised mels moved in time, masked (SpecAugment) and with noise; each clip differently."""
    batch, bins, columns = mel_BFM.shape
    device = mel_BFM.device

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, (batch, *shape), generator=generator, device=device)

    source = torch.arange(columns, device=device) - draw(-training.shift, training.shift, 1)
    source = source.clamp(0, columns - 1)  # the first or last column is held
    moved = mel_BFM.gather(2, source[:, None].expand(-1, bins, -1))
    deviation = torch.rand(batch, 1, 1, generator=generator, device=device) * training.noise
    moved = moved + deviation * torch.randn(moved.shape, generator=generator, device=device)
    limits = ((2, columns, training.time_mask), (1, bins, training.frequency_mask))
    for axis, size, widest in limits:
        start = draw(0, size - 1, training.masks, 1)
        width = draw(0, widest, training.masks, 1)
        place = torch.arange(size, device=device)
        masked = ((place >= start) & (place < start + width)).any(dim=1)
        moved = moved.masked_fill(masked.unsqueeze(3 - axis), 0.0)
    return moved


def fit(mels: Tensor, words: Tensor, training: Training) -> SlotReader:
    """A network, frozen, trained by the cross-entropy of the six slots in one learning-rate cycle.

    `mels` [n x F x M] are natural logs of training clips alone, on the device to train on; `words`
    int64 [n x 6], see `slot_targets`; n is at least 2.
    """
    start = time.perf_counter()
    device, words = mels.device, words.to(mels.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        network = SlotReader(mels.shape[1]).to(device)
        generator = torch.Generator(device).manual_seed(training.seed)
        order = torch.Generator().manual_seed(training.seed)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        batch_size = min(training.batch_size, len(mels))
        steps = len(mels) // batch_size  # the rest of an epoch is in another order the next time
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, training.learning_rate, total_steps=training.epochs * steps
        )
        for epoch in range(1, training.epochs + 1):
            total = torch.zeros((), device=device)
            shuffled = torch.randperm(len(mels), generator=order)[: steps * batch_size].to(device)
            for rows in shuffled.split(batch_size):
                logits = network(augment(normalise(mels[rows]), training, generator))
                losses = [functional.cross_entropy(x, words[rows, i]) for i, x in enumerate(logits)]
                loss = torch.stack(losses).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                total += loss.detach()
            left = (time.perf_counter() - start) / epoch * (training.epochs - epoch)
            log.info(
                f"epoch {epoch}/{training.epochs} loss {float(total) / steps:.3f}"
                f" | {left / 60:.1f} min left"
            )
    return network.eval().requires_grad_(False)


@torch.no_grad()
def transcribe(network: SlotReader, mels: Sequence[Tensor]) -> list[list[str]]:
    """Six words for each natural log-mel [F x M]; clips are read one by one, of any length."""
    device = next(network.parameters()).device
    all_logits = [network(normalise(one.to(device, torch.float32)[None])) for one in mels]
    return [
        [words[int(x.argmax())] for words, x in zip(SLOT_WORDS, logits, strict=True)]
        for logits in all_logits
    ]


@dataclass(frozen=True)
class _Rate:
    wer: dict[str, float | None]


@dataclass(frozen=True)
class _Errors:
    real: _Rate
    griffin_lim: _Rate
    other_sentence: _Rate
    clips: int


@dataclass(frozen=True)
class _File(KeptFile):
    training: Training
    val: _Errors


class TrainedRecogniser(Kept):
    """A judge and its file."""

    def recognise(self, sound: Sound, mel: Mel) -> list[str]:
        """Six words of float [n] at 16 kHz."""
        return transcribe(self.network, [torch.from_numpy(log_mel(sound, mel, RATE))])[0]

    def flags(self) -> dict[str, Any]:
        """What a word error rate by this recogniser has to be printed with."""
        val = self.facts["val"]
        return super().flags() | {
            "epochs": self.facts["training"]["epochs"],
            "own_wer": {k: val[k]["wer"] for k in ("real", "griffin_lim", "other_sentence")},
            "own_wer_clips": val["clips"],
        }


def load(path: Path, index: Index, device: str | torch.device = "cpu") -> TrainedRecogniser:
    """The recogniser of a file, for sounds as the shards of `index` have them."""
    state = checkpoint.load(path, TASK)
    network, facts = restore(
        state, path, _File, lambda mel: SlotReader(mel["n_mels"]), stored_mels.front_end(index),
        sample_rate(index), index.folder,
    )  # fmt: skip
    return TrainedRecogniser(network.to(device), facts)
