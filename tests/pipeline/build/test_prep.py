"""`avb prep`: every clip one row, the same bytes however it ran, nothing half, nothing lost."""

import errno
import json
import os
import resource
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import prepared
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import avb, refused
from prepared import dataset, hashes, rows, untimed

from avb.pipeline.shards import dataset as datasets
from avb.tools.cli.prep import commonest_reasons


@pytest.fixture(scope="module")
def raw(drawn_lrw: Any) -> Path:
    return drawn_lrw.root


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One undisturbed run over it."""
    out = tmp_path_factory.mktemp("done")
    assert avb("prep", "lrw", "--root", raw, "--out", out, "--shard-clips", 6, "--jobs", 1)[0] == 3
    return out


def prep(raw: Path, out: Path, *more: object) -> tuple[int, str, str]:
    words = ("--root", raw, "--out", out, "--shard-clips", 6, "--jobs", 1, *more)
    return avb("prep", "lrw", *words)


def test_every_input_has_one_row_and_the_counts_add_up(raw: Path, done: Path) -> None:
    inputs = {p.relative_to(raw).as_posix() for p in raw.rglob("*.mp4")}
    assert Counter(row["source"] for row in rows(done)) == Counter(inputs)
    counts = dataset(done)["counts"]
    assert sum(counts["status"].values()) == counts["listed"] == len(inputs)
    assert counts["status"] == Counter(row["status"] for row in rows(done))
    assert counts["status"]["bad_decode"] == 3  # cut short, empty, text called mp4
    assert all(row["error"] for row in rows(done) if row["status"] != "ok")


def test_refused_clips_are_named_with_their_reason(raw: Path, done: Path, tmp_path: Path) -> None:
    wrong = {row["key"] or row["source"]: row for row in rows(done) if row["status"] != "ok"}
    told = json.loads(avb("stats", done / "lrw", "--refused", "--json").stdout)
    assert told.keys() == wrong.keys() and len(told) > 5
    assert all(told[key].startswith(f"{row['status']}: ") for key, row in wrong.items())
    for name in ("lrw", "other"):  # of the same keys
        shutil.copytree(done / "lrw", tmp_path / "both" / name)
    both = json.loads(avb("stats", tmp_path / "both", "--refused", "--json").stdout)
    assert both == {f"{name}/{key}": told[key] for name in ("lrw", "other") for key in told}
    counts = json.loads(avb("stats", tmp_path / "both", "--json").stdout)
    assert counts["lrw"] == counts["other"]  # the same corpus: its name told neither
    _, _, text = prep(raw, tmp_path)
    named = [line for line in text.splitlines() if "refused: " in line]
    assert len(named) == 5 and f"--refused names all {len(wrong)}" in text
    assert all(any(key in line for key in wrong) for line in named)


def test_what_is_drawn_claims_no_licence_of_a_corpus(raw: Path, done: Path, tmp_path: Path) -> None:
    assert dataset(done)["licence"] == {"name": "none: drawn talkers", "apply": "avb synth"}
    real = shutil.copytree(raw, tmp_path / "real", ignore=lambda *_: [".avb_synth"])
    assert avb("prep", "lrw", "--root", real, "--out", tmp_path / "out", "--limit", 1)[0] in (0, 3)
    assert "BBC" in dataset(tmp_path / "out")["licence"]["name"]


def test_two_processes_give_the_same_bytes(raw: Path, done: Path, tmp_path: Path) -> None:
    assert prep(raw, tmp_path, "--jobs", 2)[0] == 3
    assert hashes(tmp_path) == hashes(done)
    assert dataset(tmp_path) == dataset(done)


def test_json_is_one_object_and_nothing_else(raw: Path, tmp_path: Path) -> None:
    code, out, _ = prep(raw, tmp_path / "out", "--dry-run", "--json")
    assert code == 0 and not (tmp_path / "out").exists()  # nothing is written
    assert json.loads(out)["listed"] == len(list(raw.rglob("*.mp4")))
    code, out, _ = prep(raw, tmp_path, "--json")
    record = json.loads(out)
    assert code == 3
    assert set(record) == {
        "corpus", "listed", "ok", "status", "flags", "seconds", "clips_per_s", "out",
    }  # fmt: skip
    assert record["ok"] == record["status"]["ok"] and record["corpus"] == "lrw"


def test_a_second_run_makes_only_what_is_missing(raw: Path, done: Path, tmp_path: Path) -> None:
    prep(raw, tmp_path)
    tars = sorted((tmp_path / "lrw").glob("*.tar"))
    times = {tar: tar.stat().st_mtime_ns for tar in tars}
    tars[0].unlink()
    (tmp_path / "lrw" / "left-000000.tar.77.tmp").write_bytes(b"half")
    assert prep(raw, tmp_path)[0] == 3
    remade = [tar for tar in tars if tar.stat().st_mtime_ns != times[tar]]
    assert remade == [tars[0]]
    assert hashes(tmp_path) == hashes(done)
    assert not list((tmp_path / "lrw").glob("*.tmp"))


@pytest.mark.parametrize("harm", [None, 0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["manifest.parquet", "dataset.json"])
def test_a_lost_or_damaged_account_is_written_again(
    raw: Path, done: Path, tmp_path: Path, name: str, harm: float | None
) -> None:
    path = Path(shutil.copytree(done, tmp_path / "out")) / "lrw" / name
    data = path.read_bytes()
    path.unlink()
    if harm is not None:
        path.write_bytes(data[: int(len(data) * harm)])
    assert prep(raw, tmp_path / "out")[0] == 3
    assert untimed(rows(tmp_path / "out")) == untimed(rows(done))
    assert dataset(tmp_path / "out") == dataset(done)


def test_other_settings_are_refused_with_the_difference(raw: Path, tmp_path: Path) -> None:
    prep(raw, tmp_path)
    before = hashes(tmp_path)
    code, _, text = prep(raw, tmp_path, "--crf", 30)
    assert code == 2 and "crf: 19 there, 30 now" in text
    assert hashes(tmp_path) == before
    assert prep(raw, tmp_path, "--crf", 30, "--overwrite")[0] == 3
    assert hashes(tmp_path) != before


def test_retrying_rewrites_the_mended_shard_alone(raw: Path, done: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(raw, tmp_path / "raw"))
    broken = next(row for row in rows(done) if row["error"] and "0 bytes" in row["error"])
    donor = next(row for row in rows(done) if row["status"] == "ok")
    film, good = root / broken["source"], (root / donor["source"]).read_bytes()
    film.write_bytes(bytes(len(good)))
    prep(root, tmp_path)
    before = hashes(tmp_path)
    time_ns = film.stat().st_mtime_ns
    film.write_bytes(good)
    os.utime(film, ns=(time_ns, time_ns))  # else the change itself would be noticed
    assert hashes(tmp_path) == before and prep(root, tmp_path)[0] == 3
    assert hashes(tmp_path) == before  # without the flag a refusal stands
    prep(root, tmp_path, "--retry-failed")
    after = {row["key"]: row for row in rows(tmp_path)}
    mended = after[broken["key"]]
    assert mended["status"] == "ok"
    changed = {name for name, value in hashes(tmp_path).items() if before.get(name) != value}
    assert changed == {f"{mended['shard']}.tar"}
    fresh = tmp_path / "fresh"
    prep(root, fresh)
    assert hashes(fresh) == hashes(tmp_path)


@pytest.mark.parametrize("harm", ["a flipped bit", "a flipped header", "another order"])
def test_samples_of_a_shard_that_is_not_as_it_was_written_are_made_again(
    raw: Path, done: Path, tmp_path: Path, harm: str
) -> None:
    out = Path(shutil.copytree(done, tmp_path / "out"))
    shards = {row["group"]: row["group"] + "-000000" for row in rows(done) if row["error"]}
    tar = out / "lrw" / f"{min(shards.values())}.tar"
    own = [row for row in rows(done) if row["shard"] == tar.stem]
    data = bytearray(tar.read_bytes())
    if harm == "another order":  # it was written anew, and the run ended before the rows were
        blocks = [data[row["offset"] :][: row["nbytes"]] for row in own]
        data[: sum(map(len, blocks))] = b"".join(blocks[::-1])
    else:
        data[own[0]["offset"] + (1 if "header" in harm else 700)] ^= 1
    assert data != tar.read_bytes()
    tar.write_bytes(data)
    assert prep(raw, out, "--retry-failed")[0] == 3
    assert hashes(out) == hashes(done) and untimed(rows(out)) == untimed(rows(done))


def test_max_failures_decides_the_exit_code(raw: Path, done: Path) -> None:
    refused = sum(row["status"] != "ok" for row in rows(done))
    assert prep(raw, done, "--max-failures", refused)[0] == 3
    assert prep(raw, done, "--max-failures", refused - 1)[0] == 1
    assert prep(raw, done, "--max-failures", "90%")[0] == 3
    assert prep(raw, done, "--max-failures", "1%")[0] == 1
    for text in ("few", "nan", "nan%", "-1"):
        assert prep(raw, done, "--max-failures", text)[0] == 2


def test_nothing_passed_or_written_names_its_reasons(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "WORD" / "train"
    folder.mkdir(parents=True)
    (folder / "WORD_00001.mp4").write_text("not a video")
    code, _, text = prep(tmp_path / "raw", tmp_path)
    assert code == 1
    assert "none of 1 clips passed" in text and "WORD_00001.mp4" in text
    code, _, text = prep(raw, folder / "WORD_00001.mp4")
    assert code == 1
    assert "cannot be written" in text and "Traceback" not in text


def test_reasons_are_counted_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a manifest of millions of rows no more is in memory than one batch."""
    statuses = ["short"] * 30 + ["no_audio"] * 50 + ["bad_decode"] * 15 + ["crashed"]
    errors = [f"clip {number}" for number in range(len(statuses))]
    table = pa.table({"status": statuses, "error": errors})
    pq.write_table(table, tmp_path / "manifest.parquet")
    monkeypatch.setattr(datasets, "BATCH_ROWS", 7)
    monkeypatch.setattr(pq, "read_table", None)
    assert commonest_reasons(tmp_path) == (
        "50 no_audio, such as: clip 30; 30 short, such as: clip 0; 15 bad_decode, such as: clip 80"
    )


