"""`avb verify` finds any flipped byte, and names each fault."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from avb.pipeline.config import load_corpora
from avb.pipeline.prep import prep
from avb.pipeline.verify import verify
from avb.tools.prep_command import settings_for
from avb.tools.synth import make


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    make("lrw", folder / "raw", clips=6)
    corpus = load_corpora()["lrw"]
    settings = settings_for("lrw", corpus, keep_audio=True, shard_clips=4)
    prep(corpus, settings, folder / "raw", folder / "out")
    return folder / "out" / "lrw"


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "lrw"))


def test_good_shards_pass(good: Path) -> None:
    verdict = verify(good)
    assert verdict.ok and verdict.samples == 6 and verdict.shards >= 2


def test_one_flipped_byte_anywhere_is_found(copy: Path) -> None:
    rng = random.Random(0)
    for tar in sorted(copy.glob("*.tar")):
        whole = tar.read_bytes()
        for place in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(6))]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            tar.write_bytes(damaged)
            assert any(tar.name in fault for fault in verify(copy).faults), place
        tar.write_bytes(whole)
    assert verify(copy).ok


def test_a_cut_or_missing_shard_is_found(copy: Path) -> None:
    first, *_, last = sorted(copy.glob("*.tar"))
    last.unlink()
    first.write_bytes(first.read_bytes()[:-512])
    faults = "\n".join(verify(copy).faults)
    assert f"{last.name}: missing" in faults
    assert f"{first.name}: " in faults and "expected" in faults


def test_a_foreign_shard_and_wrong_counts_are_found(copy: Path) -> None:
    (copy / "extra-000000.tar").write_bytes(b"")
    record = json.loads((copy / "dataset.json").read_text())
    record["counts"]["listed"] += 1
    record["labels"].append("ZEBRA")
    (copy / "dataset.json").write_text(json.dumps(record))
    faults = "\n".join(verify(copy).faults)
    for found in ("extra-000000.tar: not in dataset.json", "rows, dataset.json lists", "label map"):
        assert found in faults


def test_an_unfinished_folder_is_one_fault(copy: Path) -> None:
    (copy / "dataset.json").unlink()
    assert len(verify(copy).faults) == 1
    assert "run it again" in verify(copy).faults[0]


def test_a_damaged_manifest_is_one_fault(copy: Path) -> None:
    (copy / "manifest.parquet").write_bytes(b"PAR1 nonsense")
    faults = verify(copy).faults
    assert len(faults) == 1 and "manifest.parquet" in faults[0]
