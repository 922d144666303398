"""Active speech level, as ITU-T P.56 (method B) defines it: pauses do not count."""

import numpy as np

from avb.train.evaluate.metrics.speech import RATE, Sound

#: Level of every clip, in dB to overload: a square wave at full scale is 0.
TARGET_DBOV = -26.0
_SMOOTHING_S, _HANGOVER_S, _MARGIN_DB = 0.03, 0.2, 15.9
_THRESHOLDS = 2.0 ** np.arange(-15, 0)


def active_level_dbov(sound: Sound) -> float:
    """Level of the active parts of float [n] at 16 kHz, full scale 1; ValueError: all is silent."""
    from scipy.signal import lfilter

    energy = float(np.square(sound, dtype=np.float64).sum())
    if not energy > 0:
        raise ValueError("silent, so it has no level")
    keep = np.exp(-1 / (RATE * _SMOOTHING_S))
    once = lfilter([1 - keep], [1, -keep], np.abs(sound).astype(np.float64))
    envelope = lfilter([1 - keep], [1, -keep], once)
    places = np.arange(len(sound))
    hangover = round(_HANGOVER_S * RATE)
    before: tuple[float, float] | None = None
    for threshold in _THRESHOLDS:
        last = np.maximum.accumulate(np.where(envelope >= threshold, places, -hangover - 1))
        active = int((places - last <= hangover).sum())
        if not active:
            break
        level = 10 * np.log10(energy / active)
        # The threshold that lies the margin below the level it finds is the right one.
        excess = level - 20 * np.log10(threshold) - _MARGIN_DB
        if excess <= 0:
            if before is None:
                return float(level)
            share = before[1] / (before[1] - excess)
            return float(before[0] + share * (level - before[0]))
        before = level, excess
    return before[0] if before else 10 * float(np.log10(energy / len(sound)))


def to_level(sound: Sound, target_dbov: float = TARGET_DBOV) -> Sound:
    """The sound at this active level, float32 [n]."""
    gain = 10 ** ((target_dbov - active_level_dbov(sound)) / 20)
    return np.asarray(sound * gain, np.float32)
