"""A changed listing deletes nothing: what was finished stays, or is let go by `--prune` alone."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
from commands import did, fault, refused
from importers import importer
from prepared import hashes, rows

from avb.pipeline.build import prep as prep_module
from avb.pipeline.build.prep import Part, Summary
from avb.pipeline.build.verify_sources import source_faults
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import RunError
from avb.pipeline.storage import mirror


@pytest.fixture(scope="module")
def finished(good_lrw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    assert prep(good_lrw, out).ok == 12
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def prep(raw: Path, out: Path, **more: Any) -> Summary:
    return importer("lrw", raw, shard_clips=3).prep(out, **more)


def keys(out: Path) -> set[str]:
    return {row["key"] for row in rows(out) if row["status"] == "ok"}


def bytes_of(out: Path) -> dict[str, str]:
    """Every file of the folder but the lock, which is opened."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and "lock" not in p.name]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def drop_split(raw: Path) -> None:
    for folder in raw.glob("*/*/val"):
        shutil.rmtree(folder)


def drop_one(raw: Path) -> None:
    min(raw.rglob("*.mp4")).unlink()


def rename_words(raw: Path) -> None:
    """Their clips are still met, but refused: they are not called like the folder."""
    for folder in sorted(raw.glob("lipread_mp4/*"))[:2]:
        folder.rename(folder.with_name(f"{folder.name} old"))


def add_one(raw: Path) -> None:
    film = max(raw.rglob("train/*_00001.mp4"))
    shutil.copy(film, film.with_name(film.name.replace("00001", "00077")))


def nothing(raw: Path) -> None:
    pass


@pytest.mark.parametrize("added", [nothing, add_one])
@pytest.mark.parametrize("dropped", [drop_split, drop_one, rename_words])
@pytest.mark.parametrize("part", [None, Part(1, 2)])
def test_a_shorter_listing_is_refused_before_anything_is_changed(
    raw: Path, out: Path, dropped: Callable[[Path], None], added: Any, part: Part | None
) -> None:
    before, had = bytes_of(out), keys(out)
    dropped(raw)
    added(raw)
    said = fault(prep, raw, out, part=part)
    films = raw.glob("lipread_mp4/*/*/*.mp4")
    left = {f"{p.parent.name}/{p.stem}" for p in films if p.parts[-3][-3:] != "old"}
    gone = sorted(had - left)
    assert f"no longer lists {len(gone)} finished clips of " in said and "--prune" in said
    assert gone[0] in said and f"{gone[0].split('/')[0]} (" in said
    assert bytes_of(out) == before
    assert prep(raw, out, prune=True).ok == len(left)
    assert keys(out) == left
    shards = {s["name"] for s in json.loads((out / "lrw/dataset.json").read_text())["shards"]}
    assert {p.stem for p in out.glob("lrw/*.tar")} == shards


