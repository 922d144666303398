"""Small drawn corpora as shards, and models that train in seconds."""

import pytest
from prepared import shards

from avb.pipeline.stream.index import Index


@pytest.fixture(scope="session")
def lrw(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Two words of LRW, 12 clips."""
    return shards("lrw", 12, tmp_path_factory.mktemp("lrw"))


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Eight sentences of GRID by four talkers."""
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    return shards("grid", 8, tmp_path_factory.mktemp("grid"))
