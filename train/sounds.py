"""Log-mels and sounds out of shards, and sounds into files that anything can play."""

from __future__ import annotations

import importlib.util
import tempfile
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.files import open_atomic
from avb.pipeline.parse import checked
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.pipeline.stream.stream import Stream
from avb.train.evaluate.metrics.bounds import mean_log_mel
from avb.train.evaluate.metrics.speech import RATE, Sound

#: Clips read at once.
BATCH = 64
#: The mean over so many clips moves no figure of a floor; 24,000 would take minutes to read.
MEAN_CLIPS = 1000
_FULL_SCALE = 32768
_ROOM = 1 << 16  # bytes that a disk must have left for a result


def need(*modules: str) -> None:
    """See that the modules of the extra `eval` are there before hours are spent.

    Raises:
        UsageError: one is missing; it says how to install it.
    """
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(f"{' and '.join(absent)} not installed: pip install {' '.join(absent)}")


def front_end(index: Index) -> Mel:
    """The front end of the shards' log-mels."""
    plain = index.dataset["mel"]
    return checked(Mel, {k: plain[k] for k in Mel.__dataclass_fields__}, "dataset.json: mel")


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


def open_stream(index: Index, **options: Any) -> Stream:
    """A reader of the shards.

    Raises:
        UsageError: there is nothing to read, or not what is asked for.
    """
    try:
        return Stream(index, **options)
    except ValueError as error:
        raise UsageError(str(error)) from None


def read_mels(index: Index, rows: Ints) -> Iterator[list[Tensor]]:
    """Stored log-mels in the order of `rows`, up to `BATCH` at once: float32 [n_mels x M] each.

    Raises:
        UsageError: a sample cannot be read.
    """
    stream = open_stream(index, rows=rows, batch_size=BATCH, crops=(), once=True, workers=0)
    for batch in readable(stream):
        assert batch.mel is not None
        columns = batch.mel_lengths.tolist()
        yield [one[:, :n].float() for one, n in zip(batch.mel, columns, strict=True)]


def mean_mel(index: Index, rows: Ints) -> tuple[Tensor, int]:
    """Mean of each bin and column, [n_mels x longest M], and of how many clips.

    Of more than `MEAN_CLIPS`, as many at even distances are taken.
    """
    places = np.linspace(0, len(rows) - 1, min(len(rows), MEAN_CLIPS)).round().astype(np.int64)
    mels = [one for batch in read_mels(index, rows[places]) for one in batch]
    return mean_log_mel(mels), len(mels)


class WavFolder:
    """Writes `KEY.<signal>.wav` into a folder: 16 kHz, 16 bit, mono; each file whole or not at all.

    Attributes:
        written: files so far.
        scaled: those that were too loud for 16 bits, and were made quieter for it.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder, so that one that cannot be made is named before the work.

        Raises:
            UsageError: it cannot be made.
        """
        self.folder = folder
        self.written = 0
        self.scaled: list[str] = []
        make_folder(folder)

    def write(self, signal: str, keys: Sequence[str], sounds: Sequence[Sound]) -> None:
        """One file for each key; sounds are float [n] at 16 kHz, full scale being 1.

        Raises:
            UsageError: a file cannot be written, or a key leads out of the folder.
        """
        for key, sound in zip(keys, sounds, strict=True):
            parts = PurePosixPath(key).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise UsageError(f"key {key!r} leads out of {self.folder}; no sound is written")
            path = self.folder / f"{key}.{signal}.wav"
            make_folder(path.parent)
            samples, quieter = to_int16(sound)
            try:
                with open_atomic(path) as file, wave.open(file, "wb") as out:
                    out.setparams((1, 2, RATE, len(samples), "NONE", "not compressed"))
                    out.writeframes(samples.tobytes())
            except OSError as error:
                raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
            self.written += 1
            self.scaled += [path.name] * quieter


def make_folder(folder: Path) -> None:
    """Make a folder for results, with those above it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror})") from None


def check_writable(path: Path) -> None:
    """See that a result can be written, before the minutes it takes: its folder is made, and room.

    Raises:
        UsageError: it cannot; the line says what the disk says.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


def to_int16(sound: Sound) -> tuple[NDArray[np.int16], bool]:
    """Samples [n] in 16 bits, little-endian, and whether they were scaled down to fit."""
    highest, lowest = float(np.max(sound, initial=0.0)), float(np.min(sound, initial=0.0))
    # 16 bits reach one step less far up than down; sound as FLAC has it is written unchanged.
    loudest = max(highest / (1 - 1 / _FULL_SCALE), -lowest)
    factor = min(1.0, 1 / loudest) if loudest else 1.0
    return np.rint(np.asarray(sound) * (factor * _FULL_SCALE)).astype("<i2"), factor < 1
