"""Batches from a store through its cache, beside those from a local folder.

python tests/scale/stored.py shards/grid s3://bucket/shards/grid
"""

import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.storage.store import place
from avb.pipeline.stream.index import Index, load_index
from avb.pipeline.stream.stream import Stream

BATCH = 16


def stored(local: Path, store: str, clips: int = 300, rounds: int = 5) -> dict[str, Any]:
    """Read the same shuffled clips from a folder and from its copy in a store, in turns.

    The store is read once before, so that its shards lie in the cache; that pass is timed too.

    Returns:
        `ratio`: clips a second from the store by those from the folder, median of the rounds;
        `clips_per_s` of both, `first_clips_per_s` of the cold pass, and all `ratios`.
    """
    indices = [load_index(local), load_index(place(store))]
    batches = max(1, clips // BATCH)
    cold = _seconds(indices[1], batches)
    _seconds(indices[0], batches)
    seconds: list[tuple[float, float]] = []
    for number in range(rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        took = {which: _seconds(indices[which], batches) for which in order}
        seconds.append((took[0], took[1]))
    ratios = [here / there for here, there in seconds]
    total = batches * BATCH
    return {
        "clips": total,
        "ratio": round(statistics.median(ratios), 3),
        "local_clips_per_s": round(total / statistics.median(s[0] for s in seconds), 1),
        "store_clips_per_s": round(total / statistics.median(s[1] for s in seconds), 1),
        "first_clips_per_s": round(total / cold, 1),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def _seconds(index: Index, batches: int) -> float:
    stream = Stream(index, batch_size=BATCH, workers=0, seed=1)
    start = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    return time.perf_counter() - start


def main(local: Path, store: str, clips: int = 300, rounds: int = 5) -> None:
    """Print the record."""
    print(json.dumps(stored(local, store, clips, rounds), indent=1))


if __name__ == "__main__":
    typer.run(main)
