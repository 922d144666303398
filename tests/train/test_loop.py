"""The loop: an interrupted run ends with the weights of an unbroken one; every promise on CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avb.pipeline.config import UsageError
from avb.pipeline.index import Index
from avb.train import checkpoint, loop
from avb.train.split import Parts


def parts_of(index: Index) -> Parts:
    everything = np.arange(len(index))
    return Parts("all", "test", {"train": everything, "val": everything[:3], "test": everything})


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / "last.pt")["model"]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[k], second[k]) for k in first)


def run(recipe: Any, index: Index, out: Path, **options: Any) -> dict[str, Any]:
    return loop.train(recipe, index, parts_of(index), out, **options)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_ends_with_the_same_weights(
    lrw: Index, recipe: Any, tmp_path: Path, ema: float
) -> None:
    unbroken = recipe("lip", ema=ema)
    run(unbroken, lrw, tmp_path / "a")
    run(recipe("lip", ema=ema, steps=3), lrw, tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "b")
    run(unbroken, lrw, tmp_path / "b", resume=True)
    assert same(tmp_path / "a", tmp_path / "b")


def test_a_signal_saves_and_the_resumed_run_is_the_unbroken_one(
    lrw: Index, recipe: Any, tmp_path: Path
) -> None:
    run(recipe("lip"), lrw, tmp_path / "a")
    real = loop.one_step

    def interrupted(state: Any, *rest: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(state, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "one_step", interrupted)
        with pytest.raises(loop.Preempted, match="saved at step 4"):
            run(recipe("lip"), lrw, tmp_path / "b")
    run(recipe("lip"), lrw, tmp_path / "b", resume=True)
    assert same(tmp_path / "a", tmp_path / "b")


def test_metrics_hold_each_step_once_also_after_a_resume(
    lrw: Index, recipe: Any, tmp_path: Path
) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')  # what a kill leaves
    run(recipe("lip"), lrw, tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [line["step"] for line in lines if "loss" in line]
    validated = [line["step"] for line in lines if "val_score" in line]
    assert trained == [3, 6] and validated == [3, 6]
    assert {"loss", "recalled", "real", "saving", "bridging", "clips_per_s"} <= set(lines[0])


def test_accumulation_changes_no_gradient(lrw: Index, recipe: Any, tmp_path: Path) -> None:
    """With dropout 0 and batch norm in evaluation, two halves are the whole batch."""
    grads = []
    for accumulate in (1, 2):
        plan = recipe("lip", accumulate=accumulate, model={"dropout": 0.0} | recipe("lip").model)
        state = loop.start(plan, lrw, tmp_path / str(accumulate), "cpu", 0, 1)
        for module in state.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        quiet(state.model)
        batch = next(iter(loop.Stream(lrw, batch_size=4, seed=0, workers=0)))
        loop.one_step(state, state.model, batch)
        grads.append([p.grad.clone() for p in state.model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def quiet(model: torch.nn.Module) -> None:
    """Keep dropout and batch norm out of it, also after `.train()`."""
    model.eval()
    model.train = lambda mode=True: model  # type: ignore[method-assign, assignment]


def test_a_loss_that_is_not_a_number_names_its_clips_and_keeps_the_checkpoint(
    lrw: Index, recipe: Any, tmp_path: Path
) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    good = weights(tmp_path)
    real = loop.one_step

    def broken(state: Any, network: Any, batch: Any) -> Any:
        values = real(state, network, batch)
        return values | {"loss": torch.tensor(float("nan"))} if state.step == 4 else values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "one_step", broken)
        with pytest.raises(loop.Diverged, match=r"nan on the batch (train|val|test)/"):
            run(recipe("lip"), lrw, tmp_path, resume=True)
    after = weights(tmp_path)
    assert all(torch.equal(good[k], after[k]) for k in good)


def test_another_recipe_other_shards_or_a_used_folder_are_refused(
    lrw: Index, recipe: Any, tmp_path: Path
) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    with pytest.raises(UsageError, match="holds a run; --resume it"):
        run(recipe("lip", steps=3), lrw, tmp_path)
    with pytest.raises(UsageError, match=r"another recipe \(lr: 0.001 there, 0.5 now\)"):
        run(recipe("lip", lr=0.5), lrw, tmp_path, resume=True)
    lrw.dataset["fingerprint"], kept = "other", lrw.dataset["fingerprint"]
    try:
        with pytest.raises(UsageError, match="other shards"):
            run(recipe("lip"), lrw, tmp_path, resume=True)
    finally:
        lrw.dataset["fingerprint"] = kept
    with pytest.raises(UsageError, match="no such checkpoint"):
        run(recipe("lip"), lrw, tmp_path / "new", resume=True)


def test_a_missing_shard_is_one_line(lrw: Index, recipe: Any, tmp_path: Path) -> None:
    import dataclasses
    import shutil

    folder = Path(shutil.copytree(lrw.folder, tmp_path / "lrw"))
    gone = sorted(folder.glob("*.tar"))[0]
    gone.unlink()
    with pytest.raises(UsageError, match=f"{gone.name}.*avb verify finds every fault"):
        run(recipe("lip"), dataclasses.replace(lrw, folder=folder), tmp_path / "out")


def test_mixed_clips_train_against_mixed_labels(lrw: Index, recipe: Any, tmp_path: Path) -> None:
    plan = recipe("lip", augment={"mixup": 0.4}, label_smoothing=0.1, steps=2, validate_every=2)
    record = run(plan, lrw, tmp_path)
    assert 0 <= record["score"] <= 1


def test_speech_trains_from_sentences(grid: Index, recipe: Any, tmp_path: Path) -> None:
    record = run(recipe("l2s", steps=2, validate_every=2), grid, tmp_path)
    assert record["step"] == 2 and -20 < record["score"] < 0


def test_words_of_sentences_train_the_lip_reader(grid: Index, recipe: Any, tmp_path: Path) -> None:
    plan = recipe("lip", corpus="grid", unit="word", steps=2, validate_every=2)
    record = run(plan, grid, tmp_path)
    assert record["clips"] == 18  # three sentences of six words


def test_the_baseline_without_memory_trains(lrw: Index, recipe: Any, tmp_path: Path) -> None:
    plan = recipe("lip", steps=2, validate_every=2, model=recipe("lip").model | {"slots": 0})
    run(plan, lrw, tmp_path)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert "recalled" in line and "saving" not in line and "real" not in line


SCRIPT = """
import sys, torch
from pathlib import Path
import numpy as np
from avb.pipeline.index import load_index
from avb.train import loop
from avb.train.recipe import make_recipe
from avb.train.split import Parts
import json
torch.set_num_threads(1)
index, out = load_index(sys.argv[1]), Path(sys.argv[2])
recipe = make_recipe("lip", json.loads(sys.argv[3]), "test")
real = loop.start
def start(*a):
    run = real(*a)
    for m in run.model.modules():
        if isinstance(m, torch.nn.Dropout): m.p = 0.0
        if hasattr(m, "dropout") and isinstance(m.dropout, float): m.dropout = 0.0
    run.model.eval(); run.model.train = lambda mode=True: run.model
    return run
loop.start = start
everything = np.arange(len(index))
loop.train(recipe, index, Parts("all", "t", {k: everything for k in ("train", "val")}), out)
"""


@pytest.mark.slow
def test_two_processes_train_as_one(lrw: Index, recipe: Any, tmp_path: Path) -> None:
    """The same global batch: batch norm in evaluation, dropout 0, float32, plain SGD."""
    plan = {
        "model": recipe("lip").model, "batch_size": 4, "steps": 4, "validate_every": 4,
        "optimizer": "sgd", "lr": 0.01,
    }  # fmt: skip
    words = [str(lrw.folder), json.dumps(plan)]
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    one, two = tmp_path / "one", tmp_path / "two"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617"]
    for out, launch in ((one, []), (two, torchrun)):
        done = subprocess.run(
            [sys.executable, *launch, str(script), words[0], str(out), words[1]],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, second = weights(one), weights(two)
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
