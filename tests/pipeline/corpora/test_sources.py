"""A disk that fails is no fault of a clip: no row says so, nothing is lost, and it is looked again.

A file that was there when the corpus was listed and cannot be read stops its unit; one that was
never there is a row; one that was replaced, or that came, is taken again.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prepared
import pytest
from commands import avb, did, refused
from importers import importer
from prepared import hashes

from avb.pipeline.build import unit as unit_module
from avb.pipeline.build.prep import Summary
from avb.pipeline.build.verify_sources import source_faults
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import RunError

CORPORA = load_corpora()


@pytest.fixture(scope="module")
def calm(good_lrw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calm")
    assert prep(good_lrw, out).ok == 12
    return out


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of this process, which take no time."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, perf_counter=unit_module.time.perf_counter)
    monkeypatch.setattr(unit_module, "time", clock)
    return waits


def prep(raw: Path, out: Path, corpus: str = "lrw", **more: Any) -> Summary:
    name = corpus if corpus in CORPORA else "table"
    flags = {"box": "whole", "crops": {"lips": CORPORA["lrw"].crops["lips"]}}
    return importer(name, raw, shard_clips=3, **flags).prep(out, **more)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in prepared.rows(out)}


def after_a_clip(act: Callable[[], object]) -> Callable[[int, int, int], None]:
    """A progress that does something once, when the first clip is taken."""
    waiting = [act]

    def progress(done: int, refused: int, todo: int) -> None:
        if done and waiting:
            waiting.pop()()

    return progress


def away(path: Path) -> Path:
    return path.rename(path.with_name(f"{path.name}.away"))


def back(path: Path) -> None:
    path.with_name(f"{path.name}.away").rename(path)


def last_clip(raw: Path, out: Path) -> Path:
    """The film that comes last in the plan."""
    return raw / list(rows(out).values())[-1]["source"]


def table_of(raw: Path, films: int) -> tuple[Path, list[Path]]:
    """A table beside the corpus, of so many of its films."""
    found = sorted(raw.rglob("*.mp4"))[:films]
    table = raw.parent / "mine.csv"
    table.write_text("video\n" + "".join(f"{film.relative_to(raw.parent)}\n" for film in found))
    return table, found


WHAT = {
    "the root": lambda film: film.parents[3],
    "all films": lambda film: film.parents[2],
    "a folder": lambda film: film.parent,
    "a film": lambda film: film,
    "a text": lambda film: film.with_suffix(".txt"),
}


@pytest.mark.parametrize("what", WHAT)
def test_what_is_away_for_a_moment_costs_nothing(
    raw: Path, calm: Path, tmp_path: Path, what: str, slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = WHAT[what](last_clip(raw, calm))

    def sleep(wait_s: float) -> None:
        slept.append(wait_s)
        if len(slept) == 3:
            back(path)

    monkeypatch.setattr(unit_module.time, "sleep", sleep)
    assert prep(raw, tmp_path, progress=after_a_clip(lambda: away(path))).ok == 12
    assert slept == [1, 2, 4]
    assert hashes(tmp_path) == hashes(calm)
    found, wanted = ([r["words"] for r in rows(out).values()] for out in (tmp_path, calm))
    assert found == wanted


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("jobs", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_what_stays_away_ends_the_run_and_becomes_no_row(
    raw: Path, calm: Path, tmp_path: Path, what: str, jobs: int | None
) -> None:
    path = WHAT[what](last_clip(raw, calm))
    with pytest.raises(RunError, match=rf"{raw}.*not there|{raw}.*No such file") as ended:
        prep(raw, tmp_path, jobs=jobs, progress=after_a_clip(lambda: away(path)))
    assert "finished shards are kept" in str(ended.value) and "\n" not in str(ended.value)
    assert not (tmp_path / "lrw/dataset.json").exists()
    found = hashes(tmp_path)
    assert all(hashes(calm)[name] == value for name, value in found.items())
    if path.is_relative_to(raw / "lipread_mp4") and path.suffix:  # one file: the others are made
        assert len(found) == len(hashes(calm)) - 1
    back(path)
    assert prep(raw, tmp_path).ok == 12
    assert hashes(tmp_path) == hashes(calm)


@pytest.mark.parametrize("suffix", [".mp4", ".txt"])
def test_a_read_error_ends_the_run_and_becomes_no_row(
    raw: Path, calm: Path, tmp_path: Path, suffix: str
) -> None:
    path = last_clip(raw, calm).with_suffix(suffix)

    def fails() -> None:
        away(path)
        path.symlink_to("/proc/self/mem")  # opens, and gives EIO when it is read

    with pytest.raises(RunError, match=rf"{path}: Input/output error.*shards are kept"):
        prep(raw, tmp_path, progress=after_a_clip(fails))
    path.unlink()
    back(path)
    assert prep(raw, tmp_path).ok == 12
    assert hashes(tmp_path) == hashes(calm)


@pytest.mark.parametrize(
    ("corpus", "lost"), [("grid", "s1/align"), ("lrw1000", "LRW1000_Public/images")]
)
def test_alignments_or_pictures_away_for_a_moment_lose_no_word_and_fill_none(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    corpus: str, lost: str,
) -> None:  # fmt: skip
    drawn = request.getfixturevalue(f"drawn_{corpus}").root
    root = Path(shutil.copytree(drawn, tmp_path / "raw"))
    whole = prep(root, tmp_path / "whole", corpus)
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        back(root / lost)

    monkeypatch.setattr(unit_module.time, "sleep", sleep)
    out = tmp_path / "out"
    found = prep(root, out, corpus, progress=after_a_clip(lambda: away(root / lost)))
    assert waits and (found.status, found.flags) == (whole.status, whole.flags)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_row_without_its_film_is_a_row_until_it_is_there(raw: Path, tmp_path: Path) -> None:
    table, films = table_of(raw, 3)
    away(films[2])
    summary = prep(table, tmp_path / "out", "mine")
    assert summary.status == {"ok": 2, "unreadable": 1}
    assert prep(table, tmp_path / "out", "mine").made == 0
    back(films[2])
    again = prep(table, tmp_path / "out", "mine")
    assert again.status == {"ok": 3} and "1 clips have new or other files" in again.notices[-1]


def test_a_film_of_a_table_that_goes_away_later_ends_the_run(raw: Path, tmp_path: Path) -> None:
    table, films = table_of(raw, 3)
    folder = films[0].parents[2]
    with pytest.raises(RunError, match=r"No such file.*shards are kept"):
        prep(table, tmp_path / "out", "mine", progress=after_a_clip(lambda: away(folder)))
    back(folder)
    assert prep(table, tmp_path / "out", "mine").status == {"ok": 3}


def test_a_replaced_film_is_taken_again_and_no_other(raw: Path, calm: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(calm, tmp_path / "out"))
    moved = prep(raw, out)  # copied with its times: nothing to do
    assert moved.made == 0 and not moved.notices
    before = rows(out)
    key = sorted(before)[0]
    donor = sorted(before)[-1]
    film = raw / before[key]["source"]
    shutil.copy2(raw / before[donor]["source"], film)
    again = prep(raw, out)
    assert again.notices == [f"1 clips have new or other files, such as {key}: taken again"]
    after_ = rows(out)
    taken = {k for k, row in after_.items() if row["decode_ms"] != before[k]["decode_ms"]}
    assert taken == {key}
    fresh = tmp_path / "fresh"
    prep(raw, fresh)
    assert hashes(out) == hashes(fresh) != hashes(calm)
    assert prep(raw, out).made == 0


def test_a_film_that_came_later_costs_none_that_stay_in_their_shards(
    raw: Path, calm: Path, tmp_path: Path
) -> None:
    out, before = Path(shutil.copytree(calm, tmp_path / "out")), rows(calm)
    film = last_clip(raw, calm)
    shutil.copy2(film, film.with_name(f"{film.stem[:-5]}77777.mp4"))
    assert prep(raw, out).ok == 13
    after = rows(out)
    stay = {key for key, row in before.items() if after[key]["shard"] == row["shard"]}
    assert len(stay) >= 8
    assert all(after[key]["decode_ms"] == before[key]["decode_ms"] for key in stay)
    prep(raw, tmp_path / "fresh")
    assert hashes(out) == hashes(tmp_path / "fresh") != hashes(calm)


def test_the_time_alone_tells_of_an_equal_size(raw: Path, calm: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(calm, tmp_path / "out"))
    film = last_clip(raw, calm)
    film.write_bytes(film.read_bytes())
    assert "1 clips have new or other files" in prep(raw, out).notices[-1]
    assert hashes(out) == hashes(calm)


def test_a_text_that_came_later_is_noticed(raw: Path, calm: Path, tmp_path: Path) -> None:
    text = last_clip(raw, calm).with_suffix(".txt")
    away(text)
    assert prep(raw, tmp_path).flags["no_boundary"] == 1
    back(text)
    assert "no_boundary" not in prep(raw, tmp_path).flags
    assert hashes(tmp_path) == hashes(calm)


def test_words_that_came_later_move_the_numbers_of_the_others(
    raw: Path, calm: Path, tmp_path: Path
) -> None:
    word = raw / "lipread_mp4" / "ABOUT"
    held = word.rename(tmp_path / "held")
    prep(raw, tmp_path)
    held.rename(word)
    prep(raw, tmp_path)
    assert hashes(tmp_path) == hashes(calm)


def test_a_link_to_nowhere_was_never_there(raw: Path, calm: Path, tmp_path: Path) -> None:
    film = last_clip(raw, calm)
    for path in (film.with_suffix(".txt"), sorted(raw.rglob("*.mp4"))[0]):
        path.unlink()
        path.symlink_to("nowhere")
    summary = prep(raw, tmp_path)
    assert summary.flags["no_boundary"] == 1 and summary.status == {"ok": 11, "unreadable": 1}


# verify --sources


def faults(out: Path, corpus: str = "lrw") -> list[str]:
    return source_faults(out / corpus, CORPORA)


def test_verify_compares_with_the_corpus_names_sizes_times_and_texts(
    raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    texts = sorted(raw.rglob("*.txt"))
    texts = [text for text in texts if text.with_suffix(".mp4").is_file()]
    away(texts[5])
    prep(raw, out)
    assert faults(out) == []
    films = [text.with_suffix(".mp4") for text in texts]
    sources = {row["source"]: row["key"] for row in rows(out).values()}
    keys = [sources[str(film.relative_to(raw))] for film in films]
    films[0].write_bytes(films[0].read_bytes() + b"x")
    films[1].write_bytes(films[1].read_bytes())
    films[2].unlink()
    texts[3].unlink()
    texts[4].write_bytes(b"Duration: 9")
    back(texts[5])
    shutil.copy2(films[6], films[6].with_name(films[6].name.replace("_0000", "_0009")))
    told = dict(line.split(": ", 1) for line in faults(out))
    assert set(told) == {*keys[:6], keys[6].replace("_0000", "_0009")}
    for key, words in zip(
        keys, ("bytes, was made from", "written since", "listed no more", "txt is gone",
               "txt has 11 bytes, was made from", "txt is there now"), strict=False,
    ):  # fmt: skip
        assert words in told[key]
    assert told[keys[6].replace("_0000", "_0009")] == "is listed now, and in no shard"


def test_verify_of_a_table_finds_it_again(raw: Path, tmp_path: Path) -> None:
    table, films = table_of(raw, 2)
    prep(table, tmp_path / "out", "mine")
    assert faults(tmp_path / "out", "mine") == []
    films[0].unlink()
    [line] = faults(tmp_path / "out", "mine")
    assert line.endswith("mp4 is gone")


def test_many_differences_are_some_lines_and_a_count_where_the_command_is_told_to(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avb.pipeline.build.verify_sources.MOST_LINES", 2)
    prep(raw, tmp_path)
    words = ["verify", str(tmp_path / "lrw"), "--jobs", "1"]
    for film in raw.rglob("*.mp4"):
        os.utime(film, ns=(1, 1))
    assert len(faults(tmp_path)) == 3 and faults(tmp_path)[-1].startswith("10 more clips")
    did(*words)
    run = avb(*words, "--sources")
    assert run.exit_code == 1 and "3 faults" in run.stderr and "written since" in run.stderr
    raw.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("avb.pipeline.shards.verify.verify", None)  # hours are not spent first
    assert str(raw) in refused(*words, "--sources")
