"""Promise: from `prep table` to `train lip` without a third step, whatever the table has.

Labels or words with times are the target; without a column `split` the hash rule deals the clips.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import did, refused
from films import write_film
from importers import importer

from avb.pipeline.config import PARTS, load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import load_index
from avb.train.split import default_split, split_rows

TABLE = load_corpora()["table"]
SMALL = "width=8 blocks=0 audio_dim=16 audio_width=8 hidden=16 slots=4".split()
QUICK = "--recipe tiny --steps 1 --device cpu --set=batch_size=2 --set=shrink=4".split()
QUICK += [f"--set=model.{word}" for word in SMALL]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Prepares a table of rows, each a dict of cells and a film, and returns the shards."""
    top = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    pictures = [np.full((48, 64), level, np.uint8) for level in rng.integers(0, 255, 30)]
    write_film(top / "film.mp4", pictures, np.arange(30) / 25, rng.uniform(-0.1, 0.1, 19200))

    def make(name: str, rows: list[dict[str, Any]]) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        films = [shutil.copy(top / "film.mp4", top / f"{i}.mp4").name for i in range(len(rows))]
        named = [{"video": film} | row for film, row in zip(films, rows, strict=True)]
        pq.write_table(pa.Table.from_pylist(named), top / f"{name}.parquet")
        mine = importer("table", top / f"{name}.parquet", box="whole", crop="lips")
        mine.prep(top / name)
        return top / name / "mine"

    return make


def timed(count: int) -> str:
    return json.dumps([["oh yes no so".split()[i], 0.2 * i, 0.2 * i + 0.2] for i in range(count)])


WORDS = [{"words": timed(i % 4)} for i in range(6)]
LABELS = [{"label": "yes" if i % 2 else "no"} for i in range(6)]
BOTH = [word | label for word, label in zip(WORDS, LABELS, strict=True)]


@pytest.mark.parametrize(
    ("name", "rows", "flags", "unit", "classes"),
    [
        ("words", WORDS, [], "word", ["no", "oh", "yes"]),
        ("both as clips", BOTH, ["--unit", "clip"], "clip", ["no", "yes"]),
        ("some", [*LABELS, {"label": None}], [], "clip", ["no", "yes"]),
        ("parts", [r | {"split": s} for r, s in zip(WORDS[1:4], PARTS, strict=True)], [], "word",
         ["no", "oh", "yes"]),
    ],
)  # fmt: skip
def test_a_table_is_trained_and_some_evaluated_without_a_third_step(
    prepared: Any, tmp_path: Path, name: str, rows: Any, flags: Any, unit: str, classes: Any
) -> None:
    shards = prepared(name.replace(" ", "-"), rows)
    run = tmp_path / "run"
    did("train", "lip", "--data", shards, "--out", run, *QUICK, *flags)
    said = (tmp_path / "run" / "recipe.yaml").read_text()
    assert f"unit: {unit}" in said
    assert ("split: official" if name == "parts" else "split: hash") in said
    if name not in ("words", "some"):
        return
    out = tmp_path / "r.json"
    words = ["--ckpt", run, "--data", shards, "--part", "all", "--out", out, "--device", "cpu"]
    did("eval", "lip", *words)
    record = json.loads(out.read_text())
    assert {clip["label"] for clip in record["clips"]} == set(classes)
    assert record["floors"]["chance"] == pytest.approx(1 / len(classes))
    has = (lambda row: row.get("words", "[]") != "[]") if unit == "word" else (
        lambda row: row.get("label"))  # fmt: skip
    without = sum(not has(row) for row in rows)
    assert len({clip["key"].split("#")[0] for clip in record["clips"]}) == len(rows) - without


