"""The loop: an interrupted run ends with the weights of an unbroken one; every promise on CPU."""

import dataclasses
import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from commands import fault
from networks import learn as run
from networks import recipe, same, still, weights

from avb.models.memory import Losses
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train import checkpoint, trainer
from avb.train.run import progress
from avb.train.tasks.task import Task, find_task, scaling_of


def test_a_short_run_is_not_judged_by_the_weights_it_began_with(lrw: Index, tmp_path: Path) -> None:
    def far(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return sum(float((a[k] - b[k]).square().sum()) for k in a if a[k].is_floating_point())

    for steps in (1, 20):
        run(recipe("lip", ema=0.999, steps=steps), lrw, tmp_path / f"{steps}")
    first, last = (checkpoint.load(tmp_path / n / "last.pt") for n in ("1", "20"))
    assert far(last["ema"], last["model"]) < 0.25 * far(last["ema"], first["model"])


KILLED = f"""
import json, os, signal, sys
from pathlib import Path
sys.path.append({str(Path(networks.__file__).parent)!r})
import torch
from avb.pipeline.stream.index import load_index
from networks import learn, make_recipe, trainer
torch.set_num_threads(int(sys.argv[4]))
real = trainer.one_step
def one_step(run, *rest):
    if run.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(run, *rest)
trainer.one_step = one_step
plan = make_recipe("lip", json.loads(sys.argv[3]), "test")
learn(plan, load_index(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_resumes_to_the_weights_of_a_whole_one(lrw: Index, tmp_path: Path) -> None:
    plan = recipe("lip", ema=0.9, augment={"erase": 24})
    run(plan, lrw, tmp_path / "a")
    out, threads = tmp_path / "b", str(torch.get_num_threads())
    words = ["-c", KILLED, str(lrw.folder), str(out), json.dumps(plan.as_dict()), threads]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.load(out / "last.pt")["counters"]["step"] == 3  # steps 4 and 5 are lost
    run(plan, lrw, out, resume=True)
    assert same(weights(tmp_path / "a"), weights(out))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_counts_each_clip_once_under_any_number_of_processes(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    rows = np.arange(len(lrw))[:7]  # a number that neither 2 nor 3 divides
    shares: list[torch.Tensor] = []

    def collect(value: torch.Tensor, processes: int) -> torch.Tensor:
        assert processes == world
        shares.append(value)
        return sum(shares, torch.zeros_like(value))  # of the last process: the sum over all

    monkeypatch.setattr(trainer, "global_sum", collect)
    seen: list[str] = []
    real = Task.prepare

    def prepare(self: Task, batch: Any, *rest: Any, **options: Any) -> Any:
        seen.extend(batch.keys)
        return real(self, batch, *rest, **options)

    monkeypatch.setattr(Task, "prepare", prepare)
    for rank in range(world):
        state = trainer.start(recipe("lip"), lrw, tmp_path, "cpu", rank, world)
        record = trainer.validate(state, lrw, rows)
    assert sorted(seen) == sorted(lrw.key(i) for i in rows)
    assert record["clips"] == 7
    assert all(0 < float(share[1]) < 7 for share in shares) or world == 1


def test_metrics_hold_each_step_once_also_after_a_resume(lrw: Index, tmp_path: Path) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')  # what a kill leaves
    run(recipe("lip"), lrw, tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [line["step"] for line in lines if "loss" in line]
    validated = [line["step"] for line in lines if "val_score" in line]
    assert trained == [1, 3, 6] and validated == [3, 6]
    assert {"loss", "recalled", "real", "saving", "bridging", "clips_per_s"} <= set(lines[0])


def test_tensorboard_holds_what_the_metrics_hold(lrw: Index, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(recipe("lip", steps=3), lrw, tmp_path)
    found = events.EventAccumulator(str(tmp_path)).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert {event.step: event.value for event in found.Scalars("loss")} == pytest.approx(told)
    assert list(told) == [1, 3]
    assert "val_score" in found.Tags()["scalars"]


def test_accumulation_changes_no_gradient(lrw: Index, tmp_path: Path) -> None:
    """With dropout 0 and batch norm in evaluation, two halves are the whole batch."""
    grads = []
    for accumulate in (1, 2):
        plan = recipe("lip", accumulate=accumulate)
        state = trainer.start(plan, lrw, tmp_path / str(accumulate), "cpu", 0, 1)
        still(state.model)
        batch = next(iter(Stream(lrw, batch_size=4, seed=0, workers=0)))
        trainer.one_step(state, state.model, batch)
        grads.append([p.grad.clone() for p in state.model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_algorithms_are_tuned_for_clips_of_equal_lengths_alone(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    state = trainer.start(recipe("lip"), lrw, tmp_path, "cpu", 0, 1)
    batch = next(iter(Stream(lrw, batch_size=2, seed=0, workers=0)))
    for lengths, tuned in (([29, 29], True), ([29, 20], False)):
        short = dataclasses.replace(batch, lengths=torch.tensor(lengths))
        trainer.one_step(state, state.model, short)
        assert torch.backends.cudnn.benchmark is tuned


def test_a_process_whose_share_is_not_a_multiple_sees_each_clip_once(lrw: Index) -> None:
    """Twelve clips in four parts are six of each of two processes, in parts of two."""
    plan = recipe("lip")
    batch = next(iter(Stream(lrw, batch_size=6, seed=0, workers=0)))
    task = find_task("lip")
    whole = task.prepare(batch, plan, scaling_of(lrw, plan), torch.device("cpu"), train=False)
    pieces = trainer.split_inputs(whole, 4)
    assert [len(piece.labels) for piece in pieces] == [2, 2, 2]
    assert torch.cat([piece.video_BCTHW for piece in pieces]).equal(whole.video_BCTHW)


def test_what_stopped_early_is_over_also_when_resumed(lrw: Index, tmp_path: Path) -> None:
    plan = recipe("lip", lr=0.0, patience=1, validate_every=1)  # nothing is learnt
    first = run(plan, lrw, tmp_path)
    assert first["step"] == 2  # the first validation is the best there will be
    again = run(plan, lrw, tmp_path, resume=True)
    assert again["step"] == 2 and again["best"] == first["best"]


def test_the_rate_is_halved_when_five_validations_brought_no_progress(
    lrw: Index, tmp_path: Path
) -> None:
    state = trainer.start(recipe("lip", schedule="plateau"), lrw, tmp_path, "cpu", 0, 1)
    rates = []
    for score in (0.5, *[0.4] * 4, 0.6, *[0.6] * 5, *[0.1] * 5):
        progress(state, score)
        rates.append(state.factor)
    assert rates == [1.0] * 10 + [0.5] * 5 + [0.25]
    plan = recipe("lip", schedule="plateau", patience_lr=0)  # never, as `patience` is
    state = trainer.start(plan, lrw, tmp_path, "cpu", 0, 1)
    for score in (0.5, 0.4, 0.6, 0.3):
        progress(state, score)
    assert state.factor == 1.0


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (6, r"the loss became nan on the batch (train|val|test)/"),
        (4, r"the gradient became (nan|inf) on the batch"),  # step 4 is validated and saved
    ],
)
def test_what_is_not_finite_names_its_clips_and_keeps_the_checkpoint(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, said: str
) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    good = weights(tmp_path)
    one_step, total = trainer.one_step, Losses.total

    def broken(state: Any, network: Any, batch: Any) -> Any:
        values = one_step(state, network, batch)
        return values | {"loss": torch.tensor(float("nan"))} if state.step == 4 else values

    def steep(losses: Losses, *weights: float) -> torch.Tensor:
        found = total(losses, *weights)
        found.register_hook(lambda grad: grad * torch.inf)
        return found

    if "loss" in said:
        monkeypatch.setattr(trainer, "one_step", broken)
    else:
        monkeypatch.setattr(Losses, "total", steep)
    with pytest.raises(trainer.Diverged, match=f"{said}.*; last.pt is kept"):
        run(recipe("lip", steps=steps), lrw, tmp_path, resume=True)
    assert same(good, weights(tmp_path))
    with pytest.raises(trainer.Diverged, match=f"{said}.*; before anything was saved"):
        run(recipe("lip", steps=steps, validate_every=9), lrw, tmp_path / "new")


def test_a_validation_is_no_step_of_the_pace(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the 1000 seconds that each takes count in what is left."""
    clock, validate, passed = time.perf_counter, trainer.validate, [0.0]

    def slow(*given: Any) -> Any:
        passed[0] += 1000
        return validate(*given)

    monkeypatch.setattr(trainer, "validate", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])
    run(recipe("lip", steps=3, validate_every=2), lrw, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["clips_per_s"] > 0.1 for line in lines if "loss" in line] == [True, True]


