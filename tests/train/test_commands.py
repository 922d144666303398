"""`avb train` and `avb eval` as they are typed: a run, its resume, its record, one line a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from avb.pipeline.index import Index
from avb.tools.cli import app

TINY = ["--recipe", "tiny", "--set", "unit=clip", "--set", "batch_size=4", "--set", "model.width=8"]


def avb(*words: object) -> tuple[int, str, str]:
    run = CliRunner().invoke(app, [str(word) for word in words])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return run.exit_code, run.stdout, run.stderr


def test_a_run_is_trained_resumed_and_evaluated(lrw: Index, tmp_path: Path) -> None:
    words = ["--data", lrw.folder, "--device", "cpu", "--out", tmp_path / "run", *TINY]
    code, _, text = avb("train", "lip", *words, "--steps", 2)
    assert code == 0 and "split official" in text and "test is not looked at" in text
    assert avb("train", "lip", *words, "--steps", 3)[0] == 2  # the folder holds a run
    assert avb("train", "lip", *words, "--steps", 3, "--resume")[0] == 0
    saved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert saved["recipe"]["steps"] == 3 and saved["data"]["split"] == "official"
    out = tmp_path / "record.json"
    code, printed, _ = avb(
        "eval", "lip", "--ckpt", tmp_path / "run" / "last.pt", "--data", lrw.folder,
        "--part", "val", "--device", "cpu", "--out", out, "--json",
    )  # fmt: skip
    record = json.loads(printed)
    assert code == 0 and record == json.loads(out.read_text())
    assert record["flags"]["step"] == 3 and {"value", "low", "high"} <= set(
        record["metrics"]["top1"]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "avb synth"),
        (["--recipe", "tinny"], "did you mean tiny"),
        (["--set", "stepz=3"], "the nearest right one is 'steps'"),
        (["--split", "nobody"], "no split 'nobody'"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--set", "crop=face"], "no face"),
    ],
)
def test_a_wrong_word_is_one_line(
    lrw: Index, tmp_path: Path, words: list[str], message: str
) -> None:
    given = ["--data", lrw.folder, "--out", tmp_path, *words]
    code, _, text = avb("train", "lip", *given)
    assert code == 2 and message in text
    assert len(text.strip().splitlines()) <= 2 and "Traceback" not in text
