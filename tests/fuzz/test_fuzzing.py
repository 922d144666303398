"""Promise: `make fuzz` sees a crash, a hang, too much memory, a traceback; and it still runs."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="films are read with the extra prep")

from fuzzing.__main__ import fuzz
from fuzzing.cases import KINDS, cases, make_seeds
from fuzzing.mutate import mutate, mutate_tree
from fuzzing.pool import Child, Outcome, fault_of, in_children

WRONG = """
import json, os, signal, sys, time
print("{}", flush=True)
for line in sys.stdin:
    how, = json.loads(line)
    if how == "crash":
        print("free(): invalid pointer", file=sys.stderr, flush=True)
        signal.raise_signal(signal.SIGSEGV)
    if how == "hang":
        os.system("sleep 100")
    if how == "memory":
        held = b"x" * (300 << 20)
        time.sleep(100)
    if how == "peak":
        held = b"x" * (300 << 20)
        del held
    answer = {"code": 0, "out": "", "err": "", "trace": "", "programs_mb": 0}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    (tmp_path / "wrong_child.py").write_text(WRONG)
    (tmp_path / "log").touch()
    monkeypatch.chdir(tmp_path)  # where `python -m` looks first
    return Child(tmp_path / "log", "wrong_child")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("crash", "ended with -11: free(): invalid pointer"),
        ("hang", "longer than 0.5 s"),
        ("memory", "more than 200 MB"),
        ("peak", "more than 200 MB"),
    ],
)
def test_a_child_gone_wrong_is_a_finding_and_the_next_runs(
    child: Child, how: str, said: str
) -> None:
    try:
        assert child.run(["fine"], 10, 200).kind == "ok"
        wrong = child.run([how], 0.5 if how == "hang" else 20, 200)
        assert wrong.kind == "finding" and said in wrong.why
        assert child.run(["fine"], 10, 200).kind == "ok"
    finally:
        child.close()


@pytest.mark.parametrize(
    ("command", "code", "out", "err", "why"),
    [
        ("infer", 1, "", "avb: x.mp4: not a video\n", ""),
        ("infer", 1, "", "", "no line says why"),
        ("infer", 1, "", "a\nb\n", "0 lines that begin"),
        ("infer", 1, "", "avb: a\navb: b\n", "2 lines that begin"),
        ("infer", 1, "", "avb: \x1b[2J\n", "cannot be read"),
        ("infer", 70, "", "avb: a\n", "exit code 70"),
        ("infer", 0, '{"a": NaN}', "", "no JSON"),
        ("verify", 1, "", "a.tar: cut\n1 shards, 2 samples: 1 faults\n", ""),
        ("verify", 2, "", "a.tar: cut\n", "0 lines that begin"),
    ],
)
def test_what_is_a_clear_line(command: str, code: int, out: str, err: str, why: str) -> None:
    found = fault_of(Outcome(code, out, err), command)
    assert why in found and bool(why) == bool(found)


def test_a_traceback_is_a_finding() -> None:
    assert "KeyError: 'x'" in fault_of(Outcome(1, trace="Traceback\nKeyError: 'x'\n"), "infer")


def test_one_number_makes_one_damage() -> None:
    data = bytes(range(256)) * 40
    made = [mutate(np.random.default_rng([1, i]), data, [data]) for i in range(200)]
    again = [mutate(np.random.default_rng([1, i]), data, [data]) for i in range(200)]
    assert made == again and all(changed != data for _, changed in made)
    names = {name for done, _ in made for name in done.split("+")}
    assert len(names) == 10
    tree = {"a": [1, 2.0, "x"], "b": {"c": None, "d": True}}
    same = 0
    for i in range(200):
        copy = json.loads(json.dumps(tree))
        mutate_tree(np.random.default_rng(i), copy)
        same += copy == tree
    assert same < 20  # a value may be swapped with itself


def test_children_share_the_work(tmp_path: Path) -> None:
    found = list(in_children(lambda child, item: item**2, range(20), tmp_path, 3))
    assert sorted(found) == [n**2 for n in range(20)]


@pytest.mark.slow
def test_some_of_each_kind_are_ok_or_a_line(tmp_path: Path) -> None:
    counts = {"film": 6, "table": 0, "checkpoint": 12, "shard": 4, "cell": 12, "align": 0}
    counts |= {"record": 8, "judge": 4, "vocoder": 4}
    assert fuzz(cases(counts, 7), make_seeds(tmp_path / "out"), tmp_path / "out", 1) == 0
    rows = [json.loads(line) for line in open(tmp_path / "out" / "results.jsonl")]
    assert {row["kind"] for row in rows} == {*KINDS} - {"table", "align"} and len(rows) == 50
    assert not list((tmp_path / "out" / "work").iterdir())
