"""`avb reproduce`: a table of the paper as commands that can be typed, run, stopped and resumed."""

import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import prepared
import pytest
import yaml
from commands import avb, did, refused
from networks import READER

from avb.pipeline.config import load_corpora
from avb.tools.report import published
from avb.tools.reproduce import plan, run
from avb.tools.reproduce import result as result_module
from avb.tools.reproduce.plan import Step, Wanted


def wanted(table: str, out: Path, **changes: Any) -> Wanted:
    asked = plan.tables()[table]
    corpus = next(iter(asked.recipes))
    given = {"recipe": asked.recipes[corpus], "seeds": [0, 1]} | changes
    return Wanted(asked, corpus, out / "shards" / corpus, out, **given)


def finish(table: Wanted, arm: str, seed: int, clips: list[Any]) -> None:
    """The run of an arm as it lies there when all of its steps are done."""
    folder = table.folder(arm, seed)
    folder.mkdir(parents=True)
    (folder / plan.DONE).write_text('{"done": true, "seconds": 36.0}')
    flags = {"part": "test", "seed": seed, "checkpoint_sha256": f"{arm}{seed}"}
    record = {"task": table.table.task, "flags": flags, "clips": clips, "metrics": {}, "floors": {}}
    (folder / plan.RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize("table", plan.tables())
def test_every_command_is_one_that_avb_takes_after_those_it_begins_with(
    table: str, tmp_path: Path
) -> None:
    paths: dict[tuple[str, ...], str] = {}
    begun = []
    for step in plan.steps(wanted(table, tmp_path, speakers="s1", device="cpu", steps=3)):
        depth = 2 if step.words[0] in ("train", "eval", "prep") else 1
        path = tuple(step.words[:depth])
        if path not in paths:
            paths[path] = did(*path, "--help").output
        for word in step.words:
            assert not word.startswith("--") or f"{word} " in paths[path], (word, step.words)
        for flag in ("--init", "--teacher"):
            if flag in step.words:
                assert step.words[step.words.index(flag) + 1] in begun
        if step.recipe is not None:
            begun.append(step.words[step.words.index("--out") + 1])
    made = {s.done for s in plan.steps(wanted(table, tmp_path)) if s.words[0] in ("plot", "listen")}
    again = plan.steps(wanted(table, tmp_path, seeds=[1]))  # what is of seed 0 is none of theirs
    assert not made & {step.done for step in again}


def test_every_table_names_sources_and_corpora_that_there_are() -> None:
    corpora = load_corpora()
    for name, table in plan.tables().items():
        assert set(table.recipes) <= set(corpora), name
        found = [r for r in published.load().rows if any(t in r.source for t in table.published)]
        assert found or name == "figures", name


def test_the_front_end_of_adaptation_is_as_wide_as_the_reader_s(tmp_path: Path) -> None:
    steps = plan.steps(wanted("table5", tmp_path, recipe="tiny"))
    in_sync, reader = (next(s.recipe for s in steps if s.words[:2] == ["train", task] and s.recipe)
                       for task in ("sync", "lip"))  # fmt: skip
    assert in_sync.model["width"] == reader.model["width"] == 16
    assert in_sync.shrink == reader.shrink == 2


def test_a_file_is_the_recipe_of_the_table_and_not_of_its_helpers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("shrink: 2\nmodel: {width: 16, blocks: 1}\n")
    steps = plan.steps(wanted("table5", tmp_path, recipe=str(tmp_path / "mine.yaml")))
    named = {s.words[1]: s.words[s.words.index("--recipe") + 1] for s in steps if s.recipe}
    assert named["lip"].endswith("mine.yaml") and named["sync"] == named["asr"] == "paper"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.shards("grid", 12, tmp_path_factory.mktemp("grid"), crop="lips").folder


def test_a_table_is_made_resumed_where_it_stopped_and_not_made_twice(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"corpus": "grid", "unit": "word", "split": "vcagan-16-7-10", "model": READER}
    recipe |= {"batch_size": 4, "steps": 2, "validate_every": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe))
    ran: list[str] = []
    code = 0

    def here(words: Sequence[str]) -> int:
        """In this process."""
        ran.append(shlex.join(words))
        return avb(*words).exit_code if not code or words[0] != "eval" else code

    monkeypatch.setattr(run, "call", here)
    line = ["reproduce", "table1", "--corpus", "grid", "--recipe", tmp_path / "small.yaml"]
    line += ["--data", shards, "--seeds", "0", "--device", "cpu", "--out", tmp_path / "out"]
    told = did(*line, "--dry-run").output
    assert not ran and "trainings that are left" in told and "too long" not in told
    with monkeypatch.context() as slow:
        slow.setattr(run, "clips_per_s", lambda *_: 1e-6)
        todo = json.loads(did(*line, "--dry-run", "--json").stdout)
        told = did(*line, "--dry-run").output
    hours = [step["hours"] for step in todo["steps"] if step["hours"] is not None]
    assert len(hours) == 2 and todo["hours"] == pytest.approx(sum(hours)) and not todo["missing"]
    assert "too long for this machine: --recipe tiny" in told
    code = 137  # as if killed when the first is measured
    stopped = avb(*line)
    assert stopped.exit_code == 137 and "the same command goes on there" in stopped.stderr
    assert [words.split()[0] for words in ran] == ["train", "train", "eval"]
    ran.clear()
    code = 0
    whole = did(*line)
    assert [words.split()[0] for words in ran] == ["eval", "eval"]
    assert "baseline" in whole.stdout and "memory" in whole.stdout
    found = json.loads((tmp_path / "out" / "table1.json").read_text())
    baseline, memory = found["arms"]
    for arm in (baseline, memory):
        path = tmp_path / "out" / arm["name"] / "seed0" / "test.json"
        measured = json.loads(path.read_text())["metrics"]["top1"]["value"]
        assert arm["metrics"]["top1"]["value"] == pytest.approx(measured) and arm["seconds"] > 0
    gain = memory["metrics"]["top1"]["difference"]["value"]
    values = [arm["metrics"]["top1"]["value"] for arm in (baseline, memory)]
    assert gain == pytest.approx(values[1] - values[0])
    assert "GRID" in found["title"] and all(row["why"] for row in found["published"])
    page = (tmp_path / "out" / "table1.html").read_text()
    assert "Words from silent lips" in page and "Multi-Grained" in page
    ran.clear()
    did(*line)
    assert not ran
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe | {"batch_size": 2}))
    changed = avb(*line)
    assert changed.exit_code == 2 and changed.stderr.endswith("as it was, or give another --out\n")
    assert len(ran) == 1


