"""Reconstructed speech against the original: intelligibility, quality, spectrum and timing.

The definitions of `evaluation.md` 2.2: mono at 16 kHz, order (reference, output), both cut to the
shorter. No figure depends on level. What cannot be scored is null with its reason, is counted and
listed, and enters no mean.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.intervals import DRAWS, mean_interval

Sound = NDArray[np.float32]
LengthRule = Literal["min", "70of75"]

RATE = 16_000
METRICS = ("stoi", "estoi", "pesq_nb8", "pesq_nb16", "pesq_wb16", "mel_distance", "best_lag_ms")
#: What is measured a second time at each clip's best lag, of at most so many milliseconds.
ALIGNED = ("stoi", "estoi", "pesq_nb8", "mel_distance")
MOST_ALIGNED_MS = 60.0
#: How much the two may differ in length: a video frame, or the five that windows of 40 frames
#: with a stride of 30 leave out of 75 (model.md 2.5), and one more.
MOST_MS = {"min": 40, "70of75": 240}
TOO_SHORT = "less than 0.4 s of active speech in the reference"
NO_PESQ = "pesq is not installed; pip install pesq (needs a C compiler)"
_LEVEL = 0.05  # RMS that both get before mels are compared: -26 dB of full scale
_LAG_HOP = 40  # samples: lags are multiples of 2.5 ms


class Unscored(Exception):
    """This clip has no such figure; says why."""


def score_clip(
    reference: Sound,
    output: Sound,
    mel: Mel,
    length_rule: LengthRule = "min",
    aligned: bool = False,
) -> dict[str, dict[str, Any]]:
    """Every figure of one clip, float [n] and [m] from the same start.

    With `aligned` also those of `ALIGNED` with the output moved to where it fits best, as
    `stoi_aligned`: a corpus's own lags, of 16 ms on GRID, cost the plain ones much.

    Returns:
        `values`: a number or None for each of `METRICS`; STOI and ESTOI (1 is best), PESQ as
        MOS-LQO (narrow band at 8 and 16 kHz, wide band), mel distance in dB, the lag in ms at
        which the output fits best (positive: it is late). `failures`: reason of each None.
    """
    reference, output = cut(reference, output, length_rule)
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    failures: dict[str, str] = {}
    measures: dict[str, Callable[[Sound, Sound], float]] = {
        "stoi": stoi,
        "estoi": functools.partial(stoi, extended=True),
        "pesq_nb8": lambda first, second: pesq(halve_rate(first), halve_rate(second), 8000, "nb"),
        "pesq_nb16": functools.partial(pesq, rate=RATE, mode="nb"),
        "pesq_wb16": functools.partial(pesq, rate=RATE, mode="wb"),
        "mel_distance": functools.partial(mel_distance, mel=mel),
        "best_lag_ms": functools.partial(best_lag_ms, mel=mel),
    }
    named = {name: (measures[name], reference, output) for name in METRICS}
    if aligned:
        moved = align(reference, output, mel)
        named |= {f"{name}_aligned": (measures[name], *moved) for name in ALIGNED}
    for name, (measure, first, second) in named.items():
        try:
            _check_audible(first, second)
            values[name] = measure(first, second)
        except Unscored as reason:
            values[name], failures[name] = None, str(reason)
    return {"values": values, "failures": failures}


def align(reference: Sound, output: Sound, mel: Mel) -> tuple[Sound, Sound]:
    """What both have in common when the output is moved to where it fits best, within 60 ms."""
    if not (np.ptp(reference) and np.ptp(output)):
        return reference, output
    most_ms = min(MOST_ALIGNED_MS, len(reference) * 500 / RATE)
    late = round(best_lag_ms(reference, output, mel, most_ms) * RATE / 1000)
    length = len(reference) - abs(late)
    return reference[max(0, -late) :][:length], output[max(0, late) :][:length]


def cut(reference: Sound, output: Sound, rule: LengthRule = "min") -> tuple[Sound, Sound]:
    """Both cut at the end to the shorter; ValueError: they differ by more than `MOST_MS[rule]`."""
    gap_ms = (len(output) - len(reference)) * 1000 / RATE
    if abs(gap_ms) > MOST_MS[rule]:
        hint = "; outputs of 70 frames for 75 need the rule 70of75" if rule == "min" else ""
        raise ValueError(
            f"output of {len(output)} samples for a reference of {len(reference)}: {gap_ms:+.0f} ms"
            f", at most {MOST_MS[rule]} under {rule!r}{hint}"
        )
    shorter = min(len(reference), len(output))
    return np.asarray(reference)[:shorter], np.asarray(output)[:shorter]


def _check_audible(reference: Sound, output: Sound) -> None:
    for name, sound in (("reference", reference), ("output", output)):
        if not np.isfinite(sound).all():
            raise Unscored(f"the {name} has samples that are not finite")
        if not np.ptp(sound):
            raise Unscored(f"the {name} is silent")


def stoi(reference: Sound, output: Sound, extended: bool = False) -> float:
    """STOI or ESTOI by pystoi; Unscored below some 0.4 s of speech, where it would say 1e-5."""
    import pystoi

    if len(reference) < 0.4 * RATE:  # of much less it makes errors of its own
        raise Unscored(TOO_SHORT)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(pystoi.stoi(reference, output, RATE, extended=extended))
        except RuntimeWarning:
            raise Unscored(TOO_SHORT) from None


def halve_rate(sound: Sound) -> Sound:
    """16 kHz to 8 kHz by a 241-tap Kaiser low-pass at 3.8 kHz.

    In place of soxr_hq, which is no dependency: narrow-band PESQ of real and of damaged speech
    differed by at most 3e-6 between the two.
    """
    from scipy.signal import firwin, resample_poly

    low_pass = firwin(241, 0.478, window=("kaiser", 12.0))
    return resample_poly(np.asarray(sound, np.float64), 1, 2, window=low_pass).astype(np.float32)


def pesq(reference: Sound, output: Sound, rate: int, mode: Literal["nb", "wb"]) -> float:
    """PESQ (MOS-LQO) at 8 or 16 kHz, each signal first brought to a peak of 1; or Unscored."""
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError:
        raise Unscored(NO_PESQ) from None
    try:
        return float(measure(rate, _to_peak(reference), _to_peak(output), mode))
    except (PesqError, ValueError) as error:
        text = error.args[0] if error.args else ""
        text = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
        raise Unscored(f"pesq: {type(error).__name__}: {' '.join(text.split())}") from None


def _to_peak(sound: Sound) -> Sound:
    return np.asarray(sound / np.abs(sound).max(), np.float32)


def _to_level(sound: Sound) -> Sound:
    power = np.mean(np.square(sound, dtype=np.float64))
    return np.asarray(sound * (_LEVEL / np.sqrt(power)), np.float32)


def mel_distance(reference: Sound, output: Sound, mel: Mel) -> float:
    """Mean absolute difference of the log-mels in dB, both signals at the same level."""
    first, second = (log_mel(_to_level(sound), mel, RATE) for sound in (reference, output))
    to_db = 20 / mel.power / np.log(10)
    return float(np.abs(first - second).mean() * to_db)


def best_lag_ms(reference: Sound, output: Sound, mel: Mel, most_ms: float = 100.0) -> float:
    """How late the output is, by mel envelopes within 100 ms: its phase is arbitrary."""
    fine = dataclasses.replace(mel, hop=_LAG_HOP)
    first, second = (
        np.exp(0.3 * log_mel(_to_level(sound), fine, RATE) / mel.power)  # some hearing's loudness
        for sound in (reference, output)
    )
    steps = round(most_ms * RATE / 1000 / _LAG_HOP)
    lags = range(-steps, steps + 1)
    fits = [_overlap_correlation(first, second, lag) for lag in lags]
    return float(lags[int(np.argmax(fits))] * _LAG_HOP * 1000 / RATE)


def _overlap_correlation(first: Sound, second: Sound, lag: int) -> float:
    """Correlation of the columns that overlap when the second is taken `lag` columns later."""
    columns = first.shape[1] - abs(lag)
    if columns < 2:
        return -1.0
    a = first[:, max(0, -lag) :][:, :columns]
    b = second[:, max(0, lag) :][:, :columns]
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-20))


def summarise(
    clips: Sequence[Mapping[str, Any]], *, unseen_talkers: bool = False, draws: int = DRAWS
) -> dict[str, Any]:
    """Means of what `score_clip` found: derived from the per-clip records alone.

    Returns:
        `metrics`: mean per talker, then over talkers, as {"value", "low", "high", "n"}, with the
        `reason` if no clip could be scored; `plain`: the same over all clips; `talkers`: means of
        each; `failures`: per metric, the `key` and `reason` of each clip without it.
    """
    talkers = [str(clip["talker"]) for clip in clips]
    drawing: dict[str, Any] = {"two_stage": unseen_talkers, "draws": draws}
    names = list(dict.fromkeys(name for clip in clips for name in clip["values"]))
    summary: dict[str, Any] = {"metrics": {}, "plain": {}, "talkers": {}, "failures": {}}
    for name in names:
        values = np.array([clip["values"][name] for clip in clips], np.float64)  # None is NaN
        failed = [
            {"key": clip["key"], "reason": clip["failures"][name]}
            for clip in clips
            if name in clip["failures"]
        ]
        reasons = {failure["reason"] for failure in failed}
        why = {"reason": "; ".join(sorted(reasons))} if len(failed) == len(clips) else {}
        for kind, talker_mean in (("metrics", True), ("plain", False)):
            interval = mean_interval(values, talkers, talker_mean=talker_mean, **drawing)
            summary[kind][name] = {**interval, "n": int(np.isfinite(values).sum()), **why}
        for talker in dict.fromkeys(talkers):
            own = values[[t == talker for t in talkers]]
            known = own[np.isfinite(own)]
            mean = float(known.mean()) if known.size else None
            summary["talkers"].setdefault(talker, {})[name] = mean
        if failed:
            summary["failures"][name] = failed
    return summary
