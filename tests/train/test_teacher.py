"""A lip reader led to the features of a reader of sound: what the teacher hears, and who it is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import did, fault, refused
from networks import LIP, learn, other_front_end, recipe, same, save_model

from avb.models.frontends import normalise_clip
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train import checkpoint, trainer
from avb.train.teacher import Teacher, open_teacher, taught

CPU = torch.device("cpu")


@pytest.fixture
def teacher(lrw: Index, tmp_path: Path) -> Teacher:
    return open_teacher(a_teacher(lrw, tmp_path / "asr.pt"), lrw)


def a_teacher(index: Index, path: Path, **changes: Any) -> Path:
    save_model(path, "asr", corpus="lrw", labels=index.labels, **changes)
    return path


def plan(teacher: Teacher | None, **changes: Any) -> Any:
    base: dict[str, Any] = {"shrink": 4, "model": LIP | {"slots": 0}, "validate_every": 1}
    return taught(recipe("lip", **base | changes), teacher)


def run(index: Index, out: Path, plan: Any, **options: Any) -> dict[str, Any]:
    learn(plan, index, out, **options)
    return checkpoint.load(out / "last.pt")


def test_the_teacher_hears_mels_unmasked_and_mixed_and_learns_nothing(
    lrw: Index, teacher: Teacher, tmp_path: Path
) -> None:
    batch = next(iter(Stream(lrw, batch_size=4, seed=0, workers=0)))
    assert batch.mel is not None
    mel = normalise_clip(batch.mel.float(), batch.mel_lengths)
    masked = plan(teacher, augment={"mask_bins": 40, "mask_columns": 60})
    with torch.no_grad():
        expected = teacher.network.features(mel)
    torch.testing.assert_close(teacher.features(batch, masked, CPU), expected)
    mixed = plan(teacher, augment={"mixup": 0.4})
    assert not torch.allclose(teacher.features(batch, mixed, CPU), expected, rtol=1e-2)
    before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
    state = trainer.start(masked, lrw, tmp_path, "cpu", 0, 1)
    state.teacher = teacher
    values = trainer.one_step(state, state.model, batch)
    assert same(teacher.network.state_dict(), before)
    assert all(p.grad is None for p in teacher.network.parameters())
    total = values["recalled"] + values["distilled"]
    torch.testing.assert_close(values["loss"], total, check_dtype=False)
    assert state.model.led.weight.grad.abs().sum() > 0


def test_accumulated_parts_are_taught_their_own_clips(
    lrw: Index, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(iter(Stream(lrw, batch_size=4, seed=0, workers=0)))
    found = []
    for accumulate in (1, 2):
        state = trainer.start(plan(teacher, accumulate=accumulate), lrw, tmp_path, "cpu", 0, 1)
        state.teacher = teacher
        monkeypatch.setattr(state.model.eval(), "train", lambda mode=True: None)
        found.append(trainer.one_step(state, state.model, batch)["distilled"])
    torch.testing.assert_close(*found)


def test_a_taught_run_resumes_with_its_teacher_alone(
    lrw: Index, teacher: Teacher, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(lrw, out, plan(teacher, steps=1), teacher=teacher)
    broken = run(lrw, out, plan(teacher, steps=2), teacher=teacher, resume=True)
    whole = run(lrw, tmp_path / "whole", plan(teacher, steps=2), teacher=teacher)
    assert same(broken["model"], whole["model"])
    facts = teacher.origin.facts()
    assert facts["task"] == "asr" and facts["step"] == 7 and len(facts["sha256"]) == 64
    assert yaml.safe_load((out / "recipe.yaml").read_text())["data"]["teacher"] == facts
    assert broken["data"]["teacher"] == facts
    assert not [key for key in broken["model"] if key.startswith("audio")]  # it is not in there
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert line["distilled"] > 0
    line = fault(run, lrw, out, plan(None, steps=3), resume=True)
    assert re.search(r"another teacher \(--teacher: asr .* there, none now", line)
    other = open_teacher(a_teacher(lrw, tmp_path / "b.pt", model={"hidden": 8}), lrw)
    line = fault(run, lrw, out, plan(other, steps=3), teacher=other, resume=True)
    assert "another teacher" in line


def test_a_wrong_teacher_is_one_line(lrw: Index, tmp_path: Path) -> None:
    save_model(tmp_path / "words.pt", "asr", corpus="lrw")
    assert "reads other words (4 labels)" in fault(open_teacher, tmp_path / "words.pt", lrw)
    path = a_teacher(lrw, tmp_path / "asr.pt")
    other = other_front_end(lrw, f_max=7000.0)
    line = fault(open_teacher, path, other)
    assert re.search("other log-mels than .*: f_max 8000.0, there 7000.0", line)
    line = fault(taught, recipe("lip", model=LIP | {"teacher_dim": 8}), None)
    assert "give it with --teacher" in line


def test_sound_is_learnt_and_then_teaches(lrw: Index, tmp_path: Path) -> None:
    words = ["--data", lrw.folder, "--device", "cpu", "--recipe", "tiny", "--set", "unit=clip"]
    words += ["--set", "batch_size=4", "--set", "shrink=4", "--steps", 1, "--out"]
    step = did("train", "asr", *words, tmp_path / "asr").stderr.split("step 1/1")[1]
    assert "loss" in step and "real" not in step and "recalled" not in step
    small = ["--set", "model.width=4", "--set", "model.slots=0"]
    done = did("train", "lip", *words, tmp_path / "lip", *small, "--teacher", tmp_path / "asr")
    assert "distilled" in done.stderr
    line = refused("train", "lip", *words, tmp_path / "no", "--teacher", tmp_path / "lip")
    assert "a checkpoint for lip, not for asr" in line
