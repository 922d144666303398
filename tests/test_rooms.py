"""Which room may import which: every import of the package is in this table, and no circle is.

Imports inside functions and behind TYPE_CHECKING count like any other.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

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


def sources(*more: str) -> list[Path]:
    tops = ("pipeline", "models", "train", "tools", *more)
    return [path for top in tops for path in (ROOT / top).rglob("*.py")]


def imports() -> dict[str, set[str]]:
    """Every module of the package with the modules of the package that its text imports."""
    files = {}
    for path in sources():
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


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        (r"(?m)^\s*(import (.*, *)?|from )torchaudio\b", "pipeline/clip/audio.py"),
        # Pictures of a corpus are read by PyAV whatever OpenCV there is.
        (r"cv2\.(imread|imdecode|VideoCapture)", "pipeline/clip/codec.py"),
        ("sched_getaffinity", "pipeline/machine.py"),
        ("ru_maxrss", "pipeline/machine.py"),
    ],
)
def test_it_is_asked_for_in_one_file(pattern: str, file: str) -> None:
    found = [path for path in sources("avb") if re.search(pattern, path.read_text("utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in found] == [file]


def test_no_circle_of_imports() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())
    try:
        list(TopologicalSorter(imports()).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None


def test_from_a_unit_of_work_to_a_picture_are_few_calls(
    tmp_path: Path, drawn_lrw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avb.pipeline.build.unit import Task, run_unit
    from avb.pipeline.clip import pyav

    class Reached(BaseException):
        pass

    monkeypatch.setattr(pyav, "luma_of", Mock(side_effect=Reached))
    drawn_lrw.importer().plan(tmp_path / "plan.arrow")
    (tmp_path / "lrw").mkdir()
    with pytest.raises(Reached) as raised:
        list(run_unit(Task(tmp_path / "plan.arrow", tmp_path / "lrw", 0)))
    ours = [f"{step.path}" for step in raised.traceback if "avb/pipeline" in str(step.path)]
    assert 5 < len(ours) + 1 <= 8 and len(set(ours)) <= 6, [str(step) for step in raised.traceback]


def test_no_file_is_longer_than_350_lines_and_no_function_than_70() -> None:
    long = []
    for path in sources("tests"):
        text = path.read_text()
        long += [path.name] * (text.count("\n") > 350)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{path.name}: {node.name}, {lines}"] * (lines > 70)
    assert long == []
