"""`avb train` and `avb eval` as they are typed: a run, its resume, its record, one line a fault."""

import json
import resource
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import prepared
import pytest
import yaml
from commands import avb, did, refused
from prepared import set_column

from avb.pipeline.stream.index import Index
from avb.tools.cli import evaluate as commands
from avb.tools.cli.evaluate import table
from avb.train import checkpoint
from avb.train.evaluate import evaluate

TINY = ["--recipe", "tiny", "--set", "unit=clip", "--set", "batch_size=4", "--set", "model.width=8"]


def test_a_run_is_trained_resumed_and_evaluated(lrw: Index, tmp_path: Path) -> None:
    words = ["--data", lrw.folder, "--device", "cpu", "--out", tmp_path / "run", *TINY]
    text = did("train", "lip", *words, "--steps", 2).stderr
    assert "split official" in text and "test is not looked at" in text
    assert avb("train", "lip", *words, "--steps", 3)[0] == 2  # the folder holds a run
    did("train", "lip", *words, "--steps", 3, "--resume")
    saved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert saved["recipe"]["steps"] == 3 and saved["data"]["split"] == "official"
    out = tmp_path / "record.json"
    words = ["--ckpt", tmp_path / "run" / "last.pt", "--data", lrw.folder, "--part", "val"]
    record = json.loads(
        did("eval", "lip", *words, "--device", "cpu", "--out", out, "--json").stdout
    )
    assert record == json.loads(out.read_text()) and record["flags"]["step"] == 3
    assert {"value", "low", "high"} <= set(record["metrics"]["top1"])
    (tmp_path / "grammar.yaml").write_text("[[bin], [blue]]")
    line = refused("eval", "lip", "--ckpt", tmp_path / "run", "--data", lrw.folder, "--part", "val",
                   "--grammar", tmp_path / "grammar.yaml", "--out", out)  # fmt: skip
    assert "reads single words" in line


def test_a_run_is_called_as_its_recipe_s_file_wherever_that_lies(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text("unit: clip\nbatch_size: 4\nmodel: {width: 8}\n")
    words = ["--data", lrw.folder, "--device", "cpu", "--steps", 1, "--recipe", mine]
    assert avb("train", "lip", *words)[0] == 0
    told = avb("ablate", "lip", "--slots", "0", "--seeds", "0", *words, "--dry-run").stdout
    assert "runs/ablate-lip-lrw-mine/" in told
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lip-lrw-mine"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(lrw: Index, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--data", lrw.folder, "--device", "cpu", "--out", out, *TINY]
    words += ["--set", "validate_every=1"]
    did("train", "lip", *words, "--steps", 1)
    before = {path.name: path.read_bytes() for path in out.glob("*.pt")}
    limit = len(before["last.pt"]) // 2
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    full = prepared.run("train", "lip", *words, "--steps=3", "--resume", preexec_fn=small)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"avb: {out}: File too large; checkpoints")
    assert {path.name: path.read_bytes() for path in out.glob("*.pt*")} == before
    did("train", "lip", *words, "--steps", 3, "--resume")
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").open()]
    assert steps == sorted(steps) and steps.count(3) == 2  # its losses, its validation


def test_what_cannot_be_written_is_said_first_and_figures_are_shown_before_they_are(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ["--data", lrw.folder, "--device", "cpu", "--out", run, *TINY, "--steps", 1]
    did("train", "lip", *words)
    asked = ["eval", "lip", "--ckpt", run, "--data", lrw.folder, "--part", "val"]
    real = evaluate.evaluate
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: pytest.fail("the pass was begun"))
    assert "is a folder" in refused(*asked, "--out", tmp_path)
    words = [*asked, "--out", run / "full" / "val.json"]
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1, 1))
    done = prepared.run(*words, preexec_fn=small)
    assert done.returncode == 2 and "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    monkeypatch.setattr(evaluate, "evaluate", real)
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(commands, "write_atomic", full)
    code, printed, text = avb(*asked, "--out", tmp_path / "val.json")
    assert code == 1 and "top1" in printed
    assert text.splitlines()[-1].startswith(f"avb: {tmp_path}/val.json: No space left on device")


