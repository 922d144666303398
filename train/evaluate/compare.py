"""Two evaluations of the same clips, paired: how far A is ahead of B, and how sure that is.

A side is one record of `avb eval`, or several seeds of one model, of which each clip takes the
mean. Intervals draw clips (words of one sentence together), so they say nothing of the spread
between seeds: every seed's own figure stands beside them (evaluation.md sections 0 and 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.errors import UsageError, one_line
from avb.train.evaluate.metrics.intervals import DRAWS, mcnemar, mean_interval, paired_difference
from avb.train.evaluate.metrics.lip import HITS
from avb.train.evaluate.record import read_record
from avb.train.evaluate.words.grammar import SLOT_NAMES, word_errors

Floats = NDArray[np.float64]

#: What may differ between two records: the model, what it was trained on, the machine. Any other
#: flag says how it was measured, and numbers with different flags are not ranked.
FREE = frozenset(
    "n limit seed slots step checkpoint_sha256 trained_on speakers split_source mean_mel device"
    " torch versions".split()
)
NUM_SEEDS = 3


@dataclass(frozen=True)
class Side:
    """Records of one model, a seed each.

    Attributes:
        paths: files.
        records: as `avb eval` wrote them.
        clips: per record, what was found of each clip, by its key.
    """

    paths: list[Path]
    records: list[dict[str, Any]]
    clips: list[dict[str, dict[str, Any]]]

    @property
    def seeds(self) -> list[Any]:
        """Seed of each record."""
        return [record["flags"].get("seed") for record in self.records]

    def table(self, value: Callable[[dict[str, Any]], float], keys: list[str]) -> Floats:
        """A number of each clip in each record, [records x clips]; NaN where it has none."""
        return np.array([[value(clips[key]) for key in keys] for clips in self.clips], np.float64)


def compare(
    first: str, second: str, *, by_talker: bool = False, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """A paired comparison of two sides.

    Args:
        first: A: a record, several with commas between, or a folder of them.
        second: B.
        by_talker: intervals draw talkers, then their clips: for a claim about unseen talkers.
        draws: resamplings.
        seed: decides them.

    Returns:
        `metrics`: per figure `a` and `b` (over the `n` clips that both have), `difference` (A - B)
        as {"value", "low", "high"}, and `a_each` and `b_each` of every record, with `a_sd`, `b_sd`
        and, where both sides have the same seeds, `each_difference`. For words also `counts`,
        `mcnemar` and `per_slot`. `a`, `b`, `flags`, `clips` and `notes` say what was compared.

    Raises:
        UsageError: no records, or two whose task, flags or clips differ; one line says which.
    """
    sides = [read_side(text) for text in (first, second)]
    every = [(p, r) for side in sides for p, r in zip(side.paths, side.records, strict=True)]
    for path, record in every[1:]:
        _check_flags(every[0], (path, record))
    for side in sides:
        _check_one_model(side)
    keys = _common_keys(sides)
    lip = every[0][1]["task"] == "lip"
    test = _Test(sides, keys, by_talker, draws, seed)
    result = _words(test) if lip else _speech(test)
    return {
        "task": every[0][1]["task"],
        **{name: _describe(side) for name, side in zip("ab", sides, strict=True)},
        "clips": len(keys),
        "by_talker": by_talker,
        "flags": {k: v for k, v in every[0][1]["flags"].items() if k not in FREE},
        **result,
        "notes": _notes(sides) + result.get("notes", []),
    }


# Reading and checking -----------------------------------------------------------------------------


def read_side(text: str) -> Side:
    """The records of one side.

    Raises:
        UsageError: nothing there, or not a record of `avb eval`.
    """
    parts = [text] if Path(text).exists() else [part for part in text.split(",") if part]
    paths: list[Path] = []
    for part in map(Path, parts):
        found = sorted(part.glob("*.json")) if part.is_dir() else [part]
        if not found:
            raise UsageError(f"{part}: holds no record (*.json); avb eval --out writes one")
        paths += found
    records = [_read(path) for path in paths]
    clips = [{clip["key"]: clip for clip in record["clips"]} for record in records]
    hashes = [record["flags"].get("checkpoint_sha256") for record in records]
    twice = [str(p) for p, h in zip(paths, hashes, strict=True) if h and hashes.count(h) > 1]
    if twice:
        raise UsageError(f"{', '.join(twice)}: records of one checkpoint; a seed counts once")
    return Side(paths, records, clips)


def _read(path: Path) -> dict[str, Any]:
    record = read_record(path)
    keys = [clip["key"] for clip in record["clips"]]
    if not keys or len(set(keys)) < len(keys):
        raise UsageError(f"{path}: {len(set(keys))} different clips in {len(keys)} entries")
    return record


def _check_flags(first: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]) -> None:
    """Refuse what was measured in another way; of a judge, its hash says which one it is."""
    (here, a), (there, b) = first, other
    if a["task"] != b["task"]:
        raise UsageError(f"{there}: of {b['task']}, and {here} of {a['task']}; not comparable")
    flags = ({**a["flags"]}, {**b["flags"]})
    for name in sorted(set(flags[0]) | set(flags[1])):
        one, two = (_meaning(f.get(name)) for f in flags)
        if name in FREE or one == two or (name == "wer_judge" and None in (one, two)):
            continue
        raise UsageError(
            f"{there}: flag {name} is {one_line(two)}, and {one_line(one)} in {here};"
            " not comparable"
        )


def _meaning(value: Any) -> Any:
    """A flag without what goes with it: a judge is its hash, or None where there was none."""
    if isinstance(value, dict):
        return value.get("hash", value)
    return value


def _check_one_model(side: Side) -> None:
    """Refuse to pool models that differ in more than the seed, as far as the flags say."""
    slots = [record["flags"].get("slots") for record in side.records]
    for path, number in zip(side.paths, slots, strict=True):
        if number != slots[0]:
            raise UsageError(
                f"{path}: slots {number}, and {slots[0]} in {side.paths[0]}; one side is one model"
            )


def _common_keys(sides: list[Side]) -> list[str]:
    keys = set(sides[0].clips[0])
    for side in sides:
        for path, clips in zip(side.paths, side.clips, strict=True):
            more, less = sorted(set(clips) - keys), sorted(keys - set(clips))
            if more or less:
                raise UsageError(
                    f"{path}: other clips than {sides[0].paths[0]}: {len(more)} only here,"
                    f" {len(less)} only there, such as {(more + less)[0]}"
                )
    return list(sides[0].clips[0])


def _describe(side: Side) -> list[dict[str, Any]]:
    named = ("seed", "step", "slots", "checkpoint_sha256")
    return [
        {"path": str(path)} | {name: record["flags"].get(name) for name in named}
        for path, record in zip(side.paths, side.records, strict=True)
    ]


def _notes(sides: list[Side]) -> list[str]:
    found = []
    a, b = (side.seeds for side in sides)
    if sorted(map(str, a)) != sorted(map(str, b)):
        found.append(f"seeds differ: {', '.join(map(str, a))} against {', '.join(map(str, b))}")
    if min(len(a), len(b)) < NUM_SEEDS:
        found.append(f"fewer than {NUM_SEEDS} seeds: their spread, on top of the interval, is open")
    return found


# Testing ------------------------------------------------------------------------------------------


class _Test:
    """What all figures of one comparison share: clips, their talkers, and how they are drawn."""

    def __init__(
        self, sides: list[Side], keys: list[str], by_talker: bool, draws: int, seed: int
    ) -> None:
        self.sides, self.keys, self.by_talker = sides, keys, by_talker
        clips = sides[0].clips[0]
        # A key begins with its group, which is the talker in a corpus that has them.
        self.talkers = [clips[key].get("talker") or key.split("/")[0] for key in keys]
        if by_talker and len(set(self.talkers)) < 2:
            raise UsageError(f"--by-talker: all {len(keys)} clips are of {self.talkers[0]}")
        self.drawing: dict[str, Any] = {"draws": draws, "seed": seed}

    def entry(self, a: Floats, b: Floats, mean: Callable[[Floats], float]) -> dict[str, Any]:
        """Both sides' figures from [records x clips]; clips that any record lacks count nowhere."""
        known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
        found: dict[str, Any] = {"n": int(known.sum())}
        if not known.any():
            return found | {"a": None, "b": None, "reason": "no clip has it in every record"}
        by_seed = []
        for name, values, side in zip("ab", (a, b), self.sides, strict=True):
            each = [float(mean(np.where(known, row, np.nan))) for row in values]
            found[name], found[f"{name}_each"] = float(np.mean(each)), each
            found[f"{name}_sd"] = float(np.std(each, ddof=1)) if len(each) > 1 else None
            by_seed.append(dict(zip(map(str, side.seeds), each, strict=True)))
        if by_seed[0].keys() == by_seed[1].keys() and len(by_seed[0]) == len(a) == len(b) > 1:
            found["each_difference"] = {s: v - by_seed[1][s] for s, v in by_seed[0].items()}
        return found

    def all_have(self, field: str) -> bool:
        """Whether every clip of every record has this field."""
        return all(field in clip for s in self.sides for r in s.clips for clip in r.values())

    def keys_with(self, field: str) -> list[str]:
        """The clips that have this field in every record."""
        return [
            key for key in self.keys if all(field in r[key] for s in self.sides for r in s.clips)
        ]

    def tables(self, value: Callable[..., float]) -> list[Floats]:
        """A number of each clip of either side, [records x clips] each."""
        return [side.table(value, self.keys) for side in self.sides]

    def grouped(self, a: Floats, b: Floats, rows: NDArray[np.int64]) -> dict[str, float | None]:
        """Mean of a - b over `rows` as an interval; words of one sentence are drawn together."""
        names = [self.keys[i].split("#")[0] for i in rows]
        unit, of = np.unique(names, return_inverse=True)
        talkers = [name.split("/")[0] for name in unit] if self.by_talker else None
        first, second = (np.bincount(of, weights=values[rows]) for values in (a, b))
        count = np.bincount(of)
        return paired_difference(first, second, talkers, denominator=count, **self.drawing)


