"""Weights of another run: which are taken, what is recorded, and what is refused."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import avb, fault
from networks import LIP, READER, learn, recipe, same, save_model

from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.origin import open_origin, take_over
from avb.train.run import start
from avb.train.tasks.task import Scaling, find_task


def begun(
    index: Index, out: Path, path: Path | None, task: str = "lip", **changes: Any
) -> dict[str, torch.Tensor]:
    """The weights of a run at step 0."""
    origin = None if path is None else open_origin(path)
    run = start(recipe(task, ema=0.9, **changes), index, out, "cpu", 0, 1, origin)
    assert run.ema is not None
    for key, value in run.ema.module.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[key])
    return run.model.state_dict()


def taken(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Parts that changed; counters of batches are no weights."""
    return {k.split(".")[0] for k in after if not torch.equal(before[k], after[k])}


def test_a_sync_network_gives_its_visual_front_end_and_no_more(
    lrw: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _, network = save_model(tmp_path / "sync.pt", "sync")
    fresh = begun(lrw, tmp_path, None, model=LIP)
    after = begun(lrw, tmp_path, tmp_path / "sync.pt", model=LIP)
    theirs = network.state_dict()
    assert taken(fresh, after) == {"visual"}
    for key in after:
        assert not key.startswith("visual.") or torch.equal(after[key], theirs[key])
    sha = hashlib.sha256((tmp_path / "sync.pt").read_bytes()).hexdigest()
    assert caplog.messages == [
        f"begins with visual of sync {sha[:12]} of step 7; fresh: back_end,"
        " back_end.classifier, memory, audio"
    ]


def test_a_run_of_the_same_task_gives_what_fits_and_a_classifier_of_its_own_words_alone(
    lrw: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "lip.pt"
    save_model(path, "lip", shrink=1)
    fresh = begun(lrw, tmp_path, None, model=LIP | {"slots": 5})
    after = begun(lrw, tmp_path, path, model=LIP | {"slots": 5})
    assert taken(fresh, after) == {"visual", "audio", "back_end"}
    assert "fresh: back_end.classifier, memory" in caplog.messages[-1]  # of two words, not of four
    # As many words, but others: the shapes alone would fit.
    state = checkpoint.load(path)
    four = dataclasses.replace(lrw, dataset=lrw.dataset | {"labels": ["a", "b", "c", "d"]})
    assert four.labels != state["data"]["labels"]
    after = begun(four, tmp_path, path, model=LIP)
    assert "fresh: back_end.classifier (other words)" in caplog.messages[-1]
    assert torch.equal(after["memory.key_memory"], state["model"]["memory.key_memory"])
    key = "back_end.classifier.weight"
    assert not torch.equal(after[key], state["model"][key])


def test_speech_begins_with_speech(lrw: Index, grid: Index, tmp_path: Path) -> None:
    path = tmp_path / "l2s.pt"
    save_model(path, "l2s", crop="face", shrink=1)
    model = READER | {"decoder": "synchronous"}
    sizes = {"decoder_sizes": {"width": 16, "units": 1, "post_width": 16}}
    line = fault(begun, grid, tmp_path, path, "l2s", model=model)  # more blocks
    assert re.search(r"other shapes \(encoder\.\S+: none there", line)
    fitting = model | {"blocks": 0} | sizes
    fresh = begun(grid, tmp_path, None, "l2s", model=fitting)
    after = begun(grid, tmp_path, path, "l2s", model=fitting)
    assert taken(fresh, after) == {"encoder", "decoder", "audio"}
    line = fault(begun, lrw, tmp_path, path)
    assert "for l2s, which has no visual front end in common with" in line


def test_a_vocoder_begins_with_a_vocoder(lrw: Index, tmp_path: Path) -> None:
    small = {"width": 8, "blocks": 1, "critic_width": 1}
    _, network = save_model(tmp_path / "vocos.pt", "vocos", crop="lips", model=small)
    given = (lrw, tmp_path, tmp_path / "vocos.pt", "vocos")
    assert same(begun(*given, corpus="grid", model=small), network.state_dict())
    assert "other shapes" in fault(begun, *given, corpus="grid", model=small | {"width": 16})


def test_other_widths_are_one_line(lrw: Index, tmp_path: Path) -> None:
    save_model(tmp_path / "sync.pt", "sync", model={"width": 4})
    line = fault(begun, lrw, tmp_path, tmp_path / "sync.pt", model=LIP)
    assert "visual.stem.weight: [4, 1, 5, 7, 7] there, [8, 1, 5, 7, 7] here" in line


def test_a_run_says_where_it_began_and_goes_on_from_nowhere_else(
    lrw: Index, tmp_path: Path
) -> None:
    def run(out: str, steps: int, **options: Any) -> dict[str, Any]:
        plan = recipe("lip", shrink=4, model=LIP, steps=steps, validate_every=1)
        learn(plan, lrw, tmp_path / out, **options)
        return checkpoint.load(tmp_path / out / "last.pt")

    first, other, out = tmp_path / "first", tmp_path / "other", tmp_path / "out"
    run("first", 1)
    save_model(other, "lip", shrink=4)
    run("out", 1, init=first)
    sha = hashlib.sha256((first / "best.pt").read_bytes()).hexdigest()
    shards = lrw.dataset["fingerprint"]
    told = {"task": "lip", "sha256": sha, "step": 1, "fingerprint": shards}
    assert yaml.safe_load((out / "recipe.yaml").read_text())["data"]["init"] == told
    said = rf"other weights \(--init: lip {sha[:12]} of step 1 there, lip \w+ of step 7 now\)"
    assert re.search(said, fault(run, "out", 2, init=other, resume=True))
    broken = run("out", 2, resume=True)  # once said is said
    assert broken["data"]["init"] == told
    assert same(run("whole", 2, init=first)["model"], broken["model"])
    assert "--init: none there" in fault(run, "first", 2, init=other, resume=True)


def test_an_absent_checkpoint_is_one_line(lrw: Index, tmp_path: Path) -> None:
    words = ["--data", lrw.folder, "--recipe", "tiny", "--set", "unit=clip", "--device", "cpu"]
    words += ["--init", tmp_path / "x.pt", "--out", tmp_path / "no"]
    code, _, text = avb("train", "lip", *words)
    assert code == 2 and text.splitlines()[-1].endswith("x.pt: no such checkpoint")
    assert not (tmp_path / "no").exists()


def test_a_front_end_stays_as_it_was_taken(tmp_path: Path) -> None:
    """What `take_over` writes into is the model's own memory, not the checkpoint's."""
    save_model(tmp_path / "lip.pt", "lip")
    origin = open_origin(tmp_path / "lip.pt")
    scaling = Scaling(128, 40, -11, 4, 4, 112, 4)
    model = find_task("lip").build(origin.loaded.recipe, scaling)
    take_over(model, origin, "lip", origin.loaded.data["labels"])
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert next(origin.loaded.model.parameters()).abs().sum() > 0
