"""What a network does on a few clips of its test part, to be seen and heard."""

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


def stored_clip(
    index: Index, batch: Batch, i: int, crop: str, margin: int, title: str, **more: Any
) -> Clip:
    """Sample `i` of a batch; `more` are other fields of `Clip`."""
    assert batch.mel is not None
    crops = batch.video[crop][i, : int(batch.lengths[i])].numpy()
    mel = batch.mel[i, :, : int(batch.mel_lengths[i])].numpy()
    return Clip(
        key=batch.keys[i],
        title=title,
        fps=float(index.dataset["settings"]["fps"]),
        frames=crops[:, margin : -margin or None, margin : -margin or None],
        words=batch.words[i],
        mel_db=to_db(mel, index),
        **more,
    )


def to_db(mel: Array, index: Index) -> Array:
    """A natural-log mel in dB, whichever power it is of."""
    return mel.astype(np.float32) * DB / front_end(index).power


class Examples:
    """A run's network on clips of its own test part; `notes` are for a reader of the clips."""

    def __init__(self, run: Run, index: Index, corpus: Corpus, device: str = "cpu") -> None:
        """Open the checkpoint and find its test clips."""
        path = next((p for n in CHECKPOINTS if (p := run.folder / n).is_file()), None)
        if path is None:
            raise UsageError(f"{run.folder}: holds no best.pt; without it leave out --data")
        self._evaluation, loaded = open_part(run.task, path, index, corpus, "test", device)
        self._index, self._recipe = self._evaluation.index, self._evaluation.recipe
        self._model: Any = self._evaluation.model
        self.notes: list[str] = []
        if loaded.data["fingerprint"] != index.dataset["fingerprint"]:
            self.notes.append(f"{index.folder} is not the data it was trained on")

    def _of(self, rows: Ints) -> Evaluation:
        return dataclasses.replace(self._evaluation, rows=rows)

    def clips(self, number: int, seed: int = 0) -> list[Clip]:
        """A seeded choice of the test part; of a sentence of words, one word."""
        rng = np.random.default_rng(seed)
        every = self._evaluation.rows
        rows = rng.permutation(every)[:number]  # more of them begin with the same ones
        places = rng.integers(0, 6, len(every)).tolist()
        clips = self._spoken(rows) if self._evaluation.task.makes == "speech" else self._read(rows)
        chosen = []
        for row, place in zip(rows, places, strict=False):
            key = self._index.key(row)
            own = [c for c in clips if c.key == key or c.key.startswith(f"{key}#")]
            chosen.append(own[place % len(own)])
        return chosen

    @property
    def num_talkers(self) -> int:
        """Known talkers of the test part."""
        return len(set(self._index.speaker.codes[self._evaluation.rows]) - {-1})

    @torch.no_grad()
    def words(self, wanted: str | None = None) -> Iterator[Said]:
        """Every word that has its times, or only one; ValueError: there are no addresses."""
        if not self._model.memory.slots:
            raise ValueError("a model with 0 slots has no addresses")
        for batch, inputs in self._evaluation.batches():
            spans = [
                (i, word, first, last)
                for i in range(len(batch))
                for word, _, first, last in addressing.spoken(
                    batch, i, self._index, self._recipe.unit
                )
                if wanted in (None, word)
            ]
            sides = self._addresses(inputs) if spans else {}
            for i, word, first, last in spans:
                clip = self._clip(batch, i, "", sides)
                yield Said(word, batch.speakers[i] or "", clip, first, last)

    @torch.no_grad()
    def _read(self, rows: Ints) -> list[Clip]:
        """All samples of these rows; of a lip reader, with what it read."""
        clips: list[Clip] = []
        for batch, inputs in self._of(rows).batches():
            read = self._captions(batch, inputs)
            sides = self._addresses(inputs) if self._model.memory.slots else {}
            clips += [self._clip(batch, i, text, sides) for i, text in enumerate(read)]
        return clips

    def _addresses(self, inputs: Inputs) -> dict[str, Array]:
        batched = addressing.addresses(self._model, inputs)
        return {name: side.cpu().numpy() for name, side in batched.items()}

    def _clip(self, batch: Batch, i: int, read: str, sides: dict[str, Array]) -> Clip:
        own = {name: side[i, : int(batch.lengths[i])] for name, side in sides.items()}
        crop, margin = self._recipe.crop, self._evaluation.scaling.margin
        return stored_clip(self._index, batch, i, crop, margin, f"{batch.keys[i]}{read}", **own)

    def _captions(self, batch: Batch, inputs: Inputs) -> list[str]:
        """What was read of each sample: the three likeliest words, or a sentence of any words."""
        if self._evaluation.task.makes == "speech":
            return [""] * len(batch)
        labels = self._index.labels
        given = (inputs.video_BCTHW, None, inputs.ragged_lengths, inputs.boundary_BT)
        logits = self._model(*given).logits.float()
        read = []
        if self._evaluation.task.makes == "sentence":
            reading = Reading(labels, self._recipe.unit)
            for row, length in zip(
                logits.log_softmax(-1).cpu().numpy(), batch.lengths, strict=True
            ):
                words = " ".join(one.word for one in reading.words(row[:length]))
                read.append(f": read {words or 'nothing'}")
            return read
        for chances, label in zip(logits.softmax(-1), inputs.labels, strict=True):
            likeliest = zip(*chances.topk(min(3, len(chances))), strict=True)
            words = ", ".join(f"{labels[int(n)]} {100 * float(p):.0f} %" for p, n in likeliest)
            read.append(f": said {labels[int(label)]}, read {words}")
        return read

    @torch.no_grad()
    def _spoken(self, rows: Ints) -> list[Clip]:
        """Clips with the model's mel, and sounds."""
        index = self._index
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
                made_db=to_db(made.made[i].cpu().numpy(), index),
                sounds={"real": made.sounds[i], "griffin_lim": ceilings[i], "model": models[i]},
            )
            for i, facts in enumerate(made.facts)
        ]

    @torch.no_grad()
    def features(self, seed: int = 0) -> dict[str, Array]:
        """As many frames inside words of each kind, a seeded choice; ValueError: there is no map.

        f_src `source_features`, f_tgt `target_features` and v_tgt `recalled`, [n x width].
        """
        if not self._model.memory.slots:
            raise ValueError("a model with 0 slots recalls nothing")
        every = self._evaluation.rows
        rows = addressing.choose(self._index, self._recipe.unit, every, _FEATURE_CLIPS)
        collected = addressing.collect(self._of(rows), {"": self._model})
        if collected is None:
            raise ValueError("no word of these clips has its times")
        total = len(collected.clip_of_frame)
        rng = np.random.default_rng(seed)
        picked = np.sort(rng.choice(total, min(total, _POINTS), replace=False))
        kinds = ("source_features", "target_features", "recalled")
        return {kind: collected.frames[kind][picked] for kind in kinds}


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
