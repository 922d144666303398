"""What a network does on a few clips of its test part, to be seen and heard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
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
from avb.tools.report.runs import CHECKPOINTS, Run
from avb.train.data import open_shards
from avb.train.evaluate import addressing, speech
from avb.train.evaluate.evaluate import open_part
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.stored_mels import front_end
from avb.train.evaluate.words.reading import Reading
from avb.train.tasks.task import Evaluation, Inputs

Array = NDArray[Any]

DB = 20 / np.log(10)
#: For the map of features: so many clips, or sentences of which all six words are taken.
_FEATURE_CLIPS = 40
#: Points of each kind in a map.
_POINTS = 300


@dataclass(frozen=True)
class Clip:
    """One sample, T frames and 4 T mel columns."""

    key: str  # of the sample
    title: str  # what it is and what was made of it, for a caption
    fps: float  # pictures a second
    frames: Array  # uint8 [T x H x W], stored crops
    # Word, start and end in seconds from the first frame, or None.
    words: list[tuple[str, float | None, float | None]]
    mel_db: Array  # the true log-mel in dB, [bins x 4 T]
    # source, target: A_src and A_tgt, [T x N]; None without slots
    source: Array | None = None
    target: Array | None = None
    made_db: Array | None = None  # speech: the model's log-mel, [bins x 4 T]
    # Speech: float [n] at 16 kHz by name; `real`, `griffin_lim` (of the true mel) and `model`.
    sounds: dict[str, Array] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the pictures."""
        return len(self.frames) / self.fps


@dataclass(frozen=True)
class Said:
    """A word of a clip: its frames are `first` to before `last`."""

    word: str
    talker: str  # empty: not known
    clip: Clip
    first: int
    last: int


@dataclass(frozen=True)
class Features:
    """Frames inside words, as many of each kind: f_src, f_tgt and v_tgt, [n x width]."""

    visual: Array
    real: Array
    recalled: Array


