"""`avb listen` and `avb listen-score` between the flags and the work: what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from avb.tools.cli.console import say


def make(systems: list[str], out: Path, clips: int, seed: int) -> None:
    """Write the page and its key."""
    from avb.tools.listen import build

    found = build.parse(systems)
    key = build.build(found, out, clips, seed)
    count = (len(found) + 3) * clips
    say(f"{out}: {clips} sentences of {len(found) + 3} systems, {count} clips and 4 repeats")
    say(f"{key}: the key; keep it from the raters, avb listen-score needs it")


def score(files: list[Path], key: Path, as_json: bool) -> None:
    """Score and show: a table on stdout, or with `--json` the record."""
    from avb.tools.listen.score import score as measure

    record = measure(files, key)
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    say(f"{len(record['raters'])} raters, {len(record['excluded'])} left out")
    for one in record["excluded"]:
        say(f"left out: {one['rater']}: {'; '.join(one['reasons'])}")
    for line in lines(record):
        typer.echo(line)
    for note in record["notes"]:
        say(f"note: {note}")


def lines(record: dict[str, Any]) -> list[str]:
    """The table: figures with both intervals, then the differences."""
    width = max(len(name) for name in record["systems"])
    found = []
    for measure in ("intelligibility", "naturalness", "wer"):
        found.append(f"{measure}: mean [95 %, raters and sentences drawn], mean of raters +- t")
        for name, figures in record["systems"].items():
            one = figures[measure]
            half = one["rater_mean"]["half"]
            spread = "-" if half is None else f"{half:.2f}"
            shown = f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
            mean = one["rater_mean"]["value"]
            found.append(f"  {name:<{width}}  {shown}  {mean:.2f} +- {spread}")
    found.append("differences: A - B [95 %], p, p by Holm")
    for pair in record["differences"]:
        shown = f"{pair['value']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]"
        both = f"p {pair['p']:.2g}, {pair['p_holm']:.2g}"
        found.append(f"  {pair['measure']}: {pair['a']} - {pair['b']}  {shown}  {both}")
    return found
