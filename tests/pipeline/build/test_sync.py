"""`avb prep --sync` and `avb sync --apply`: sound moved by a table, words with it, nothing else."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import avb, did, fault, refused
from films import speechlike, write_film
from prepared import draw

from avb.pipeline.build.process import moved_words
from avb.pipeline.clip.audio import log_mel
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora.lags import read_lags, write_lags
from avb.pipeline.shards.metadata import read_facts
from avb.pipeline.stream.assemble import Assembler
from avb.pipeline.stream.index import load_index

LAGS = (23.0, -31.0, 62.5, None)  # late, early, more than a frame, not known


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    index = load_index(folder)
    assemble = Assembler(index, ("lips",), True, False)
    return {index.key(row): {n: bytes(m) for n, m in assemble.members(row).items()}
            for row in range(len(index))}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw("grid", tmp_path_factory.mktemp("sync") / "raw", 4)


@pytest.fixture(scope="module")
def plain(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    did("prep", "grid", "--root", raw, "--out", out)
    return out / "grid"


@pytest.fixture(scope="module")
def table(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "sync.parquet"
    rows = [{"key": key, "lag_ms": lag, "confidence": 0.9}
            for key, lag in zip(samples(plain), LAGS, strict=True)]  # fmt: skip
    write_lags(path, rows, {})
    return path


@pytest.fixture(scope="module")
def moved(raw: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("moved")
    did("prep", "grid", "--root", raw, "--out", out, "--sync", table)
    return out / "grid"


def test_sound_lies_where_its_lag_says_and_pictures_are_the_same(plain: Path, moved: Path) -> None:
    mel = load_corpora()["grid"].mel
    before, after = samples(plain), samples(moved)
    for (key, old), lag in zip(before.items(), LAGS, strict=True):
        new = after[key]
        assert new["lips.mp4"] == old["lips.mp4"] and new["face.mp4"] == old["face.mp4"]
        sound, was = decode_flac(new["flac"]), decode_flac(old["flac"])
        by = round(16 * (lag or 0))
        overlap = len(was) - abs(by)
        np.testing.assert_array_equal(sound[max(0, -by) :][:overlap], was[max(0, by) :][:overlap])
        if lag is None:
            assert new["mel.npy"] == old["mel.npy"]
        stored = np.load(io.BytesIO(new["mel.npy"])).astype(np.float32)

        assert np.abs(stored - log_mel(sound, mel, 16_000)).mean() < 0.02  # 16 bits in silence


def test_words_move_with_their_sound_and_flags_tell(plain: Path, moved: Path) -> None:
    before, after = samples(plain), samples(moved)
    flags = {23.0: ["sync_corrected"], -31.0: ["sync_corrected"],
             62.5: ["sync_corrected", "sync_far"], None: ["sync_unsure"]}  # fmt: skip
    rows = {row["key"]: row for row in pq.read_table(moved / "manifest.parquet").to_pylist()}
    for key, lag in zip(before, LAGS, strict=True):
        old, new = (read_facts(sample[key]["json"]) for sample in (before, after))
        assert [f for f in new["flags"] if f.startswith("sync")] == flags[lag]
        assert new["sync_ms"] == pytest.approx(lag or 0) == rows[key]["sync_ms"]
        for (word, start, end), (same, first, last) in zip(new["words"], old["words"], strict=True):
            shift = (lag or 0) / 1000
            assert word == same
            assert (start, end) == pytest.approx((first - shift, last - shift), abs=1e-4)
    assert json.loads((moved / "dataset.json").read_text())["settings"]["sync"]


def test_shards_at_hand_get_the_same_but_for_the_ends(
    plain: Path, moved: Path, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    did("sync", plain, "--apply", table, "--out", out)
    did("verify", out)
    edge = 70 * 16
    for key, made in samples(out).items():
        wanted = samples(moved)[key]
        assert made["lips.mp4"] == wanted["lips.mp4"]
        a, b = decode_flac(made["flac"]), decode_flac(wanted["flac"])
        np.testing.assert_array_equal(a[edge:-edge], b[edge:-edge])
        mine, theirs = read_facts(made["json"]), read_facts(wanted["json"])
        for name in ("words", "flags", "sync_ms", "boundary"):
            assert mine[name] == theirs[name], name


def test_a_word_that_leaves_its_clip_leaves_no_boundary(good_lrw: Path, tmp_path: Path) -> None:
    did(
        "prep", "lrw", "--root", good_lrw, "--out", tmp_path / "plain", "--limit", 1, "--keep-audio"
    )
    [(key, stored)] = samples(tmp_path / "plain/lrw").items()
    assert read_facts(stored["json"])["boundary"] not in ([0.0, 1.16], None)
    write_lags(tmp_path / "lags", [row(key, 1000.0)], {})
    did("sync", tmp_path / "plain/lrw", "--apply", tmp_path / "lags", "--out", tmp_path / "moved")
    facts = read_facts(samples(tmp_path / "moved")[key]["json"])
    assert facts["boundary"] == [0.0, 1.16] and facts["words"][0][1:] == (None, None)


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_a_span_of_a_film_has_the_sound_that_its_lag_brings_from_beyond_it(
    tmp_path: Path, decoder: str
) -> None:
    pictures = [np.full((64, 64), 20 + number, np.uint8) for number in range(150)]
    whole, lags = speechlike(6.0), {0: -300.0, 2: 300.0, 3: -300.0, 5: 300.0}
    codec = {"audio_codec": "pcm_s16le"}
    write_film(tmp_path / "film.mkv", pictures, np.arange(150) / 25, whole, **codec)
    rows = [f"film.mkv,{start},{start + 1}\n" for start in lags]
    (tmp_path / "mine.csv").write_text("video,start,end\n" + "".join(rows))
    keys = [f"all/film_{1000 * start}_{1000 * start + 1000}" for start in lags]
    rows = [row(key, lag) for key, lag in zip(keys, lags.values(), strict=True)]
    write_lags(tmp_path / "lags", rows, {})
    words = ("--name", "mine", "--out", tmp_path, "--crop", "lips", "--box", "whole")
    words += ("--decoder", decoder, "--sync", tmp_path / "lags")
    did("prep", "table", tmp_path / "mine.csv", *words)
    around = np.pad(whole, 4800)  # the film has no sound before and behind it
    made = samples(tmp_path / "mine")
    for key, (start, lag) in zip(keys, lags.items(), strict=True):
        wanted = around[start * 16_000 + round(16 * lag) + 4800 :][:16_000]
        sound = decode_flac(made[key]["flac"])
        assert np.abs(sound - wanted).max() < 1e-3, key


def test_inspect_says_that_the_corpus_has_lags(raw: Path) -> None:
    assert "avb sync measures" in avb("inspect", "grid", "--root", raw)[1]


def test_a_table_is_a_setting_like_any_other(raw: Path, moved: Path) -> None:
    line = refused("prep", "grid", "--root", raw, "--out", moved.parent)
    assert "sync:" in line and "other settings" in line


def row(key: str, lag_ms: Any, confidence: Any = 1.0) -> dict[str, Any]:
    return {"key": key, "lag_ms": lag_ms, "confidence": confidence}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("s9/other", 5.0)], "none of them is listed here"),
        ([row("s1/x", 4000.0)], "the lag of s1/x is 4000.0"),
        ([row("s1/x", float("nan"))], "the lag of s1/x is nan"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    raw: Path, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    write_lags(tmp_path / "t.parquet", rows, {})
    words = ("--root", raw, "--out", tmp_path, "--sync", tmp_path / "t.parquet")
    assert message in refused("prep", "grid", *words)


def test_the_table_that_datasets_yaml_names_is_the_known_one(
    raw: Path, table: Path, tmp_path: Path
) -> None:
    shutil.copy(table, tmp_path / "named.parquet")
    (tmp_path / "mine.yaml").write_text("grid: {lags: named.parquet}\nlrw: {lags: ''}\n")
    words = ("--datasets", tmp_path / "mine.yaml", "prep")
    out = ("--out", tmp_path / "out", "--sync", "known")
    did(*words, "grid", "--root", raw, *out)
    record = json.loads((tmp_path / "out" / "grid" / "dataset.json").read_text())
    assert record["settings"]["sync"] == read_lags(table).digest
    assert "names no lags of it" in refused("prep", "lrw", "--root", raw, *out)


def test_no_table_and_one_with_two_lags_of_a_clip_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("key,lag_ms\n")
    assert "no table of lags" in fault(read_lags, tmp_path / "t.parquet")
    write_lags(tmp_path / "t.parquet", [row("s1/a", 500.0), row("s1/a", -500.0)], {})
    assert "s1/a has two rows" in fault(read_lags, tmp_path / "t.parquet")


def test_shards_without_sound_or_moved_already_are_refused(
    moved: Path, table: Path, tmp_path: Path
) -> None:
    words = ("sync", moved, "--apply", table, "--out", tmp_path / "out")
    assert "moved already" in refused(*words)


def test_an_out_that_is_or_lies_in_a_file_is_one_line(
    plain: Path, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deep"):
        line = refused("sync", plain, "--apply", table, "--out", out)
        assert f"{out}: is, or lies in, a file" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_words_that_leave_the_clip_are_cut_and_told_of() -> None:
    words, flags = moved_words([("a", 0.0, 0.5), ("b", 0.5, 1.0), ("c", None, None)], -0.1, 1.0)
    assert words == [("a", 0.0, 0.4), ("b", 0.4, 0.9), ("c", None, None)]
    assert flags == {"words_clamped"}
    assert moved_words([("a", 0.2, 0.5)], -0.1, 1.0)[1] == set()
    for word in (("a", 0.0, 0.1), ("a", 1.1, 1.3), ("a", None, 0.1), ("a", 1.15, None)):
        assert moved_words([word], -0.1, 1.0) == ([("a", None, None)], {"words_clamped"})


def test_damaged_shards_are_a_line(plain: Path, table: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plain, tmp_path / "copy"))
    tar = next(copy.glob("*.tar"))
    tar.write_bytes(b"x" * tar.stat().st_size)
    words = ("sync", copy, "--apply", table, "--out", tmp_path / "out")
    assert "avb verify" in refused(*words) and not (tmp_path / "out/dataset.json").exists()
    tar.unlink()
    assert "No such file" in refused(*words, code=1)
