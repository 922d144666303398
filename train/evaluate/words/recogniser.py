"""The trained judge of words: a small network that reads GRID's six slots from a log-mel.

Two strided convolutions, a bidirectional GRU, and one attention head and one softmax for each slot
(evaluation.md 3.2: 347k parameters, 1.2 % word errors on held-out sentences of its talker after 890
of his, this one 2.0 % after 724, in six minutes of one core). The attention finds each word
wherever it is: generated speech may be late. It is trained on real speech of the training part and
on Griffin-Lim copies of it, then frozen and known by its hash.

Shapes: B clips, F mel bins, M columns, T = M / 4 steps, C features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.train.evaluate.metrics.intervals import DRAWS
from avb.train.evaluate.words.grammar import SLOT_WORDS, slot_words, word_error_rate

_EPSILON = 1e-5


@dataclass(frozen=True)
class Training:
    """How the judge is trained; the defaults are those of the figure above.

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


class Judge(nn.Module):
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
    for size, widest in ((columns, training.time_mask), (bins, training.frequency_mask)):
        start = draw(0, size - 1, training.masks, 1)
        width = draw(0, widest, training.masks, 1)
        place = torch.arange(size, device=device)
        masked = ((place >= start) & (place < start + width)).any(dim=1)
        shaped = masked[:, None, :] if size is columns else masked[:, :, None]
        moved = moved.masked_fill(shaped, 0.0)
    return moved


def train_judge(
    mels: Tensor,
    words: Tensor,
    training: Training | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Judge:
    """A judge trained on real speech and its copies; cross-entropy of the six slots, one cycle.

    Args:
        mels: natural log-mels [n x F x M] of training clips alone, on the device to train on.
        words: int64 [n x 6], see `slot_targets`.
        training: how.
        report: called after each epoch with its number from 1 and its mean loss.

    Returns:
        The judge on that device, frozen, in evaluation mode.

    Raises:
        ValueError: shapes do not fit, or no batch can be made.
    """
    training = training or Training()
    if mels.ndim != 3 or words.shape != (len(mels), len(SLOT_WORDS)) or len(mels) < 2:
        raise ValueError(
            f"mels {tuple(mels.shape)} with words {tuple(words.shape)}; "
            f"expected [n x bins x columns] and [n x {len(SLOT_WORDS)}], n at least 2"
        )
    device = mels.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        return _train(mels, words.to(device), training, report)


def _train(
    mels: Tensor,
    words: Tensor,
    training: Training,
    report: Callable[[int, float], None] | None,
) -> Judge:
    device = mels.device
    judge = Judge(mels.shape[1]).to(device)
    generator = torch.Generator(device).manual_seed(training.seed)
    order = torch.Generator().manual_seed(training.seed)
    optimiser = torch.optim.AdamW(
        judge.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
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
            logits = judge(augment(normalise(mels[rows]), training, generator))
            losses = [functional.cross_entropy(x, words[rows, i]) for i, x in enumerate(logits)]
            loss = torch.stack(losses).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.detach()
        if report is not None:
            report(epoch, float(total) / steps)
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def transcribe(judge: Judge, mels: Sequence[Tensor]) -> list[list[str]]:
    """Six words for each natural log-mel [F x M]; clips are read one by one, of any length."""
    device = next(judge.parameters()).device
    judge.eval()
    heard = []
    for one in mels:
        logits = judge(normalise(one.to(device, torch.float32)[None]))
        heard.append(slot_words([int(x.argmax()) for x in logits]))
    return heard


def judge_words(
    judge: Judge,
    mels: Sequence[Tensor],
    references: Sequence[Sequence[str]],
    talkers: Sequence[Any] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """`word_error_rate` of what the judge hears, with the `judge`'s hash."""
    found = word_error_rate(references, transcribe(judge, mels), talkers, draws, seed)
    return {**found, "judge": fingerprint(judge)}


def fingerprint(judge: nn.Module) -> str:
    """SHA-256 of all weights and statistics by name, 64 hexadecimal digits; on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(judge.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
