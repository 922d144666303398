"""Odd cells: each refuses its own row with a line, or is taken as what it means; none is guessed.

Files that are no table in UTF-8 are called what they are.
"""

import csv
import datetime
import decimal
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import avb
from films import speechlike, write_film
from importers import importer, refusal

from avb.pipeline.config import LONGEST_NAME
from avb.pipeline.corpora import table as importer_of_tables
from avb.pipeline.corpora.clip import Clip
from avb.pipeline.corpora.table import parse_words
from avb.pipeline.stream.index import load_index

GOOD = {"video": "good.mp4", "start": "0", "end": "1", "label": "yes"}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "mine.csv") -> Path:
    path = folder / name
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "mine.parquet")
    return folder / "mine.parquet"


def planned(folder: Path, table: Path) -> list[Clip]:
    """The clips as the plan holds them: what cannot be stored shows itself there."""
    return list(importer("table", table).planned(folder / "plan.arrow").values())


NESTED = "[" * 100_000
#: Cells that are `bad_name`.
BAD = {
    "start": ["inf", "-inf", "-1", "-0.001", "1e308", "1e400", "1" * 5000],
    "end": ["inf", "0,5"],
    "words": [
        '[["hi", [1], 2]]', '[["hi", {}, 2]]', '[["hi", true, 2]]', '[["hi", Infinity, NaN]]',
        '[["hi", 1e400, 1]]', '[["hi", -1, 1]]', '[["hi", 5, 4]]', '[["hi", 0, 1',
        f'[["hi", {"9" * 4000}, 1]]', f'[["hi", {"9" * 5000}, 1]]', '[["", 0, 1]]',
        '[["\\ud800", 0, 1]]', "[[null, 0, 1]]", "[['hi', 0.1, 0.5]]", "[[hi, 0.1, 0.5]]",
        '[{"start": 0, "end": 1}]', NESTED, NESTED + "]" * 100_000,
    ],
    "label": ["x" * LONGEST_NAME],
    "speaker": ["x" * 300],
    "split": ["every word of a sentence " * 12, "validation", "0"],
}  # fmt: skip
CELLS = [
    *((column, cell, "bad_name") for column, cells in BAD.items() for cell in cells),
    ("split", "training", "bad_name", "split 'training' is none of train, val, test"),
    ("video", "x" * 5000, "unreadable"),
    ("video", "x/" * 2500, "unreadable"),
    ("video", "口" * 90 + ".mp4", "unreadable"),
    ("video", "x\0.mp4", "unreadable"),
    ("start", "2", "zero_length", "starts at 2.0 s and ends at 1.0 s"),
    ("end", "0", "zero_length", "ends at 0.0 s"),
    ("video", "", "unreadable", "no video named"),
    ("start", "0:12", "bad_name", "'0:12' is no number of seconds"),
    ("words", "word " * 10_000, "bad_name", "10000 words of 40000 bytes", "start and end"),
    ("words", "[oh", "bad_name", "words '[oh' are not valid JSON"),
    ("words", '[["oh", 1]]', "bad_name", "words: ['oh', 1] is not"),
    ("words", "[1]", "bad_name", "words: 1 is not"),
    ("words", '{"word": "oh", "start": 0, "end": 1}', "bad_name", "is no text and no list"),
    ("words", "{'oh': [0, 1]}", "bad_name", "are not valid JSON"),
]


@pytest.mark.parametrize("odd", CELLS, ids=range(len(CELLS)))
def test_a_cell_that_cannot_be_refuses_its_row_with_a_line_and_no_other(
    tmp_path: Path, odd: tuple[str, ...]
) -> None:
    column, cell, status, *says = odd
    path = written(tmp_path, [GOOD, GOOD | {column: cell}, GOOD | {"video": "last.mp4"}])
    clips = planned(tmp_path, path)
    assert sorted(clip.status for clip in clips) == ["", "", status]
    [error] = [clip.error for clip in clips if clip.status]
    assert error.startswith("row 2: ") and len(error) < 300 and error.isprintable()
    assert all(part in error for part in says)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("label", [1.0, float("nan")]),
        ("label", [decimal.Decimal("1.0")]),
        ("label", [datetime.date(2026, 1, 1)]),
        ("label", [["yes"]]),
        ("label", [b"\xff\xfe"]),
        ("speaker", [0.5, float("nan")]),
        ("video", [1.0]),
        ("start", [float("inf")]),
        ("start", [True]),
        ("start", [[0.5]]),
        ("start", [datetime.datetime(2026, 1, 1)]),
        ("start", [datetime.timedelta(seconds=-1)]),
        ("words", [3]),
        ("words", [{"word": "hi"}]),
        ("words", [[["hi"]]]),
        ("words", [[{"word": "hi", "start": 2.0, "end": 1.0}]]),
    ],
    ids=str,
)
def test_parquet_of_a_kind_that_is_no_value_of_its_column_refuses_its_rows(
    tmp_path: Path, column: str, cells: list[Any]
) -> None:
    cells = [*cells, None]
    videos = ["a.mp4"] * len(cells)
    path = parquet(tmp_path, **{"video": videos, column: cells})
    clips = sorted(planned(tmp_path, path), key=lambda clip: clip.error)
    good = column != "video"  # without a film, the last is none either
    assert [clip.status == "" for clip in clips] == [good] + [False] * (len(cells) - 1)
    assert importer("table", path).listing().labels == []