def _words(test: _Test) -> dict[str, Any]:
    """Right or wrong on each word."""
    every = np.arange(len(test.keys))
    metrics: dict[str, Any] = {}
    for name, hit in HITS.items():
        if test.all_have(hit):
            a, b = test.tables(lambda clip, hit=hit: float(clip[hit]))
            difference = test.grouped(a.mean(axis=0), b.mean(axis=0), every)
            metrics[name] = test.entry(a, b, np.mean) | {"difference": difference}
    a, b = test.tables(lambda clip: float(clip["right"]))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # Of several seeds: the mean number over all pairs of one seed of A and one of B.
    counts = {
        "both_right": mean_a * mean_b,
        "only_a": mean_a * (1 - mean_b),
        "only_b": (1 - mean_a) * mean_b,
        "neither": (1 - mean_a) * (1 - mean_b),
    }
    # Of several seeds: clips that A reads more often than B, and the other way round.
    exact = mcnemar(mean_a > mean_b, mean_b > mean_a)
    found: dict[str, Any] = {
        "metrics": metrics,
        "counts": {name: float(values.sum()) for name, values in counts.items()},
        "mcnemar": {"a_better": exact["first_only"], "b_better": exact["second_only"]}
        | {"p": exact["p"]},
    }
    if all("#" in key for key in test.keys):
        places = np.array([int(key.split("#")[1]) for key in test.keys])
        found["per_slot"] = {
            SLOT_NAMES[place]: test.entry(a[:, rows], b[:, rows], np.mean)
            | {"difference": test.grouped(mean_a, mean_b, rows)}
            for place in np.unique(places).tolist()
            for rows in [np.flatnonzero(places == place)]
        }
        found["notes"] = ["McNemar takes words for independent; the interval draws sentences"]
    return found


