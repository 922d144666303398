"""The sound track of a film: blocks as a decoder gives them, mixed to mono, each at its place."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import median_filter

from avb.pipeline.clip.status import Refused

#: What sound is sampled at, from telephones to mastering.
MIN_HZ, MAX_HZ = 2_000, 384_000
#: Stamps that say otherwise than the samples so far by more are followed. Containers round to a
#: millisecond, and recorders of live sound tremble about the true time.
PLACED_S = 0.005
#: Blocks over which trembling stamps are evened out; a gap stays where it is.
STEADY = 9
#: Left and right channel are wired against each other if their mean has less of their energy.
OPPOSED = 0.01
#: How much of each channel reaches the left side (the right one alike): the downmix of ITU-R BS.775
#: without the low-frequency effects.
FRONT = {"FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (0.5**0.5, 0.5**0.5), "LFE": (0.0, 0.0)}
ROUND = {"BL": (0.5**0.5, 0.0), "BR": (0.0, 0.5**0.5), "BC": (0.5, 0.5)}
#: Channels of tracks that do not say, as FFmpeg takes them.
UNNAMED = {5: "FL FR FC BL BR", 6: "FL FR FC LFE BL BR", 8: "FL FR FC LFE BL BR SL SR"}
DOWNMIX = FRONT | ROUND | {"SL": ROUND["BL"], "SR": ROUND["BR"], "LFE2": FRONT["LFE"]}


@dataclass
class Sound:
    """Collects the blocks of one track."""

    rate: int = 0  # in Hz, of the first block
    # Of the blocks, as (channels, type of number, rate); a whole track has one.
    forms: set[tuple[int, str, int]] = field(default_factory=set)
    _blocks: list[np.ndarray] = field(default_factory=list)  # [1 or 2, n], of the track's type
    _times: list[float] = field(default_factory=list)

    def add(self, block: np.ndarray, rate: int, channels: Sequence[str], time: float) -> None:
        """Take a block [channels, n] of any type of number, which stands at `time` in seconds."""
        self.rate = self.rate or rate
        self.forms.add((len(block), block.dtype.str, rate))
        if len(self.forms) == 1:
            few = len(block) <= 2
            self._blocks.append(block if few else _stereo(as_float(block), channels))
            self._times.append(time)

    def mono(self, name: str) -> tuple[np.ndarray, int, float]:
        """The track as float32 [n], its rate in Hz, and when it starts in seconds.

        The mean of both sides; of two wired against each other, the louder. Refused: `no_audio`.
        """
        if not self._blocks:
            raise Refused("no_audio", f"{name}: the sound track is empty")
        if len(self.forms) > 1 or not MIN_HZ <= self.rate <= MAX_HZ:
            count = len(self.forms)
            raise Refused("no_audio", f"{name}: sound at {self.rate} Hz in {count} forms; damaged?")
        sides = self._placed()
        mono = sides[0].copy()
        if len(sides) == 2:
            mono += sides[1]
            mono /= 2
            left, right, both = (float(x @ x) for x in (*sides, mono))
            if both < OPPOSED * (left + right) / 2:
                mono = sides[0] if left >= right else sides[1]
        return mono, self.rate, self._times[0]

    def _placed(self) -> np.ndarray:
        """All blocks one after the other, with silence or cuts where the stamps say so."""
        lengths = np.array([block.shape[1] for block in self._blocks])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        said = (np.array(self._times) - self._times[0]) * self.rate - starts
        whole = as_float(np.concatenate(self._blocks, axis=1))
        if np.abs(said).max() <= PLACED_S * self.rate:
            return whole
        steady = median_filter(said, min(STEADY, len(said) | 1), mode="nearest")
        shift, at = 0, []
        for start, away in zip(starts, steady, strict=True):
            if abs(away - shift) > PLACED_S * self.rate:
                shift = round(away)
            at.append(max(0, start + shift))
        placed = np.zeros((len(whole), max(at + lengths)), np.float32)
        for start, length, place in zip(starts, lengths, at, strict=True):
            placed[:, place : place + length] = whole[:, start : start + length]
        return placed


def as_float(block: np.ndarray) -> np.ndarray:
    """Samples of any type as float32, about -1 to 1."""
    if block.dtype.kind == "f":
        return block.astype(np.float32, copy=False)
    if block.dtype.kind == "u":
        return (block.astype(np.float32) - np.float32(128)) / np.float32(128)
    # A power of two: its inverse is exact, and multiplying is faster.
    scale = np.float32(1 / (float(np.iinfo(block.dtype).max) + 1))
    return np.multiply(block, scale, dtype=np.float32, casting="unsafe")


def _stereo(block: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Both sides, float32 [2, n], of more channels: the standard downmix, the centre at its level.

    One side, the mean, where nothing says which channel is which.
    """
    if not set(channels) & {"FL", "FR", "FC"}:
        channels = UNNAMED.get(len(block), "").split()
    if len(channels) != len(block):
        return block.mean(axis=0, keepdims=True)
    weights = np.array([DOWNMIX.get(name, (0.5, 0.5)) for name in channels], np.float32)
    return np.float32(2**0.5) * (weights.T @ block)