def test_a_cell_that_its_reader_cannot_make_refuses_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"\xff\xfe", b"fine", None]).view(pa.string())  # invalid, as some writers do
    odd = pa.array([1, 0, None]).cast(pa.timestamp("s", "No/Such_Zone"))
    for column, cells in (("words", raw), ("label", raw), ("start", odd)):
        path = parquet(tmp_path, **{"video": ["a", "b", "c"], column: cells})
        clips = planned(tmp_path, path)
        assert {clip.source: bool(clip.status) for clip in clips}["a"]
        assert not {clip.source: bool(clip.status) for clip in clips}["c"]


@pytest.mark.parametrize(
    "kind",
    [*map(pa.duration, ("s", "ms", "us", "ns")), *map(pa.time32, ("s", "ms")),
     *map(pa.time64, ("us", "ns"))],
    ids=str,
)  # fmt: skip
def test_durations_and_times_of_day_are_seconds(tmp_path: Path, kind: Any) -> None:
    parts = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    starts, ends = ([None, *(t * parts for t in times)] for times in ((1, 2), (3, 3)))
    ends[1] += parts // 4  # no whole second, nor of a nanosecond a whole microsecond
    whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
    path = parquet(
        tmp_path, video=["c.mp4", "a.mp4", "b.mp4"],
        start=pa.array(starts, whole).cast(kind), end=pa.array(ends, whole).cast(kind),
    )  # fmt: skip
    found = {clip.source: (clip.start, clip.end) for clip in planned(tmp_path, path)}
    quarter = 0.25 if kind.unit != "s" else 0.0
    assert found == {"a.mp4": (1, 3 + quarter), "b.mp4": (2, 3), "c.mp4": (None, None)}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("[laughter] hello there", ["[laughter]", "hello", "there"]),
        ("hello [laughter]", ["hello", "[laughter]"]),
        ("[noise]", ["[noise]"]),
        (" [don't know, sorry] yes", ["[don't", "know,", "sorry]", "yes"]),
        ("[1] see below", ["[1]", "see", "below"]),
        ("[[inaudible]] so", ["[[inaudible]]", "so"]),
        ("{cough} no", ["{cough}", "no"]),
        ("New\u00a0York\u200b now", ["New", "York", "now"]),
        (None, []),
        ("", []),
        ("bin blue", ["bin", "blue"]),
        ('["bin", "blue"]', ["bin", "blue"]),
        ('[["bin", null, null], "blue"]', ["bin", "blue"]),
    ],
)
def test_text_may_begin_with_a_bracket(cell: str | None, words: list[str]) -> None:
    assert parse_words(cell) == [(word, None, None) for word in words]


def test_words_may_be_objects_in_json_and_of_parquet(tmp_path: Path) -> None:
    objects = [{"word": "oh", "start": 0.5, "end": 0.75, "score": 0.9}, {"word": "no"}]
    wanted = [("oh", 0.5, 0.75), ("no", None, None)]
    assert parse_words(json.dumps(objects)) == wanted
    [clip] = planned(tmp_path, parquet(tmp_path, video=["a"], words=[objects]))
    assert clip.words == wanted
    timed = [[{"word": "oh", "start": datetime.timedelta(seconds=0.5), "end": None}]]
    [clip] = planned(tmp_path, parquet(tmp_path, video=["a"], words=timed))
    assert clip.words == [("oh", 0.5, None)]


def test_a_split_is_train_val_or_test_whatever_its_case_and_blanks(tmp_path: Path) -> None:
    cells = ["Train", " VAL", "test ", ""]
    path = written(tmp_path, [GOOD | {"split": cell, "speaker": "ann"} for cell in cells])
    clips = importer("table", path).clips()
    assert [clip.split for clip in clips] == ["train", "val", "test", None]
    assert [clip.group for clip in clips] == ["train", "val", "test", "ann"]
    assert not any(clip.status for clip in clips)


def test_labels_are_in_letters_that_readers_take(tmp_path: Path) -> None:
    labels = ["New\u00a0York", "New York", "Par\u200bis\ufeff", " \u00a0 ", "x" * 199]
    labels += ["Li\u00e8ge", "Lie\u0300ge"]
    rows = [{"video": "a.mp4", "label": label, "speaker": " s\u00a01\t"} for label in labels]
    path = written(tmp_path, rows)
    listing = importer("table", path).listing()
    assert listing.labels == ["Li\u00e8ge", "New York", "Paris", "x" * 199]
    told = "3 labels had odd blanks or letters, now: Li\u00e8ge, New York, Paris"
    assert listing.notices == [told]
    clips = planned(tmp_path, path)
    assert {clip.label for clip in clips} == {*listing.labels, None}
    assert {clip.speaker for clip in clips} == {"s 1"} and {c.group for c in clips} == {"s_1"}


