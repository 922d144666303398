"""Small drawn corpora as shards, and models that train in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avb.pipeline.build.prep import prep
from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.pipeline.stream.index import Index, load_index
from avb.tools.synth import make
from avb.train.recipe import Recipe
from avb.train.recipe_file import make_recipe

LIP = {"slots": 8, "width": 8, "blocks": 1, "audio_dim": 16, "audio_width": 8, "hidden": 16}
SPEECH = LIP | {"decoder": "synchronous"}


def shards(corpus: str, clips: int, folder: Path) -> Index:
    pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
    make(corpus, folder / "raw", clips=clips)
    entry = load_corpora()[corpus]
    prep(entry, settings_for(corpus, entry), folder / "raw", folder / "shards")
    return load_index(folder / "shards" / corpus)


@pytest.fixture(scope="session")
def lrw(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Two words of LRW, 12 clips."""
    return shards("lrw", 12, tmp_path_factory.mktemp("lrw"))


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Eight sentences of GRID by four talkers."""
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    return shards("grid", 8, tmp_path_factory.mktemp("grid"))


def small(task: str, **changes: Any) -> Recipe:
    """A recipe of seconds, with dropout and batch norm left as they are."""
    base: dict[str, Any] = {"model": LIP, "batch_size": 4, "steps": 6, "validate_every": 3}
    if task == "l2s":
        base |= {"corpus": "grid", "crop": "face", "model": SPEECH, "batch_size": 2}
    return make_recipe(task, base | changes, "test")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def recipe() -> Any:
    return small
