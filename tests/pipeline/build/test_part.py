"""`--part I/N`: the parts and a last plain run are one run, on however many machines at once."""

import fcntl
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import avb, refused
from prepared import dataset, hashes, start

from avb.pipeline.build import prep as prep_module
from avb.pipeline.build.plan import Unit
from avb.pipeline.build.unit import rows_path
from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.pipeline.storage.mirror import Mirror

PARTS = ("1/3", "2/3", "3/3")


@pytest.fixture(scope="module")
def raw(drawn_lrw: Any) -> Path:
    return drawn_lrw.root


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert prep(raw, out)[0] == 3
    return out


def prep(raw: Path, out: Path, *more: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object and stderr of one run in this process."""
    words = ("prep", "lrw", "--root", raw, "--out", out, "--shard-clips", 5, "--jobs", 1, "--json")
    code, printed, text = avb(*words, *more)
    return code, json.loads(printed or "{}"), text


def plan(raw: Path, out: Path) -> Any:
    corpus, mirror = load_corpora()["lrw"], Mirror(out / "lrw")
    (mirror.folder / ".avb").mkdir(parents=True, exist_ok=True)
    settings = settings_for("lrw", corpus)
    return prep_module._settle(corpus, settings, raw, mirror, False, False, None, part=True)


def test_parts_and_a_last_run_are_one_run(raw: Path, whole: Path, tmp_path: Path) -> None:
    """The last one makes what a part left, too."""
    listed = 0
    for part in reversed(PARTS):
        before = hashes(tmp_path)
        code, record, text = prep(raw, tmp_path, "--part", part)
        assert code in (0, 3) and f"part {part} is done" in text
        assert set(before) < set(hashes(tmp_path))
        refused = sum(n for status, n in record["status"].items() if status != "ok")
        assert record["ok"] + refused == record["listed"]
        listed += record["listed"]
        assert not list(tmp_path.glob("lrw/dataset.json")) + list(tmp_path.glob("lrw/*.parquet"))
    assert hashes(tmp_path) == hashes(whole)
    lost = min(tmp_path.glob("lrw/*.tar"))
    lost.unlink()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("lrw/*.tar")}
    code, record, _ = prep(raw, tmp_path)
    assert code == 3 and record["listed"] == listed
    found = {path: path.stat().st_mtime_ns for path in tmp_path.glob("lrw/*.tar")}
    assert found.pop(lost) and found == written
    assert hashes(tmp_path) == hashes(whole) and dataset(tmp_path) == dataset(whole)


def test_rows_that_another_machine_wrote_are_waited_for_with_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = Unit(0, "train-000000", 1, "")

    def appear(seconds: float) -> None:
        rows_path(tmp_path, unit).parent.mkdir(parents=True)
        rows_path(tmp_path, unit).touch()

    monkeypatch.setattr(prep_module.time, "sleep", appear)
    prep_module._await_rows(tmp_path, [unit])


def test_a_part_without_units_has_nothing_to_do(raw: Path, tmp_path: Path) -> None:
    code, record, _ = prep(raw, tmp_path, "--part", "99/99")
    assert code == 0 and record["listed"] == 0 and not hashes(tmp_path)


@pytest.mark.parametrize("part", ["3/2", "0/4", "x", "1/0", "-1/2", "1/2/3", ""])
def test_no_such_part_is_one_line(raw: Path, tmp_path: Path, part: str) -> None:
    code, _, text = prep(raw, tmp_path, f"--part={part}")
    assert code == 2 and len(text.strip().splitlines()) == 1
    assert "I/N with I from 1 to N, such as 3/8" in text
    assert not list(tmp_path.iterdir())


def test_parts_that_start_together_list_the_corpus_once(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make_slowly(*words: Any) -> Any:
        made.append(words)
        time.sleep(0.3)
        return make_plan(*words)

    make_plan = prep_module.make_plan
    monkeypatch.setattr(prep_module, "make_plan", make_slowly)
    found: list[Any] = []
    parts = [threading.Thread(target=lambda: found.append(plan(raw, tmp_path))) for _ in range(4)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert len(made) == 1
    assert len(found) == 4 and all(p.units == found[0].units for p in found)


def test_a_part_of_a_whole_lists_again_and_takes_nothing(
    raw: Path, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    prep(root, tmp_path)
    assert prep(root, tmp_path, "--part", "1/3")[1]["listed"] > 0
    assert dataset(tmp_path)["shards"] == dataset(whole)["shards"]
    film = next(root.rglob("train/*_00001.mp4"))
    shutil.copy(film, film.with_name(film.name.replace("00001", "00077")))
    listed = dataset(tmp_path)["counts"]["listed"]
    for part in PARTS:
        prep(root, tmp_path, "--part", part)
    assert not (tmp_path / "lrw" / "dataset.json").exists()
    prep(root, tmp_path)
    assert dataset(tmp_path)["counts"]["listed"] == listed + 1


def test_other_settings_or_another_root_are_refused(raw: Path, tmp_path: Path) -> None:
    prep(raw, tmp_path, "--part", "1/3")
    code, _, text = prep(raw, tmp_path, "--part", "2/3", "--crf", 30)
    assert code == 2 and "crf: 19 there, 30 now" in text
    shutil.copytree(raw, tmp_path / "raw")
    code, _, text = prep(tmp_path / "raw", tmp_path, "--part", "2/3")
    assert code == 2 and f"was planned from {raw}" in text
    for name in ("a", "b"):  # of two tables in one folder one was planned
        (tmp_path / f"{name}.csv").write_text(f"video\n{name}.mp4\n")
    words = ("--name", "own", "--out", tmp_path, "--part", "1/2", "--jobs", 1)
    assert avb("prep", "table", tmp_path / "a.csv", *words).exit_code == 3
    assert f"planned from {tmp_path}/a.csv" in refused("prep", "table", tmp_path / "b.csv", *words)
    code, _, text = prep(raw, tmp_path, "--part", "2/3", "--overwrite")
    assert code == 2 and "--overwrite with --part" in text


def test_parts_go_side_by_side_but_not_beside_a_whole_run(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "lrw" / ".avb").mkdir(parents=True)
    with (tmp_path / "lrw" / ".avb" / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert prep(raw, tmp_path, "--part", "1/3")[0] in (0, 3)
        code, _, text = prep(raw, tmp_path)
        assert code == 1 and "another run is writing here" in text
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, text = prep(raw, tmp_path, "--part", "1/3")
        assert code == 1 and "another run is writing here" in text


@pytest.mark.slow
def test_parts_started_together_meet_without_harm(raw: Path, whole: Path, tmp_path: Path) -> None:
    words = ["prep", "lrw", "--root", raw, "--out", tmp_path, "--shard-clips", 5, "--jobs", 1]
    runs = [start(*words, "--part", part) for part in (*PARTS, "3/3")]  # by mistake one twice
    for run in runs:
        _, text = run.communicate()
        assert run.returncode in (0, 3), text
    assert hashes(tmp_path) == hashes(whole)
    assert prep(raw, tmp_path)[0] == 3
    assert dataset(tmp_path) == dataset(whole)
    assert not list((tmp_path / "lrw").rglob("*.tmp"))
