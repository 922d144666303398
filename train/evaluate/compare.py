"""Two evaluations of the same clips, paired: how far A is ahead of B, and how sure that is.

A side is one record of `avb eval`, or several seeds, of which each clip takes the mean. Intervals
draw clips, or talkers first where records did, for their model had seen none of them; so every
seed's own figure stands beside them (evaluation.md sections 0 and 6).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.errors import UsageError, one_line
from avb.train.evaluate.metrics.intervals import (
    DRAWS,
    Interval,
    mcnemar,
    mean_interval,
    ratio_interval,
    sign_flips,
)
from avb.train.evaluate.metrics.lip import HITS
from avb.train.evaluate.record import read_record
from avb.train.evaluate.words.grammar import HEARD, READ, SLOT_NAMES, word_errors

Floats = NDArray[np.float64]
Clip = dict[str, Any]

#: What may differ between two records: the model (or one for each talker), what it was trained on,
#: the machine. Any other flag says how it was measured, and such numbers are not ranked.
FREE = frozenset(
    "n limit left_out words_left_out per_talker seed slots model init step checkpoint_sha256"
    " trained_on speakers talkers_taught split_source mean_mel device torch versions"
    " vocoder".split()
)
NUM_SEEDS = 3


class Record:
    """One seed of a side: its file, task and flags, its clips by their key, and GRID's slots."""

    def __init__(self, path: Path) -> None:
        record = read_record(path)
        self.path, self.task, self.flags = path, record["task"], record["flags"]
        self.clips: dict[str, Clip] = {clip["key"]: clip for clip in record["clips"]}
        self.by_slot = bool(record.get("per_slot"))
        if not self.clips or len(self.clips) < len(record["clips"]):
            raise UsageError(
                f"{path}: {len(self.clips)} different clips in {len(record['clips'])} entries"
            )


Side = list[Record]