def test_what_becomes_a_name_of_a_file_is_short_enough_for_one(tmp_path: Path) -> None:
    long = "口" * 80
    rows = [{"video": f"{long}.mp4", "speaker": letter * 199, "start": "1"} for letter in "口語"]
    clips = planned(tmp_path, written(tmp_path, rows))
    assert len({clip.group for clip in clips}) == 2
    for clip in clips:
        assert len(clip.group.encode()) <= 150 and len(clip.name.encode()) <= 200
        assert clip.speaker == clip.speaker[0] * 199
    short = planned(tmp_path, written(tmp_path, [GOOD]))
    assert short[0].name == "good_0_1000"


# What the film says


def words_of(frames: int, **clip: Any) -> tuple[list[Any], set[str]]:
    """Words and flags of a clip whose span gives so many pictures."""
    mine = importer("table", Path("unused.csv"))
    flags: set[str] = set()
    named = Clip("a", "all", "a.mp4", **clip)
    return importer_of_tables.words(Path(), named, frames, mine.settings, flags), flags


@pytest.mark.parametrize(
    ("start", "end", "frames", "flagged"),
    [
        (2.0, 99.0, 100, True),
        (None, 6.5, 150, True),
        (5.9, 6.1, 3, True),
        (None, None, 150, False),
        (2.0, None, 100, False),
        (2.0, 6.0, 100, False),
        (2.0, 6.03, 100, False),  # the sound of many films lasts a little longer
        (2.61, 3.49, 22, False),
    ],
)
def test_a_span_that_ends_behind_the_film_is_flagged(
    start: Any, end: Any, frames: int, flagged: bool
) -> None:
    _, flags = words_of(frames, start=start, end=end)
    assert flags == ({"span_clamped"} if flagged else set())


def test_words_behind_the_film_are_cut_and_flagged() -> None:
    words = [("a", 0.0, 0.5), ("b", 0.5, 7.0), ("c", 2.0, 2.5), ("d", None, 9.0), ("e", 9.0, None)]
    found, flags = words_of(50, words=words)
    assert flags == {"words_clamped"}
    assert found == [
        ("a", 0.0, 0.5), ("b", 0.5, 2.0), ("c", None, None), ("d", None, 2.0), ("e", None, None)
    ]  # fmt: skip
    found, flags = words_of(50, words=[("a", 1.5, 2.03)])
    assert flags == set() and found == [("a", 1.5, 2.03)]


def test_a_span_and_words_behind_a_film_are_so_in_the_shards(tmp_path: Path) -> None:
    pictures = [np.full((48, 64), level, np.uint8) for level in range(50)]
    write_film(tmp_path / "film.mp4", pictures, np.arange(50) / 25, speechlike(2))
    rows = [{"video": "film.mp4", "end": end, "label": "oh", "words": json.dumps([["oh", *times]])}
            for end in ("1", "99") for times in ([0.1, 90], [0.1, None])]  # fmt: skip
    mine = importer("table", written(tmp_path, rows), box="whole", crop="lips")
    summary = mine.prep(tmp_path / "out")
    assert summary.flags == {"span_clamped": 2, "words_clamped": 2}
    index = load_index(Path(summary.out))
    for row in range(4):
        [(_, start, end)] = index.words(row)
        assert start == 0.1 and end in (None, pytest.approx(index.num_frames[row] / 25))


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_what_is_no_file_of_its_own_is_unreadable(tmp_path: Path, decoder: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    rows = [{"video": name} for name in ("..", "folder", "pipe.mp4", "loop.mp4", "/dev/zero", "/")]
    path = written(tmp_path, [*rows, {"video": "folder/x.mp4"}, {"video": "mine.csv/x.mp4"}])
    for row, _ in enumerate([*rows, None, None]):
        mine = importer("table", path, decoder=decoder)
        assert refusal(mine.read, mine.clips()[row], tmp_path).status == "unreadable"


def test_the_commonest_reasons_are_one_line_whatever_films_are_called(tmp_path: Path) -> None:
    path = written(tmp_path, [{"video": "tab\tin \x1b[2J it\n.mp4"}])
    words = ["prep", "table", str(path), "--name", "mine", "--out", str(tmp_path / "out")]
    run = avb(*words, "--jobs", "1", "--box", "whole", "--crop", "lips")
    [line] = [line for line in run.stderr.splitlines() if line.startswith("avb: ")]
    assert run.exit_code == 1 and line.isprintable() and "no such file" in line


def test_a_csv_of_any_size_may_have_line_breaks_in_quotes(tmp_path: Path) -> None:
    cell = 'line one\nline two, with a comma\r\nand "three"'
    path = written(tmp_path, [{"video": f"{i}.mp4", "words": cell} for i in range(30_000)])
    assert path.stat().st_size > 1_500_000
    listing = importer("table", path).listing()
    sources = [clip.source for clip in listing.clips if len(clip.words) == 9]
    assert sources == [f"{i}.mp4" for i in range(30_000)]