def _speech(test: _Test) -> dict[str, Any]:
    """Each metric's mean by talker, then over talkers, as records have it; word errors pooled."""
    codes = np.unique(test.talkers, return_inverse=True)[1]

    def mean(values: Floats) -> float:
        known = np.isfinite(values)
        count = np.bincount(codes[known], minlength=codes.max() + 1)
        total = np.bincount(codes[known], weights=values[known], minlength=codes.max() + 1)
        return float((total[count > 0] / count[count > 0]).mean())

    metrics: dict[str, Any] = {}
    for name in test.sides[0].records[0]["clips"][0]["values"]:
        a, b = test.tables(partial(_value, name))
        difference = mean_interval(
            a.mean(axis=0) - b.mean(axis=0), test.talkers, talker_mean=True,
            two_stage=test.by_talker, **test.drawing,
        )  # fmt: skip
        metrics[name] = test.entry(a, b, mean) | {"difference": difference}
    for name, field in (("wer_judge", "heard_judge"), ("wer_pocketsphinx", "heard")):
        if own := test.keys_with(field):
            part = _Test(test.sides, own, test.by_talker, **test.drawing)
            metrics[name] = _word_errors(part, field)
    return {"metrics": metrics}


def _word_errors(test: _Test, field: str) -> dict[str, Any]:
    """Word errors over words, pooled over the clips (evaluation.md 3.2)."""
    spoken = [test.sides[0].clips[0][key]["words"] for key in test.keys]
    words = np.array([len(sentence) for sentence in spoken], np.float64)

    def errors(clip: dict[str, Any]) -> float:
        found = word_errors(clip["words"], clip[field])
        return float(found["substitutions"] + found["deletions"] + found["insertions"])

    try:
        a, b = test.tables(errors)
    except ImportError:
        return {"a": None, "b": None, "n": 0, "reason": "pip install jiwer"}
    difference = paired_difference(
        a.mean(axis=0), b.mean(axis=0), test.talkers if test.by_talker else None,
        denominator=words, **test.drawing,
    )  # fmt: skip
    pooled = test.entry(a, b, lambda row: float(row.sum() / words.sum()))
    return pooled | {"difference": difference}


def _value(name: str, clip: dict[str, Any]) -> float:
    """A metric of a clip; NaN where it could not be scored."""
    value = clip["values"].get(name)
    return float("nan") if value is None else float(value)
