"""Batches of stored clips, where what is wrong with shards becomes one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream


def open_stream(index: Index, **options: Any) -> Stream:
    """A reader of the shards.

    Raises:
        UsageError: there is nothing to read, or not what is asked for.
    """
    try:
        return Stream(index, **options)
    except ValueError as error:
        raise UsageError(str(error)) from None


def readable(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; a missing or damaged shard becomes one line.

    Raises:
        UsageError: a sample cannot be read.
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (ValueError, OSError) as error:
            raise UsageError(f"{error} (avb verify finds every fault)") from None
        yield batch