def test_the_best_outlive_a_full_disk(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.save

    def full(path: Path, state: dict[str, Any]) -> None:
        if path.name == refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, state)

    for refused in ("best.pt", "last.pt"):
        monkeypatch.setattr(checkpoint, "save", full)
        with pytest.raises(OSError, match="No space left"):
            run(recipe("lip"), lrw, tmp_path / refused)
        monkeypatch.setattr(checkpoint, "save", real)
        record = run(recipe("lip"), lrw, tmp_path / refused, resume=True)
        best = checkpoint.load(tmp_path / refused / "best.pt")
        assert best["counters"]["best"] == record["best"]


def test_another_recipe_shards_or_a_used_folder_are_refused(lrw: Index, tmp_path: Path) -> None:
    run(recipe("lip", steps=3), lrw, tmp_path)
    assert "holds a run; --resume it" in fault(run, recipe("lip", steps=3), lrw, tmp_path)
    line = fault(run, recipe("lip", lr=0.5), lrw, tmp_path, resume=True)
    assert "another recipe (lr: 0.001 there, 0.5 now)" in line
    other = dataclasses.replace(lrw, dataset=lrw.dataset | {"fingerprint": "other"})
    assert "other shards" in fault(run, recipe("lip"), other, tmp_path, resume=True)
    run(recipe("lip", steps=3), lrw, tmp_path / "new", resume=True)  # nothing there: it begins
    assert same(weights(tmp_path), weights(tmp_path / "new"))


