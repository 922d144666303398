"""`avb train judge`: the small recogniser of `recogniser.py`, trained once and kept in a file.

It learns from the training part of a split alone: real log-mels, and Griffin-Lim copies of them,
because generated speech comes out of Griffin-Lim too (evaluation.md 3.2). What it makes wrong
itself, on the validation part, is stored with it: a word error rate without its judge's own means
little. Test clips are not looked at.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import checked
from avb.pipeline.stream.index import Index, Ints
from avb.train import checkpoint, sounds
from avb.train.evaluate.metrics.bounds import fit_columns, invert_all, other_clips
from avb.train.evaluate.metrics.speech import RATE
from avb.train.evaluate.words.grammar import slot_targets, word_error_rate
from avb.train.evaluate.words.recogniser import (
    Judge,
    Training,
    fingerprint,
    train_judge,
    transcribe,
)
from avb.train.split import Parts

TASK = "judge"
#: Passes over real clips and copies: the steps of 60 over the real ones alone. With 717 clips of
#: talker 1 they take eight minutes of one core, three of them Griffin-Lim, and leave 2.5 % of the
#: words of 47 other sentences wrong, real or copied (25 passes: 3.9 %).
EPOCHS = 30

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Data:
    corpus: str
    keys: list[str]
    split: str = ""


@dataclass(frozen=True)
class _Heard:
    wer: dict[str, float | None]


@dataclass(frozen=True)
class _Errors:
    real: _Heard
    griffin_lim: _Heard
    other_sentence: _Heard
    clips: int


@dataclass(frozen=True)
class _File:
    """What the file of a judge must hold; there may be more."""

    weights: dict[str, Tensor]
    mel: Mel
    sample_rate: int
    data: _Data
    training: Training
    clips: int
    val: _Errors
    hash: str


@dataclass(frozen=True)
class Stored:
    """A trained judge, and what its file says of it.

    Attributes:
        judge: frozen, in evaluation mode.
        facts: everything else in the file: `mel sample_rate data training clips val hash`.
    """

    judge: Judge
    facts: dict[str, Any]

    def flags(self) -> dict[str, Any]:
        """What a word error rate by this judge has to be printed with."""
        data = {k: v for k, v in self.facts["data"].items() if k not in ("keys", "listed")}
        val = self.facts["val"]
        return {
            "hash": self.facts["hash"],
            **data,
            "clips": self.facts["clips"],
            "seed": self.facts["training"]["seed"],
            "epochs": self.facts["training"]["epochs"],
            "own_wer": {k: val[k]["wer"] for k in ("real", "griffin_lim", "other_sentence")},
            "own_wer_clips": val["clips"],
        }

    def saw(self, keys: Sequence[str], corpus: str) -> int | None:
        """How many of these clips it was trained on; None for another corpus, whose keys differ."""
        if corpus != self.facts["data"]["corpus"]:
            return None
        return len(set(keys) & set(self.facts["data"]["keys"]))


def train(
    index: Index,
    parts: Parts,
    training: Training,
    device: torch.device,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Train a judge on the training part, measure it on the validation part.

    Args:
        index: shards whose clips have the six words of GRID; pictures and sound are not read.
        parts: rows of `train` and `val`; no other is looked at.
        training: how.
        device: where.
        say: takes lines of progress.

    Returns:
        What `checkpoint.save` takes and `load` reads.

    Raises:
        UsageError: no clip has the six words, or one cannot be read, or there are fewer than two.
    """
    sounds.need("jiwer")  # before the minutes of training
    mel, rate = sounds.front_end(index), int(index.dataset["settings"]["sample_rate"])
    rows = {part: parts.rows[part] for part in ("train", "val")}
    rows = {part: with_sentences(index, chosen, part, say) for part, chosen in rows.items()}
    words = {part: [_spoken(index, row) for row in chosen] for part, chosen in rows.items()}
    if len(rows["train"]) < 2:
        raise UsageError(f"{index.folder}: one training clip is not enough to train a judge")
    mels = with_copies(index, rows["train"], mel, device, say)
    targets = torch.tensor([slot_targets(sentence) for sentence in words["train"]])
    judge = train_judge(mels, targets.repeat(2, 1), training, _progress(training, say))
    return {
        "task": TASK,
        "weights": {name: tensor.cpu() for name, tensor in judge.state_dict().items()},
        "mel": dataclasses.asdict(mel),
        "sample_rate": rate,
        "data": {
            "corpus": index.dataset["corpus"],
            "fingerprint": index.dataset["fingerprint"],
            "split": parts.name,
            "split_source": parts.source,
            "speakers": parts.speakers,
            "listed": parts.listed,
            "keys": [index.key(row) for row in rows["train"]],
        },
        "training": dataclasses.asdict(training),
        "clips": len(rows["train"]),
        "val": own_errors(judge, index, rows["val"], words["val"], mel, device),
        "hash": fingerprint(judge),
    }


