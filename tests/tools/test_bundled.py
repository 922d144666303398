"""Promise: avb reads a clip without a training, and says how good its own networks are."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import avb, did, refused
from networks import save_model, save_vocoder
from prepared import draw

from avb.tools.infer import bundled
from avb.tools.infer.model import load_trained

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
RESULTS = Path(__file__).parents[2] / "results" / "bundled"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small networks in place of those that come with avb, measured by nobody."""
    folder = tmp_path / "bundled"
    for task in ("lip", "l2s"):
        save_model(tmp_path / f"{task}.pt", task)
    save_model(tmp_path / "sentence.pt", "lip", unit="sentence")
    save_vocoder(tmp_path / "vocoder.pt")
    for name in ("lip", "sentence", "l2s", "vocoder"):
        words = ["--ckpt", tmp_path / f"{name}.pt", "--to", "safetensors", "--half"]
        did("export", *words, "--out", folder / name)
    monkeypatch.setattr(bundled, "FOLDER", folder)
    return folder


def measure(path: Path, top1: float, speakers: list[str] | None) -> None:
    """Say in an export that it was measured."""
    config = json.loads(path.read_text())
    figures = {"metrics": {"top1": {"value": top1}}, "floors": {"chance": 0.1, "slot": 0.375}}
    config["measured"].append(figures | {"speakers": speakers})
    path.write_text(json.dumps(config))


def test_what_comes_with_avb_is_small_and_its_figures_are_those_of_records() -> None:
    for path in [*bundled.checkpoints(), bundled.checkpoint("vocoder")]:
        assert path.stat().st_size <= 4e6
        assert (path.parent / "MODEL_CARD.md").is_file()
    for path in bundled.checkpoints():
        task = path.parent.name
        trained = load_trained(task, path)
        records = [json.loads(p.read_text()) for p in sorted(RESULTS.glob(f"{task}-*.json"))]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        found = bundled.measured(path)
        assert len(found) == len(records) == 2
        for record in records:
            assert record["flags"]["checkpoint_sha256"] == sha256
            assert any(one["metrics"] == record["metrics"] for one in found)
        said = bundled.known(task, trained.labels, trained.talkers, path)
        assert "one talker" in said and "held out" in said and "strangers" in said


def test_a_clip_is_read_and_spoken_without_a_checkpoint(own: Path, tmp_path: Path) -> None:
    clip = next(draw("grid", tmp_path / "raw", 1).rglob("*.mpg"))
    for path, top1 in (("lip", 0.905), ("lip", 0.125)):
        measure(own / path / "config.json", top1, ["s2"] if top1 < 0.5 else None)
    _, out, told = did("infer", "lip", clip)
    assert len(re.findall(r"^ +\d", out, re.M)) > 5
    assert "words of the talkers of its split" in told
    assert "clips held out 90 % right (38 % without looking)" in told
    assert "on strangers 12 % right" in told
    srt = tmp_path / "x.srt"
    figure = {"wer_grammar": {"value": 0.25}}
    config = json.loads((own / "sentence/config.json").read_text())
    config["measured"] = [{"metrics": figure, "floors": {"grammar": {"wer_grammar": 0.81}}}
                          | {"speakers": None}]  # fmt: skip
    (own / "sentence/config.json").write_text(json.dumps(config))
    told = did("infer", "lip", clip, "--srt", srt).stderr
    assert srt.is_file()
    assert "on clips held out 25 % of the words wrong (81 % without looking)" in told
    assert "not measured" in did("infer", "l2s", clip, "--out", tmp_path / "x.wav").stderr
    assert (tmp_path / "x.wav").stat().st_size > 90_000


