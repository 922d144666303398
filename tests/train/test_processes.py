"""Several processes train as one: torchrun with gloo on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import networks
import pytest
import torch
from commands import fault
from networks import all_parts, recipe, weights

from avb.pipeline.stream.index import Index
from avb.train.device import choose_device
from avb.train.distributed import join_processes
from avb.train.recipe_file import make_recipe
from avb.train.run import start
from avb.train.trainer import validate

# With "l2s", clips are cut to lengths of their own, so that processes have unlike shares of frames.
SCRIPT = f"""
import dataclasses, json, sys, torch
from pathlib import Path
sys.path.append({str(Path(networks.__file__).parent)!r})
from networks import all_parts, still
from avb.pipeline.stream.index import load_index
from avb.pipeline.config import stable_hash
from avb.train import trainer
from avb.train.recipe_file import make_recipe
torch.set_num_threads(1)
index, out = load_index(sys.argv[1]), Path(sys.argv[2])
plan = json.loads(sys.argv[3])
recipe = make_recipe(plan["task"], plan, "test")
if recipe.optimizer == "sgd":
    real = trainer.start
    def start(*a):
        run = real(*a)
        still(run.model)
        return run
    trainer.start = start
from avb.train.tasks.task import Task
prepare = Task.prepare
def ragged(self, batch, *a, **k):
    inputs = prepare(self, batch, *a, **k)
    lengths = torch.tensor([5 + 70 * (stable_hash(key) % 2) for key in batch.keys])
    return dataclasses.replace(inputs, lengths_B=lengths, ragged=True)
if recipe.task == "l2s" and recipe.optimizer == "sgd":
    Task.prepare = ragged
trainer.train(recipe, index, all_parts(index, None), out)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("task", "processes"), [("lip", 2), ("lip", 3), ("l2s", 2)])
def test_processes_train_as_one(
    request: pytest.FixtureRequest, tmp_path: Path, task: str, processes: int
) -> None:
    """The same global batch: batch norm in evaluation, dropout 0, float32, plain SGD."""
    index: Index = request.getfixturevalue("lrw" if task == "lip" else "grid")
    plan = {
        "task": task, "model": recipe(task).model, "crop": recipe(task).crop, "batch_size": 6,
        "steps": 4, "validate_every": 4, "optimizer": "sgd", "lr": 0.01, "clip_norm": 10.0,
    }  # fmt: skip
    words = [str(index.folder), json.dumps(plan)]
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    one, many = tmp_path / "one", tmp_path / "many"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    for out, launch in ((one, []), (many, torchrun)):
        done = subprocess.run(
            [sys.executable, *launch, str(script), words[0], str(out), words[1]],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, second = weights(one), weights(many)
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    scores = [
        [json.loads(x)["val_score"] for x in (out / "metrics.jsonl").open() if "val_score" in x]
        for out in (one, many)
    ]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.slow
def test_what_processes_validate_is_what_is_saved(grid: Index, tmp_path: Path) -> None:
    """Batch norm keeps means of its own in each process."""
    plan = {
        "task": "l2s", "model": recipe("l2s").model, "crop": recipe("l2s").crop, "batch_size": 4,
        "steps": 3, "validate_every": 3,
    }  # fmt: skip
    script, out = tmp_path / "train.py", tmp_path / "out"
    script.write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, script, grid.folder, out, json.dumps(plan)]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    (told,) = (line["val_score"] for line in lines if "val_score" in line)
    saved = make_recipe("l2s", plan, "test")
    run = start(saved, grid, tmp_path / "again", "cpu", 0, 1)
    run.model.load_state_dict(weights(out))
    found = validate(run, grid, all_parts(grid, None).rows["val"])["score"]
    assert found == pytest.approx(told, rel=1e-5)


def test_each_process_has_a_device_of_its_own_or_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", said.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", said.append)
    environ = {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for device in ("cuda", "cuda:0"):
        assert join_processes(device) == (1, 3, "cuda:1")
    assert said == ["cuda:1", "nccl"] * 2
    monkeypatch.setenv("LOCAL_RANK", "2")
    for call, wanted in ((join_processes, "cuda"), (choose_device, "cuda:2")):
        assert "--device cuda:2: CUDA devices here: 2 (torch" in fault(call, wanted)


def test_names_of_torchrun_that_are_set_to_nothing_mean_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert join_processes("cpu") == (0, 1, "cpu")
