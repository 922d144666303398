"""Promise: a training that is stopped is saved, and no two trainings write into one folder."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from commands import avb, did
from networks import same, weights

from avb.pipeline import files
from avb.pipeline.stream import stream
from avb.pipeline.stream.index import Index
from avb.train import checkpoint, signals, trainer

SETS = ["unit=clip", "batch_size=4", "model.width=8", "model.hidden=16", "warmup=0",
        "validate_every=100"]  # fmt: skip


def words(index: Index, out: Path, *more: object) -> list[str]:
    chosen = [word for text in SETS for word in ("--set", text)]
    return ["train", "lip", "--data", str(index.folder), "--device", "cpu", "--recipe", "tiny",
            *chosen, "--out", str(out), *map(str, more)]  # fmt: skip


def at_step(patch: pytest.MonkeyPatch, number: int, *signals: int) -> None:
    """Send signals to this process in the middle of a step."""
    real = trainer.one_step

    def interrupted(state: Any, *rest: Any) -> Any:
        if state.step == number:
            for each in signals:
                os.kill(os.getpid(), each)
        return real(state, *rest)

    patch.setattr(trainer, "one_step", interrupted)


@pytest.mark.usefixtures("hangup_heard")
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75)],
)
def test_stopped_by_any_signal_it_is_saved_and_resumes_to_the_unbroken_weights(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, code: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 1, sent, sent)  # a wrapper may pass on what the terminal sent already
        found, _, text = avb(*words(lrw, out, "--steps", 3))
    last = text.splitlines()[-1]
    assert found == code and "saved at step 2" in last and str(out) in last and "--resume" in last
    did(*words(lrw, out, "--steps", 3, "--resume"))
    did(*words(lrw, tmp_path / "whole", "--steps", 3))
    assert same(weights(out), weights(tmp_path / "whole"))


def test_a_later_second_ctrl_c_stops_at_once_and_says_what_is_left(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(signals, "_AGAIN_S", 0.0)
    again = (["--resume"], "go on from its last checkpoint by the same command")
    for more, left in (([], "nothing was saved yet"), again):
        if more:
            assert avb(*words(lrw, out, "--steps", 1))[0] == 0
        with monkeypatch.context() as patch:
            at_step(patch, 1, signal.SIGINT, signal.SIGINT)
            code, _, text = avb(*words(lrw, out, "--steps", 3, *more))
        assert code == 130 and left in text.splitlines()[-1]


def test_a_grid_that_is_stopped_names_no_option_that_it_lacks(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the figure is drawn with the extra report")
    at_step(monkeypatch, 1, signal.SIGTERM)
    asked = words(lrw, tmp_path, "--steps", 3)[2:]
    code, _, text = avb("ablate", "lip", "--slots", 0, "--seeds", 0, *asked)
    assert code == 75 and text.endswith("seed0; go on by the same command\n")


def test_what_was_ignored_stays_ignored() -> None:
    """As SIGHUP is under nohup, and SIGINT of a job in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


READERS = """
import multiprocessing, os, subprocess, sys, time
import torch
import avb.pipeline.stream.stream as stream
from avb.train import trainer
stream.default_workers = lambda: 2
real = trainer.one_step
def one_step(state, *rest):
    if state.step == 2:
        happen()
        time.sleep(0.5)
    return real(state, *rest)
trainer.one_step = one_step
def no_room(storage):  # as torch says it
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_9>: No space left")
{}
from avb.__main__ import main
main()
"""
# From outside: workers heed their parent. A small Debian has no program for it.
TO_THE_GROUP = """
def happen():
    kill = f"import os; os.killpg({os.getpgid(0)}, {os.environ['SENT']})"
    subprocess.run([sys.executable, "-c", kill], start_new_session=True)
"""
TO_A_READER = "happen = lambda: multiprocessing.active_children()[0].kill()"
NO_ROOM = "torch.UntypedStorage._share_fd_cpu_ = no_room"


def run_with_readers(index: Index, out: Path, what: str, **names: str) -> Any:
    """How a training ends, of which other processes decode, when something befalls them."""
    return subprocess.run(
        [sys.executable, "-c", READERS.format(what), *words(index, out, "--steps", 40)],
        capture_output=True, text=True, start_new_session=True, timeout=120, env=os.environ | names,
    )  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_lets_workers_end_well(lrw: Index, tmp_path: Path, sent: int) -> None:
    """As a terminal and Slurm send it: to whoever decodes, too."""
    done = run_with_readers(lrw, tmp_path / "run", TO_THE_GROUP, SENT=str(int(sent)))
    assert done.returncode == (130 if sent == signal.SIGINT else 75), done.stderr
    assert "Traceback" not in done.stderr
    assert "saved at step 3" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("what", "said"), [(TO_A_READER, "memory"), (NO_ROOM, "/dev/shm")])
def test_lost_readers_and_batches_end_it_in_one_line(
    lrw: Index, tmp_path: Path, what: str, said: str
) -> None:
    """As where memory runs out; a container has little of the shared kind."""
    done = run_with_readers(lrw, tmp_path / "run", what)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr.splitlines()[-1]


