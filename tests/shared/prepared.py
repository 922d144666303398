"""Drawn corpora, and what a run of `avb prep` over one left in its folder."""

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from importers import importer

from avb.pipeline.shards.tar import ShardWriter, sample_members
from avb.pipeline.stream.index import Index, load_index

AVB = [sys.executable, "-m", "avb"]


def draw(corpus: str, folder: Path, clips: int, odd: bool = False) -> Path:
    """So many good clips of talkers that are drawn, in the layout of the corpus."""
    pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
    from avb.tools.synth import make

    make(corpus, folder, clips=clips, odd=odd)
    return folder


def shards(corpus: str, clips: int, folder: Path, **flags: Any) -> Index:
    """Drawn clips, in `raw`, and what these flags make of them."""
    importer(corpus, draw(corpus, folder / "raw" / corpus, clips), **flags).prep(folder / "shards")
    return load_index(folder / "shards" / corpus)


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    """A command of avb in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*AVB, *map(str, words)], **pipes | options)


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start(*words, **options)
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def wait_for(wanted: Callable[[], Any], seconds: float = 20) -> Any:
    """What is wanted, as soon as it is there."""
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def running(file: str, mark: str) -> list[str]:
    """Command lines of the processes in whose `cmdline` or `environ` something stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / file).read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def hashes(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("*/*.tar")}


def dataset(out: Path, corpus: str = "lrw") -> dict[str, Any]:
    """All of dataset.json but what it says of time."""
    record = json.loads((out / corpus / "dataset.json").read_text())
    del record["timings"]
    return record


def rows(out: Path, corpus: str = "lrw") -> list[dict[str, Any]]:
    return pq.read_table(out / corpus / "manifest.parquet").to_pylist()


def untimed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without their milliseconds."""
    return [{k: v for k, v in row.items() if not k.endswith("_ms")} for row in found]


def set_column(folder: Path, name: str, column: Any) -> None:
    """Other values in a column of the manifest, or, as an array, of another type."""
    table = pq.read_table(folder / "manifest.parquet")
    if isinstance(column, list):
        column = pa.array(column, table[name].type)
    table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, folder / "manifest.parquet")


def rewrite(
    folder: Path, out: Path, change: Callable[[dict[str, Any], dict[str, bytes]], object]
) -> None:
    """The shards again, and what lists them; `change` is given the row and members of a sample.

    It changes them in place; a sample without members is left out.
    """
    record = json.loads((folder / "dataset.json").read_text())
    table = pq.read_table(folder / "manifest.parquet")
    found = table.to_pylist()
    for shard in record["shards"]:
        data = (folder / f"{shard['name']}.tar").read_bytes()
        with ShardWriter(out / f"{shard['name']}.tar") as writer:
            for row in [row for row in found if row["shard"] == shard["name"]]:
                block = data[row["offset"] : row["offset"] + row["nbytes"]]
                members = {n: bytes(m) for n, m in sample_members(block, row["key"]).items()}
                change(row, members)
                if members:
                    row["offset"], row["nbytes"] = writer.write(row["key"], members)
                else:
                    found.remove(row)
        shard |= {"samples": writer.samples, "bytes": writer.nbytes, "sha256": writer.sha256}
    pq.write_table(pa.Table.from_pylist(found, table.schema), out / "manifest.parquet")
    (out / "dataset.json").write_text(json.dumps(record))
