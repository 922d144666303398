"""Tables with odd cells and damaged bytes, and GRID alignments that contradict themselves."""

import csv
import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from films import ffmpeg

from avb.pipeline.corpora import grid
from fuzzing.mutate import ODD, Rng, mutate

#: Odd values of each column, beside `ODD` of all.
_TIMES = ("inf", "-inf", "NaN", "1e400", "-1", "0,5", "0:12", "1_0", "0x1", " 1 ", "9" * 5000, "\0")
_NAMES = (
    "a\u00a0b", "\u200b", "x" * 300, "口" * 199, "..", "../../x", "CON", "a\tb", "=1+1", "\x1b[2J",
)  # fmt: skip
_PATHS = (
    *_NAMES, "x" * 5000, "x/" * 3000, "a\0b", "\n", "http://x/y.mp4", "C:\\x.mp4", ".mp4", "/",
)  # fmt: skip
_WORDS = (
    "[laughter] yes", "[oh", "[[", "[" * 50_000, "[" * 900 + "]" * 900, '[["a", 1, 0]]', '[["a"]]',
    '[["a", 1e400, 1]]', '[["a", Infinity, NaN]]', '[["\\ud800", 0, 1]]', '[{"word": 1}]', "{}",
    '[["a", [], {}]]', '[["a", -1, 1]]', "null", "[null]", f'[["a", {"9" * 5000}, 1]]', '["a", 1]',
)  # fmt: skip
_CELLS = {
    "video": ("film.mp4", _PATHS), "start": ("0", _TIMES), "end": ("1", _TIMES),
    "label": ("now", _NAMES), "speaker": ("s1", _NAMES), "split": ("train", _NAMES),
    "words": ('[["now", 0.1, 0.5]]', _WORDS),
}  # fmt: skip
#: Kinds of Arrow that a column may have in Parquet.
_KINDS: tuple[Any, ...] = (
    [1.0, float("nan")], [True, None],
    [datetime.timedelta(seconds=-1), datetime.timedelta(days=9999)],
    [datetime.datetime.max, None], [datetime.time(1), None], [decimal.Decimal("1e10"), None],
    [b"\xff", b"a"], [["a"], []], [[["a"]], None], [[{"word": "a", "start": 9.0, "end": 1.0}], []],
    [{"word": "a"}, None], [2**63 - 1, -(2**63)], [None, None], ["", "a"],
)  # fmt: skip


def odd_table(rng: Rng, folder: Path, film: Path) -> tuple[str, Path]:
    """A table of a few rows with odd cells; of a third, its bytes are damaged as well."""
    (folder / "film.mp4").symlink_to(film.resolve())
    if rng.random() < 0.4:
        done, path = _parquet(rng, folder)
    else:
        done, path = _csv(rng, folder)
    if rng.random() < 0.33:
        how, data = mutate(rng, path.read_bytes())
        path.write_bytes(data)
        done += f"; {how}"
    return done, path


def _one_of(rng: Rng, values: Any) -> Any:
    return values[rng.integers(len(values))]


def _csv(rng: Rng, folder: Path) -> tuple[str, Path]:
    columns = [name for name in _CELLS if name == "video" or rng.random() < 0.8]
    rows, done = [], []
    for number in range(int(rng.integers(1, 6))):
        rows.append([_CELLS[name][0] for name in columns])
        at = int(rng.integers(len(columns)))
        odd = [*_CELLS[columns[at]][1], *map(str, ODD)]
        rows[-1][at] = str(_one_of(rng, odd)).encode(errors="replace").decode()
        done.append(f"{number}.{columns[at]} = {rows[-1][at][:40]!r}")
    text = io.StringIO()
    csv.writer(text, delimiter=_one_of(rng, ",,,,,,,;\t")).writerows([columns, *rows])
    code = _one_of(rng, ["utf-8"] * 8 + ["utf-8-sig", "utf-16", "cp1252"])
    (folder / "odd.csv").write_bytes(text.getvalue().encode(code, "replace"))
    return "; ".join([code, *done]), folder / "odd.csv"


def _parquet(rng: Rng, folder: Path) -> tuple[str, Path]:
    columns: dict[str, Any] = {"video": ["film.mp4"] * 2}
    done = []
    for name in rng.permutation(list(_CELLS))[: int(rng.integers(1, 4))].tolist():
        columns[name] = pa.array(_one_of(rng, _KINDS))
        done.append(f"{name} is {columns[name].type}")
    if "words" not in columns:
        said = [["now", float(rng.normal() * 10), float(rng.normal() * 10)]]
        columns["words"] = [json.dumps(said)] * 2
    pq.write_table(pa.table(columns), folder / "odd.parquet")
    return "; ".join(done), folder / "odd.parquet"


def sentence_film(folder: Path, film: Path) -> Path:
    """Three seconds of a film: as many pictures as a GRID sentence."""
    path = folder / "sentence.mpg"
    how = "-c:v mpeg1video -q:v 6 -c:a mp2 -ar 44100 -ac 2".split()
    ffmpeg("-stream_loop", "3", "-i", film, "-t", "3", *how, path)
    return path


def odd_alignments(rng: Rng, folder: Path, film: Path, count: int) -> str:
    """GRID clips with alignments that are damaged, or whose lines say what cannot be."""
    (folder / "s1").mkdir()
    done: list[str] = []
    for _ in range(count):
        name = ""
        while not name or (folder / "s1" / f"{name}.mpg").exists():
            name = "".join(_one_of(rng, list(slot)) for slot in grid.SLOTS)
        words = ["sil", *grid.words_of(name), "sil"]
        lines = [f"{9000 * i} {9000 * i + 9000} {word}" for i, word in enumerate(words)]
        how = "lines"
        for _ in range(int(rng.integers(0, 3))):
            odd = ("-1 5 sp", "1 x y", "9" * 5000 + " 1 a", "", "\0", "0 1", "7 3 now", "٣ ٤ now",
                   "1_0 9000 sil", "nan inf sil", "75000 75001 sil", "0 0 sp")  # fmt: skip
            lines[rng.integers(len(lines))] = _one_of(rng, odd)
        data = _one_of(rng, ["\n", "\r\n", "\r"]).join(lines).encode()
        if rng.random() < 0.5:
            how, data = mutate(rng, data)
        (folder / "s1" / f"{name}.mpg").symlink_to(film.resolve())
        (folder / "s1" / f"{name}.align").write_bytes(data)
        done.append(how)
    return "; ".join(done)
