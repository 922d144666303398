"""What a network does on a few clips of its test part, to be seen and heard."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avb.pipeline.config import Corpus
from avb.pipeline.errors import UsageError
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.tools.infer.model import Trained, load_trained
from avb.tools.report.runs import Run
from avb.train import checkpoint
from avb.train.evaluate import addressing
from avb.train.network import Evaluation
from avb.train.tasks import Inputs

Array = NDArray[Any]

_DB = 20 / np.log(10)
#: For the map of features: so many clips, or sentences of which all six words are taken.
_FEATURE_CLIPS = 40
#: Points of each kind in a map.
_POINTS = 300


@dataclass(frozen=True)
class Clip:
    """One sample, T frames and 4 T mel columns.

    Attributes:
        key: of the sample.
        title: what it is and what was made of it, for a caption.
        fps: pictures a second.
        frames: uint8 [T x H x W], stored crops.
        words: word, start and end in seconds from the first frame, or None.
        mel_db: the true log-mel in dB, [bins x 4 T].
        source, target: A_src and A_tgt, [T x N]; None without slots.
        made_db: speech: the model's log-mel, [bins x 4 T].
        sounds: speech: float [n] at 16 kHz by name; `real`, `griffin_lim` (of the true mel) and
            `model`.
    """

    key: str
    title: str
    fps: float
    frames: Array
    words: list[tuple[str, float | None, float | None]]
    mel_db: Array
    source: Array | None = None
    target: Array | None = None
    made_db: Array | None = None
    sounds: dict[str, Array] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the pictures."""
        return len(self.frames) / self.fps


@dataclass(frozen=True)
class Features:
    """Frames inside words, as many of each kind: f_src, f_tgt and v_tgt, [n x width]."""

    visual: Array
    real: Array
    recalled: Array


