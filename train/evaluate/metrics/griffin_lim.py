"""From log-mels back to sound: pseudo-inverse of the filters, Griffin-Lim, de-emphasis.

The inverse of `avb.pipeline.clip.audio.log_mel` as far as there is one: phase is guessed. Column
i is centred on sample i * hop on the way there and back, so nothing is moved in time; one mel
column of misalignment would cost more STOI than any two systems differ by (evaluation.md 2.3).

Shapes: B clips, F = n_fft / 2 + 1 frequencies, M columns.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from avb.models.vocos import Generator
from avb.pipeline.clip.audio import mel_matrix
from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.speech import RATE, Sound

ITERATIONS = 60
#: 32 rounds with it are ahead of 100 without (evaluation.md 2.4); published rows have 0.
MOMENTUM = 0.99
_FLOOR = 1e-10
#: Clips that are inverted at once on an accelerator, and on the CPU: there more fall out of its
#: caches and into pages that are given back each round (64: 0.67 s a clip, 4: 0.23 s).
_BATCH, _CPU_BATCH = 64, 4
#: What a sample leaves behind after de-emphasis is cut below this.
_TAIL = 1e-9


def invert_mel(
    log_mel: Tensor, mel: Mel, sample_rate: int, *, iterations: int = ITERATIONS,
    momentum: float = MOMENTUM, power: float = 1.0, seed: int = 0, vocoder: Any = None,
) -> Tensor:  # fmt: skip
    """Sound [M * hop] (or [B x M * hop]) whose log-mel is close to the one given, at any device.

    The one place that decides how a mel becomes sound: by a `Generator`, of `avb train vocos`, or
    by Griffin-Lim of the magnitudes of a refiner (of `avb train vocoder`; log-mels and magnitudes
    [B x F x M] in, better ones out), else of those of the pseudo-inverse.
    Magnitudes are raised to `power`, which takes away what lies low (Lip2Wav: 1.5).
    `log_mel` is natural log, [n_mels x M] or [B x n_mels x M]; `seed` is that of the first phase,
    the same for each clip, so the batch does not matter. ValueError: values that are not finite.
    """
    if log_mel.ndim not in (2, 3) or log_mel.shape[-2] != mel.n_mels or not log_mel.shape[-1]:
        raise ValueError(f"log-mel of shape {tuple(log_mel.shape)}; expected [{mel.n_mels} x M]")
    if not torch.isfinite(log_mel).all():
        raise ValueError("log-mel with values that are not finite; the model that made it diverged")
    mel_BNM = log_mel.float().reshape(-1, *log_mel.shape[-2:])
    with torch.no_grad(), torch.autocast(mel_BNM.device.type, enabled=False):
        if isinstance(vocoder, Generator):
            return vocoder(mel_BNM).reshape(*log_mel.shape[:-2], -1)
        magnitude_BFM = linear_magnitude(mel_BNM, mel, sample_rate)
        if vocoder is not None:
            magnitude_BFM = vocoder(mel_BNM, magnitude_BFM)
        if power != 1:
            magnitude_BFM = magnitude_BFM**power
        # log_mel drops the last of its M + 1 centred columns, so the one before is held; longer
        # where the clip is too short for the reflection at its ends.
        held = max(1, mel.n_fft // 2 // mel.hop + 2 - log_mel.shape[-1])
        magnitude_BFM = functional.pad(magnitude_BFM, (0, held), mode="replicate")
        sound_BT = griffin_lim(magnitude_BFM, mel, iterations, momentum, seed)
        sound_BT = sound_BT[:, : log_mel.shape[-1] * mel.hop]
        if mel.preemphasis:
            sound_BT = deemphasise(sound_BT, mel.preemphasis)
    return sound_BT.reshape(*log_mel.shape[:-2], -1)


def linear_magnitude(log_mel_BNM: Tensor, mel: Mel, sample_rate: int) -> Tensor:
    """Magnitudes [B x F x M] whose filtered sum comes closest; at least 1e-10."""
    inverse_NF = _pseudo_inverse(mel, sample_rate).to(log_mel_BNM.device)
    found_BFM = (inverse_NF.T @ log_mel_BNM.exp()).clamp_min(_FLOOR)
    return found_BFM if mel.power == 1 else found_BFM ** (1 / mel.power)


@lru_cache(maxsize=4)
def _pseudo_inverse(mel: Mel, sample_rate: int) -> Tensor:
    return torch.linalg.pinv(mel_matrix(mel, sample_rate).double()).float()


def griffin_lim(
    magnitude_BFM: Tensor, mel: Mel, iterations: int, momentum: float, seed: int = 0
) -> Tensor:
    """Sound [B x (M - 1) * hop] for a magnitude spectrum, by fast Griffin-Lim.

    Perraudin, Balazs and Sondergaard 2013, in the form of librosa and torchaudio. By hand, because
    the first phase is drawn on the CPU column by column: the same on any device, for any length.
    """
    device = magnitude_BFM.device
    window = torch.hann_window(mel.window, device=device)
    frame = (mel.n_fft, mel.hop, mel.window, window)
    length = (magnitude_BFM.shape[-1] - 1) * mel.hop
    generator = torch.Generator().manual_seed(seed)
    turns_MF = torch.rand(*magnitude_BFM.shape[:0:-1], generator=generator)
    angles = torch.polar(torch.ones_like(turns_MF), 2 * math.pi * turns_MF).T.to(device)
    last: Tensor | float = 0.0
    for _ in range(iterations):
        sound_BT = torch.istft(magnitude_BFM * angles, *frame, length=length)
        rebuilt = torch.stft(sound_BT, *frame, return_complex=True)
        angles = rebuilt - momentum / (1 + momentum) * last
        angles = angles / (angles.abs() + 1e-16)
        last = rebuilt
    return torch.istft(magnitude_BFM * angles, *frame, length=length)


def deemphasise(sound_BT: Tensor, coefficient: float) -> Tensor:
    """Undo y[t] = x[t] - c x[t-1]: x[t] = y[t] + c x[t-1], as a convolution, for the device's sake.

    The impulse response is cut where it falls below 1e-9.
    """
    taps = math.ceil(math.log(_TAIL) / math.log(coefficient))
    size = 1 << (sound_BT.shape[-1] + taps).bit_length()
    response = coefficient ** torch.arange(taps, device=sound_BT.device, dtype=torch.float64)
    spectrum = torch.fft.rfft(sound_BT.double(), size) * torch.fft.rfft(response, size)
    return torch.fft.irfft(spectrum, size)[..., : sound_BT.shape[-1]].float()


def invert_all(mels: Sequence[Tensor], mel: Mel, **options: Any) -> list[Sound]:
    """`invert_mel` of log-mels [n_mels x M] of any lengths: float32 [M * hop] each, in order."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, one in enumerate(mels):
        by_length[one.shape[-1]].append(i)
    sounds: dict[int, Sound] = {}
    size = _CPU_BATCH if mels and mels[0].device.type == "cpu" else _BATCH
    for alike in by_length.values():
        for start in range(0, len(alike), size):
            rows = alike[start : start + size]
            batch = torch.stack([mels[i] for i in rows])
            inverted = invert_mel(batch, mel, RATE, **options).cpu().numpy()
            sounds.update(zip(rows, inverted, strict=True))
    return [sounds[i] for i in range(len(mels))]
