"""What every speech figure is printed beside: its ceiling and its floors, on the same clips."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.metrics.speech import RATE, Sound

_WELCH = 1024  # samples; a shorter sound, of one picture, is padded to have the same bins


def bounds(
    sounds: Sequence[Sound], mels: Sequence[Tensor], talkers: Sequence[Any], mel: Mel,
    mean: Tensor, seed: int = 0, **options: Any,
) -> Iterator[tuple[str, Sequence[Sound | None]]]:  # fmt: skip
    """Signals to be scored against the originals, float [n] each, in place of a model's, by name.

    `mels` [n_mels x M] are theirs; `mean` [n_mels x M] is best of the training clips. They are
    `ceiling`: Griffin-Lim of the true mels; `mean_mel`: Griffin-Lim of the mean log-mel of each
    column; `other_sentence`: another clip of the same talker, None where there is none; `noise`:
    stationary, with the long-term spectrum of the talker. Each is made when it is asked for.
    """
    yield "ceiling", invert_all(mels, mel, **options)
    columns = sorted({m.shape[-1] for m in mels})
    means = invert_all([fit_columns(mean, m) for m in columns], mel, **options)
    of_length = dict(zip(columns, means, strict=True))
    yield "mean_mel", [of_length[m.shape[-1]] for m in mels]
    yield (
        "other_sentence",
        [
            None if i is None else fit_length(sounds[i], len(own))
            for i, own in zip(other_clips(talkers, seed), sounds, strict=True)
        ],
    )
    yield "noise", speech_shaped_noise(sounds, talkers, seed)


def mean_log_mel(mels: Sequence[Tensor]) -> Tensor:
    """Mean of each bin and column over the clips that reach so far, [n_mels x longest M]."""
    longest = max(m.shape[-1] for m in mels)
    total = torch.zeros(mels[0].shape[0], longest, device=mels[0].device)
    count = torch.zeros(longest, device=mels[0].device)
    for m in mels:
        total[:, : m.shape[-1]] += m
        count[: m.shape[-1]] += 1
    return total / count


def fit_columns(mel: Tensor, columns: int) -> Tensor:
    """The first columns of [n_mels x M]; the last one again where there are not as many."""
    more = max(0, columns - mel.shape[-1])
    return torch.cat([mel, mel[:, -1:].expand(-1, more)], dim=1)[:, :columns]


def fit_length(sound: Sound, length: int) -> Sound:
    """The sound cut, or padded with zeros at the end."""
    return np.pad(sound[:length], (0, max(0, length - len(sound))))


def other_clips(talkers: Sequence[Any], seed: int = 0) -> list[int | None]:
    """For each clip the number of another of the same talker, each taken once; None if alone."""
    rng = np.random.default_rng(seed)
    names = np.array([str(talker) for talker in talkers])
    others: list[int | None] = [None] * len(names)
    for talker in dict.fromkeys(names.tolist()):
        ring = rng.permutation(np.flatnonzero(names == talker)).tolist()
        for clip, other in zip(ring, ring[1:] + ring[:1], strict=True):
            others[clip] = None if clip == other else other
    return others


def speech_shaped_noise(
    sounds: Sequence[Sound], talkers: Sequence[Any], seed: int = 0
) -> list[Sound]:
    """Gaussian noise with the long-term spectrum and level of its talker, as long as each clip."""
    from scipy.signal import welch

    names = [str(talker) for talker in talkers]
    own: dict[str, list[Any]] = {name: [] for name in names}
    for sound, name in zip(sounds, names, strict=True):
        padded = fit_length(sound, max(len(sound), _WELCH))
        own[name].append(welch(padded, RATE, nperseg=_WELCH)[1])
    spectra = {name: np.mean(densities, axis=0) for name, densities in own.items()}
    noises = []
    for number, (sound, talker) in enumerate(zip(sounds, names, strict=True)):
        white = np.random.default_rng([seed, number]).normal(size=len(sound))
        bins = np.fft.rfftfreq(len(sound), 1 / RATE)
        density = np.interp(bins, np.fft.rfftfreq(_WELCH, 1 / RATE), spectra[talker])
        # A density of 2 / RATE per Hz is white noise of variance 1.
        shaped = np.fft.irfft(np.fft.rfft(white) * np.sqrt(density * RATE / 2), len(sound))
        noises.append(shaped.astype(np.float32))
    return noises
