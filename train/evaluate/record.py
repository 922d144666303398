"""A record of `avb eval` as others read it: what it must hold is looked at once, and named."""

import math
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError, one_line, shown
from avb.pipeline.parse import read_json
from avb.train.evaluate.metrics.lip import HITS
from avb.train.evaluate.words.grammar import HEARD, READ

#: Parts that hold figures, nested to any depth; those of the first row are always there.
_FIGURES = ("metrics", "ceiling", "floors") + ("real", "per_slot", "per_class", "per_length")
#: Of speech they are of several signals, and of slots by each judge of words.
_DEPTH = {(task, part): depth for task in ("l2s", "sentence")
          for part, depth in (("floors", 1), ("per_slot", 2))}  # fmt: skip
_BOUNDS = ("value", "low", "high")
#: Of a clip: text, and lists of words.
_TEXTS, _WORDS = ("key", "label", "said", "talker"), ("words", *HEARD.values(), *READ.values())
_NEEDED = {"lip": ("key", "right"), "l2s": ("key", "words", "values")}
_NEEDED["sentence"] = _NEEDED["l2s"]


def read_record(path: Path) -> dict[str, Any]:
    """A record from its file; UsageError says what is wrong."""
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a record ({one_line(error)})") from None
    check_record(record, path)
    return record


def is_record(record: Any) -> bool:
    """Whether this was written by `avb eval`; a comparison, say, has a number for `clips`."""
    return (
        isinstance(record, dict)
        and {"task", "metrics", "flags", "clips"} <= set(record)
        and isinstance(record["clips"], list)
        and isinstance(record["flags"], dict)
    )


def check_record(record: Any, path: Path) -> None:
    """See that a record holds what its readers count on; UsageError names the place."""
    if not isinstance(record, dict) or not {"task", "flags", "clips"} <= set(record):
        raise UsageError(f"{path}: not a record of avb eval (no task, flags and clips)")
    try:
        task, clips = record["task"], record["clips"]
        _expect(isinstance(task, str) and task in _NEEDED, "task", task)
        _expect(isinstance(clips, list), "clips", clips)
        for number, clip in enumerate(clips):
            _check_clip(clip, _NEEDED[task], f"clips[{number}]")
        if record.get("addressing") is not None:
            _check_addressing(record["addressing"])
    except ValueError as error:
        raise UsageError(f"{path}: not a record of avb eval ({one_line(error)})") from None
    check_figures(record, path)


def check_figures(record: dict[str, Any], path: Path) -> None:
    """See that flags and figures of a record are such; UsageError names the place."""
    try:
        flags = record.get("flags")
        known = isinstance(flags, dict) and isinstance(flags.get("n", 0), int)
        _expect(known and all(map(str.isprintable, flags or {})), "flags", flags)
        for name in _FIGURES:
            if record.get(name) is not None:
                _expect(isinstance(record[name], dict), name, record[name])
                _check_figures(record[name], name, _DEPTH.get((str(record.get("task")), name), 0))
    except ValueError as error:
        raise UsageError(f"{path}: not a record of avb eval ({one_line(error)})") from None


def _check_clip(clip: Any, needed: tuple[str, ...], where: str) -> None:
    _expect(isinstance(clip, dict), where, clip)
    if absent := [name for name in needed if name not in clip]:
        raise ValueError(f"{where} has no {absent[0]}")
    for name, value in clip.items():
        good = True
        if name in _TEXTS:
            good = _is_text(value)
        elif name in _WORDS:
            good = isinstance(value, list) and all(map(_is_text, value))
        elif name in HITS.values():
            good = isinstance(value, bool)
        elif name == "values":
            good = isinstance(value, dict) and all(
                v is None or is_number(v) for v in value.values()
            )
        _expect(good, f"{where}.{name}", value)


def _check_figures(values: dict[str, Any], where: str, depth: int = 0) -> None:
    """Mappings `depth` deep at least, and in them numbers, `{value, low, high}`, or a reason."""
    for name, value in values.items():
        place = f"{where}.{name}"
        _expect(_is_text(name) and (not depth or isinstance(value, dict)), place, value)
        if isinstance(value, dict) and {*_BOUNDS} & set(value):
            bounds = [value.get(bound, math.nan) for bound in _BOUNDS]
            good = all(map(is_number, bounds)) or all(bound is None for bound in bounds)
            _expect(good and _is_text(value.get("reason", "")), place, value)
        elif isinstance(value, dict):
            _check_figures(value, place, max(0, depth - 1))
        else:
            told = name == "reason" and _is_text(value)
            _expect(value is None or told or is_number(value), place, value)


def _check_addressing(addressing: Any) -> None:
    _expect(isinstance(addressing, dict), "addressing", addressing)
    if "source" not in addressing:
        _expect(_is_text(addressing.get("reason")), "addressing.reason", addressing)
        return
    for name, part in addressing.items():
        if name not in ("flags", "reason"):
            _expect(isinstance(part, dict), f"addressing.{name}", part)
            _check_figures(part, f"addressing.{name}")


def _is_text(value: Any) -> bool:
    # Where no blanks part words, as in Chinese, all of a clip is one: 32 KB in a table.
    return isinstance(value, str) and value.isprintable() and len(value) <= 1 << 15


def is_number(value: Any) -> bool:
    """A number that can be drawn; True is one in sums."""
    return isinstance(value, int | float) and abs(value) < 1e18 and math.isfinite(value)


def _expect(good: bool, where: str, value: Any) -> None:
    if not good:
        raise ValueError(f"{where} is {shown(value)}")
