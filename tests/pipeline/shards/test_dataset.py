"""Promise: what readers make room for and count on is looked at first; a fault is one line."""

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fault
from prepared import set_column

from avb.pipeline.errors import UsageError
from avb.pipeline.shards.verify import verify
from avb.pipeline.stream.assemble import ShardFiles
from avb.pipeline.stream.index import load_index


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("labels",), 100_000, "labels: expected a list, found 100000"),
        (("labels", 1), 7, r"labels\[1\]: expected str, found 7"),
        (("labels", 1), "\0", "cannot be printed"),
        (("corpus",), "x" * 3000, "cannot be printed"),
        (("crops", "lips", "stored"), 10**9, "1000000000 stored pixels"),
        (("crops", "lips", "size"), None, "expected int, found None"),
        (("crops", "face"), [], "crops.face: expected a mapping"),
        (("mel", "n_mels"), 2**31, "n_mels: expected 1 to 1024, found 2147483648"),
        (("mel", "scale"), float("nan"), "'NaN' is no number of JSON"),
        (("mel", "dtype"), "x" * 3000, "none of float16, uint8"),
        (("settings", "fps"), 0, "fps: expected 1 to 1000, found 0"),
        (("shards", 0, "name"), "../../x", "no name of a file"),
        (("shards", 0, "bytes"), "7", "expected int"),
        (("fingerprint",), [], "fingerprint: expected str"),
        (("schema",), 3, "shards of format 3; this version reads 1 to 2"),
    ],
)
def test_an_odd_value_is_named(copy: Path, place: tuple[Any, ...], value: Any, said: str) -> None:
    path = copy / "dataset.json"
    record = json.loads(path.read_text())
    part = record
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    path.write_text(json.dumps(record))
    line = fault(load_index, copy)
    assert re.search(said, line) and str(path) in line and len(line) < 400


def test_the_folder_above_is_told_from_an_unfinished_one(copy: Path) -> None:
    with pytest.raises(UsageError, match=rf"{copy.parent}: holds {copy.name}; give one"):
        load_index(copy.parent)
    shutil.copytree(copy, copy.parent / "more")
    with pytest.raises(UsageError, match=f"holds {copy.name}, more; give one, such as"):
        load_index(copy.parent)
    with pytest.raises(UsageError, match="no dataset.json: no folder of shards"):
        load_index((copy.parent / "films").mkdir() or copy.parent / "films")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("offset", -1, "s1/bbaf0n' cannot be"),
        ("nbytes", 0, "cannot be"),
        ("n_frames", 2**31 - 1, "cannot be"),
        ("n_mel", 0, "cannot be"),
        ("n_frames", None, "no manifest of this version"),
        ("key", None, "a clip without key"),
        ("shard", None, "a clip without shard"),
    ],
)
def test_a_row_that_cannot_be_is_named(copy: Path, name: str, value: Any, said: str) -> None:
    values = pq.read_table(copy / "manifest.parquet")[name].to_pylist()
    set_column(copy, name, [value, *values[1:]])
    assert said in fault(load_index, copy)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(["group", "status"], [pa.float64(), pa.list_(pa.string())]),
     *itertools.product(["offset", "nbytes", "n_frames", "n_mel"], [pa.float64(), pa.string()]),
     *itertools.product(["words"], [pa.string(), pa.list_(pa.int64())])],
)  # fmt: skip
def test_a_column_of_another_type_is_named(copy: Path, name: str, kind: pa.DataType) -> None:
    set_column(copy, name, pa.nulls(13, kind))
    if name != "words":
        [line] = verify(copy).faults
        assert f"damaged, or no manifest of this version (column {name} is" in line
    told = "text" if name in ("group", "status") else "integers"
    said = "words are" if name == "words" else f"column {name} is .*, no {told}"
    assert re.search(said, fault(load_index, copy))


def test_no_room_is_made_for_more_than_a_shard_holds(copy: Path) -> None:
    files = ShardFiles(copy, {})
    with pytest.raises(ValueError, match="a sample lies beyond"):
        files.read("s1-000000", 512, 1 << 50)
