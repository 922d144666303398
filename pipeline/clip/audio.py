"""Sound under the pictures, log-mels and their storage. The one module that imports torchaudio."""

import math
import sys
import types
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from avb.pipeline.config import Mel


@cache
def torchaudio() -> Any:
    """The torchaudio module, also beside a torch for no CUDA or for another one.

    The wheels are CUDA builds, so beside a CPU torch their compiled part fails to load with
    OSError; beside a build for another CUDA, such as the newest torch has (2.15 beside 2.11), it
    refuses with RuntimeError. Everything used here is Python; a stub stands in for that part, and
    only then.
    """
    try:
        import torchaudio as module
    except (OSError, RuntimeError):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stub: Any = types.ModuleType("torchaudio._extension")
        stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
        stub._IS_ALIGN_AVAILABLE = False
        stub._check_cuda_version = lambda: None
        stub.fail_if_no_align = lambda function: function
        sys.modules["torchaudio._extension"] = stub
        import torchaudio as module
    return module


#: Level, in dB of full scale, that the loudest tenth of a second of speech exceeds: a voice that
#: can hardly be heard is at -50, the noise of 16 bits at -98.
SILENT_DBFS = -60.0
#: Of the filters between two rates without a common factor; 48 kHz from 44.1 kHz has 23,520.
MOST_TAPS = 1 << 25
#: Columns of a mel that are made together, a minute: ten at once would take half a gigabyte.
PART = 6000


@lru_cache(maxsize=8)
def _resampler(rate: int, wanted: int) -> Any:
    return torchaudio().transforms.Resample(rate, wanted)


def resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Band-limited resampling of float32 [n] from `rate` to `wanted` Hz.

    Of rates that have little in common (44101, damaged) the nearest ratio of smaller numbers is
    taken: filters would be gigabytes. It is off by 10 ms a minute at most.
    """
    ratio = Fraction(rate, wanted)
    if ratio.numerator * ratio.denominator > MOST_TAPS:
        ratio = ratio.limit_denominator(math.isqrt(int(MOST_TAPS / 4 / ratio)))
    if ratio == 1:
        return sound
    with torch.inference_mode():
        return _resampler(*ratio.as_integer_ratio())(torch.from_numpy(sound)).numpy()


def fit(
    sound: np.ndarray, rate: int, start_s: float, num_frames: int, fps: int, sample_rate: int
) -> tuple[np.ndarray, int]:
    """The sound of exactly `num_frames` pictures: resampled, placed, cut or zero-padded at the end.

    Of float32 [n], mono, at `rate` Hz, that starts `start_s` after the first picture (negative is
    cut in front): float32 [num_frames * sample_rate / fps], and the samples appended at the end
    (negative: cut).
    """
    placed = resample(np.ascontiguousarray(sound, np.float32), rate, sample_rate)
    wanted = num_frames * sample_rate // fps
    shift = round(start_s * sample_rate)
    if shift < 0:
        placed, shift = placed[-shift:], 0
    pad = wanted - shift - len(placed)
    placed = placed[: max(0, wanted - shift)]  # a damaged start may be years away
    whole = np.zeros(wanted, np.float32)
    whole[shift : shift + len(placed)] = placed
    return whole, pad


def is_silent(sound: np.ndarray, rate: int) -> bool:
    """Whether no tenth of a second of float32 [n] reaches `SILENT_DBFS`."""
    length, least = rate // 10, 10 ** (SILENT_DBFS / 10)
    # Where their mean does, one of them does: asked first, a tenth of the time. 1.01: rounding.
    if sound @ sound > 1.01 * least * (len(sound) + length):
        return False
    powers = np.add.reduceat(np.square(sound), range(0, len(sound), length)) / length
    return bool(powers.max() < least)


@lru_cache(maxsize=4)
def _front_end(mel: Mel, sample_rate: int) -> Any:
    return torchaudio().transforms.MelSpectrogram(
        sample_rate=sample_rate,
        n_fft=mel.n_fft,
        win_length=mel.window,
        hop_length=mel.hop,
        f_min=mel.f_min,
        f_max=mel.f_max,
        n_mels=mel.n_mels,
        power=mel.power,
        mel_scale=mel.mel_scale,
        norm=mel.norm,
        center=False,
    )


def mel_matrix(mel: Mel, sample_rate: int) -> torch.Tensor:
    """The filters of a front end, float32 [n_fft / 2 + 1, n_mels]."""
    return _front_end(mel, sample_rate).mel_scale.fb


def log_mel(sound: np.ndarray, mel: Mel, sample_rate: int) -> np.ndarray:
    """Natural-log mels of float32 [n]: float32 [n_mels, n / hop], column i centred on i * hop.

    The centred transform gives one column more; the last is dropped (model.md 2.4, paper.md 2.1:
    18,560 samples -> 117 -> 116). Sound shorter than half a window is padded for the reflection.
    """
    columns, half = len(sound) // mel.hop, mel.n_fft // 2
    if mel.preemphasis:  # 0.97: y[t] = x[t] - 0.97 x[t-1]
        sound = np.append(sound[:1], sound[1:] - np.float32(mel.preemphasis) * sound[:-1])
    if len(sound) <= half:
        sound = np.pad(sound, (0, half + 1 - len(sound)))
    # Reflected at both ends, as np.pad does in ten times the time.
    ends = sound[half:0:-1], sound, sound[-2 : -half - 2 : -1]
    around = torch.from_numpy(np.concatenate(ends).astype(np.float32))
    parts = []
    with torch.inference_mode():
        for first in range(0, columns, PART):
            part = around[first * mel.hop :][: (PART - 1) * mel.hop + mel.n_fft]
            parts.append(_front_end(mel, sample_rate)(part).clamp_min(mel.floor).log_())
        return torch.cat(parts, 1)[:, :columns].numpy()


def mel_scale_offset(mel: Mel) -> tuple[float, float]:
    """Scale and offset of the uint8 form: value = q * scale + offset, error <= scale / 2."""
    bottom = math.log(mel.floor)
    return (mel.uint8_max - bottom) / 255, bottom


def store_mel(log_mels: np.ndarray, mel: Mel, dtype: str) -> np.ndarray:
    """Log-mels as they are stored: float16, or uint8 by `mel_scale_offset`."""
    if dtype == "float16":
        return log_mels.astype(np.float16)
    scale, offset = mel_scale_offset(mel)
    return np.clip(np.round((log_mels - offset) / scale), 0, 255).astype(np.uint8)
