"""Batches of stored clips, where what is wrong with shards becomes one line."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train.recipe import Recipe

#: Most clips that a CPU is given at once where nothing is learnt.
CPU_CLIPS = 64


def open_stream(index: Index, **options: Any) -> Iterator[Batch]:
    """The batches of a `Stream`, `readable`; UsageError: it holds nothing that is asked for."""
    try:
        return readable(Stream(index, **options))
    except ValueError as error:
        raise UsageError(str(error)) from None


def at_once(recipe: Recipe, device: torch.device, world: int) -> int:
    """Clips of a batch that nothing is learnt from, over all processes.

    As many as a part of a training step has (`accumulate`), whose memory sufficed.
    """
    part = recipe.batch_size // recipe.accumulate
    return max(world, min(part, CPU_CLIPS * world) if device.type == "cpu" else part)


def readable(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; a missing or damaged shard is a `UsageError`."""
    try:
        yield from batches
    except (ValueError, OSError) as error:
        raise UsageError(f"{error} (avb verify finds every fault)") from None
