"""Sounds as WAV files that anything can play."""

import io
import wave
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.train.checks import make_folder, writing
from avb.train.evaluate.metrics.speech import RATE, Sound

_FULL_SCALE = 32768


class WavFolder:
    """Writes `KEY.<signal>.wav`: 16 kHz, 16 bit, mono; each file whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, so that one that cannot be made is named before the work."""
        self.folder = folder
        self.written = 0  # files so far
        self.scaled: list[str] = []  # those too loud for 16 bits, and made quieter
        make_folder(folder)

    def write(self, signal: str, keys: Sequence[str], sounds: Sequence[Sound]) -> None:
        """One file for each key; sounds are float [n] at 16 kHz, full scale being 1."""
        for key, sound in zip(keys, sounds, strict=True):
            parts = PurePosixPath(key).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise UsageError(f"key {key!r} leads out of {self.folder}; no sound is written")
            path = self.folder / f"{key}.{signal}.wav"
            make_folder(path.parent)
            samples, quieter = to_int16(sound)
            with writing(path):
                write_atomic(path, _wav(samples))
            self.written += 1
            self.scaled += [path.name] * quieter


def wav_bytes(sound: Sound) -> bytes:
    """A WAV file of float [n] at 16 kHz: 16 bit, mono."""
    return _wav(to_int16(sound)[0])


def _wav(samples: NDArray[np.int16]) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", "not compressed"))
        file.writeframes(samples.tobytes())
    return out.getvalue()


def to_int16(sound: Sound) -> tuple[NDArray[np.int16], bool]:
    """Samples [n] in 16 bits, little-endian, and whether they were scaled down to fit."""
    highest, lowest = float(np.max(sound, initial=0.0)), float(np.min(sound, initial=0.0))
    # 16 bits reach one step less far up than down; sound as FLAC has it is written unchanged.
    loudest = max(highest / (1 - 1 / _FULL_SCALE), -lowest)
    factor = min(1.0, 1 / loudest) if loudest else 1.0
    return np.rint(np.asarray(sound) * (factor * _FULL_SCALE)).astype("<i2"), factor < 1
