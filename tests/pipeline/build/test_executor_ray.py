"""Three Ray nodes, each with its own raylet, give what the processes of one machine give."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prepared
import pytest
from commands import refused
from prepared import dataset, draw, hashes, rows, running, untimed, wait_for

from avb.pipeline.build.executor_ray import _work
from avb.pipeline.build.unit import Task
from avb.pipeline.errors import RunError

NODE = {"num_cpus": 1, "object_store_memory": 200 << 20}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn LRW: 24 good clips and the odd ones."""
    return draw("lrw", tmp_path_factory.mktemp("raw"), 24, odd=True)


@pytest.fixture(scope="module")
def nodes(faults: Any) -> Iterator[Any]:
    """A cluster of three nodes whose workers fall over what `faults` names."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    # Ray's workers give way to all other processes; here they would wait for them.
    more = {"PYTHONPATH": faults.environment["PYTHONPATH"], "RAY_worker_niceness": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in more.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def local(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local")
    assert start(raw, out, None).wait() == 3
    return out


@pytest.fixture(autouse=True)
def no_fault(faults: Any) -> None:
    faults.table.write_text("")


def start(
    raw: Path, out: Path, nodes: Any, *more: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """`avb prep` on the nodes, or on processes of its own."""
    words = ["prep", "lrw", "--root", raw, "--out", out, "--shard-clips", "3", "--json", *more]
    words += ["--jobs", "2"] if nodes is None else ["--engine", "ray", "--address", nodes.address]
    return prepared.start(*words, env=environment)


def wait_for_rows(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until some units are done and others are not."""
    while len(list(out.glob("lrw/.avb/rows/*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert not (out / "lrw" / "dataset.json").exists()


def end(process: subprocess.Popen[str], code: int = 3) -> dict[str, Any]:
    output, errors = process.communicate()
    assert process.returncode == code, errors
    summary = json.loads(output)  # one object and nothing of Ray's on stdout
    assert "raylet" not in errors
    return {k: summary[k] for k in ("corpus", "listed", "ok", "status", "flags")}


def same(out: Path, local: Path) -> bool:
    assert dataset(out) == dataset(local) and hashes(out) == hashes(local)
    assert untimed(rows(out)) == untimed(rows(local))
    assert not list((out / "lrw").rglob("*.tmp"))
    return True


@pytest.mark.slow
def test_three_give_the_bytes_of_one(raw: Path, nodes: Any, local: Path, tmp_path: Path) -> None:
    assert end(start(raw, tmp_path, nodes)) == end(start(raw, local, None))
    assert same(tmp_path, local)


@pytest.mark.slow
def test_a_node_lost_costs_nothing(raw: Path, nodes: Any, local: Path, tmp_path: Path) -> None:
    for node in list(nodes.worker_nodes):
        out = tmp_path / str(node.unique_id)
        run = start(raw, out, nodes)
        wait_for_rows(run, out, 2)
        nodes.remove_node(node)
        end(run)
        assert same(out, local)
        nodes.add_node(**NODE)


@pytest.mark.slow
def test_a_worker_killed_by_a_signal_costs_nothing(
    raw: Path, nodes: Any, faults: Any, local: Path, tmp_path: Path
) -> None:
    faults.at("once", "train/ABOUT_00001")
    end(start(raw, tmp_path, nodes))
    assert Path(f"{faults.table}.fell").is_dir(), "none was killed; the test proves nothing"
    assert same(tmp_path, local)


@pytest.mark.slow
def test_clips_that_kill_their_decoder_end_as_on_one_machine(
    raw: Path, nodes: Any, faults: Any, local: Path, tmp_path: Path
) -> None:
    faults.at("segfault", "train/ABOUT_00001", "val/ABOUT_00001")
    faults.at("no-memory", "train/BECAUSE_00001")
    here, there = tmp_path / "here", tmp_path / "there"
    summary = end(start(raw, here, None, environment=faults.environment))
    assert summary["status"]["crashed"] == 3
    assert summary == end(start(raw, there, nodes))
    assert same(there, here)
    assert [row["key"] for row in rows(there)] == [row["key"] for row in rows(local)]


@pytest.mark.slow
def test_a_hang_is_one_row(raw: Path, nodes: Any, faults: Any, local: Path, tmp_path: Path) -> None:
    faults.at("hang", "train/ABOUT_00001")
    summary = end(start(raw, tmp_path, nodes, "--clip-timeout", "10"))
    assert summary["status"]["timeout"] == 1
    faults.table.write_text("")
    end(start(raw, tmp_path, nodes, "--retry-failed"))
    assert same(tmp_path, local)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)]
)
def test_a_stopped_driver_takes_its_tasks_along_and_goes_on_where_it_was(
    raw: Path, nodes: Any, local: Path, tmp_path: Path, sent: int, code: int
) -> None:
    run = start(raw, tmp_path, nodes)
    wait_for_rows(run, tmp_path, 2)
    run.send_signal(sent)
    _, errors = run.communicate()
    assert run.returncode == code
    assert sent != signal.SIGINT or errors.strip().endswith("run the same command again to go on")
    wait_for(lambda: not running("cmdline", "ray::_work"), 60)
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("lrw/.avb/rows/*.parquet")}
    end(start(raw, tmp_path, nodes))
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("lrw/.avb/rows/*.parquet")}
    assert 2 <= len(done) < len(kept) and done.items() <= kept.items()
    assert same(tmp_path, local)


@pytest.mark.slow
def test_ray_starts_itself_where_none_runs(raw: Path, local: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    words = ["prep", "lrw", "--root", raw, "--out", tmp_path, "--shard-clips", 3, "--engine", "ray"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    run = prepared.run(*words, env=environment)
    assert run.returncode == 3, run.stderr
    assert same(tmp_path, local)


@pytest.mark.slow
def test_an_address_that_nobody_answers_is_one_line(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    words = ["prep", "lrw", "--root", raw, "--out", tmp_path, "--engine", "ray", "--address"]
    run = prepared.run(*words, "127.0.0.1:1")
    assert run.returncode == 1 and not run.stdout
    assert len(run.stderr.strip().splitlines()) == 1
    assert "127.0.0.1:1: no Ray cluster to work with: Failed to" in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_machine_with_another_version_is_refused() -> None:
    with pytest.raises(RunError, match=r"has avb .*, not 0\.0\.0: the same on all machines"):
        _work(Task(Path("plan"), Path("out"), 0), "0.0.0")


def test_without_ray_or_with_flags_that_do_not_go_together_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "unused").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ("prep", "lrw", "--root", "unused")
    assert refused(*words, "--address", "auto") == "avb: --address is for --engine ray"
    assert "'spark' is not one of 'local', 'ray'" in refused(*words, "--engine", "spark")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert "ray is not installed: pip install ray" in refused(*words, "--engine", "ray")
    pytest.importorskip("ray", reason="needs the extra ray")
    line = refused(*words, "--engine", "ray", "--address", "ray://head:10001")
    assert "host:port of a Ray head, or auto" in line
