"""Lags of a corpus: each clip by a network that did not learn from it, and nothing done twice."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import avb, did, fault, refused
from networks import changed, other_front_end
from prepared import start, wait_for

import avb.models as avb_models
from avb.pipeline.corpora.lags import read_lags, write_lags
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.tools.cli.sync import GOES_ON
from avb.train import sync, trainer
from avb.train.recipe import Recipe
from avb.train.recipe_file import load_recipe

QUICK = ["steps=2", "batch_size=2", "warmup=0", "validate_every=2", "model.width=4"]


def quick(*more: str) -> Recipe:
    return load_recipe("sync", "tiny", [*QUICK, *more])


def measure(index: Index, out: Path, *more: str) -> pa.Table:
    sync.measure_corpus(index.folder, quick(*more), out, 2, "cpu", 1, 1)
    return pq.read_table(out)


@pytest.fixture(scope="module")
def once(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    measure(grid, folder / "sync.parquet")
    return folder


@pytest.fixture
def measured(once: Path, tmp_path: Path) -> Path:
    """The table of a corpus whose two networks lie beside it."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "sync.parquet"


def test_no_clip_is_measured_by_a_network_that_learnt_from_it(
    grid: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, listen = Mock(wraps=trainer.train), Mock(wraps=sync.measure)
    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(sync, "measure", listen)
    table = measure(grid, tmp_path / "sync.parquet")
    dealt = [call.args[2].rows for call in train.call_args_list]
    learnt = [{*rows["train"].tolist(), *rows["val"].tolist()} for rows in dealt]
    heard = [{*call.args[1].tolist()} for call in listen.call_args_list]
    assert all(not a & b for a, b in zip(learnt, heard, strict=True))
    assert set.union(*heard) == {*range(len(grid))}
    assert table["key"].to_pylist() == [grid.key(row) for row in range(len(grid))]
    assert np.isfinite(table["lag_ms"].to_numpy()).all()
    assert abs(np.median(table["lag_ms"].to_numpy())) < 5


def test_a_call_that_was_stopped_goes_on(
    grid: Index, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured.read_bytes()
    again = Mock(side_effect=AssertionError("measured or trained a second time"))
    monkeypatch.setattr(sync, "_lags_of", again)
    monkeypatch.setattr(trainer, "one_step", again)
    measure(grid, measured)
    assert measured.read_bytes() == first


def test_a_network_measures_other_clips_from_the_zero_of_its_own(
    grid: Index, measured: Path
) -> None:
    by, network = measured.with_name("by.parquet"), measured.parent / "sync.runs/fold0/sync.pt"
    did("sync", grid.folder, "--model", network, "--out", by)
    first, second = pq.read_table(measured).to_pylist(), pq.read_table(by).to_pylist()
    own = [(a, b) for a, b in zip(first, second, strict=True) if a["how"] == "fold 0 of 2"]
    assert len(own) == 4
    for a, b in own:
        assert b["lag_ms"] == pytest.approx(a["lag_ms"], abs=1e-3) and b["how"][:6] == "model "


def test_the_folder_of_a_fold_is_its_network(grid: Index, measured: Path) -> None:
    tables = [measured.with_name(f"{name}.parquet") for name in ("file", "folder")]
    fold = measured.parent / "sync.runs/fold0"
    for network, out in zip((fold / "sync.pt", fold), tables, strict=True):
        assert avb("sync", grid.folder, "--model", network, "--out", out)[0] == 0
    assert pq.read_table(tables[0]) == pq.read_table(tables[1])


def test_a_network_of_other_crops_or_mels_is_refused(
    grid: Index, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, out = measured.parent / "sync.runs/fold0", measured.with_name("by.parquet")
    crops = grid.dataset["crops"] | {"lips": grid.dataset["crops"]["lips"] | {"margin": 8}}
    wider = dataclasses.replace(grid, dataset=grid.dataset | {"crops": crops})
    for other, said in (
        (other_front_end(grid, n_fft=4096), "hears other log-mels than .*: n_fft .*, there 4096"),
        (wider, "takes lips of 112 pixels with a margin of 4, .* 112 with 8"),
    ):
        monkeypatch.setattr(sync, "load_index", lambda _, other=other: other)
        with pytest.raises(UsageError, match=said):
            sync.measure_by(grid.folder, network, out, "cpu")
    changed(network / "sync.pt", network / "sync.pt", settings=None)  # one of before
    monkeypatch.setattr(sync, "load_index", lambda _: other_front_end(grid, n_fft=4096))
    assert sync.measure_by(grid.folder, network, out, "cpu")


def test_what_another_network_gave_is_not_taken_again(grid: Index, measured: Path) -> None:
    first = pq.read_table(measured)["lag_ms"]
    assert measure(grid, measured, "steps=6")["lag_ms"] != first  # it goes on to step 6


def test_measuring_by_a_network_of_the_same_name_leaves_the_networks(
    grid: Index, measured: Path
) -> None:
    network = measured.parent / "sync.runs/fold0/sync.pt"
    did("sync", grid.folder, "--model", network, "--out", measured)
    assert network.exists() and not [*network.parents[1].glob("pieces-*")]


def test_folds_of_this_process_leave_its_threads(grid: Index, tmp_path: Path) -> None:
    """Another number than before kills the next training here."""
    before = torch.get_num_threads()
    sync.measure_corpus(grid.folder, quick(), tmp_path / "sync.parquet", 2, "cpu", 1, before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_is_one_line_and_keeps_what_was_trained(
    grid: Index, tmp_path: Path, jobs: int
) -> None:
    sets = [word for one in (*QUICK[1:], "steps=400") for word in ("--set", one)]
    words = [*sets, "--out", tmp_path / "sync.parquet", "--jobs", jobs, "--device", "cpu"]
    run = start("sync", grid.folder, *words, start_new_session=True)
    assert run.stderr is not None
    told = next(line for line in run.stderr if "validation" in line)
    os.killpg(run.pid, signal.SIGINT)
    rest = run.stderr.read()
    assert run.wait() == 130, told + rest
    assert "Traceback" not in rest and rest.splitlines()[-1] == f"avb: {GOES_ON}"
    assert [*(tmp_path / "sync.runs").glob("fold*/last.pt")]  # with two jobs, of either


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_folds_save_and_end_with_the_process_that_waits_for_them(
    grid: Index, tmp_path: Path, sent: int, code: int
) -> None:
    sets = [word for one in (*QUICK[1:], "steps=100000") for word in ("--set", one)]
    words = [*sets, "--jobs", 2, "--out", tmp_path / "sync.parquet", "--device", "cpu"]
    run = start("sync", grid.folder, *words)
    assert run.stderr is not None
    for fold in (0, 1):
        next(line for line in run.stderr if line.startswith(f"fold {fold}: step"))
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) > 1
    run.send_signal(sent)
    assert run.wait(120) == code
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 120)
    assert len([*(tmp_path / "sync.runs").glob("fold*/last.pt")]) == 2


def test_what_sound_was_moved_by_counts(grid: Index, tmp_path: Path) -> None:
    """So that a second table, of moved shards, is for the raw clips as the first is."""
    table, moved, out = tmp_path / "table.parquet", tmp_path / "moved", tmp_path / "by.parquet"
    known = {grid.key(row): 40.0 * (row % 3 - 1) for row in range(len(grid))}
    write_lags(table, [{"key": k, "lag_ms": v, "confidence": 1.0} for k, v in known.items()], {})
    did("sync", grid.folder, "--apply", table, "--out", moved)
    sets = [word for one in (*QUICK, "model.slots=0") for word in ("--set", one)]
    more = ["--by", "l2s", *sets, "--jobs", 1, "--device", "cpu", "--out", out]
    did("sync", moved, *more)
    rows = pq.read_table(out).to_pylist()
    for fold in ("fold 0 of 2", "fold 1 of 2"):
        left = [row["lag_ms"] - known[row["key"]] for row in rows if row["how"] == fold]
        assert np.median(left) == pytest.approx(0, abs=1e-3) and np.abs(left).max() <= 200
    network = tmp_path / "by.runs" / "fold0" / "l2s.pt"
    did("sync", moved, "--model", network, "--out", tmp_path / "again.parquet")


def test_a_network_that_tells_no_lag_is_refused(grid: Index, tmp_path: Path) -> None:
    words = Path(avb_models.__path__[0]) / "bundled" / "lip" / "model.safetensors"
    given = ("sync", grid.folder, "--model", words, "--out", tmp_path / "out.parquet")
    assert "tells no lag" in refused(*given)


def test_a_table_to_compare_with_is_read_before_anything_is_trained(
    grid: Index, tmp_path: Path
) -> None:
    out, other = tmp_path / "out.parquet", tmp_path / "none.parquet"
    network = "--model", tmp_path / "none.pt"  # is looked for later
    line = refused("sync", grid.folder, *network, "--out", out, "--against", other)
    assert str(other) in line
    out.touch()
    around = tmp_path / "." / "sub" / ".." / "out.parquet"
    (tmp_path / "sub").mkdir()
    line = refused("sync", grid.folder, *network, "--out", out, "--against", around)
    assert "is what --out writes" in line and not out.stat().st_size


def test_two_tables_agree_whatever_their_zeros(tmp_path: Path) -> None:
    lags = {"a": [0.0, 10.0, 20.0, None], "b": [5.0, 15.0, 31.0, 7.0]}
    for name, column in lags.items():
        rows = [{"key": f"k{i}", "lag_ms": lag, "confidence": 1.0} for i, lag in enumerate(column)]
        write_lags(tmp_path / name, rows, {})
    found = sync.agreement(tmp_path / "b", tmp_path / "a")
    assert found["in_common"] == 3 and found["median_apart_ms"] == 0.0
    correlation = np.corrcoef([5, 15, 31], [0, 10, 20])[0, 1]
    assert found["correlation"] == pytest.approx(correlation, abs=1e-4)
    write_lags(tmp_path / "c", [{"key": "x", "lag_ms": 1.0, "confidence": 1.0}], {})
    line = fault(sync.agreement, tmp_path / "a", tmp_path / "c")
    assert "0 clips that both are sure of" in line
    rows = [{"key": f"k{i}", "lag_ms": 40.0, "confidence": 1.0} for i in range(3)]
    write_lags(tmp_path / "d", rows, {})  # one lag for all clips
    assert sync.agreement(tmp_path / "a", tmp_path / "d")["correlation"] is None


def test_what_cannot_be_measured_is_said(grid: Index) -> None:
    line = fault(sync.usable, grid, quick("model.reach=200"))
    assert "no clip of 8 has sound and is long enough" in line


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 drawn sentences as shards, and their lags in sync.parquet beside them."""
    root = tmp_path_factory.mktemp("drawn")
    did("synth", "grid", "--out", root / "raw", "--clips", 64)
    did("prep", "grid", "--root", root / "raw", "--out", root, "--jobs", 2)
    did("sync", root / "grid", "--out", root / "sync.parquet")
    return root


@pytest.mark.slow
def test_clips_moved_on_purpose_come_out_by_what_they_were_moved(drawn: Path) -> None:
    """By -80 to 80 ms in steps of 5: with that, off by less than 4 ms for 90 of 100 clips."""
    shards, moved, table = drawn / "grid", drawn / "moved", drawn / "table.parquet"
    keys = list(read_lags(drawn / "sync.parquet").ms)
    known = {key: 5.0 * (number % 33 - 16) for number, key in enumerate(keys)}
    rows = [{"key": key, "lag_ms": -lag, "confidence": 1.0} for key, lag in known.items()]
    write_lags(table, rows, {})
    did("sync", shards, "--apply", table, "--out", moved)
    lags = []
    for folder in (shards, moved):
        network, out = drawn / "sync.runs" / "fold0" / "sync.pt", drawn / "by.parquet"
        did("sync", folder, "--model", network, "--out", out)
        lags.append(read_lags(out).ms)
    before, after = lags
    errors = [abs(lag - before[key]) for key, lag in after.items()
              if lag is not None and before[key] is not None]  # fmt: skip
    assert len(errors) > 60 and np.percentile(errors, 90) < 4


@pytest.mark.slow
def test_drawn_talkers_come_out_at_zero(drawn: Path) -> None:
    """Within an eighth of a picture; more clips and steps bring it below 2 ms (results/sync)."""
    lags = [lag for lag in read_lags(drawn / "sync.parquet").ms.values() if lag is not None]
    assert len(lags) > 60 and np.std(lags) < 5
