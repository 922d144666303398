"""A grid of trainings: each once, also after a kill; the test part once, when all is trained."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import avb, did, refused

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.tools.ablate import arms, figure, parse_grid
from avb.tools.cli import ablate as command
from avb.train.evaluate import evaluate
from avb.train.evaluate.compare import compare

SMALL = ["--recipe", "tiny", "--set", "shrink=4", "--set", "batch_size=4", "--set", "model.width=4"]
PARTS = ["train"] * 5 + ["val"] + ["test"] * 2


@pytest.fixture
def split(grid: Index, tmp_path: Path) -> list[object]:
    """Five clips to train on, one to validate with, two for the test."""
    listed = tmp_path.with_suffix(".txt")
    listed.write_text("".join(f"{part} {grid.key(i)}\n" for i, part in enumerate(PARTS)))
    return ["--split-file", listed]


@pytest.fixture
def words(grid: Index, split: list[object], tmp_path: Path) -> list[object]:
    """What an ablation of one seed is asked for with, beside its grid and its steps."""
    pytest.importorskip("matplotlib", reason="the figure is drawn with the extra report")
    shards = ["--data", grid.folder, "--device", "cpu", *split]
    return [*shards, "--seeds", "0", *SMALL, "--out", tmp_path]


def test_an_interval_that_ends_at_its_value_is_drawn() -> None:
    """As where every clip has the same share of words right; a mean of such rounds up."""
    pytest.importorskip("matplotlib", reason="the figure is drawn with the extra report")
    test = {"value": 0.3, "low": 0.1 + 0.2, "high": 0.3, "each": [0.3]}
    arm = {"values": {"model.slots": "4"}, "test": test}
    found = {"metric": "top1", "grid": {"model.slots": ["4"]}, "arms": [arm]}
    (axes,) = figure(found).axes
    (place,) = axes.containers[0].lines[0].get_xydata()
    assert place.tolist() == [4.0, 30.0]


def test_a_grid_is_trained_once_and_read_once(
    grid: Index, split: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the figure is drawn with the extra report")
    done: list[str] = []
    train_one, measure = command.train_one, evaluate.evaluate

    def train(recipe: Any, index: Any, parts: Any, out: Path, *rest: Any) -> None:
        if stop_before == len(done):
            raise KeyboardInterrupt
        done.append(f"{out.parent.name}/{out.name}")
        train_one(recipe, index, parts, out, *rest)

    def read(task: str, path: Path, *rest: Any) -> dict[str, Any]:
        done.append("test")
        return measure(task, path, *rest)

    monkeypatch.setattr(command, "train_one", train)
    monkeypatch.setattr(evaluate, "evaluate", read)
    stop_before = 1
    shards = ["--data", grid.folder, "--device", "cpu", *split, *SMALL]
    words = [*shards, "--slots", "0,4", "--seeds", "0,1", "--steps", 2, "--out", tmp_path]
    begun = ["--set", "model.slots=0", "--steps", 1, "--out", tmp_path / "slots=0/seed0"]
    did("train", "lip", *shards, *begun)
    text = did("ablate", "lip", *words, "--dry-run").stdout
    assert not done
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "goes on at step 1 (of 2 steps)", *["begins (of 2 steps)"] * 3
    ]  # fmt: skip
    planned = json.loads(did("ablate", "lip", *words, "--dry-run", "--json").stdout)
    assert len(planned["trials"]) == 4
    assert avb("ablate", "lip", *words)[0] == 130 and done == ["slots=0/seed0"]
    stop_before = 99
    done.clear()
    text = did("ablate", "lip", *words).stdout
    trained = ["slots=0/seed0", "slots=0/seed1", "slots=4/seed0", "slots=4/seed1"]
    assert done == [*trained, *["test"] * 4]
    found = json.loads(did("ablate", "lip", *words, "--json").stdout)
    assert done[8:] == trained  # looked at again, and nothing is left to do
    assert found == json.loads((tmp_path / "ablation.json").read_text())
    assert (tmp_path / "ablation.png").stat().st_size > 1000
    assert found["seeds"] == [0, 1] and found["grid"] == {"model.slots": ["0", "4"]}
    best = {}
    for row in found["arms"]:
        runs = [tmp_path / row["name"] / f"seed{seed}" for seed in (0, 1)]
        records = [json.loads((run / "test.json").read_text()) for run in runs]
        assert [r["flags"]["part"] for r in records] == ["test", "test"]
        each = [r["metrics"]["top1"]["value"] for r in records]
        assert row["test"]["each"] == pytest.approx(each)
        assert row["test"]["value"] == pytest.approx(sum(each) / 2)
        assert row["test"]["low"] <= row["test"]["value"] <= row["test"]["high"]
        logs = [(run / "metrics.jsonl").read_text().splitlines() for run in runs]
        scores = [max(json.loads(x).get("val_score", -1) for x in log) for log in logs]
        best[row["name"]] = sum(scores) / 2
        assert row["validation"]["value"] == pytest.approx(best[row["name"]])
    assert best[found["chosen"]] == max(best.values())
    sides = [",".join(str(p) for p in sorted(tmp_path.glob(f"slots={n}/*/test.json")))
             for n in (4, 0)]  # fmt: skip
    assert found["arms"][1]["difference"] == compare(*sides)["metrics"]["top1"]["difference"]
    assert "*" in text and "; less slots=0: " in text


def test_trained_runs_are_those_that_are_asked_for(
    grid: Index, words: list[object], tmp_path: Path
) -> None:
    did("ablate", "lip", "--slots", "0", *words, "--steps", 2)
    before = (tmp_path / "ablation.json").read_bytes()
    other = tmp_path.with_suffix(".other")
    other.write_text("".join(f"{part} {grid.key(i)}\n" for i, part in enumerate(PARTS[::-1])))
    for more, said in (
        (["--steps", 2, "--set", "lr=0.5"], "another recipe (lr: "),
        (["--steps", 2, "--split-file", other], "other clips (split, listed differ)"),
        (["--steps", 1], "has made 2 steps, more than the 1 asked for"),
    ):
        code, out, errors = avb("ablate", "lip", "--slots", "0", *words, *more)
        assert (code, out) == (2, "") and said in errors
    assert (tmp_path / "ablation.json").read_bytes() == before


def test_readers_of_sentences_are_set_side_by_side(words: list[object], tmp_path: Path) -> None:
    did("ablate", "lip", "--slots", "0,4", *words, "--unit", "sentence", "--steps", 1)
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["metric"] == "wer_grammar"
    for row in found["arms"]:
        record = json.loads((tmp_path / row["name"] / "seed0" / "test.json").read_text())
        assert row["test"]["value"] == pytest.approx(record["metrics"]["wer_grammar"]["value"])


@pytest.mark.parametrize("package", ["pystoi", "jiwer"])
def test_what_arms_are_measured_with_is_there_before_they_are_trained(
    grid: Index, split: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    words = ("--data", grid.folder, *split, "--recipe", "tiny", "--steps", 1, "--out", tmp_path)
    assert f"{package} not installed" in refused("ablate", "l2s", "--slots", "0", *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["model.slotz=0,4"], "unknown key 'model.slotz'; the nearest right one is 'model.slots'"),
        (["model.slots=0,4", "model.audio_term=false,true"], "audio_term with 4 slots"),
        (["model.slots"], "model.slots: expected KEY=VALUE,VALUE"),
        (
            ["unit=word,sentence", "--set", "model.word_boundary=false"],
            "a grid of words and sentences: their scores",
        ),
        (["--slots", "0,0"], "a key or value twice"),
        (["--slots", "0,4", "model.slots=5"], "a key or value twice"),
        (["--slots", "0,4", "--seeds", "0,x"], "--seeds 0,x: expected whole numbers"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    grid: Index, tmp_path: Path, given: list[str], said: str
) -> None:
    words = ("--data", grid.folder, *SMALL, "--out", tmp_path)
    assert said in refused("ablate", "lip", *given, *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["seed=7,8"], "seed=7: seed would be 1 all the same; choose with --seeds"),
        (["corpus=lrw,mine"], "corpus=lrw: corpus would be 'grid' all the same; it is that of the"),
        (["steps=1,2", "--steps", 3], "steps=1: steps would be 3 all the same; leave out --steps"),
        (["unit=word,clip", "--unit", "word"], "unit=clip: unit would be 'word' all the same"),
        (["unit=word,clip"], "unit=clip: unit would be 'word' all the same; these clips have no"),
        (["split=official,hash"], "split=official: split would be"),
    ],
)
def test_a_key_that_shards_or_flags_overrule_is_refused_before_anything_is_trained(
    grid: Index, tmp_path: Path, given: list[object], said: str
) -> None:
    for more in ([], ["--dry-run"]):
        words = ["--data", grid.folder, "--seeds", "0,1", *SMALL, "--out", tmp_path, *more]
        assert said in refused("ablate", "lip", *given, *words)
    told = did("ablate", "lip", "steps=1,2", "seed=3", *words[:2], "--seeds", 3, *words[4:]).stdout
    assert len(told.splitlines()) == 2  # what is not overruled is no fault
    assert not any(tmp_path.iterdir())


def test_arms_are_every_combination_in_folders_of_their_own() -> None:
    grid = parse_grid(["model.slots=0,44", "lr=1e-3,.01"])
    found = [arm.name for arm in arms(grid)]
    assert found == ["slots=0+lr=1e-3", "slots=0+lr=.01", "slots=44+lr=1e-3", "slots=44+lr=.01"]
    assert arms(grid)[3].sets == ["model.slots=44", "lr=.01"]
    sizes = ["{width: 8, units: 1}", "{width: 16}"]
    assert parse_grid([f"model.decoder_sizes={','.join(sizes)}"])["model.decoder_sizes"] == sizes
    assert parse_grid(["key=[1,2],[3],4"]) == {"key": ["[1,2]", "[3]", "4"]}
    assert [arm.name for arm in arms({})] == ["recipe"]
    with pytest.raises(UsageError, match="two points of the grid"):
        arms(parse_grid(["corpus=a/b,a:b"]))
