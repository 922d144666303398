"""Promise: a record from outside that does not hold what its readers count on is one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import fault

from avb.tools.report.runs import load_run
from avb.train.evaluate.record import check_record, read_record

RESULTS = Path(__file__).parents[3] / "results" / "grid-talker1"
FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6}


def lip() -> dict[str, Any]:
    clip = {"key": "s1/a#0", "label": "bin", "said": "lay", "right": False, "top5": True}
    return {
        "task": "lip", "flags": {"n": 1, "part": "test"}, "clips": [clip],
        "metrics": {"top1": dict(FIGURE)}, "ceiling": {"top1_audio": dict(FIGURE)},
        "floors": {"chance": 0.02},
        "addressing": {"source": {"same": dict(FIGURE), "nulls": {"initial": {}}}},
    }  # fmt: skip


def l2s() -> dict[str, Any]:
    values = {"stoi": 0.5, "pesq": None}
    clip = {"key": "s1/a", "words": ["bin"], "heard": ["lay"], "values": values}
    missing = {"value": None, "low": None, "high": None, "reason": "no word has its times"}
    return {
        "task": "l2s", "flags": {}, "clips": [clip], "metrics": {"pesq": dict(missing)},
        "addressing": missing,
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda p: p.parent.name)
def test_records_that_were_written_pass(path: Path) -> None:
    assert read_record(path)["clips"]


def test_small_ones_pass_too() -> None:
    check_record(lip(), Path("a.json"))
    check_record(l2s(), Path("b.json"))
    long = l2s()
    long["clips"][0]["words"] = ["\u8a71" * 2000]  # no blank parts the words of Chinese
    check_record(long, Path("c.json"))


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (lip, lambda r: r.update(task="x" * 3000), "task is 'xxx"),
        (lip, lambda r: r.update(flags=[]), "flags is"),
        (lip, lambda r: r["flags"].update(n="many"), "flags is"),
        (lip, lambda r: r.update(task={"a": 1}), "task is {'a': 1}"),
        (lip, lambda r: r.update(clips={}), "clips is"),
        (lip, lambda r: r["clips"].append(None), r"clips\[1\] is None"),
        (lip, lambda r: r["clips"][0].pop("key"), r"clips\[0\] has no key"),
        (lip, lambda r: r["clips"][0].update(key="\x1b[2J"), r"clips\[0\].key is"),
        (lip, lambda r: r["clips"][0].update(right="yes"), r"clips\[0\].right is 'yes'"),
        (lip, lambda r: r["metrics"]["top1"].pop("value"), "metrics.top1 is"),
        (lip, lambda r: r["metrics"]["top1"].update(low=None), "metrics.top1 is"),
        (lip, lambda r: r["metrics"]["top1"].update(high=1e308), "metrics.top1 is"),
        (lip, lambda r: r["ceiling"].update(top1_audio="x"), "ceiling.top1_audio is 'x'"),
        (lip, lambda r: r.update(floors=3), "floors is 3"),
        (lip, lambda r: r["addressing"]["source"]["same"].pop("low"), "addressing.source.same"),
        (lip, lambda r: r["addressing"].update(source=7), "addressing.source is 7"),
        (l2s, lambda r: r.update(floors={"noise": -1}), "floors.noise is -1"),
        (l2s, lambda r: r.update(per_slot={"model": {"judge": 1}}), "per_slot.model.judge is 1"),
        (l2s, lambda r: r["addressing"].update(reason=None), "addressing.reason"),
        (l2s, lambda r: r["clips"][0].update(values={"stoi": "x"}), r"clips\[0\].values is"),
        (l2s, lambda r: r["clips"][0].update(words=[1]), r"clips\[0\].words is \[1\]"),
        (l2s, lambda r: r["clips"][0].update(heard="lay"), r"clips\[0\].heard is 'lay'"),
    ],
)
def test_a_record_that_cannot_be_is_named(
    tmp_path: Path, make: Callable[[], dict[str, Any]], change: Callable[[Any], object], said: str
) -> None:
    record = make()
    change(record)
    (tmp_path / "x.json").write_text(json.dumps(record))
    line = fault(read_record, tmp_path / "x.json")
    assert re.search(f"x.json: not a record of avb eval .*{said}", line) and len(line) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: {task: lip, steps: many}\ndata: {labels: []}\n", "recipe.steps: expected int"),
        ("recipe: {task: lip, model: {slots: x}}\ndata: {labels: []}\n", "slots: expected int"),
        ("recipe: {task: lip}\ndata: {labels: [], counts: {train: x}}\n", "counts.train: expected"),
        ("recipe: [1]\ndata: {labels: []}\n", "recipe: expected a mapping"),
        ("[]", "expected a mapping"),
    ],
)
def test_a_run_whose_recipe_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert re.search(f"recipe.yaml.*{said}", fault(load_run, tmp_path))


def test_lines_of_a_log_that_are_none_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("recipe: {task: lip}\ndata: {labels: []}\n")
    lines = ['{"step": "1", "loss": 1}', '{"step": 2, "loss": "x", "lr": 0.1}', "[3]", '{"step":']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert load_run(tmp_path).log == [{"step": 2, "lr": 0.1}]
