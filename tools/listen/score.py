"""`avb listen-score`: what the raters' files say, under rules that were fixed beforehand.

Everything is a mean over raters and sentences, two crossed samples, both drawn again for an
interval, the same draws for all systems: differences are paired.
"""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.errors import UsageError
from avb.pipeline.parse import read_json
from avb.tools.listen.build import FLOOR, REAL, spoken
from avb.train.evaluate.metrics.intervals import DRAWS, percentiles, resample_counts
from avb.train.evaluate.words.grammar import SLOT_NAMES

SCALES = ("intelligibility", "naturalness")
#: Repeats that may differ by more than one point before a rater is left out.
_TOLERATED = 1
RATERS, SENTENCES = 20, 24  # evaluation.md section 6: fewer prove little

#: Texts of a rater's file but for the ratings, with `wer`, and `system` and `key` of the clip;
#: the first has `facts` of the rater.
Row = dict[str, Any]
Floats = NDArray[np.float64]


def score(files: Sequence[Path], key_file: Path, draws: int = DRAWS) -> dict[str, Any]:
    """Ratings, human word error and differences of systems, from one CSV of each rater.

    Returns:
        `systems`: by name, for each scale and `wer` (wrong words of six) {"value", "low", "high",
        "rater_mean": {"value", "half"}}, half of the t interval over rater means, None with one
        rater; `wer_first`, where the rater had not met the sentence before, as a plain ratio;
        `differences`: for each pair {"a", "b", "measure", "value", "low", "high", "p", "p_holm"};
        `raters`, `excluded` with reasons, `notes`.
    """
    key = _read_key(key_file)
    sessions = [_read_session(path, key) for path in files]
    names = [own[0]["rater"] for own in sessions]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"rater {twice!r} is in two files; give each file once")
    reasons = {name: exclude(own, key) for name, own in zip(names, sessions, strict=True)}
    kept = [own for name, own in zip(names, sessions, strict=True) if not reasons[name]]
    record: dict[str, Any] = {
        "page_hash": key["page_hash"],
        "raters": [own[0]["facts"] for own in kept],
        "excluded": [{"rater": name, "reasons": why} for name, why in reasons.items() if why],
        "notes": [],
    }
    if not kept:
        raise UsageError(f"no rater is left: {record['excluded']}")
    systems = key["systems"]
    tables = {measure: _table(kept, systems, measure) for measure in (*SCALES, "wer")}
    num_sentences = tables["wer"].shape[2]
    by_rater, by_sentence = (
        np.concatenate(list(resample_counts(count, draws=draws, seed=i))) / count
        for i, count in enumerate((len(kept), num_sentences))
    )
    drawn = {  # the mean of each draw, [draws x systems]
        measure: np.einsum("dsn,dn->ds", np.einsum("dr,srn->dsn", by_rater, table), by_sentence)
        for measure, table in tables.items()
    }
    first = _first_hearing(kept)
    record["systems"] = {
        name: {
            **{m: _figure(tables[m][i], drawn[m][:, i]) for m in tables},
            "wer_first": float(np.mean(first[name])) if name in first else None,
        }
        for i, name in enumerate(systems)
    }
    record["differences"] = [d for m in tables for d in _pairs(m, systems, tables[m], drawn[m])]
    if len(kept) < RATERS or num_sentences < SENTENCES:
        record["notes"].append(
            f"{len(kept)} raters and {num_sentences} sentences a system; {RATERS} and {SENTENCES}"
            " are the least for a claim (evaluation.md section 6)"
        )
    return record


