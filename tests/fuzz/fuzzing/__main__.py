"""`make fuzz`: damaged files through the commands; exit 1 if a user would see more than a line.

A damaged file is allowed to be read all the same, or to be refused by one clear line with exit 1,
2 or 3. Whatever else happens is a finding: its files are kept, and its number makes it again.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import typer

from fuzzing.cases import KINDS, Seeds, cases, make_seeds, run_case
from fuzzing.pool import Child, in_children


def main() -> int:
    """Everything, or one case again."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=max(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--only", help="one case again, such as checkpoint:17")
    for kind, count in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"how many [{count}]")
    given = parser.parse_args()
    seeds = make_seeds(given.out)
    counts = {kind: getattr(given, kind) for kind in KINDS}
    wanted = cases(counts, given.seed, given.only)
    return fuzz(wanted, seeds, given.out, given.jobs)


def fuzz(wanted: list[tuple[str, int, int]], seeds: Seeds, out: Path, jobs: int) -> int:
    """Run the cases, tell how it goes, keep what is found; 1 if anything is."""
    began, done = time.monotonic(), 0
    counts: Counter[tuple[str, str]] = Counter()
    slowest = largest = {"seconds": 0.0, "mb": 0, "case": "-"}

    def work(child: Child, case: tuple[str, int, int]) -> list[dict[str, object]]:
        return run_case(child, case, seeds, out)

    with open(out / "results.jsonl", "w", encoding="utf-8") as file:
        for records in in_children(work, wanted, out, jobs):
            for record in records:
                file.write(json.dumps(record) + "\n")
                counts[record["kind"], record["outcome"]] += record["files"]
                done += record["files"]
                slowest = max(slowest, record, key=lambda r: r["seconds"] / r.get("files", 1))
                largest = max(largest, record, key=lambda r: r["mb"])
                if record["outcome"] == "finding":
                    typer.echo(f"FINDING {record['case']}: {record['done']}: {record['why']}")
            file.flush()
            if sys.stderr.isatty() or done % 100 < len(records):
                typer.echo(f"{done} files, {time.monotonic() - began:.0f} s", err=True)
    for kind in KINDS:
        row = {name: counts[kind, name] for name in ("ok", "line", "finding")}
        typer.echo(f"{kind:>12}  " + "  ".join(f"{name} {n:,}" for name, n in row.items()))
    typer.echo(f"slowest: {slowest['seconds']:.1f} s, {slowest['case']}")
    typer.echo(f"most memory: {largest['mb']} MB, {largest['case']}")
    typer.echo(f"{time.monotonic() - began:.0f} s; every case in {out / 'results.jsonl'}")
    return 1 if any(name == "finding" for _, name in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
