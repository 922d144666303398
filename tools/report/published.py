"""Published rows, and whether a record may be set beside one."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from avb.pipeline.config import load_corpora
from avb.pipeline.parse import checked, read_yaml

#: Share of a part's clips from which on it is whole: a corpus has damaged ones.
_WHOLE = 0.99
FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Row:
    """One row of a table printed elsewhere."""

    # task, corpus: of what
    task: str
    corpus: str
    method: str  # whose
    splits: list[str]  # splits of `datasets.yaml` on which a run may be set beside it
    metrics: dict[str, float]  # values; accuracies and word errors are shares
    mark: str  # how sure the value is, a key of `Published.marks`
    source: str  # where it was read
    boundary: bool = False  # whether the network was told where the word lies
    # What else was done otherwise than `avb eval` does it.
    differs: list[str] = field(default_factory=list)
    note: str = ""  # about single values


@dataclass(frozen=True)
class Published:
    """All rows, and what their marks mean."""

    marks: dict[str, str]
    rows: list[Row]


@cache
def _expected(corpus: str) -> dict[str, int]:
    """Clips of each part of a corpus that avb knows, where its parts are its own."""
    known = load_corpora().get(corpus)
    return {} if known is None else known.expected


@cache
def load() -> Published:
    """The rows that come with the package, each with its source spelt out."""
    raw = read_yaml(FILE)
    rows = [checked(Row, row, f"{FILE.name}: {row.get('method')}") for row in raw["rows"]]
    named = [dataclasses.replace(row, source=raw["sources"][row.source]) for row in rows]
    return Published(raw["marks"], named)


def reasons(record: dict[str, Any], corpus: str, row: Row) -> list[str]:
    """Why the record must not be ranked against the row; empty: they are comparable."""
    return own_reasons(record, corpus) + row_reasons(record, corpus, row)


def own_reasons(record: dict[str, Any], corpus: str) -> list[str]:
    """Why the record must not be ranked against any row."""
    flags = record["flags"]
    reasons = []
    part, n = str(flags.get("part")), flags.get("n", 0)
    if n < _WHOLE * (whole := _expected(corpus).get(part, 0)):
        reasons.append(f"only {n:,} of the {whole:,} clips of {part}")
    if flags.get("unit") == "word":
        reasons.append("words cut from sentences")
    if flags.get("part") != "test":
        reasons.append(f"part {flags.get('part')}")
    if flags.get("limit") is not None:
        reasons.append(f"only {flags['limit']} clips of the part")
    if flags.get("speakers"):
        reasons.append(f"only talkers {', '.join(flags['speakers'])}")
    return reasons


def row_reasons(record: dict[str, Any], corpus: str, row: Row) -> list[str]:
    """What differs between the record and this row."""
    flags = record["flags"]
    reasons = []
    if row.corpus != corpus:
        reasons.append(f"other corpus: {row.corpus}")
    elif flags.get("split") not in row.splits:
        reasons.append(f"other split than {', '.join(row.splits)}")
    if (flags.get("boundary") is True) != row.boundary:  # of words alone; guessed is not told
        reasons.append("with word boundary" if row.boundary else "without word boundary")
    return reasons + row.differs