def compare(
    first: str, second: str, *, by_talker: bool = False, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """A paired comparison of two sides, each a record, several with commas, or a folder of them.

    A run's folder stands for its `test.json`. With `by_talker` intervals draw talkers in any case.

    Returns:
        `metrics`: per figure `a` and `b` (over the `n` clips that both have), `difference` (A - B)
        as {"value", "low", "high"}, and `a_each` and `b_each` of every record, with `a_sd`, `b_sd`
        and, where both sides have the same seeds, `each_difference`. For words also `counts`,
        `mcnemar` and `per_slot`. `a`, `b`, `flags`, `clips` and `notes` say what was compared.
    """
    sides = [read_side(first), read_side(second)]
    keys = _check_comparable(sides)
    record = sides[0][0]
    test = _Test(sides, keys, by_talker, draws, seed)
    if by_talker and len(set(test.talkers)) < 2:
        raise UsageError(f"--by-talker: all {len(keys)} clips are of {test.talkers[0]}")
    result = _words(test) if record.task == "lip" else _speech(test)
    named = ("seed", "step", "slots", "checkpoint_sha256")
    a, b = (
        [{"path": str(r.path)} | {name: r.flags.get(name) for name in named} for r in side]
        for side in sides
    )
    return {
        "task": record.task,
        "a": a,
        "b": b,
        "clips": len(keys),
        "by_talker": test.by_talker,
        "flags": {k: v for k, v in record.flags.items() if k not in FREE},
        **result,
        "notes": _notes(sides) + result.get("notes", []),
    }


def one_side(text: str, metric: str, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """A figure of one side with its interval, of each clip's mean over seeds, and of `each` seed.

    A hit of words, such as `top1`, a value of speech, such as `estoi`, or word errors.
    """
    side = read_side(text)
    keys = _check_comparable([side])
    test = _Test([side, side], keys, False, draws, seed)
    if side[0].task == "lip":
        values, _ = test.tables(lambda clip: float(clip[HITS[metric]]))
        entry = test.word_entry(values, np.zeros_like(values))
    elif field := (READ | HEARD).get(metric.removeprefix("wer_")):
        entry = _word_errors(test, field, alone=True)
    else:
        values, _ = test.tables(partial(_value, metric))
        entry = test.speech_entry(values, np.zeros_like(values))
    return entry["difference"] | {"each": entry.get("a_each", [])}


def read_side(text: str) -> Side:
    """The records of one side."""
    parts = [text] if Path(text).exists() else [part for part in text.split(",") if part]
    paths: list[Path] = []
    for part in map(Path, parts):
        own = "test.json" if (part / "recipe.yaml").exists() else "*.json"
        inside = sorted(part.glob(own)) if part.is_dir() else [part]
        if not inside:
            raise UsageError(f"{part}: holds no record ({own}); avb eval --out writes one")
        paths += inside
    side = [Record(path) for path in paths]
    for name in ("slots", "model", "init", "sync"):  # models that differ in more than the seed
        known = [record for record in side if name in record.flags]
        for record in known:
            if record.flags[name] != known[0].flags[name]:
                here, there = (one_line(r.flags[name]) for r in (record, known[0]))
                raise UsageError(
                    f"{record.path}: {name} {here}, and {there} in {known[0].path}; one side is one"
                    " model"
                )
    seeds = [seed for seed in _flag(side, "seed") if seed is not None]
    twice = [str(r.path) for r in side if seeds.count(r.flags.get("seed")) > 1]
    if twice:  # such as best.pt and last.pt of one run
        raise UsageError(f"{', '.join(twice)}: of one seed; a seed counts once")
    return side


def _flag(side: Side, name: str) -> list[Any]:
    return [record.flags.get(name) for record in side]


def _check_comparable(sides: list[Side]) -> list[str]:
    """The keys that all records share; refuse other tasks, other ways of measuring, other clips."""
    first = sides[0][0]
    here, keys = first.path, first.clips.keys()
    every = [record for side in sides for record in side]
    for record in every:
        there = record.path
        if record.task != first.task:
            raise UsageError(
                f"{there}: of {record.task}, and {here} of {first.task}; not comparable"
            )
        # Sound that was moved is other shards; which is said, for it is part of the difference.
        moved = record.flags.get("sync") != first.flags.get("sync")
        free = FREE | {"sync", "fingerprint"} if moved else FREE
        for name in sorted({*first.flags, *record.flags} - free):
            one, two = (_meaning(r.flags.get(name)) for r in (first, record))
            if one != two and not (name == "wer_judge" and None in (one, two)):
                raise UsageError(
                    f"{there}: flag {name} is {one_line(two)}, and {one_line(one)} in {here};"
                    " not comparable"
                )
    for record in every:
        own = record.clips.keys()
        more, less = sorted(own - keys), sorted(keys - own)
        if more or less:
            raise UsageError(
                f"{record.path}: other clips than {here}: {len(more)} only here,"
                f" {len(less)} only there, such as {(more + less)[0]}"
            )
    return list(keys)


def _meaning(flag: Any) -> Any:
    """A flag without what goes with it: a judge is its hash, or None where there was none."""
    return flag.get("hash", flag) if isinstance(flag, dict) else flag


def _made_by(flag: Any) -> str:
    return "Griffin-Lim" if flag is None else f"vocoder {one_line(_meaning(flag))[:12]}"


def _notes(sides: list[Side]) -> list[str]:
    notes = []
    a, b = (list(map(str, _flag(side, "seed"))) for side in sides)
    if sorted(a) != sorted(b):
        notes.append(f"seeds differ: {', '.join(a)} against {', '.join(b)}")
    if min(len(a), len(b)) < NUM_SEEDS:
        notes.append(f"fewer than {NUM_SEEDS} seeds: their spread, on top of the interval, is open")
    first, second = (sorted(set(map(_made_by, _flag(side, "vocoder")))) for side in sides)
    if first != second:
        pair = f"{', '.join(first)} against {', '.join(second)}"
        notes.append(f"sound is made in two ways, which is part of the difference: {pair}")
    moved_a, moved_b = (_flag(side, "sync")[0] for side in sides)  # one a side, as read_side saw to
    if moved_a != moved_b:
        notes.append("the sound of one side was moved (avb sync): both are judged by their own")
    return notes


def talker_of(clip: Clip) -> str:
    """A key begins with its group, which is the talker in a corpus that has them."""
    return str(clip.get("talker") or clip["key"].split("/")[0])


class _Test:
    """What all figures of one comparison share: clips, their talkers, and how they are drawn."""

    def __init__(
        self, sides: list[Side], keys: list[str], by_talker: bool, draws: int, seed: int
    ) -> None:
        self.sides, self.keys = sides, keys
        self.sentences = np.array([key.split("#")[0] for key in keys])
        self.talkers = [talker_of(sides[0][0].clips[key]) for key in keys]
        unseen = sides[0][0].flags.get("intervals") == "of talkers drawn, then clips"
        self.by_talker = by_talker or (unseen and len(set(self.talkers)) > 1)
        self.drawing: dict[str, Any] = {"draws": draws, "seed": seed}

    def keys_with(self, field: str) -> list[str]:
        """The clips that have this field in every record."""
        records = [record for side in self.sides for record in side]
        return [key for key in self.keys if all(field in r.clips[key] for r in records)]

    def tables(self, value: Callable[[Clip], float]) -> list[Floats]:
        """A number of each clip of either side, [records x clips] each; NaN where it has none."""
        return [
            np.array([[value(record.clips[key]) for key in self.keys] for record in side])
            for side in self.sides
        ]

    def entry(
        self, a: Floats, b: Floats, mean: Callable[[Floats], float], difference: Interval
    ) -> dict[str, Any]:
        """Both sides' figures from [records x clips]; clips that any record lacks count nowhere."""
        known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
        entry: dict[str, Any] = {"n": int(known.sum())}
        if not known.any():
            missing = {"a": None, "b": None, "reason": "no clip has it in every record"}
            return entry | missing | {"difference": difference}
        by_seed = []
        for name, values, side in zip("ab", (a, b), self.sides, strict=True):
            each = [float(mean(np.where(known, row, np.nan))) for row in values]
            entry[name], entry[f"{name}_each"] = float(np.mean(each)), each
            entry[f"{name}_sd"] = float(np.std(each, ddof=1)) if len(each) > 1 else None
            by_seed.append(dict(zip(map(str, _flag(side, "seed")), each, strict=True)))
        if by_seed[0].keys() == by_seed[1].keys() and len(by_seed[0]) == len(a) == len(b) > 1:
            entry["each_difference"] = {s: v - by_seed[1][s] for s, v in by_seed[0].items()}
        return entry | {"difference": difference}

    def word_entry(self, a: Floats, b: Floats, rows: Any = slice(None)) -> dict[str, Any]:
        """Right or wrong on the words of `rows`; those of one sentence are drawn together."""
        a, b, sentences = a[:, rows], b[:, rows], self.sentences[rows].tolist()
        talkers = np.array(self.talkers)[rows].tolist() if self.by_talker else None
        difference = ratio_interval(
            a.mean(axis=0) - b.mean(axis=0), np.ones(a.shape[1]), talkers,
            units=sentences, **self.drawing,
        )  # fmt: skip
        return self.entry(a, b, np.mean, difference)

    def speech_entry(self, a: Floats, b: Floats) -> dict[str, Any]:
        """Means by talker, then over talkers."""
        codes = np.unique(self.talkers, return_inverse=True)[1]

        def mean(values: Floats) -> float:
            known = np.isfinite(values)
            count = np.bincount(codes[known])
            total = np.bincount(codes[known], weights=values[known])
            return float((total[count > 0] / count[count > 0]).mean())

        difference = mean_interval(
            a.mean(axis=0) - b.mean(axis=0), self.talkers, talker_mean=True,
            two_stage=self.by_talker, **self.drawing,
        )  # fmt: skip
        return self.entry(a, b, mean, difference)


def _words(test: _Test) -> dict[str, Any]:
    """Right or wrong on each word."""
    tables = {
        name: test.tables(lambda clip, hit=hit: float(clip[hit]))  # type: ignore[misc]
        for name, hit in HITS.items()
        if len(test.keys_with(hit)) == len(test.keys)
    }
    a, b = tables["top1"]
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # Of several seeds: the mean number over all pairs of one seed of A and one of B.
    counts = {
        "both_right": mean_a * mean_b,
        "only_a": mean_a * (1 - mean_b),
        "only_b": (1 - mean_a) * mean_b,
        "neither": (1 - mean_a) * (1 - mean_b),
    }
    result: dict[str, Any] = {
        "metrics": {name: test.word_entry(*sides) for name, sides in tables.items()},
        "counts": {name: float(values.sum()) for name, values in counts.items()},
        # Of several seeds: clips that A reads more often than B, and the other way round.
        "mcnemar": mcnemar(mean_a > mean_b, mean_b > mean_a),
    }
    if all("#" in key for key in test.keys):
        sentence = np.unique(test.sentences, return_inverse=True)[1]
        result["mcnemar"]["p_by_sentence"] = sign_flips(np.bincount(sentence, mean_a - mean_b))
        result["notes"] = ["McNemar's p takes words for independent, p_by_sentence does not"]
    if all(record.by_slot for side in test.sides for record in side):
        places = np.array([int(key.split("#")[1]) for key in test.keys])
        result["per_slot"] = {
            SLOT_NAMES[place]: test.word_entry(a, b, places == place)
            for place in np.unique(places).tolist()
        }
    return result


def _speech(test: _Test) -> dict[str, Any]:
    """As records have it: speech by talker, then over talkers; sentences and word errors pooled."""
    first = test.sides[0][0]
    entry = test.word_entry if first.task == "sentence" else test.speech_entry
    metrics = {
        name: entry(*test.tables(partial(_value, name)))
        for name in first.clips[test.keys[0]]["values"]
    }
    for name, field in (READ if first.task == "sentence" else HEARD).items():
        if own := test.keys_with(field):
            part = _Test(test.sides, own, test.by_talker, **test.drawing)
            metrics[f"wer_{name}"] = _word_errors(part, field)
    return {"metrics": metrics}


def _value(name: str, clip: Clip) -> float:
    """A value of speech; NaN where it could not be scored."""
    return np.nan if clip["values"].get(name) is None else float(clip["values"][name])


def _word_errors(test: _Test, field: str, alone: bool = False) -> dict[str, Any]:
    """Word errors over words, pooled over the clips (evaluation.md 3.2); `alone`: B's are none."""
    clips = test.sides[0][0].clips
    words = np.array([len(clips[key]["words"]) for key in test.keys], np.float64)
    try:
        a, b = test.tables(lambda clip: float(word_errors(clip["words"], clip[field])[0]))
    except ImportError:
        return {"a": None, "b": None, "n": 0, "reason": "pip install jiwer"}
    b = np.zeros_like(b) if alone else b
    talkers = test.talkers if test.by_talker else None
    difference = ratio_interval(a.mean(axis=0) - b.mean(axis=0), words, talkers, **test.drawing)
    return test.entry(a, b, lambda row: float(row.sum() / words.sum()), difference)