def test_the_record_of_a_run_is_not_replaced_by_one_of_something_else(
    lrw: Index, tmp_path: Path
) -> None:
    run, record = tmp_path / "run", tmp_path / "run" / "val.json"
    words = ["--data", lrw.folder, "--device", "cpu"]
    assert avb("train", "lip", *words, "--out", run, *TINY, "--steps", 1)[0] == 0
    asked = ["eval", "lip", *words, "--part", "val", "--ckpt"]
    assert avb(*asked, run)[0] == 0
    before = record.read_bytes()
    for ckpt, *more in ([run, "--boundary", "none"], [run, "--speakers", "s1"], [run / "last.pt"]):
        line = refused(*asked, ckpt, *more)
        assert f"{record} is the record" in line and "--out" in line, line
        assert (more[0] if more else "last.pt") in line
    for option in (["--windows", "cut"], ["--griffin-lim", "published"], ["--vocoder", "v.pt"]):
        assert option[0] in refused("eval", "l2s", *words, "--ckpt", run, *option)
    assert record.read_bytes() == before
    assert avb(*asked, run, "--boundary", "none", "--out", tmp_path / "none.json")[0] == 0
    assert avb(*asked, run)[0] == 0  # the same again
    record.unlink()
    other = shutil.copytree(str(lrw.folder), tmp_path / "other")
    facts = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(facts | {"fingerprint": "0" * 64}))
    line = refused("eval", "lip", "--data", other, "--part", "val", "--ckpt", run)
    assert f"--data of other shards: {record}" in line and not record.exists()


def test_a_table_shows_the_model_first_and_why_a_figure_is_missing() -> None:
    figure = {"value": 0.25, "low": 0.125, "high": 0.5}
    none = {"value": None, "low": None, "high": None, "reason": "no --judge given"}
    record = {
        "task": "l2s",
        "metrics": {"estoi": figure, "wer_judge": none},
        "ceiling": {"estoi": figure | {"value": 0.75}, "wer_judge": none},
        "real": {"wer_judge": none},
        "floors": {"noise": {"estoi": figure | {"value": 0.0}, "wer_judge": none}},
    }
    head, first, second, reason = (line.split() for line in table(record))
    assert head == ["model", "[95", "%]", "ceiling", "real", "noise"]
    assert first == ["estoi", "0.2500", "[0.1250,", "0.5000]", "0.7500", "-", "0.0000"]
    assert second == ["wer_judge", "-", "-", "-", "-"]
    assert " ".join(reason) == "wer_judge: no --judge given"
    words = {"task": "lip", "metrics": {"top1": figure}, "floors": {"chance": 0.02}}
    top1, chance = (line.split() for line in table(words)[1:])
    assert top1 == ["top1", "0.2500", "[0.1250,", "0.5000]"] and chance == ["chance", "0.0200"]
    joined = words | {"floors": {}, "models": {"s1": {"metrics": {"top1": figure}}}}
    assert table(joined)[1].split() == ["top1", "0.2500", "[0.1250,", "0.5000]", "0.2500"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "avb synth"),
        (["--recipe", "tinny"], "did you mean tiny"),
        (["--set", "stepz=3"], "the nearest right one is 'steps'"),
        (["--split", "nobody"], "no split 'nobody'"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--device", "cpu:x"], "cpu or cuda"),
        (["--set", "crop=face"], "no face"),
        *((["--epochs", endless], "--epochs") for endless in ("inf", "nan", "1e300", "1e12")),
    ],
)
def test_wrong_words_are_one_line(
    lrw: Index, tmp_path: Path, words: list[str], message: str
) -> None:
    given = ["--data", lrw.folder, "--out", tmp_path / "run", *words]
    assert message in refused("train", "lip", *given)
    assert not (tmp_path / "run").exists()


def test_each_talker_gets_a_model_of_its_own_clips(grid: Index, tmp_path: Path) -> None:
    keys = [grid.key(i) for i in range(len(grid))]
    of = {talker: [k for k in keys if k.startswith(talker + "/")] for talker in ("s1", "s2")}
    listed = tmp_path / "mine.txt"
    listed.write_text("".join(f"train {k[0]}\nval {k[1]}\n" for k in of.values()))
    words = ["train", "l2s", "--data", grid.folder, "--recipe", "tiny", "--per-talker",
             "--device", "cpu", "--set", "batch_size=1", "--set", "steps=1",
             "--split-file", listed, "--out", tmp_path / "runs"]  # fmt: skip
    did(*words)
    for talker, own in of.items():
        saved = checkpoint.load(tmp_path / "runs" / talker / "last.pt")["data"]
        assert saved["speakers"] == [talker] and saved["counts"]["train"] == 1
        assert saved["listed"][own[0]] == "train" and saved["split"] == "mine.txt"
    did(*words, "--resume")  # what is done is done
    of_one = shutil.copytree(grid.folder, tmp_path / "one" / "grid")
    set_column(of_one, "speaker", ["s1" if key in of["s1"] else None for key in keys])
    some = [*words[:3], of_one, *words[4:-1], tmp_path / "one" / "runs"]
    assert "note: 1 clips without a talker teach no model of --per-talker" in did(*some).stderr
    odd = shutil.copytree(grid.folder, tmp_path / "odd" / "grid")
    set_column(odd, "speaker", [f"../{key.split('/')[0]}" for key in keys])
    words[words.index(grid.folder)] = odd
    words[-1] = tmp_path / "other" / "runs"
    assert "no folder can be called '../s1'" in refused(*words)
    assert not (tmp_path / "other").exists()
