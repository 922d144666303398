"""What a report says first: the best figure of each run, what the memory brings, what to doubt."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avb.pipeline.errors import UsageError
from avb.tools.report.published import own_reasons
from avb.tools.report.runs import Result, Run, model_defaults
from avb.tools.report.tables import interval, style
from avb.train.evaluate.compare import compare
from avb.train.tasks.task import find_task

_WIDTHS = ("width", "blocks", "hidden", "audio_dim", "audio_width")


@dataclass(frozen=True)
class Pair:
    """Two records of one task and part, that with more slots first: compared, or why not."""

    one: tuple[Run, Result]
    other: tuple[Run, Result]
    record: dict[str, Any] | None
    reason: str = ""


def pairs(runs: Sequence[Run]) -> list[Pair]:
    """Each two records of one task and part, on the same samples."""
    found = []
    results = [(run, result) for run in runs for result in run.results]
    for two in itertools.combinations(results, 2):
        one, other = sorted(two, key=lambda side: -side[0].slots)
        kinds = [(r.record["task"], r.record["flags"].get("part")) for _, r in (one, other)]
        if kinds[0] != kinds[1]:
            continue
        try:
            found.append(Pair(one, other, compare(str(one[1].path), str(other[1].path))))
        except UsageError as reason:
            found.append(Pair(one, other, None, str(reason)))
    return found


def figure(run: Run) -> str:
    """The main figure of a run's first record, beside what is had without looking, and the most."""
    if not run.results:
        return f"{run.name}: not evaluated yet."
    record = run.results[0].record
    metrics = record["metrics"]
    name = find_task(record["task"]).main_figure(metrics)
    flags, known = record["flags"], style(name)
    where = f"{flags['n']:,} samples of {flags.get('part')}"
    beside = []
    floors = {**(record.get("floors") or {})}
    floors.pop("griffin_lim", None)  # beside a vocoder: of the true mel too
    values = [_value(one.get(name) if isinstance(one, dict) else one) for one in floors.values()]
    if known_floors := [value for value in values if value is not None]:
        best = min(known_floors) if name.startswith("wer") else max(known_floors)
        beside.append(f"{interval(name, best)} without looking")
    ceiling = record.get("ceiling") or {}
    most = ceiling.get("top1_audio" if name == "top1" else name)
    if _value(most) is not None:
        how = "of the true mel" if find_task(run.task).makes == "speech" else "with real audio"
        beside.append(f"{interval(name, _value(most))} {how}")
    unit = f" {known.unit}" if known.unit else ""
    more = f"; {', '.join(beside)}" if beside else ""
    return (
        f"{run.name}: {known.title} {interval(name, metrics.get(name, {}))}{unit} on {where}{more}."
    )


def gains(found: Sequence[Pair]) -> list[str]:
    """What the memory brings, of each two runs that are alike, seed too, but that one has it."""
    said = []
    for pair in found:
        (run, result), (without, other) = pair.one, pair.other
        alike = _but_slots(run) == _but_slots(without)
        if pair.record is None or without.slots or not run.slots or not alike:
            continue
        if result is not run.results[0] or other is not without.results[0]:
            continue  # of another part than the figures above
        name = find_task(result.record["task"]).main_figure(result.record["metrics"])
        entry = pair.record["metrics"].get(name)
        if entry is None or entry["a"] is None:
            continue
        lead = entry["difference"]
        sure = lead["low"] > 0 or lead["high"] < 0
        unit = {"": "", "%": " points"}.get(style(name).unit, f" {style(name).unit}")
        said.append(
            f"With the memory ({run.name} against {without.name}): {style(name).title}"
            f" {interval(name, lead, sign=True)}{unit}, paired over the same samples"
            f"{'' if sure else '; no difference, as far as these clips tell'}."
        )
    return said


def _but_slots(run: Run) -> tuple[Any, ...]:
    """How a run was trained, but for its memory."""
    model = run.recipe["model"] | {"slots": None}
    return run.recipe | {"model": model}, run.data.get("init"), run.data.get("teacher")


def doubts(runs: Sequence[Run]) -> list[str]:
    """What these figures do not tell."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for reason in _of_run(run):
            said.setdefault(reason, []).append(run.name)
    return [
        f"{', '.join(names)}: {reason}."
        if len(names) < len(runs)
        else f"{reason[0].upper()}{reason[1:]}."
        for reason, names in said.items()
    ]


def _of_run(run: Run) -> list[str]:
    reasons = []
    if run.step < run.recipe["steps"]:
        reasons.append(f"training stands at step {run.step:,} of {run.recipe['steps']:,}")
    usual = model_defaults(run.task)
    if any(run.recipe["model"].get(n, usual.get(n)) != usual.get(n) for n in _WIDTHS):
        reasons.append("the network is not of the paper's size")
    scores = run.series("val_score")[1]
    if len(scores) > 2 and scores[-1] == max(scores):
        reasons.append("validation was best at the end: longer training may bring more")
    for result in run.results[:1]:
        flags = result.record["flags"]
        reasons += own_reasons(result.record, run.recipe["corpus"])
        if flags.get("talkers_taught"):
            reasons.append("talkers of these clips taught it too: it says nothing of strangers")
        for what, saw in (("wer_judge", "judge_saw_test"), ("vocoder", "vocoder_saw_test")):
            if learnt := (flags.get(what) or {}).get(saw):
                name = what.removeprefix("wer_")
                reasons.append(f"its {name} has learnt from {learnt} of these clips")
        if flags.get("boundary") is True:
            reasons.append("it was told where each word lies")
        if flags.get("fingerprint") != flags.get("trained_on"):
            reasons.append("measured on other shards than it was trained on")
        drawn = "talkers and " if str(flags.get("intervals")).startswith("of talkers") else ""
        reasons.append(f"intervals are over {drawn}clips: another seed is not in them")
    return reasons


def headline(runs: Sequence[Run]) -> str:
    """What the page is of."""
    tasks = dict.fromkeys(find_task(run.task).title for run in runs)
    corpora = dict.fromkeys(str(run.recipe["corpus"]) for run in runs)
    return f"{' and '.join(tasks).capitalize()}: {', '.join(corpora)}"


def _value(entry: Any) -> float | None:
    found = entry.get("value") if isinstance(entry, dict) else entry
    return None if found is None else float(found)
