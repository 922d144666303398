"""What a table came to: its figures beside the paper's, as JSON and as a page."""

import json
from typing import Any

from avb.pipeline.files import write_atomic
from avb.pipeline.parse import read_json
from avb.tools.report import published
from avb.tools.report.page import Section, build, render
from avb.tools.report.runs import load_runs
from avb.tools.report.tables import NONE, Table, interval, number, titled
from avb.tools.reproduce.plan import DONE, RECORD, Wanted
from avb.train.evaluate.compare import compare
from avb.train.evaluate.record import read_record

#: Of each task: the figures of the paper's tables, and what stands beside them here.
METRICS = {
    "lip": ("top1", "top1_mirrored"),
    "l2s": ("stoi", "estoi", "pesq_nb8", "wer_judge"),
}


def result(wanted: Wanted, name: str, title: str) -> dict[str, Any]:
    """Every arm of a table whose steps are done, paired with the first one.

    Returns:
        `table title corpus recipe seeds flags`; `arms`: name, `seconds` of training (None: not
        timed), and of each figure `value`, `each` seed's and, but for the first arm, the
        `difference` to it with its interval; `helpers`: seconds of what arms begin with or are
        taught by; `published`: the rows of the paper, each with `why` it may not be ranked.
    """
    task = wanted.table.task
    names = list(wanted.measured())
    sides = {n: [wanted.folder(n, s) / RECORD for s in wanted.seeds] for n in names}
    arms = []
    for arm in names:
        # The first arm stands beside the last, or itself, for its own figures.
        other = names[0] if arm != names[0] else names[-1]
        pair = compare(*(",".join(map(str, sides[n])) for n in (arm, other)))
        row: dict[str, Any] = {"name": arm, "seconds": _seconds(wanted, arm), "metrics": {}}
        for metric in METRICS[task]:
            if (entry := pair["metrics"].get(metric)) and entry["a"] is not None:
                row["metrics"][metric] = {"value": entry["a"], "each": entry["a_each"]}
                if arm != names[0]:
                    row["metrics"][metric]["difference"] = entry["difference"]
        arms.append(row)
    helpers = {n: _seconds(wanted, n) for n, a in wanted.table.arms.items() if a.helper}
    first = read_record(sides[names[0]][0])
    rows = [
        {"method": row.method, "metrics": row.metrics, "source": row.source, "mark": row.mark}
        | {"why": published.reasons(first, wanted.corpus, row)}
        for row in published.load().rows
        if row.task == task and any(text in row.source for text in wanted.table.published)
    ]
    flags = ("part", "split", "speakers", "unit", "boundary", "sync", "fingerprint", "device",
             "intervals")  # fmt: skip
    return {
        "table": name, "title": title, "corpus": wanted.corpus, "recipe": wanted.recipe,
        "seeds": wanted.seeds, "clips": len(first["clips"]),
        "flags": {f: first["flags"].get(f) for f in flags} | {"steps": wanted.steps},
        "arms": arms, "helpers": helpers, "published": rows,
    }  # fmt: skip


def write(found: dict[str, Any], wanted: Wanted) -> None:
    """`<table>.json` and `<table>.html` in the folder of the table."""
    stem = wanted.out / found["table"]
    write_atomic(stem.with_suffix(".json"), (json.dumps(found, indent=2) + "\n").encode())
    runs = load_runs([wanted.folder(n, s) for n in wanted.measured() for s in wanted.seeds])
    section = Section(found["title"], [_about(found), *tables(found)])
    page = render(runs, [section, *build(runs, {}, 0)])
    write_atomic(stem.with_suffix(".html"), page.encode())


def tables(found: dict[str, Any]) -> list[Table]:
    """Ours and the paper's, as tables of a page."""
    metrics = list(dict.fromkeys(m for arm in found["arms"] for m in arm["metrics"]))
    head = [titled(metric) for metric in metrics]
    first = found["arms"][0]["name"]
    lines = []
    for arm in found["arms"]:
        cells = []
        for metric in metrics:
            entry = arm["metrics"].get(metric, {"value": None, "each": []})
            cell = number(metric, entry["value"])
            if "difference" in entry:
                cell += f"; {interval(metric, entry['difference'], sign=True)}"
            cells.append(cell)
        lines.append([arm["name"], *cells, _hours(arm["seconds"])])
    for name, seconds in found["helpers"].items():
        lines.append([f"{name}, for other arms", *[""] * len(metrics), _hours(seconds)])
    own = Table(f"Here; behind the semicolon the difference to {first}, 95 %, paired",
                ["", *head, "hours of training"], lines)  # fmt: skip
    # Under their own names: whose PESQ and whose word error it is, the rows do not all say.
    known = list(dict.fromkeys(m for row in found["published"] for m in row["metrics"]))
    beside = [
        [row["method"], *(number(m, row["metrics"].get(m)) for m in known), row["source"],
         "; ".join(row["why"]) or "comparable"]
        for row in found["published"]
    ]  # fmt: skip
    head = [titled(metric) for metric in known]
    published = Table("Published", ["", *head, "source", "may be compared"], beside)
    return [own, published] if beside else [own]


def as_text(found: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    lines = [found["title"], _about(found)]
    for table in tables(found):
        rows = [table.header, *table.rows]
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(table.header) - 1)]
        lines += ["", table.caption]
        lines += ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _about(found: dict[str, Any]) -> str:
    flags = ", ".join(f"{k} {v}" for k, v in found["flags"].items() if v not in (None, False))
    seeds = ", ".join(map(str, found["seeds"]))
    return (f"{found['clips']} samples of {found['corpus']}, recipe {found['recipe']}, seeds"
            f" {seeds}; {flags}.")  # fmt: skip


def _seconds(wanted: Wanted, arm: str) -> float | None:
    """How long an arm was trained, all seeds together; None: not all of it was timed."""
    seconds = [read_json(wanted.folder(arm, seed) / DONE)["seconds"] for seed in wanted.seeds]
    return None if None in seconds else sum(seconds)


def _hours(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds / 3600:.2f}"