class Look:
    """A run's network on clips of its own test part.

    Attributes:
        notes: what a reader has to know of the clips.
    """

    def __init__(self, run: Run, index: Index, corpus: Corpus, device: str = "cpu") -> None:
        """Open the checkpoint and find its test clips.

        Raises:
            UsageError: there is no checkpoint, it has another label map than the shards, or none
                of its test clips is among them.
        """
        from avb.train.evaluate.evaluate import part_rows
        from avb.train.split import usable_rows

        path = next((p for n in ("best.pt", "last.pt") if (p := run.folder / n).is_file()), None)
        if path is None:
            raise UsageError(f"{run.folder}: holds no best.pt; without it leave out --data")
        trained = load_trained(run.task, path, device)
        index = index.of_unit(trained.recipe.unit)
        if trained.labels != index.labels:
            raise UsageError(f"{index.folder}: its label map is not the one {path} was trained on")
        data = checkpoint.load(path)["data"]
        self._trained: Trained = trained
        self._index = index
        self.rows: Ints = usable_rows(index, part_rows(index, corpus, data, "test"), trained.recipe)
        self.notes: list[str] = []
        if data["fingerprint"] != index.dataset["fingerprint"]:
            self.notes.append(f"{index.folder} is not the data it was trained on")

    def clips(self, number: int, seed: int = 0) -> list[Clip]:
        """A seeded choice of the test part; of a sentence of words, one word.

        Raises:
            UsageError: the shards hold no sound, or a sample cannot be read.
        """
        rng = np.random.default_rng(seed)
        rows = rng.permutation(self.rows)[:number]  # more of them begin with the same ones
        places = rng.integers(0, 6, len(self.rows)).tolist()
        words = self._trained.recipe.unit == "word"
        wanted = [
            f"{self._index.key(row)}#{place}" if words else self._index.key(row)
            for row, place in zip(rows, places, strict=False)
        ]
        found = self._spoken(rows) if self._trained.recipe.task == "l2s" else self._read(rows)
        by_key = {clip.key: clip for clip in found}
        return [by_key[key] for key in wanted]

    def _evaluation(self, rows: Ints) -> Evaluation:
        trained = self._trained
        return Evaluation(
            trained.model, trained.recipe, trained.scaling, self._index, rows, trained.device
        )

    @torch.no_grad()
    def _read(self, rows: Ints) -> list[Clip]:
        """All samples of these rows; of a lip reader, with what it read."""
        trained, found = self._trained, []
        model: Any = trained.model
        for batch, inputs in self._evaluation(rows).batches():
            said = [""] * len(batch)
            if trained.recipe.task == "lip":
                lengths = inputs.ragged_lengths
                logits = model(inputs.video_BCTHW, None, lengths, inputs.boundary_BT).logits
                said = [self._said(*pair) for pair in zip(logits, inputs.labels, strict=True)]
            addresses = _addresses(model, inputs)
            found += [self._clip(batch, i, said[i], addresses) for i in range(len(batch))]
        return found

    def _clip(
        self, batch: Batch, i: int, said: str, addresses: tuple[Array | None, Array | None]
    ) -> Clip:
        """One sample of a batch."""
        assert batch.mel is not None
        frames, margin = int(batch.lengths[i]), self._trained.scaling.margin
        crops = batch.video[self._trained.recipe.crop][i, :frames].numpy()
        mel = batch.mel[i, :, : int(batch.mel_lengths[i])].numpy()
        source, target = (None if side is None else side[i, :frames] for side in addresses)
        return Clip(
            key=batch.keys[i],
            title=f"{batch.keys[i]}{said}",
            fps=float(self._index.dataset["settings"]["fps"]),
            frames=crops[:, margin : -margin or None, margin : -margin or None],
            words=batch.words[i],
            mel_db=_to_db(mel, self._trained.mel.power),
            source=source,
            target=target,
        )

    def _said(self, logits: torch.Tensor, label: torch.Tensor) -> str:
        """The three likeliest words behind what was spoken."""
        chances, numbers = logits.float().softmax(0).topk(min(3, len(logits)))
        words = [
            f"{self._trained.labels[int(n)]} {100 * float(p):.0f} %"
            for p, n in zip(chances, numbers, strict=True)
        ]
        return f": said {self._trained.labels[int(label)]}, read {', '.join(words)}"

    @torch.no_grad()
    def _spoken(self, rows: Ints) -> list[Clip]:
        """Clips with the model's mel, and sounds."""
        from avb.train.evaluate import speech
        from avb.train.evaluate.metrics.griffin_lim import invert_all

        trained = self._trained
        if not self._index.dataset["settings"].get("keep_audio", True):
            raise UsageError(f"{self._index.folder}: holds no sound (avb prep --keep-audio)")
        clips = {clip.key: clip for clip in self._read(rows)}
        torch.manual_seed(0)
        made = speech.reconstruct(self._evaluation(rows))
        options: dict[str, Any] = {
            "iterations": speech.GL_ITERATIONS, "momentum": speech.GL_MOMENTUM,
        }  # fmt: skip
        models, ceilings = (
            invert_all(mels, trained.mel, **options) for mels in (made.made, made.true)
        )
        return [
            dataclasses.replace(
                clips[facts["key"]],
                title=f"{facts['key']}: {' '.join(facts['words'])}",
                made_db=_to_db(made.made[i].cpu().numpy(), trained.mel.power),
                sounds={"real": made.sounds[i], "griffin_lim": ceilings[i], "model": models[i]},
            )
            for i, facts in enumerate(made.facts)
        ]

    @torch.no_grad()
    def features(self, seed: int = 0) -> Features:
        """Equal numbers of frames of each kind, a seeded choice.

        Raises:
            ValueError: the model has no slots, or no word of the clips has its times.
        """
        trained = self._trained
        if not trained.model.memory.slots:  # type: ignore[union-attr]
            raise ValueError("a model with 0 slots recalls nothing")
        rows = addressing.choose(self._index, trained.recipe.unit, self.rows, _FEATURE_CLIPS)
        found = addressing.collect(self._evaluation(rows), {"": trained.model})
        if found is None:
            raise ValueError("no word of these clips has its times")
        total = len(found.clip_of_frame)
        rng = np.random.default_rng(seed)
        picked = np.sort(rng.choice(total, min(total, _POINTS), replace=False))
        kinds = ("source_features", "target_features", "recalled")
        return Features(*(found.frames[kind][picked] for kind in kinds))


def _addresses(model: Any, inputs: Inputs) -> tuple[Array | None, Array | None]:
    """A_src and A_tgt, [B x T x N] each; None without slots."""
    if not model.memory.slots:
        return None, None
    bridge = model.memory(
        *model.features(inputs.video_BCTHW, inputs.mel_BFM, inputs.ragged_lengths)
    )
    return bridge.source_addressing.cpu().numpy(), bridge.target_addressing.cpu().numpy()


def _to_db(mel: Array, power: float) -> Array:
    """A natural-log mel in dB, whichever power it is of."""
    return mel.astype(np.float32) * _DB / power


def open_look(run: Run, data: Folder, device: str = "cpu", datasets: Path | None = None) -> Look:
    """A run's network on the shards of a folder.

    Raises:
        UsageError: the shards or the checkpoint do not fit.
    """
    from avb.train.data import open_shards

    index, corpus = open_shards(data, datasets)
    if index.dataset["corpus"] != run.recipe["corpus"]:
        raise UsageError(
            f"{data}: shards of {index.dataset['corpus']}; {run.folder} is a run on"
            f" {run.recipe['corpus']}"
        )
    return Look(run, index, corpus, device)