def damage(path: Path, at: int) -> None:
    """A flipped byte; of Parquet, those near the end say what the file holds."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("at", [-9, -200, 12])
def test_damaged_rows_are_made_again_and_hide_no_clip_that_is_gone(
    raw: Path, out: Path, at: int
) -> None:
    calm = hashes(out)
    path = min(out.glob("lrw/.avb/rows/val-*.parquet"))
    (out / "lrw/dataset.json").unlink()  # else there is nothing to do
    damage(path, at)
    assert f"{path}: damaged" in fault(source_faults, out / "lrw", load_corpora())
    assert prep(raw, out).made == pq.read_metadata(path).num_rows
    assert hashes(out) == calm
    damage(path, -9)
    drop_split(raw)
    assert "no longer lists" in fault(prep, raw, out) and hashes(out) == calm


def test_shards_whose_rows_are_gone_are_not_let_go(raw: Path, out: Path) -> None:
    shutil.rmtree(out / "lrw/.avb/rows")
    calm = hashes(out)
    drop_split(raw)
    assert "no longer lists" in fault(prep, raw, out) and hashes(out) == calm


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_s_own_files_beside_the_shards_stay(raw: Path, out: Path, overwrite: bool) -> None:
    own = [out / "lrw" / name for name in ("backup.tar", "backup-261127.tar", "notes.txt")]
    for path in own:
        with tarfile.open(path, "w") as tar:
            tar.add(
                max(raw.rglob("*.txt")),
                filter=lambda member: member.replace(uname="me", deep=False),
            )
    add_one(raw)
    before, had = [path.read_bytes() for path in own], keys(out)
    assert prep(raw, out, overwrite=overwrite).ok == 13
    assert [path.read_bytes() for path in own] == before and keys(out) > had


def test_refused_clips_that_are_gone_lose_nothing(raw: Path, tmp_path: Path) -> None:
    film = min(raw.rglob("val/*.mp4"))
    film.write_bytes(b"")
    assert prep(raw, tmp_path / "o").ok == 11
    film.unlink()
    assert prep(raw, tmp_path / "o").listed == 11


def test_shards_stay_until_what_takes_their_place_is_made(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = {path.name for path in out.glob("lrw/*.tar")}
    drop_split(raw)
    add_one(raw)
    with monkeypatch.context() as patch:
        patch.setattr(prep_module, "run_units", Mock(side_effect=RunError("the power went")))
        with pytest.raises(RunError, match="the power went"):
            prep(raw, out, prune=True)
    assert {path.name for path in out.glob("lrw/*.tar")} >= tars
    assert not (out / "lrw/dataset.json").exists()


def test_a_clip_that_a_killed_run_had_yet_to_deal_again_is_missed(raw: Path, out: Path) -> None:
    """Its old shard was made anew without it, the new one not yet; then it is listed no more."""
    clip = min(keys(out))
    hidden = out / "lrw" / ".avb"
    for path in hidden.glob("rows/*.parquet"):
        table = pq.read_table(path)
        kept = [key != clip for key in table["key"].to_pylist()]
        head = table.schema.metadata | {b"digest": b"of another plan"}
        pq.write_table(table.filter(kept).replace_schema_metadata(head), path)
    (out / "lrw/dataset.json").unlink()
    next(raw.rglob(f"{clip}.mp4")).unlink()
    assert re.search(f"1 finished clips .* such as {clip}", fault(prep, raw, out))


def test_overwriting_deletes_nothing_where_nothing_is_found(out: Path, tmp_path: Path) -> None:
    before = bytes_of(out)
    fault(prep, tmp_path / "not mounted", out, overwrite=True)
    assert bytes_of(out) == before


def test_the_command_refuses_with_one_line_and_prunes_when_told(raw: Path, out: Path) -> None:
    drop_split(raw)
    words = ["prep", "lrw", "--root", raw, "--out", out, "--shard-clips", 3, "--jobs", 1]
    refused(*words)
    assert "let go, as --prune says" in did(*words, "--prune").stderr


# What killed runs leave behind


def test_what_killed_runs_left_is_swept_though_nothing_is_to_do(raw: Path, out: Path) -> None:
    hidden = out / "lrw" / ".avb"
    names = ("plan.arrow.elsewhere.77", "plan.77", "rows/train-000000.parquet.elsewhere.77")
    left = [out / "lrw/train-000000.tar.elsewhere.77.tmp", *(hidden / f"{n}.tmp" for n in names)]
    for path in left:
        path.write_bytes(b"half")
    before = keys(out)
    own = out / "lrw/notes.tmp"
    own.write_text("mine")
    assert prep(raw, out, part=Part(1, 2)).made == 0  # others may be at work
    assert all(path.exists() for path in left)
    assert prep(raw, out).made == 0
    assert not any(path.exists() for path in left) and keys(out) == before and own.exists()


def test_temporary_folders_of_killed_processes_are_swept_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make = "from avb.pipeline.storage.mirror import scratch; kept = scratch('out')"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"import os; {make}; os._exit(9)"], env=environment)
    [dead] = tmp_path.iterdir()
    (dead / "deep").mkdir()
    stranger = tmp_path / f"avb-out-{os.uname().nodename}x.1-ab12"
    stranger.mkdir()
    with mirror.scratch("out") as mine:
        mirror.sweep_scratch()
        assert {path.name for path in tmp_path.iterdir()} == {Path(mine).name, stranger.name}
