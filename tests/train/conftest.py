"""Small drawn corpora as shards, and models that train in seconds."""

from pathlib import Path

import pytest
from prepared import draw

from avb.pipeline.build.prep import prep
from avb.pipeline.config import load_corpora
from avb.pipeline.settings import settings_for
from avb.pipeline.stream.index import Index, load_index


def shards(corpus: str, clips: int, folder: Path) -> Index:
    entry, raw = load_corpora()[corpus], draw(corpus, folder / "raw", clips)
    prep(entry, settings_for(corpus, entry), raw, folder / "shards")
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