def with_sentences(index: Index, rows: Ints, part: str, say: Say) -> Ints:
    """The clips with one word of each slot of GRID; how many others there are is said.

    Raises:
        UsageError: there is none; what is wrong with the first is named.
    """
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
    say(f"{len(faults)} of {len(rows)} clips of {part} left out, of other words; {first}")
    return rows[~np.isin(rows, list(faults))]


def _spoken(index: Index, row: int) -> list[str]:
    return [word for word, _, _ in index.words(row)]


def with_copies(index: Index, rows: Ints, mel: Mel, device: torch.device, say: Say) -> Tensor:
    """Stored log-mels of n clips, then those of their Griffin-Lim copies.

    Returns:
        float32 [2n x n_mels x longest M] on the device; shorter ones hold their last column.
    """
    longest = int(index.num_mel[rows].max())
    mels = torch.empty(2 * len(rows), mel.n_mels, longest, device=device)
    done = 0
    for batch in sounds.read_mels(index, rows):
        real = [one.to(device) for one in batch]
        for one, copy in zip(real, griffin_lim_copies(real, mel), strict=True):
            mels[done] = fit_columns(one, longest)
            mels[len(rows) + done] = fit_columns(copy, longest)
            done += 1
        say(f"{done}/{len(rows)} clips read and copied by Griffin-Lim")
    return mels


def griffin_lim_copies(mels: Sequence[Tensor], mel: Mel) -> Iterator[Tensor]:
    """Log-mels of the sounds that Griffin-Lim makes of log-mels, on the same device."""
    for one, sound in zip(mels, invert_all(mels, mel), strict=True):
        yield torch.from_numpy(log_mel(sound, mel, RATE)).to(one.device)


def own_errors(
    judge: Judge,
    index: Index,
    rows: Ints,
    words: Sequence[Sequence[str]],
    mel: Mel,
    device: torch.device,
) -> dict[str, Any]:
    """The judge's own word errors: real speech, copies, and another sentence of the talker.

    Returns:
        `real`, `griffin_lim`, `other_sentence`: `wer` {"value", "low", "high"} and `per_slot`, the
        last with a wer of None where no talker has two clips; `clips`.
    """
    heard: dict[str, list[list[str]]] = {"real": [], "griffin_lim": []}
    for batch in sounds.read_mels(index, rows):
        mels = [one.to(device) for one in batch]
        heard["real"] += transcribe(judge, mels)
        heard["griffin_lim"] += transcribe(judge, list(griffin_lim_copies(mels, mel)))
    found: dict[str, Any] = {}
    for name, said in heard.items():
        rate = word_error_rate(words, said)
        found[name] = {"wer": rate["wer"], "per_slot": rate["per_slot"]}
    others = other_clips([index.speaker[row] for row in rows])
    pairs = [(words[i], heard["real"][o]) for i, o in enumerate(others) if o is not None]
    floor: dict[str, Any] = {"value": None, "low": None, "high": None}
    if pairs:
        floor = word_error_rate([p[0] for p in pairs], [p[1] for p in pairs])["wer"]
    return found | {"other_sentence": {"wer": floor}, "clips": len(rows)}


def _progress(training: Training, say: Say) -> Callable[[int, float], None]:
    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        left = (time.perf_counter() - start) / epoch * (training.epochs - epoch)
        say(f"epoch {epoch}/{training.epochs} loss {loss:.3f} | {left / 60:.1f} min left")

    return report


def load(path: Path, index: Index, device: str | torch.device = "cpu") -> Stored:
    """The judge of a file, to hear sounds as the shards of `index` have them.

    Raises:
        UsageError: no judge, a damaged one, or one of another front end; one line says which.
    """
    state = checkpoint.load(path, TASK)
    checked(_File, state, str(path), strict=False)
    try:
        judge = Judge(state["mel"]["n_mels"])
        judge.load_state_dict(state.pop("weights"))
        intact = fingerprint(judge) == state["hash"]
        mine = state["mel"] | {"sample_rate": state["sample_rate"]}
    except (KeyError, TypeError, RuntimeError):
        raise UsageError(f"{path}: a judge of another version; train it again") from None
    if not intact:
        raise UsageError(f"{path}: its weights are not those of its hash; train it again")
    theirs = dataclasses.asdict(sounds.front_end(index))
    theirs["sample_rate"] = int(index.dataset["settings"]["sample_rate"])
    del theirs["uint8_max"]  # how mels are stored, not what they are
    differ = [f"{k} {shown(mine.get(k))}, there {v}" for k, v in theirs.items() if mine.get(k) != v]
    if differ:
        raise UsageError(
            f"{path}: hears other log-mels than those of {index.folder}: {'; '.join(differ)}; "
            "train a judge on these shards: avb train judge"
        )
    return Stored(judge.to(device).eval().requires_grad_(False), state)