def _read_key(path: Path) -> dict[str, Any]:
    try:
        key = read_json(path)
        return {name: key[name] for name in ("page_hash", "systems", "clips", "orders", "practice")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not the key of avb listen ({error})") from None


def _read_session(path: Path, key: dict[str, Any]) -> list[Row]:
    """The rows of one rater, without practice, in the order of hearing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        rows.sort(key=lambda row: int(row["position"]))
        bad = [r for r in rows if r["page_hash"] != key["page_hash"]]
        heard = [r for r in rows if r["kind"] != "practice"]
        if not heard:
            raise ValueError("no answers")
        if bad:
            raise ValueError("its page is not the one of the key (page_hash differs)")
        if len({r["rater"] for r in rows}) > 1:
            raise ValueError("more than one rater")
        for row in heard:
            if not all(row[scale] in set("12345") for scale in SCALES):
                raise ValueError(f"clip {row['clip']}: a rating that is none of 1 to 5")
            if row["kind"] not in ("test", "repeat") or row["clip"] not in key["clips"]:
                raise ValueError(f"clip {row['clip']}: not of this test")
        order, again = key["orders"][int(heard[0]["seed"])]
        if [r["clip"] for r in heard] != [*order, *again][: len(heard)]:
            raise ValueError("its clips are not in the order of its seed")
        for row in heard:
            row |= key["clips"][row["clip"]] | {scale: float(row[scale]) for scale in SCALES}
            heard_words = [row[slot] for slot in SLOT_NAMES]  # no word stands in two slots
            wrong = [a != b for a, b in zip(heard_words, spoken(row["key"]), strict=True)]
            row["wer"] = sum(wrong) / len(wrong)
        heard[0]["facts"] = _facts(heard)
    except KeyError as error:
        missing = f"no file of the listening page (column {error} is missing)"
        raise UsageError(f"{path}: {missing}") from None
    except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
        raise UsageError(f"{path}: {error}") from None
    return heard


def exclude(rows: Sequence[Row], key: dict[str, Any]) -> list[str]:
    """Why a rater does not count; empty if they do. The rule of evaluation.md section 5.

    Out is who rates the floor above real speech on either scale, or rates two of the four repeats
    more than a point off on either; and, as the first two cannot be told then, who did not finish.
    """
    order, again = key["orders"][int(rows[0]["seed"])]
    if len(rows) < len(order) + len(again):
        return [f"not finished: {len(rows)} of {len(order) + len(again)} clips"]
    reasons = []
    tested = [row for row in rows if row["kind"] == "test"]
    for scale in SCALES:
        real, floor = (
            np.mean([row[scale] for row in tested if row["system"] == name])
            for name in (REAL, FLOOR)
        )
        if floor > real:
            reasons.append(f"{scale} of the floor {floor:.2f}, above real speech {real:.2f}")
    before = {row["clip"]: row for row in tested}
    off = [
        any(abs(row[scale] - before[row["clip"]][scale]) > 1 for scale in SCALES)
        for row in rows
        if row["kind"] == "repeat"
    ]
    if sum(off) > _TOLERATED:
        reasons.append(f"{sum(off)} of {len(off)} repeats more than a point off")
    return reasons


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    return {k: rows[0][k] for k in ("rater", "seed", "headphones", "native")} | {
        "mean_plays": float(np.mean([int(row["plays"]) for row in rows])),
        "median_play_to_answer_s": float(np.median([float(r["play_to_answer_s"]) for r in rows])),
    }


def _table(sessions: Sequence[Sequence[Row]], systems: list[str], measure: str) -> Floats:
    """One measure [systems x raters x sentences], first hearings alone: no repeats."""
    keys = sorted({row["key"] for row in sessions[0]})
    table = np.full((len(systems), len(sessions), len(keys)), np.nan)
    for rater, rows in enumerate(sessions):
        for row in rows:
            if row["kind"] == "test":
                place = systems.index(row["system"]), rater, keys.index(row["key"])
                table[place] = row[measure]
    return table


def _figure(table: Floats, draws: Floats) -> dict[str, Any]:
    """Mean of [raters x sentences] with both intervals."""
    from scipy.stats import sem, t

    means = table.mean(axis=1)
    half = float(t.ppf(0.975, len(means) - 1) * sem(means)) if len(means) > 1 else None
    rater_mean = {"value": float(means.mean()), "half": half}
    return {**percentiles(float(table.mean()), draws), "rater_mean": rater_mean}


def _first_hearing(sessions: Sequence[Sequence[Row]]) -> dict[str, list[float]]:
    """Word errors by system, of clips whose sentence the rater met for the first time."""
    errors: dict[str, list[float]] = {}
    for rows in sessions:
        met: set[str] = set()
        for row in rows:
            if row["key"] not in met:
                errors.setdefault(row["system"], []).append(row["wer"])
            met.add(row["key"])
    return errors


def _pairs(measure: str, systems: list[str], table: Floats, draws: Floats) -> list[dict[str, Any]]:
    """Each pair of systems: difference, interval, two-sided p, and p by Holm over the pairs."""
    differences: list[dict[str, Any]] = []
    for i, j in itertools.combinations(range(len(systems)), 2):
        gap = draws[:, i] - draws[:, j]
        # One more, so that no p is 0: so many draws cannot show less.
        tail = min(int((gap <= 0).sum()), int((gap >= 0).sum())) + 1
        differences.append(
            {"a": systems[i], "b": systems[j], "measure": measure}
            | percentiles(float((table[i] - table[j]).mean()), gap)
            | {"p": min(1.0, 2 * tail / (len(gap) + 1))}
        )
    for pair, adjusted in zip(differences, holm([pair["p"] for pair in differences]), strict=True):
        pair["p_holm"] = adjusted
    return differences


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down rule, in the same order."""
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(np.asarray(values)[order] * np.arange(len(values), 0, -1), 1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted.tolist()
