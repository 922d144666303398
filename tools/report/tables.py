"""The tables of a report: every number comes out of a record, or out of `published.yaml`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from avb.tools.report import published
from avb.tools.report.runs import Result, Run
from avb.train.tasks.task import find_task

NULLS = {
    "trained": "trained",
    "initial": "the network at its initialisation",
    "random_slots": "its features, random slots",
    "features": "its features, no memory",
    "permuted": "words permuted within a slot",
}
SIDES = {"source": "A_src, from video", "target": "A_tgt, from audio"}
#: Shown beside published rows, where one of them or a run has it.
PUBLISHED_COLUMNS = {
    "lip": ("top1", "top1_mirrored"),
    "l2s": ("stoi", "estoi", "pesq_nb8", "pesq_nb16", "pesq", "wer"),
}
#: The trained judge's is the one to be set beside others' (evaluation.md 3.2).
_SAME_FIGURE = {"wer": "wer_judge"}


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
    **{
        f"{name}_{way}": Style(f"{title}, {told}", 100, 1, "%")
        for way, told in (("free", "any words"), ("grammar", "within the grammar"))
        for name, title in (
            ("wer", "word error"),
            ("cer", "character error"),
            ("sentences", "sentences right"),
        )
    },
    "stoi": Style("STOI"),
    "estoi": Style("ESTOI"),
    # The phase that Griffin-Lim starts from moves the mean of ten clips by 0.02.
    "pesq_nb8": Style("PESQ narrow band, 8 kHz", digits=2),
    "pesq_nb16": Style("PESQ narrow band, 16 kHz", digits=2),
    "pesq_wb16": Style("PESQ wide band", digits=2),
    "pesq": Style("PESQ, mode not verified", digits=2),
    "mel_distance": Style("mel distance", digits=2, unit="dB"),
    "stoi_aligned": Style("STOI at each clip's best lag"),
    "estoi_aligned": Style("ESTOI at each clip's best lag"),
    "pesq_nb8_aligned": Style("PESQ narrow band, 8 kHz, at the best lag", digits=2),
    "mel_distance_aligned": Style("mel distance at the best lag", digits=2, unit="dB"),
    "best_lag_ms": Style("best lag", digits=1, unit="ms"),
    "mos_naturalness": Style("naturalness, 1 to 5", digits=2),
    "mos_intelligibility": Style("intelligibility, 1 to 5", digits=2),
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


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row."""

    caption: str  # what it shows
    header: list[str]  # of each column
    rows: list[list[str]]  # cells
    strong: set[int] = field(default_factory=set)  # numbers of the rows that are this report's own
    breaks: bool = False  # whether long cells, such as hashes, may break anywhere


def facts_table(runs: Sequence[Run]) -> Table:
    """What was trained on what, a column a run."""
    told = [run.facts() for run in runs]
    rows = [[name, *(one[name] for one in told)] for name in told[0]]
    return Table("", ["", *(run.name for run in runs)], rows, breaks=True)