def test_a_full_disk_is_one_line_and_nothing_half(raw: Path, done: Path, tmp_path: Path) -> None:
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (60_000, 60_000))
    words = ("prep", "lrw", "--root", raw, "--out", tmp_path, "--shard-clips", "6", "--jobs", "1")
    run = prepared.run(*words, preexec_fn=small)
    assert run.returncode == 1
    assert "finished shards are kept" in run.stderr and "Traceback" not in run.stderr
    complete = hashes(done)
    assert all(complete[name] == value for name, value in hashes(tmp_path).items())
    assert not (tmp_path / "lrw" / "dataset.json").exists()
    assert prep(raw, tmp_path)[0] == 3
    assert hashes(tmp_path) == complete


def test_a_disk_of_the_network_that_goes_is_one_line(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Mock(side_effect=OSError(errno.ESTALE, "Stale file handle"))
    monkeypatch.setattr("avb.pipeline.build.prep.write_dataset", gone)
    code, _, text = avb("prep", "lrw", "--root", raw, "--out", tmp_path, "--limit", 1, "--jobs", 1)
    assert code == 1
    assert text.splitlines()[-1].startswith(f"avb: {tmp_path}/lrw: Stale file handle; finished")


def test_a_contact_sheet_is_a_picture_by_its_name(done: Path, tmp_path: Path) -> None:
    for name, told in (("sheet", "ends in .png"), ("sheet.png/x.png", "cannot be written")):
        (tmp_path / "sheet.png").write_bytes(b"kept")
        assert told in refused("preview", done / "lrw", "--out", tmp_path / name)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"kept"]


def test_no_command_prints_a_traceback_for_a_wrong_word(tmp_path: Path) -> None:
    for words in (
        ("prep", "lrw", "--root", tmp_path / "nowhere"),
        ("prep", "lrw", "--crop", "face"),
        ("prep", "table"),
        ("inspect", "grid", "--root", tmp_path),
        ("verify", tmp_path),
        ("preview", tmp_path),
        ("synth", "gird", "--out", tmp_path / "x"),
    ):
        refused(*words)