def test_the_quick_demo_is_a_page_that_says_what_is_a_guess(own: Path, tmp_path: Path) -> None:
    measure(own / "lip" / "config.json", 0.905, None)
    out = tmp_path / "demo"
    assert did("demo", "--quick", "--out", out).stdout.strip() == str(out / "quick.html")
    assert {path.name for path in out.iterdir()} == {"drawn.mpg", "quick.html"}
    page = (out / "quick.html").read_text()
    assert "This clip is drawn" in page and "90 % right" in page and "a guess" in page
    assert page.count("<audio") == 2 and "data:video/mp4;base64," in page
    assert "bin" in page and 'src="http' not in page and len(page) < 3e6
    mine = shutil.copy(out / "drawn.mpg", tmp_path / os.fsdecode(b"\xff.mpg"))
    did("demo", "--quick", mine, "--out", tmp_path / "mine")
    page = (tmp_path / "mine" / "quick.html").read_text()
    assert "a stranger badly" in page and "<h1>\\xff.mpg, read" in page
    line = refused("demo", "--quick", "--out", out / "quick.html")
    assert f"{out / 'quick.html'}: cannot be made (File exists)" in line
    for path in (out / "drawn.mpg", out / "quick.html"):
        path.unlink()
        path.mkdir()
        done = avb("demo", "--quick", "--out", out)
        assert done.exit_code == 2 and done.stdout == ""
        assert f"avb: {path}: cannot be written (Is a directory)" in done.stderr.splitlines()
        path.rmdir()
    line = refused("demo", "--quick", tmp_path / "none.mpg", "--out", tmp_path / "none", code=1)
    assert line.endswith("No such file or directory")


def test_a_run_is_known_by_its_own_record_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "best.pt", "lip")
    known: Any = ("lip", ["a", "b"], ["s1"], tmp_path / "best.pt")
    assert "not measured" in bundled.known(*known)
    sha256 = hashlib.sha256((tmp_path / "best.pt").read_bytes()).hexdigest()
    right = {"metrics": {"top1": {"value": 0.5}}, "floors": {"chance": 0.02}}
    wrong = {"metrics": {"wer_free": {"value": 0.25}}, "floors": {}}  # of a corpus without grammar
    sound = {"metrics": {"stoi": {"value": 0.5}}, "floors": {}}
    null = {"metrics": {"stoi": {"value": None, "reason": "no sound"}}, "floors": {}}
    for task, figures, given, said in (
        ("lip", right, sha256, "on clips held out 50 % right (2 % without looking)"),
        ("lip", right, "0" * 64, "not measured"),
        ("sentence", wrong, sha256, "on clips held out 25 % of the words wrong"),
        ("l2s", sound, sha256, "on clips held out STOI 0.50 (1 the real one)"),
        ("l2s", null, sha256, "not measured"),
    ):
        flags = {"checkpoint_sha256": given, "speakers": ["s1"]}
        (tmp_path / "test.json").write_text(json.dumps(figures | {"flags": flags}))
        assert said in bundled.known(task, *known[1:])


@pytest.mark.parametrize(
    ("taught", "measured", "intervals", "whose"),
    [
        (["s1", "s2"], ["s1"], "of clips drawn", "clips held out"),
        (["s1", "s2"], ["s1"], None, "clips held out"),
        (["s1", "s2"], ["s3"], None, "strangers"),
        (None, None, "of talkers drawn, then clips", "strangers"),  # a split by talkers
        (None, None, "of clips drawn", "clips held out"),
    ],
)
def test_talkers_are_strangers_where_training_had_none_of_them(
    taught: Any, measured: Any, intervals: Any, whose: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    flags = {"checkpoint_sha256": hashlib.sha256(b"weights").hexdigest(), "speakers": measured}
    record = {"metrics": {"top1": {"value": 0.5}}, "floors": {"chance": 0.02}}
    flags |= {"intervals": intervals} if intervals else {}
    (tmp_path / "test.json").write_text(json.dumps(record | {"flags": flags}))
    assert f"on {whose} 50 % right" in bundled.known("lip", ["a", "b"], taught, path)


def test_the_folder_of_a_network_is_as_its_file(own: Path, talker_clip: Path) -> None:
    measure(own / "lip" / "config.json", 0.905, None)
    code, _, told = avb("infer", "lip", talker_clip, "--ckpt", own / "lip")
    assert code == 0 and "90 % right" in told, told
