"""Which room may import which: every import of the package is in this table, and no circle is.

Imports inside functions and behind TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = {"errors", "files", "machine", "parse"}

#: Rooms from the lowest up, each with those whose files its own may import.
MAY_IMPORT = {
    "base": set(),
    "storage": {"base"},
    "config": {"base", "storage"},
    "clip": {"base", "config"},
    "settings": {"base", "config", "clip"},
    "corpora": {"base", "storage", "config", "clip", "settings"},
    "shards": {"base", "storage", "config", "clip"},
    "build": {"base", "storage", "config", "clip", "settings", "corpora", "shards"},
    "stream": {"base", "storage", "config", "clip", "shards"},
    "models": set(),
    "train": {"base", "storage", "config", "clip", "corpora", "shards", "stream", "models"},
    "tools": {
        *("base", "storage", "config", "clip", "settings", "corpora", "shards", "build"),
        *("stream", "models", "train"),
    },
}

#: TODO: imports of circles that are still to be opened; each goes from here with its circle.
CIRCLES = {
    ("avb.train.tasks", "avb.train.augment"),
    ("avb.train.tasks", "avb.train.network"),
    ("avb.train.tasks", "avb.train.recipe"),
}


def imports() -> dict[str, set[str]]:
    """Every module of the package with the modules of the package that its text imports."""
    files = {}
    for top in ("pipeline", "models", "train", "tools"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(("avb", *parts)).removesuffix(".__init__")] = path
    wanted: dict[str, set[str]] = {}
    for name, path in files.items():
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        pairs = [(a.name, "") for n in nodes if isinstance(n, ast.Import) for a in n.names]
        pairs += [(n.module or "", a.name) for n in nodes if isinstance(n, ast.ImportFrom)
                  for a in n.names]  # fmt: skip
        targets = {m if f"{m}.{a}" not in files else f"{m}.{a}" for m, a in pairs}
        wanted[name] = targets & files.keys() - {name}
    return wanted


def room(module: str) -> str:
    _, top, *rest = module.split(".")
    if top != "pipeline":
        return top
    return "base" if not rest or rest[0] in BASE else rest[0]


def test_a_room_imports_only_what_it_may() -> None:
    found = {(a, b) for a, targets in imports().items() for b in targets if room(a) != room(b)}
    assert sorted(f"{a} -> {b}" for a, b in found if room(b) not in MAY_IMPORT[room(a)]) == []


def test_no_circle_of_imports() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())
    graph = {a: {b for b in targets if (a, b) not in CIRCLES} for a, targets in imports().items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None