def test_shards_of_another_corpus_make_no_table(shards: Path, tmp_path: Path) -> None:
    for more in ([], ["--dry-run"]):
        words = ["--data", shards, "--out", tmp_path / "out", "--device", "cpu", *more]
        line = refused("reproduce", "table1", "--corpus", "lrw", *words)
        assert "shards of grid, and this table is of lrw" in line and str(shards) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "package"), [("table2", "pystoi"), ("table1", "jinja2"), ("figures", "sklearn")]
)
def test_what_a_table_is_made_with_is_there_before_anything_is_trained(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(run, "call", Mock(side_effect=AssertionError("begun")))
    words = ["--data", shards, "--corpus", "grid", "--out", tmp_path / "out"]
    assert f"{package} not installed" in refused("reproduce", table, *words)


def test_what_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    line = refused("reproduce", "table1", "--data", tmp_path / "lrw", "--root", tmp_path / "no")
    assert "no raw corpus" in line and "BBC" in line
    (tmp_path / "raw").mkdir()
    words = ["--root", tmp_path / "raw", "--data", tmp_path / "none", "--dry-run"]
    line = refused("reproduce", "table1", *words)  # avb prep would write beside it
    assert f"such as {tmp_path}/none/lrw" in line
    refused("reproduce", "table2", "--corpus", "lrw")
    line = refused("reproduce", "table5", "--corpus", "grid", "--unit", "sentence", "--dry-run")
    assert "table5 is of words, --unit clip or word" in line
    assert "whole numbers" in refused("reproduce", "table1", "--seeds", "one", "--dry-run")


def test_a_step_that_fails_keeps_its_hours_and_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = next(s for s in plan.steps(wanted("table1", tmp_path)) if s.recipe is not None)
    training.done.parent.mkdir(parents=True)
    for code in (1, -9, 0):
        monkeypatch.setattr(run, "call", lambda words, code=code: code)
        monkeypatch.setattr(run.time, "monotonic", iter([0.0, 5.0]).__next__)
        if code:
            with pytest.raises(run.Stopped) as stopped:
                run.carry_out(training)
            assert stopped.value.code == (1 if code == 1 else 137)
        else:
            run.carry_out(training)
        assert training.is_done() is (code == 0)
    assert json.loads(training.done.read_text())["seconds"] == 15.0
    for other in ({"steps": 9}, {"speakers": "s1"}, {"data": tmp_path / "other" / "lrw"}):
        changed = replace(wanted("table1", tmp_path), **other)
        again = next(s for s in plan.steps(changed) if s.done == training.done)
        assert not again.is_done()  # it looks itself whether it is the run that is asked for
    known = json.loads(training.done.read_text())
    training.done.write_text(json.dumps(known | {"shards": "of others"}))
    assert not training.is_done()
    assert Step(["eval"], tmp_path / "no").is_done() is False


def test_hours_that_nobody_timed_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a training that was typed on a cluster, or whose table was killed."""
    training = next(s for s in plan.steps(wanted("table1", tmp_path)) if s.recipe is not None)
    training.done.parent.mkdir(parents=True)
    training.done.with_name("last.pt").touch()
    monkeypatch.setattr(run, "call", lambda words: 0)
    for _ in range(2):
        run.carry_out(training)
        assert json.loads(training.done.read_text())["seconds"] is None


def test_what_is_older_than_its_checkpoint_is_made_anew(tmp_path: Path) -> None:
    measured = next(s for s in plan.steps(wanted("table1", tmp_path)) if s.words[0] == "eval")
    measured.done.parent.mkdir(parents=True)
    for name in ("best.pt", plan.RECORD):
        (measured.done.parent / name).touch()
    assert measured.is_done()
    os.utime(measured.done, (1, 1))
    assert not measured.is_done()


def test_what_a_step_prints_is_not_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.wait_for([sys.executable, "-c", "print('a step')"]) == 0
    assert capfd.readouterr() == ("", "a step\n")


@pytest.mark.parametrize(
    ("name", "of_paper"),
    {"table1": "85.4", "table2": "1.98", "table3": "4.37", "table4": "1.33", "table5": "84.5",
     "ablation": "85.4", "figures": None}.items(),
)  # fmt: skip
def test_every_table_shows_every_arm_and_the_paper_s(
    name: str, of_paper: str | None, tmp_path: Path
) -> None:
    table = wanted(name, tmp_path)
    task = table.table.task
    for place, arm in enumerate(table.table.arms):
        for seed in table.seeds:
            clips = [{"key": f"s1/{i}", "right": i < 10 * place, "words": [],
                      "values": {"stoi": 0.01 * i}} for i in range(70)]  # fmt: skip
            finish(table, arm, seed, clips)
    found = result_module.result(table, name, "title")
    assert [arm["name"] for arm in found["arms"]] == list(table.measured())
    metric = "top1" if task == "lip" else "stoi"
    for place, arm in enumerate(table.table.arms):
        if not table.table.arms[arm].helper:
            [row] = [row for row in found["arms"] if row["name"] == arm]
            expected = 10 * place / 70 if task == "lip" else 0.345
            assert row["metrics"][metric]["value"] == pytest.approx(expected)
    text = "\n".join(result_module.as_text(found))
    hours = f"{len(table.seeds) * 36 / 3600:.2f}"
    for name, arm in table.table.arms.items():
        own = rf"^{name}{', for other arms' * arm.helper} .*{hours}$"
        assert re.search(own, text, re.M), name
    found["arms"][0]["seconds"] = None
    assert result_module.tables(found)[0].rows[0][-1] == "\N{EN DASH}"
    assert ("Published" in text) == (of_paper is not None) and (of_paper or "title") in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_table_told_to_stop_waits_until_its_step_is_saved(number: int, tmp_path: Path) -> None:
    """As a training does: it takes its time to save, and ends with 75. Ctrl-C reaches both."""
    script = tmp_path / "step.py"
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "def leave(*_):\n    time.sleep(0.5)\n    print('saved')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, leave)\nsignal.signal(signal.SIGINT, leave)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(60)\n"
    )
    real = run.subprocess.Popen

    def stop(step: Any) -> None:
        while not (tmp_path / "ready").exists():
            if step.poll() is not None:
                return
            time.sleep(0.02)
        if number == signal.SIGINT:
            step.send_signal(number)
        os.kill(os.getpid(), number)

    def start(words: Sequence[str], **given: Any) -> Any:
        step = real(words, **given)
        threading.Thread(target=stop, args=[step]).start()
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.subprocess, "Popen", start)
        assert run.wait_for([sys.executable, str(script)]) == 75