def test_a_fault_behind_the_end_is_told_to_nobody() -> None:
    """As of the batch after the one that ended the run: it printed a traceback, at times."""
    closed: Any = multiprocessing.Queue()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.put(0)
    stream._tell_reader(closed, RuntimeError("unable to allocate shared memory"), (0, None))


# Two trainings ------------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from pathlib import Path
from avb.train.log import held
with held(Path(sys.argv[1])):
    child = os.fork()
    print(child or "", flush=True)
    time.sleep(100)
"""


@contextlib.contextmanager
def holder(out: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds a run's folder, and a child of it that lives on when it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        child = int(next(line for line in process.stdout if line.strip()))
        try:
            yield process, child
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_a_second_training_is_refused_until_the_first_is_gone(lrw: Index, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with holder(out) as (process, _):
        for more in ([], ["--resume"]):
            code, _, text = avb(*words(lrw, out, "--steps", 1, *more))
            last = text.splitlines()[-1]
            assert code == 1 and "another training writes here" in last and str(out) in last
            assert f"process {process.pid} of" in last
        assert not list(out.glob("*.pt")) and not (out / "recipe.yaml").exists()
        process.kill()
        process.wait()
        assert avb(*words(lrw, out, "--steps", 1))[0] == 0  # though its child is still there


def test_what_killed_trainings_left_half_written_is_swept(lrw: Index, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    ours = ["last.pt.node.12.tmp", "best.pt.node.12.tmp", "metrics.jsonl.node.3.tmp"]
    theirs = ["test.json.node.12.tmp", "notes.tmp", "last.pt.mine"]  # an evaluation may be writing
    for name in ours + theirs:
        (out / name).write_bytes(b"half")
    did(*words(lrw, out, "--steps", 1))
    names = {path.name for path in out.iterdir()}
    assert not names & set(ours) and set(theirs) <= names


def test_the_saved_recipe_is_the_old_or_the_new_one(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    did(*words(lrw, out, "--steps", 1))
    monkeypatch.setattr(files, "publish", Mock(side_effect=SystemExit(9)))
    assert avb(*words(lrw, out, "--steps", 2, "--resume"))[0] == 9
    assert yaml.safe_load((out / "recipe.yaml").read_text())["recipe"]["steps"] == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_removed_while_it_is_trained_is_one_line(
    lrw: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Also where `rm -r` left the folder, as a checkpoint was written into it meanwhile."""
    out, real = tmp_path / "run", trainer.one_step

    def remove(state: Any, *rest: Any) -> Any:
        if state.step == 1:
            for path in out.iterdir():
                path.unlink()
            if whole:
                out.rmdir()
        return real(state, *rest)

    monkeypatch.setattr(trainer, "one_step", remove)
    code, _, text = avb(*words(lrw, out, "--steps", 2))
    gone = out if whole else out / "metrics.jsonl"
    assert code == 1 and text.splitlines()[-1].startswith(f"avb: {gone}: is gone")


PAIRS = """
import json, os, sys
import torch.utils.tensorboard
import avb.train.trainer
from avb.tools.cli import main
torch.set_num_threads(1)
def train(words, seed, out):
    child = os.fork()
    if child:
        return child
    error = os.open(out + f".{seed}.log", os.O_CREAT | os.O_WRONLY)
    os.dup2(error, 2)
    sys.argv = ["avb", *words, "--seed", str(seed), "--out", out]
    try:
        main()
    except SystemExit as end:
        os._exit(end.code or 0)
    os._exit(99)
for pair in range(50):
    both = [train(json.loads(sys.argv[1]), seed, f"{sys.argv[2]}/{pair}") for seed in (0, 1)]
    codes = {child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in both}
    print(*codes.values(), flush=True)
"""


@pytest.mark.slow
def test_of_two_trainings_started_together_one_trains_alone(lrw: Index, tmp_path: Path) -> None:
    """Fifty pairs with different seeds: the files are all of the one that was let in."""
    given = json.dumps(words(lrw, tmp_path, "--steps", 2))
    done = subprocess.run(
        [sys.executable, "-c", PAIRS, given, str(tmp_path)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    pairs = [[int(code) for code in line.split()] for line in done.stdout.splitlines()]
    assert len(pairs) == 50, done.stderr
    for pair, codes in enumerate(pairs):
        out = tmp_path / str(pair)
        seed = codes.index(0)
        refused = (tmp_path / f"{pair}.{1 - seed}.log").read_text().splitlines()[-1]
        # One that came when the other had ended finds its run, and is refused for that.
        assert (codes[1 - seed], "another training" in refused) in ((1, True), (2, False)), refused
        assert yaml.safe_load((out / "recipe.yaml").read_text())["recipe"]["seed"] == seed
        for name in ("last", "best"):
            assert checkpoint.load(out / f"{name}.pt")["recipe"]["seed"] == seed
        lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
        assert [line["step"] for line in lines] == [1, 2, 2]  # the first, the last, validation
        assert not list(out.glob("*.tmp"))