class Examples:
    """A run's network on clips of its own test part; `notes` are for a reader of the clips."""

    def __init__(self, run: Run, index: Index, corpus: Corpus, device: str = "cpu") -> None:
        """Open the checkpoint and find its test clips."""
        path = next((p for n in CHECKPOINTS if (p := run.folder / n).is_file()), None)
        if path is None:
            raise UsageError(f"{run.folder}: holds no best.pt; without it leave out --data")
        self._evaluation, loaded = open_part(run.task, path, index, corpus, "test", device)
        self.notes: list[str] = []
        if loaded.data["fingerprint"] != index.dataset["fingerprint"]:
            self.notes.append(f"{index.folder} is not the data it was trained on")

    def _of(self, rows: Ints) -> Evaluation:
        return dataclasses.replace(self._evaluation, rows=rows)

    def clips(self, number: int, seed: int = 0) -> list[Clip]:
        """A seeded choice of the test part; of a sentence of words, one word."""
        rng = np.random.default_rng(seed)
        index, recipe = self._evaluation.index, self._evaluation.recipe
        every = self._evaluation.rows
        rows = rng.permutation(every)[:number]  # more of them begin with the same ones
        places = rng.integers(0, 6, len(every)).tolist()
        wanted = [
            f"{index.key(row)}#{place}" if recipe.unit == "word" else index.key(row)
            for row, place in zip(rows, places, strict=False)
        ]
        clips = self._spoken(rows) if self._evaluation.task.name == "l2s" else self._read(rows)
        by_key = {clip.key: clip for clip in clips}
        return [by_key[key] for key in wanted]

    @property
    def num_talkers(self) -> int:
        """Known talkers of the test part."""
        return len(set(self._evaluation.index.speaker.codes[self._evaluation.rows]) - {-1})

    @torch.no_grad()
    def words(self, wanted: str | None = None) -> Iterator[Said]:
        """Every word that has its times, or only one; ValueError: there are no addresses."""
        index, unit = self._evaluation.index, self._evaluation.recipe.unit
        if not self._evaluation.model.memory.slots:  # type: ignore[union-attr]
            raise ValueError("a model with 0 slots has no addresses")
        for batch, inputs in self._evaluation.batches():
            spans = [
                (i, word, first, last)
                for i in range(len(batch))
                for word, _, first, last in addressing.spoken(batch, i, index, unit)
                if wanted in (None, word)
            ]
            sides = self._addresses(inputs) if spans else {}
            for i, word, first, last in spans:
                clip = self._clip(batch, i, "", sides)
                yield Said(word, batch.speakers[i] or "", clip, first, last)

    def _addresses(self, inputs: Inputs) -> dict[str, Array]:
        batched = addressing.addresses(self._evaluation.model, inputs)
        return {name: side.cpu().numpy() for name, side in batched.items()}

    @torch.no_grad()
    def _read(self, rows: Ints) -> list[Clip]:
        """All samples of these rows; of a lip reader, with what it read."""
        clips: list[Clip] = []
        model: Any = self._evaluation.model
        for batch, inputs in self._of(rows).batches():
            said = [""] * len(batch)
            given = (inputs.video_BCTHW, None, inputs.ragged_lengths, inputs.boundary_BT)
            if self._evaluation.task.classifies:
                pairs = zip(model(*given).logits, inputs.labels, strict=True)
                said = [self._said(*pair) for pair in pairs]
            elif self._evaluation.task.name == "sentence":
                rows_of = model(*given).logits.float().log_softmax(dim=-1).cpu().numpy()
                said = [self._heard(row[: batch.lengths[i]]) for i, row in enumerate(rows_of)]
            sides: dict[str, Array] = {}
            if model.memory.slots:
                sides = self._addresses(inputs)
            clips += [self._clip(batch, i, said[i], sides) for i in range(len(batch))]
        return clips

    def _clip(self, batch: Batch, i: int, said: str, sides: dict[str, Array]) -> Clip:
        """One sample of a batch."""
        assert batch.mel is not None
        frames, margin = int(batch.lengths[i]), self._evaluation.scaling.margin
        crops = batch.video[self._evaluation.recipe.crop][i, :frames].numpy()
        mel = batch.mel[i, :, : int(batch.mel_lengths[i])].numpy()
        own = {name: side[i, :frames] for name, side in sides.items()}
        return Clip(
            key=batch.keys[i],
            title=f"{batch.keys[i]}{said}",
            fps=float(self._evaluation.index.dataset["settings"]["fps"]),
            frames=crops[:, margin : -margin or None, margin : -margin or None],
            words=batch.words[i],
            mel_db=self._to_db(mel),
            source=own.get("source"),
            target=own.get("target"),
        )

    def _said(self, logits: torch.Tensor, label: torch.Tensor) -> str:
        """The three likeliest words behind what was spoken."""
        chances, numbers = logits.float().softmax(0).topk(min(3, len(logits)))
        labels = self._evaluation.index.labels
        words = [
            f"{labels[int(n)]} {100 * float(p):.0f} %"
            for p, n in zip(chances, numbers, strict=True)
        ]
        return f": said {labels[int(label)]}, read {', '.join(words)}"

    def _heard(self, log_probs: Array) -> str:
        """The sentence that was read, of any words."""
        recipe, index = self._evaluation.recipe, self._evaluation.index
        words = Reading(index.labels, recipe.unit).words(log_probs)
        return f": read {' '.join(one.word for one in words) or 'nothing'}"

    def _to_db(self, mel: Array) -> Array:
        """A natural-log mel in dB, whichever power it is of."""
        return mel.astype(np.float32) * DB / front_end(self._evaluation.index).power

    @torch.no_grad()
    def _spoken(self, rows: Ints) -> list[Clip]:
        """Clips with the model's mel, and sounds."""
        index = self._evaluation.index
        if not index.dataset["settings"].get("keep_audio", True):
            raise UsageError(f"{index.folder}: holds no sound (avb prep --keep-audio)")
        clips = {clip.key: clip for clip in self._read(rows)}
        torch.manual_seed(0)
        made = speech.reconstruct(self._of(rows))
        models, ceilings = (
            invert_all(
                mels, front_end(index), iterations=speech.GL_ITERATIONS,
                momentum=speech.GL_MOMENTUM,
            )
            for mels in (made.made, made.true)
        )  # fmt: skip
        return [
            dataclasses.replace(
                clips[facts["key"]],
                title=f"{facts['key']}: {' '.join(facts['words'])}",
                made_db=self._to_db(made.made[i].cpu().numpy()),
                sounds={"real": made.sounds[i], "griffin_lim": ceilings[i], "model": models[i]},
            )
            for i, facts in enumerate(made.facts)
        ]

    @torch.no_grad()
    def features(self, seed: int = 0) -> Features:
        """Equal numbers of frames of each kind, a seeded choice; ValueError: there is no map."""
        model: Any = self._evaluation.model
        if not model.memory.slots:
            raise ValueError("a model with 0 slots recalls nothing")
        index, unit = self._evaluation.index, self._evaluation.recipe.unit
        rows = addressing.choose(index, unit, self._evaluation.rows, _FEATURE_CLIPS)
        collected = addressing.collect(self._of(rows), {"": model})
        if collected is None:
            raise ValueError("no word of these clips has its times")
        total = len(collected.clip_of_frame)
        rng = np.random.default_rng(seed)
        picked = np.sort(rng.choice(total, min(total, _POINTS), replace=False))
        kinds = ("source_features", "target_features", "recalled")
        return Features(*(collected.frames[kind][picked] for kind in kinds))


def open_examples(
    run: Run, data: Folder, device: str = "cpu", datasets: Path | None = None
) -> Examples:
    """A run's network on the shards of a folder."""
    index, corpus = open_shards(data, datasets)
    if index.dataset["corpus"] != run.recipe["corpus"]:
        raise UsageError(
            f"{data}: shards of {index.dataset['corpus']}; {run.folder} is a run on"
            f" {run.recipe['corpus']}"
        )
    return Examples(run, index, corpus, device)
