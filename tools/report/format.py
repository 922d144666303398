"""How a figure is written: its name, unit and digits, and its interval behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

NONE = "\N{EN DASH}"
#: Where a line must not break.
SPACE = "\N{NO-BREAK SPACE}"


class Style(NamedTuple):
    """Title, factor, digits and unit of a figure."""

    title: str
    factor: float = 1.0
    digits: int = 3
    unit: str = ""


STYLES = {
    "top1": Style("top-1", 100, 1, "%"),
    "top5": Style("top-5", 100, 1, "%"),
    "macro": Style("mean over words", 100, 1, "%"),
    "top1_mirrored": Style("top-1, mirrored clip added", 100, 1, "%"),
    "top1_audio": Style("top-1, real audio", 100, 1, "%"),
    "top1_both": Style("top-1, video and real audio", 100, 1, "%"),
    "stoi": Style("STOI"),
    "estoi": Style("ESTOI"),
    # The phase that Griffin-Lim starts from moves the mean of ten clips by 0.02.
    "pesq_nb8": Style("PESQ narrow band, 8 kHz", digits=2),
    "pesq_nb16": Style("PESQ narrow band, 16 kHz", digits=2),
    "pesq_wb16": Style("PESQ wide band", digits=2),
    "pesq": Style("PESQ, mode not verified", digits=2),
    "mel_distance": Style("mel distance", digits=2, unit="dB"),
    "best_lag_ms": Style("best lag", digits=1, unit="ms"),
    "wer": Style("word error", 100, 1, "%"),
    "wer_judge": Style("word error, trained judge", 100, 1, "%"),
    "wer_pocketsphinx": Style("word error, pocketsphinx", 100, 1, "%"),
    "kl": Style("KL(A_tgt to A_src)", digits=3, unit="nats"),
}


def style(name: str) -> Style:
    """How the figure of this name is written; one that is not known, with four digits."""
    return STYLES.get(name, Style(name.replace("_", " "), digits=4))


def titled(name: str) -> str:
    """Title with the unit."""
    known = style(name)
    return f"{known.title} ({known.unit})" if known.unit else known.title


def number(name: str, value: float | None, sign: bool = False) -> str:
    """One value in the figure's digits, without unit."""
    if value is None:
        return NONE
    _, factor, digits, _ = style(name)
    return f"{factor * value:{'+' if sign else ''}.{digits}f}"


def interval(name: str, entry: Any, sign: bool = False) -> str:
    """A value with its interval, `51.7 [42.2, 60.6]`; a plain number without; else the reason."""
    if not isinstance(entry, dict):
        return number(name, entry, sign)
    if entry.get("value") is None:
        reason = entry.get("reason")
        return f"{NONE} ({reason})" if reason else NONE
    value, low, high = (number(name, entry.get(key), sign) for key in ("value", "low", "high"))
    return value if entry.get("low") is None else f"{value} [{low},{SPACE}{high}]"