def test_words_with_blanks_are_read_and_strangers_drawn_whatever_keys_begin_with(
    prepared: Any, tmp_path: Path
) -> None:
    """Keys of a table with a column `split` begin with that, and say nothing of talkers."""
    said = [["New York", 0, 0.4], ["now", 0.4, 0.8]]
    parts = zip("aabccd", ["train", "train", "val", *["test"] * 3], strict=True)
    shards = prepared("blanks", [{"words": json.dumps(said), "speaker": who, "split": part}
                                 for who, part in parts])  # fmt: skip
    run = tmp_path / "run"
    did("train", "lip", "--data", shards, "--out", run, *QUICK, "--unit", "sentence")
    did("eval", "lip", "--ckpt", run, "--data", shards, "--device", "cpu")
    record = json.loads((run / "test.json").read_text())
    assert [clip["words"] for clip in record["clips"]] == [["New", "York", "now"]] * 3
    assert sorted(clip["talker"] for clip in record["clips"]) == ["c", "c", "d"]
    assert "intervals draw talkers" in did("compare", run, run).stderr


def test_arms_that_read_sentences_without_a_grammar_are_set_side_by_side(
    prepared: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the figure is drawn with the extra report")
    rows = [{"words": "yes no", "split": part} for part in ("train", "train", "val", "test")]
    words = ["--data", prepared("plain", rows), *QUICK, "--unit", "sentence", "--seeds", "0"]
    did("ablate", "lip", "--slots", "0,4", *words, "--out", tmp_path)
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["metric"] == "wer_free" and len(found["arms"]) == 2


def test_words_of_short_sentences_are_drawn_for_a_report(prepared: Any, tmp_path: Path) -> None:
    """A sentence of GRID has six; here some have one."""
    pytest.importorskip("matplotlib", reason="figures need the extra report")
    pytest.importorskip("sklearn", reason="the map of features needs the extra report")
    shards, run = prepared("short", WORDS), tmp_path / "run"
    did("train", "lip", "--data", shards, "--out", run, *QUICK)
    words = ["--ckpt", run, "--data", shards, "--device", "cpu"]
    did("eval", "lip", *words, "--out", run / "test.json")
    page = tmp_path / "page.html"
    did("report", run, "--data", shards, "--clips", 6, "--out", page)
    assert re.search(r"#[01]: said ", page.read_text())


@pytest.mark.parametrize("unit", ["word", "clip"])
def test_a_table_without_a_target_is_one_line(prepared: Any, tmp_path: Path, unit: str) -> None:
    shards = prepared("bare", [{"words": "no times here"}] * 3)
    words = ("--data", shards, "--out", tmp_path / "run", *QUICK, "--unit", unit)
    line = refused("train", "lip", *words)
    assert ("a word with its times" if unit == "word" else "a label") in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [2, 3, 6])
def test_few_clips_are_dealt_so_that_training_can_begin(prepared: Any, count: int) -> None:
    index = load_index(prepared(f"few{count}", LABELS[:count]))
    assert default_split(index, TABLE, "grid-hash") == "hash"
    assert default_split(index, TABLE, "official") == "hash"
    parts = split_rows(index, TABLE, "hash")
    sizes = {part: len(rows) for part, rows in parts.rows.items()}
    assert sum(sizes.values()) == count and sizes["train"] >= 1 and sizes["val"] >= 1
    assert sizes["test"] >= (count > 2)
    assert parts.name == "hash"
    # What was dealt goes with the checkpoint: clips that come later change no part.
    more = load_index(prepared(f"more{count}", LABELS[:count] + WORDS))
    later = split_rows(more, TABLE, "hash", listed=parts.listed)
    for part, rows in parts.rows.items():
        assert {more.key(i) for i in later.rows[part]} == {index.key(i) for i in rows}


def test_clips_of_another_part_alone_are_told(prepared: Any) -> None:
    rows = [{"split": "test"}, {"split": "test"}]
    index = load_index(prepared("named", rows))
    assert default_split(index, TABLE) == "official"
    with pytest.raises(UsageError, match=r"nothing for train and val \(the clips are of test"):
        split_rows(index, TABLE, "official")
