"""`avb bench read`: clips a second on one core, beside plain webdataset + PyAV in the same run."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.clip.codec import EXTENSIONS
from avb.pipeline.errors import UsageError
from avb.pipeline.machine import settle_process
from avb.pipeline.stream.assemble import Assembler
from avb.pipeline.stream.index import Index, Ints, load_index
from avb.pipeline.stream.stream import Stream
from avb.tools.bench import baseline_webdataset

_BATCH_SIZE = 32


def bench_read(folder: str | Path, clips: int = 200, rounds: int = 7) -> dict[str, Any]:
    """Read the same clips with both readers in turn, on one thread, and compare.

    The baseline reads a temporary copy: the stored crops decoded and encoded again as ordinary mp4,
    with the same mels. Seconds are CPU seconds, so that other work on the machine counts little.
    The ratio is the median of the rounds' ratios; a first round that fills caches is not counted.
    """
    settle_process()
    index = load_index(folder)
    chosen = tuple(index.dataset["crops"])
    heard = np.flatnonzero(~index.no_audio)  # the baseline has no way to say that a mel is absent
    if not heard.size:
        raise UsageError(f"{folder}: no clip has a mel to read; prepare films with sound")
    steps = np.linspace(0, len(heard) - 1, min(clips, len(heard)))
    rows = heard[np.unique(steps.astype(np.int64))]
    with tempfile.TemporaryDirectory() as scratch:
        tar = Path(scratch) / "baseline-000000.tar"
        codec = _write_baseline(tar, index, rows, chosen)
        stream = Stream(
            index, rows=rows, batch_size=_BATCH_SIZE, crops=chosen, once=True, workers=0
        )
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds + 1):
            ours.append(_seconds(lambda: stream, len(rows)))
            theirs.append(_seconds(lambda: baseline_webdataset.read_tar(tar), len(rows)))
    ours, theirs = ours[1:], theirs[1:]
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    return {
        "clips": len(rows),
        "clips_per_s": round(len(rows) / statistics.median(ours), 1),
        "webdataset_clips_per_s": round(len(rows) / statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "codec": codec,
        "crops": list(chosen),
        "seconds": [round(s, 4) for s in ours],
        "webdataset_seconds": [round(s, 4) for s in theirs],
    }


def _seconds(read: Callable[[], Iterable[Any]], expected: int) -> float:
    """CPU seconds to read everything; both readers hand out dicts or batches of samples."""
    start = time.process_time()
    count = sum(1 if isinstance(item, dict) else len(item) for item in read())
    seconds = time.process_time() - start
    if count != expected:
        raise RuntimeError(f"a reader handed out {count} clips of {expected}")
    return seconds


def _write_baseline(tar: Path, index: Index, rows: Ints, crops: tuple[str, ...]) -> str:
    """Encode the rows' crops again for the baseline; returns the codec they are stored in."""
    assemble = Assembler(index, crops, mel=False, audio=False)

    def samples() -> Iterable[tuple[str, dict[str, Any], bytes]]:
        for row in rows:
            yield index.key(row), assemble.decode(row)[0], bytes(assemble.members(row)["mel.npy"])

    baseline_webdataset.write_tar(tar, samples())
    stored = [name.removeprefix(f"{crops[0]}.") for name in assemble.members(rows[0])]
    return next(codec for codec, extension in EXTENSIONS.items() if extension in stored)
