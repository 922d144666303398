"""Several machines: a run outlives the loss of a process and a change of their number."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest

from avb.pipeline.stream.index import Index
from avb.train import checkpoint

# Dropout 0 and batch norm as in evaluation: those alone look at a process's share of the batch.
SCRIPT = f"""
import json, os, signal, sys
sys.path.append({str(Path(networks.__file__).parent)!r})
import torch
from networks import still
from avb.train import trainer
torch.set_num_threads(1)
trainer.LOG_EVERY = 1
begin, step = trainer.start, trainer.one_step
def start(*given):
    run = begin(*given)
    still(run.model)
    return run
def one_step(run, *rest):
    at, rank, number = json.loads(os.environ.get("DIES", "[-1, 0, 0]"))
    if (run.step, run.rank) == (at, rank):
        os.kill(os.getpid(), number)
    return step(run, *rest)
trainer.start, trainer.one_step = start, one_step
from avb.__main__ import main
main()
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture
def words(lrw: Index, tmp_path: Path) -> list[str]:
    """A run of 9 steps of 6 clips in float32 that saves after each."""
    (tmp_path / "train.py").write_text(SCRIPT)
    sets = ["unit=clip", "batch_size=6", "model.width=8", "optimizer=sgd", "lr=0.01", "warmup=0",
            "validate_every=1"]  # fmt: skip
    chosen = [word for text in sets for word in ("--set", text)]
    return [
        str(tmp_path / "train.py"), "train", "lip", "--data", str(lrw.folder), "--device", "cpu",
        "--recipe", "tiny", *chosen, "--steps", "9",
    ]  # fmt: skip


def launch(
    words: list[str], out: Path, processes: int, *more: str, dies: list[int] | None = None
) -> subprocess.CompletedProcess[str]:
    head = [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"DIES": json.dumps(dies)} if dies else {})
    return subprocess.run(
        [*(head if processes > 1 else [sys.executable]), *words, "--out", str(out), *more],
        capture_output=True, text=True, env=environ, timeout=300,
    )  # fmt: skip


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    found = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert sorted(found) == list(range(1, len(found) + 1))
    return [found[step] for step in sorted(found)]


@pytest.mark.slow
def test_two_processes_killed_then_one_then_two_make_the_unbroken_curve(
    words: list[str], tmp_path: Path
) -> None:
    """Loss of each step to 1e-4 of its size: sums of a batch in another order, float32."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done = launch(words, unbroken, 2)
    assert done.returncode == 0, done.stderr
    killed = launch(words, broken, 2, dies=[3, 1, signal.SIGKILL])
    assert killed.returncode != 0
    assert "avb: another process of this run is gone" in killed.stderr
    assert checkpoint.load(broken / "last.pt")["counters"]["step"] == 3
    alone = launch(words, broken, 1, "--resume", dies=[5, 0, signal.SIGTERM])
    assert alone.returncode == 75, alone.stderr
    last = launch(words, broken, 2, "--resume")
    assert last.returncode == 0, last.stderr
    assert losses(broken) == pytest.approx(losses(unbroken), rel=1e-4)
    assert losses(unbroken)[0] != pytest.approx(losses(unbroken)[5], rel=1e-2)  # it does learn


@pytest.mark.slow
def test_all_leave_after_the_same_step_though_one_was_told(
    words: list[str], tmp_path: Path
) -> None:
    words += ["--set", "validate_every=100"]
    stopped = launch(words, tmp_path / "run", 2, dies=[3, 1, signal.SIGTERM])
    assert stopped.returncode != 0 and "another process of this run" not in stopped.stderr
    assert stopped.stderr.count("saved at step 5") == 2
    assert checkpoint.load(tmp_path / "run" / "last.pt")["counters"]["step"] == 5
    done = launch(words, tmp_path / "run", 2, "--resume")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_torchrun_restarts_a_run_from_its_last_checkpoint(words: list[str], tmp_path: Path) -> None:
    """The command is the same at the start and at the restart, as a cluster types it."""
    once = tmp_path / "died"
    script = Path(words[0])
    inner = 12 * " "
    guard = (
        f"if not os.path.exists({str(once)!r}):\n{inner}open({str(once)!r}, 'w').close()\n{inner}"
    )
    script.write_text(SCRIPT.replace("os.kill(os.getpid()", guard + "os.kill(os.getpid()"))
    head = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    # torch's agent and workers share a store, in which the processes of a restart would meet those
    # of the attempt before and wait for ever (pytorch/pytorch issue 135712).
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.run(
        [*head, *words, "--out", str(tmp_path / "run"), "--resume"], capture_output=True,
        text=True, env={**environ, "DIES": f"[4, 1, {int(signal.SIGKILL)}]"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert once.exists() and len(losses(tmp_path / "run")) == 9
    assert launch(words, tmp_path / "unbroken", 2).returncode == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "unbroken"), rel=1e-6)


@pytest.mark.slow
def test_processes_that_see_other_folders_are_refused(words: list[str], tmp_path: Path) -> None:
    """Two machines without a common disk: one would go on and one begin, with weights apart."""
    assert launch(words, tmp_path / "run0", 1).returncode == 0
    own = "sys.argv[sys.argv.index('--out') + 1] += os.environ['RANK']\n"
    Path(words[0]).write_text(SCRIPT.replace("from avb.__main__", f"{own}from avb.__main__"))
    done = launch([*words[:-1], "12"], tmp_path / "run", 2, "--resume")
    assert done.returncode != 0
    assert "here the run is at step 9, elsewhere it is not" in done.stderr, done.stderr
    assert checkpoint.load(tmp_path / "run0/last.pt")["counters"]["step"] == 9


# --- Two machines --------------------------------------------------------------------------------


@contextlib.contextmanager
def two_machines() -> Iterator[list[str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    names = [f"avb{os.getpid()}{side}" for side in "ab"]
    cable = [f"v{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(names, cable, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            send(name, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")


def send(name: str, number: int) -> None:
    """Signal every process of a node."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), number)


