"""`avb compare` between the flags and the test: what is printed."""

from __future__ import annotations

import json
from typing import Any

import typer

from avb.tools.cli.console import say


def run(first: str, second: str, by_talker: bool, as_json: bool) -> None:
    """Compare and show: a table on stdout, or with `--json` the record."""
    from avb.train.evaluate.compare import compare

    record = compare(first, second, by_talker=by_talker)
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False, default=float))
        return
    for name in "ab":
        for one in record[name]:
            facts = f"seed {one['seed']}, slots {one['slots']}, step {one['step']}"
            say(f"{name.upper()}  {one['path']}: {facts}")
    flags = record["flags"]
    say(f"{record['clips']} clips of {flags.get('part')}, split {flags.get('split')}")
    for line in lines(record):
        typer.echo(line)
    for note in record["notes"]:
        say(f"note: {note}")


def lines(record: dict[str, Any]) -> list[str]:
    """The table: words in percent and points, speech in the units of each metric."""
    words = record["task"] == "lip"
    scale, digits, unit = (100.0, 2, " points") if words else (1.0, 4, "")
    found = [f"{'':>16} {'A':>9} {'B':>9}  A - B [95 %]"]
    for name, entry in (record["metrics"] | record.get("per_slot", {})).items():
        if entry["a"] is None:
            found.append(f"{name:>16} {'-':>9} {'-':>9}  {entry['reason']}")
            continue
        a, b = (f"{scale * entry[side]:9.{digits}f}" for side in "ab")
        value, low, high = (scale * entry["difference"][key] for key in ("value", "low", "high"))
        shown = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{unit}"
        found.append(f"{name:>16} {a} {b}  {shown}, n {entry['n']}")
        for side in "ab":
            if entry[f"{side}_sd"] is not None and name in record["metrics"]:
                each = " ".join(f"{scale * v:.{digits}f}" for v in entry[f"{side}_each"])
                spread = f"{scale * entry[f'{side}_sd']:.{digits}f}"
                found.append(f"{'':>16} {side.upper()} by seed: {each} (sd {spread})")
    if words:
        counts = {name: f"{value:g}" for name, value in record["counts"].items()}
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
        exact = record["mcnemar"]
        better = f"A better on {exact['a_better']}, B on {exact['b_better']}"
        found += [f"{shown}", f"exact McNemar: {better}, p {exact['p']:.2g}"]
    return found
