"""Log-mels as the shards hold them: their front end, and their mean."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from avb.pipeline.config import Mel
from avb.pipeline.errors import shown
from avb.pipeline.parse import checked
from avb.pipeline.stream.index import Index, Ints
from avb.train.batches import open_stream
from avb.train.evaluate.metrics.bounds import mean_log_mel

#: Clips read at once.
BATCH = 64
#: The mean over so many clips moves no figure of a floor; 24,000 would take minutes to read.
MEAN_CLIPS = 1000


def front_end(index: Index) -> Mel:
    """The front end of the shards' log-mels."""
    plain = index.dataset["mel"]
    return checked(Mel, {k: plain[k] for k in Mel.__dataclass_fields__}, "dataset.json: mel")


def other_mels(mel: Any, sample_rate: Any, wanted: Mel, rate: int) -> str:
    """In what a front end, as a file has it, differs from another one; empty: in nothing."""
    mine = (mel if isinstance(mel, dict) else {}) | {"sample_rate": sample_rate}
    theirs = dataclasses.asdict(wanted) | {"sample_rate": rate}
    del theirs["uint8_max"]  # how mels are stored, not what they are
    differ = [f"{k} {shown(mine.get(k))}, there {v}" for k, v in theirs.items() if mine.get(k) != v]
    return "; ".join(differ)


def read_mels(index: Index, rows: Ints) -> Iterator[list[Tensor]]:
    """Stored log-mels in the order of `rows`, up to `BATCH` at once: float32 [n_mels x M] each."""
    stream = open_stream(index, rows=rows, batch_size=BATCH, crops=(), once=True, workers=0)
    for batch in stream:
        assert batch.mel is not None
        columns = batch.mel_lengths.tolist()
        yield [one[:, :n].float() for one, n in zip(batch.mel, columns, strict=True)]


def mean_mel(index: Index, rows: Ints) -> tuple[Tensor, int]:
    """Mean of each bin and column, [n_mels x longest M], of up to `MEAN_CLIPS` clips."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), MEAN_CLIPS)).round().astype(np.int64)
    mels = [one for batch in read_mels(index, rows[places]) for one in batch]
    return mean_log_mel(mels), len(mels)