def on_node(
    names: list[str], number: int, words: list[str], out: Path, *more: str, **environ: str
) -> subprocess.Popen[str]:
    """One of two nodes with one process each."""
    ends = subprocess.run(
        ["ip", "-n", names[number], "-o", "link"], capture_output=True, text=True
    ).stdout
    end = next(line.split(": ")[1].split("@")[0] for line in ends.splitlines() if ": v" in line)
    head = ["ip", "netns", "exec", names[number], *TORCHRUN, "--nnodes=2", f"--node-rank={number}",
            "--nproc-per-node=1", "--master-addr=10.77.0.1", "--master-port=29511"]  # fmt: skip
    return subprocess.Popen(
        [*head, *words, "--out", str(out), *more], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": end, **environ},
    )  # fmt: skip


@pytest.mark.slow
def test_two_nodes_are_one_run_and_losing_one_ends_it(words: list[str], tmp_path: Path) -> None:
    out, broken = tmp_path / "nodes", tmp_path / "broken"
    assert launch(words, tmp_path / "one", 1).returncode == 0
    with two_machines() as names:
        nodes = [on_node(names, number, words, out) for number in (0, 1)]
        said = [node.communicate(timeout=300) for node in nodes]
        assert [node.returncode for node in nodes] == [0, 0], said
        nodes = [on_node(names, n, words, broken, DIES=f"[4, 0, {int(signal.SIGSTOP)}]")
                 for n in (0, 1)]  # fmt: skip
        while (
            not (broken / "last.pt").exists()
            or checkpoint.load(broken / "last.pt")["counters"]["step"] < 4
        ):  # the first process stands still before its fifth step
            assert [node.poll() for node in nodes] == [None, None]
            time.sleep(0.2)
        send(names[1], signal.SIGKILL)
        send(names[0], signal.SIGCONT)
        said = [node.communicate(timeout=300) for node in nodes]
    assert nodes[0].returncode == 1
    assert "avb: another process of this run is gone" in said[0][1]
    assert launch(words, broken, 1, "--resume").returncode == 0
    whole = losses(tmp_path / "one")
    assert losses(out) == pytest.approx(whole, rel=1e-4)
    assert losses(broken) == pytest.approx(whole, rel=1e-4)
