"""What `avb bench train` trains on: drawn batches of a corpus' shape, or its shards."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avb.pipeline.clip.audio import mel_scale_offset
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.assemble import WORD_FRAMES
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.columns import Ints
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.order import BATCHES_OF_BLOCK
from avb.pipeline.stream.stream import Stream, default_workers
from avb.train.batches import readable
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

_PREFETCH = 2  # batches that torch's DataLoader lets each worker prepare ahead
_DRAWN = 2  # batches that take turns: the second is never in a cache of the first


@dataclass(frozen=True)
class Blank:
    """As much of an index as a run looks at before its first batch, for a corpus not at hand."""

    dataset: dict[str, Any]
    labels: list[str]
    num_frames: Ints  # of one clip, [1]


def blank_index(recipe: Recipe, datasets: Path | None = None) -> Blank:
    """What shards of the recipe's corpus would say, by `datasets.yaml`."""
    corpora = load_corpora(datasets)
    if recipe.corpus not in corpora:
        raise UsageError(f"no corpus {recipe.corpus!r}; one of {', '.join(corpora)}")
    corpus = corpora[recipe.corpus]
    if recipe.crop not in corpus.crops:
        raise UsageError(f"{recipe.corpus} has no crop {recipe.crop!r}: {', '.join(corpus.crops)}")
    crop = corpus.crops[recipe.crop]
    scale, offset = mel_scale_offset(corpus.mel)
    return Blank(
        dataset={
            "crops": {recipe.crop: {"size": crop.size, "margin": crop.margin}},
            "pixels": {recipe.crop: {"mean": 127.5, "std": 74.0}},  # of even noise
            "mel": {"scale": scale, "offset": offset, "n_mels": corpus.mel.n_mels},
        },
        labels=[str(number) for number in range(corpus.expected.get("classes", 500))],
        num_frames=np.array(
            [WORD_FRAMES if recipe.unit == "word" else corpus.frames or WORD_FRAMES]
        ),
    )


def draw_batch(recipe: Recipe, index: Blank, number: int) -> Batch:
    """Noise in the shapes and types of a batch of the stream: uint8 pictures, float32 mels."""
    size, frames = recipe.batch_size, int(index.num_frames[0])
    crop, mel = index.dataset["crops"][recipe.crop], index.dataset["mel"]
    side = crop["size"] + 2 * crop["margin"]
    generator = torch.Generator().manual_seed(number)

    def noise(high: int, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randint(high, shape, generator=generator, dtype=dtype)

    levels = noise(256, size, mel["n_mels"], 4 * frames, dtype=torch.uint8)
    return Batch(
        keys=[f"drawn/{number}-{clip}" for clip in range(size)],
        video={recipe.crop: noise(256, size, frames, side, side, dtype=torch.uint8)},
        mel=levels.float() * mel["scale"] + mel["offset"],
        lengths=torch.full((size,), frames),
        mel_lengths=torch.full((size,), 4 * frames),
        label_id=noise(len(index.labels), size, dtype=torch.int64),
        boundary=torch.tensor([[0.3, 0.8]]).repeat(size, 1),
        epoch=torch.zeros(size, dtype=torch.int64),
        speakers=[None] * size,
        words=[[]] * size,
    )


def first_clips(batch: Batch, count: int) -> Batch:
    """The first `count` clips of a batch, without a copy."""
    if count >= len(batch):
        return batch
    cut: dict[str, Any] = {
        field.name: value[:count]
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor | list)
    }
    return dataclasses.replace(batch, **cut, video={k: v[:count] for k, v in batch.video.items()})


class Feed:
    """Batches for every contender from one place; `waited_s` is how long they were waited for."""

    def __init__(self, recipe: Recipe, index: Index | Blank, pin_memory: bool) -> None:
        """Draw batches for a blank index, or open a stream of the shards, as training does."""
        self.streams = not isinstance(index, Blank)
        self.ahead, self.waited_s = 0, 0.0
        if isinstance(index, Blank):
            drawn = [draw_batch(recipe, index, number) for number in range(_DRAWN)]
            drawn = [batch.pin_memory() for batch in drawn] if pin_memory else drawn
            self._batches: Iterator[Batch] = itertools.cycle(drawn)
        else:
            stream = Stream(
                index, batch_size=recipe.batch_size, unit=recipe.unit,
                crops=find_task(recipe.task).crops(recipe),
                seed=recipe.seed, buffer=recipe.buffer, pin_memory=pin_memory,
            )  # fmt: skip
            deal = BATCHES_OF_BLOCK if recipe.unit == "word" else 1
            self.ahead = _PREFETCH * default_workers() * deal
            self._batches = readable(stream)

    def next(self, count: int) -> Batch:
        """The next batch, or its first `count` clips."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - asked
        return first_clips(batch, count)

    def drain(self) -> None:
        """Throw away what workers may have prepared while they were not waited for."""
        for _ in range(self.ahead):
            next(self._batches)
