"""Drawn corpora, and what a run of `avb prep` over one left in its folder."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

AVB = [sys.executable, "-m", "avb"]


def draw(corpus: str, folder: Path, clips: int, odd: bool = False) -> Path:
    """So many good clips of talkers that are drawn, in the layout of the corpus."""
    pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
    from avb.tools.synth import make

    make(corpus, folder, clips=clips, odd=odd)
    return folder


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