def signals(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that was measured on the clips of a record: {signal: {metric: entry}}."""
    by_signal = {"model": record["metrics"]}
    ceiling, floors = record.get("ceiling") or {}, record.get("floors") or {}
    if find_task(record["task"]).makes == "word":
        if audio := ceiling.get("top1_audio"):
            by_signal["ceiling: real audio in place of recalled"] = {"top1": audio}
        floors = {name: {"top1": value} for name, value in floors.items()}
    elif record["task"] == "sentence":
        by_signal["ceiling: real audio in place of recalled"] = ceiling
        by_signal["video and real audio"] = record.get("both") or {}
    else:
        how = "the vocoder" if record["flags"].get("vocoder") else "Griffin-Lim"
        by_signal[f"ceiling: {how} of the true mel"] = ceiling
        by_signal["real audio"] = record.get("real") or {}
    return by_signal | {f"floor: {name.replace('_', ' ')}": v for name, v in floors.items()}


def metrics_table(result: Result) -> Table:
    """Each figure of the model with its interval, beside ceiling and floors on the same clips."""
    by_signal = signals(result.record)
    names = list(dict.fromkeys(name for values in by_signal.values() for name in values))
    rows = [
        [titled(name), *(_cell(name, values) for values in by_signal.values())] for name in names
    ]
    flags = result.record["flags"]
    caption = (
        f"{result.title}: {flags['n']} samples of {flags.get('part')}, split"
        f" {flags.get('split')}, step {flags.get('step')}; 95 % intervals in brackets"
        f"{_not_measured(result.record['metrics'])}"
    )
    return Table(caption, ["", *by_signal], rows)


def _cell(name: str, values: dict[str, Any]) -> str:
    """One figure of one signal; why there is none is said once, in the caption."""
    if name not in values:
        return ""
    return NONE if _lacks(values[name]) else interval(name, values[name])


def _lacks(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("value") is None


def _not_measured(metrics: dict[str, Any]) -> str:
    """Each reason once, with the figures that it left out."""
    lacking: dict[str, list[str]] = {}
    for name, entry in metrics.items():
        if _lacks(entry):
            lacking.setdefault(str(entry.get("reason", "none")), []).append(style(name).title)
    return "".join(f"; {NONE}: {', '.join(t)} ({why})" for why, t in lacking.items())


def flags_table(result: Result) -> Table:
    """How it was measured."""
    rows = [[name.replace("_", " "), _plain(v)] for name, v in result.record["flags"].items()]
    return Table(f"{result.title}: how it was measured", ["flag", "value"], rows, breaks=True)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)


def slots_table(result: Result) -> Table | None:
    """Words by their place in the sentence: right (words), or wrong by each judge (speech)."""
    per_slot = result.record.get("per_slot") or {}
    if find_task(result.record["task"]).makes == "word":
        name, what, columns = "top1", "right", {"top-1 (%)": per_slot} if per_slot else {}
    else:
        name, what = "wer", "word error (%)"
        columns = {
            f"{signal.replace('_', ' ')}, {judge}": slots
            for signal, judges in per_slot.items()
            for judge, slots in judges.items()
        }
    if not columns:
        return None
    places = list(next(iter(columns.values())))
    rows = [[p, *(interval(name, slots.get(p)) for slots in columns.values())] for p in places]
    return Table(f"{result.title}: {what} by place in the sentence", ["", *columns], rows)


def published_table(results: Sequence[Result], corpus: str) -> tuple[Table, bool]:
    """These runs' numbers above the published ones; and whether any row is comparable."""
    task = results[0].record["task"]
    every = [row for row in published.load().rows if row.task == task]
    rows = [row for row in every if {*PUBLISHED_COLUMNS[task]} & {*row.metrics}]  # not those by ear
    own = [row for row in rows if row.corpus == corpus] or rows
    columns = [
        name
        for name in PUBLISHED_COLUMNS[task]
        if any(name in row.metrics for row in own) or name in results[0].record["metrics"]
    ]
    lines = []
    for result in results:
        metrics = result.record["metrics"]
        cells = [interval(c, metrics.get(_SAME_FIGURE.get(c, c), {})) for c in columns]
        lines.append([result.title, *cells, "", "this report", str(result.path)])
    any_fits = False
    records = [result.record for result in results]
    for row in own:
        cells = [number(c, row.metrics.get(c)) for c in columns]
        fitting = [r.title for r in results if not published.reasons(r.record, corpus, row)]
        any_fits |= bool(fitting)
        # What holds for a whole record is said once, above the table.
        why = dict.fromkeys(w for r in records for w in published.row_reasons(r, corpus, row))
        fits = "; ".join(["not comparable", *why])
        if fitting:
            alone = "" if len(fitting) == len(results) else f" with {', '.join(fitting)} alone"
            fits = f"comparable{alone}"
        note = f" ({row.note})" if row.note else ""
        lines.append([row.method, *cells, row.mark + note, fits, row.source])
    header = ["", *(titled(c) for c in columns), "mark", "may be compared", "source"]
    caption = f"Beside published rows ({', '.join(sorted({row.corpus for row in own}))})"
    return Table(caption, header, lines, set(range(len(results)))), any_fits


def addressing_tables(result: Result) -> list[Table]:
    """Similarity of addresses beside the null models, agreement of the sides, use, probes."""
    addressing = result.record["addressing"]
    names = ("same", "other", "within", "auc", "within_slot_auc")
    titles = ("same word", "other word", "other, same place", "AUC", "AUC at the same place")
    rows = []
    for side, title in SIDES.items():
        for null, measured in {"trained": addressing[side], **addressing[side]["nulls"]}.items():
            ahead = addressing[side]["ahead_of"].get(null)
            cells = [interval("stoi", measured[name]) for name in names]
            lead = "" if ahead is None else interval("stoi", ahead, sign=True)
            rows.append([f"{title}: {NULLS.get(null, null)}", *cells, lead])
    flags = addressing["flags"]
    caption = (
        f"{result.title}: mean cosine of the addresses of two words, {flags['segments']} words of"
        f" {flags['clips']} clips, pairs {flags['pairs']}"
    )
    similar = Table(caption, ["", *titles, "trained is ahead by"], rows)
    use = addressing["usage"]
    usage = [
        [title, *(str(v) if isinstance(v, int) else f"{v:.3f}" for v in use[side].values())]
        for side, title in SIDES.items()
    ]
    header = [key.replace("_", " ") for key in use["source"]]
    return [
        similar,
        Table(f"{result.title}: how the two sides agree, and what a line can tell",
              ["", "value", "chance"], _agreement(addressing)),
        Table(f"{result.title}: use of the slots", ["", *header], usage),
    ]  # fmt: skip


def _agreement(addressing: dict[str, Any]) -> list[list[str]]:
    agreement, probes = addressing["agreement"], addressing["probes"]
    chance = probes["chance"]
    probe, retrieval = number("top1", chance["probe"]), number("top1", chance["retrieval"])
    return [
        ["KL of A_src from A_tgt (nats)", interval("kl", agreement["kl"]), ""],
        ["heaviest slot is the same (%)", interval("top1", agreement["top1"]), ""],
        ["cosine of A_src and A_tgt", interval("stoi", agreement["cosine"]), ""],
        ["linear probe, visual or audio (%)", interval("top1", probes["visual_vs_audio"]), probe],
        ["linear probe, recalled or real (%)", interval("top1", probes["recalled_vs_real"]), probe],
        ["recalled finds its own real frame (%)", interval("top1", probes["retrieval"]), retrieval],
    ]


def verdict(result: Result) -> str:
    """What the null models leave of the claim that addresses are bound to words."""
    ahead = result.record["addressing"]["source"]["ahead_of"]
    measured = {n: ahead[n]["low"] for n in NULLS if n in ahead and ahead[n]["low"] is not None}
    if not measured:
        return "Whether A_src tells words apart better than a null model, these clips do not tell."
    won = [NULLS[n] for n, low in measured.items() if low > 0]
    lost = [NULLS[n] for n, low in measured.items() if not low > 0]
    text = f"A_src tells words apart better than: {', '.join(won) or 'none of the null models'}."
    return text + (
        f" Not better, as far as these clips tell, than: {', '.join(lost)}." * bool(lost)
    )


def paired_table(record: dict[str, Any], first: str, second: str) -> Table:
    """A paired comparison of two records."""
    rows = []
    for name, entry in {**record["metrics"], **record.get("per_slot", {})}.items():
        key = name if name in record["metrics"] else "top1"
        title = titled(name) if name in record["metrics"] else f"{name} (%)"
        if entry["a"] is None:
            rows.append([title, NONE, NONE, entry["reason"], "0"])
            continue
        a, b = number(key, entry["a"]), number(key, entry["b"])
        lead = interval(key, entry["difference"], sign=True)
        rows.append([title, a, b, lead, str(entry["n"])])
    caption = f"{first} (A) against {second} (B) on the same {record['clips']} samples, paired"
    return Table(caption, ["", "A", "B", "A - B", "n"], rows)


def mcnemar_line(exact: dict[str, Any]) -> str:
    """How often only one of two was right, and the chance of that between equals."""
    together = exact.get("p_by_sentence")
    better = f"A better on {exact['a_better']}, B on {exact['b_better']}"
    text = f"exact McNemar: {better}, p {exact['p']:.2g}"
    return text + ("" if together is None else f" (by sentence {together:.2g})")