def test_a_missing_shard_is_one_line(lrw: Index, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lrw.folder, tmp_path / "lrw"))
    gone = sorted(folder.glob("*.tar"))[0]
    gone.unlink()
    line = fault(run, recipe("lip"), dataclasses.replace(lrw, folder=folder), tmp_path / "out")
    assert f"{gone.name} not there" in line and "avb verify finds every fault" in line
    assert not (tmp_path / "out").exists()  # no step was made


def test_mixed_clips_words_speech_and_the_baseline_train(
    lrw: Index, grid: Index, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"steps": 2, "validate_every": 2}
    plan = recipe("lip", augment={"mixup": 0.4}, label_smoothing=0.1, **few)
    assert 0 <= run(plan, lrw, tmp_path / "mixed")["score"] <= 1
    record = run(recipe("l2s", **few), grid, tmp_path / "speech")
    assert record["step"] == 2 and -20 < record["score"] < 0
    record = run(recipe("lip", corpus="grid", unit="word", **few), grid, tmp_path / "words")
    assert record["clips"] == 18  # three sentences of six words
    plan = recipe("lip", model=recipe("lip").model | {"slots": 0}, **few)
    run(plan, lrw, tmp_path / "baseline")
    line = json.loads((tmp_path / "baseline/metrics.jsonl").read_text().splitlines()[0])
    assert "recalled" in line and "saving" not in line and "real" not in line
