"""`avb train judge`: the trained recogniser out of the training part of shards.

It learns real log-mels and Griffin-Lim copies of them, which generated speech comes out of too
(evaluation.md 3.2). Its own word errors on the validation part are stored with it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints
from avb.train import checks
from avb.train.evaluate import stored_mels
from avb.train.evaluate.metrics.bounds import fit_columns, other_clips
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.metrics.intervals import NO_FIGURE
from avb.train.evaluate.metrics.speech import RATE
from avb.train.evaluate.words.grammar import slot_targets, word_error_rate
from avb.train.evaluate.words.trained import TASK, SlotReader, Training, fit, transcribe
from avb.train.kept import to_keep
from avb.train.split import Parts

#: Passes over real clips and copies: the steps of 60 over the real ones alone. With 717 clips of
#: talker 1 they take eight minutes of one core, three of them Griffin-Lim, and leave 2.5 % of the
#: words of 47 other sentences wrong, real or copied (25 passes: 3.9 %).
EPOCHS = 30

log = logging.getLogger(__name__)


def train(index: Index, parts: Parts, training: Training, device: torch.device) -> dict[str, Any]:
    """Train on clips of `train` with the six words of GRID; what `checkpoint.save` takes."""
    checks.need("jiwer")  # before the minutes of training
    mel = stored_mels.front_end(index)
    rows = {part: with_sentences(index, parts.rows[part], part) for part in ("train", "val")}
    words = {part: [_spoken(index, row) for row in chosen] for part, chosen in rows.items()}
    if len(rows["train"]) < 2:
        raise UsageError(f"{index.folder}: one training clip is not enough to train a judge")
    mels = with_copies(index, rows["train"], mel, device)
    targets = torch.tensor([slot_targets(sentence) for sentence in words["train"]])
    network = fit(mels, targets.repeat(2, 1), training)
    val = own_errors(network, index, rows["val"], words["val"], mel, device)
    return to_keep(TASK, network, index, parts, rows["train"], training, val)


def with_sentences(index: Index, rows: Ints, part: str) -> Ints:
    """The clips with one word of each slot of GRID; how many others there are is said."""
    faults: dict[int, str] = {}
    for row in rows.tolist():
        try:
            slot_targets(_spoken(index, row))
        except ValueError as error:
            faults[row] = f"{index.key(row)}: {error}"
    if not faults:
        return rows
    first = next(iter(faults.values()))
    if len(faults) == len(rows):
        raise UsageError(f"{index.folder}: {first}; a judge learns GRID's six slots")
    log.info(f"{len(faults)} of {len(rows)} clips of {part} left out, of other words; {first}")
    return rows[~np.isin(rows, list(faults))]


def _spoken(index: Index, row: int) -> list[str]:
    return [word for word, _, _ in index.words(row)]


def with_copies(index: Index, rows: Ints, mel: Mel, device: torch.device) -> Tensor:
    """Log-mels of n clips and of their copies, [2n x n_mels x longest M], last columns held."""
    longest = int(index.num_mel[rows].max())
    mels = torch.empty(2 * len(rows), mel.n_mels, longest, device=device)
    done = 0
    for batch in stored_mels.read_mels(index, rows):
        real = [one.to(device) for one in batch]
        for one, copy in zip(real, griffin_lim_copies(real, mel), strict=True):
            mels[done] = fit_columns(one, longest)
            mels[len(rows) + done] = fit_columns(copy, longest)
            done += 1
        log.info(f"{done}/{len(rows)} clips read and copied by Griffin-Lim")
    return mels


def griffin_lim_copies(mels: Sequence[Tensor], mel: Mel) -> list[Tensor]:
    """Log-mels of the sounds that Griffin-Lim makes of log-mels, on the same device."""
    return [
        torch.from_numpy(log_mel(sound, mel, RATE)).to(one.device)
        for one, sound in zip(mels, invert_all(mels, mel), strict=True)
    ]


def own_errors(
    network: SlotReader, index: Index, rows: Ints, words: Sequence[Sequence[str]], mel: Mel,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """The recogniser's own word errors: real speech, copies, and another sentence of the talker."""
    heard: dict[str, list[list[str]]] = {"real": [], "griffin_lim": []}
    for batch in stored_mels.read_mels(index, rows):
        mels = [one.to(device) for one in batch]
        heard["real"] += transcribe(network, mels)
        heard["griffin_lim"] += transcribe(network, griffin_lim_copies(mels, mel))
    errors: dict[str, Any] = {name: word_error_rate(words, said) for name, said in heard.items()}
    others = other_clips([index.speaker[row] for row in rows])
    pairs = [(words[i], heard["real"][o]) for i, o in enumerate(others) if o is not None]
    floor: dict[str, Any] = dict(NO_FIGURE)
    if pairs:
        spoken, said = zip(*pairs, strict=True)
        floor = word_error_rate(spoken, said)["wer"]
    return errors | {"other_sentence": {"wer": floor}, "clips": len(rows)}
