"""Workers of Ray write into a store what processes of this machine write into a folder."""

import os
import subprocess
from pathlib import Path
from typing import Any

import prepared
import pytest
from prepared import dataset, hashes, rows, untimed

pytestmark = pytest.mark.slow


def prep(root: object, out: object, *more: object) -> subprocess.CompletedProcess[str]:
    words = ("prep", "lrw", "--root", root, "--out", out, "--shard-clips", 3, *more)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return prepared.run(*words, env=environment)


@pytest.fixture
def raw(drawn_lrw: Any, bucket: Any) -> Any:
    pytest.importorskip("ray", reason="needs the extra ray")
    return bucket.upload(drawn_lrw.root, "raw/lrw")


def test_from_store_to_store(raw: Any, drawn_lrw: Any, bucket: Any, tmp_path: Path) -> None:
    """The way there fails now and then; what the workers upload is whole all the same."""
    left = iter([None, None, "500", "cut", None, None, "deaf"] * 3)
    bucket.door.rule = lambda method, path: next(left, None) if ".tar" in path else None
    run = prep(raw, bucket.store / "out", "--engine", "ray")
    assert run.returncode == 3, run.stderr
    assert "hidden-secret" not in run.stdout + run.stderr
    there = tmp_path / "there"
    for key in bucket.keys():
        if key.startswith("out/lrw/") and "/.avb/" not in key:
            path = there / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bucket.read(key))
    assert prep(drawn_lrw.root, tmp_path / "here", "--jobs", 1).returncode == 3
    found, wanted = there / "out", tmp_path / "here"
    assert hashes(found) == hashes(wanted) != {} and dataset(found) == dataset(wanted)
    assert untimed(rows(found)) == untimed(rows(wanted))


def test_what_a_worker_may_not_write_is_one_line(raw: Any, bucket: Any) -> None:
    bucket.door.rule = lambda method, path: (
        "403" if method == "PUT" and path.endswith(".tar") else None
    )
    run = prep(raw, bucket.store / "out", "--engine", "ray", "--json")
    assert run.returncode == 1 and not run.stdout
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and "do not allow it" in lines[0], run.stderr
    assert f"{bucket.store}/out/lrw/" in lines[0]
