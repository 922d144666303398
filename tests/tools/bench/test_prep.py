"""`avb bench prep` on drawn corpora."""

from typing import Any

import pytest

from avb.pipeline.errors import UsageError
from avb.tools.bench.prep import bench_hours, bench_prep


def test_a_clip_that_cannot_be_decoded_is_refused_and_stops_nothing(drawn_grid: Any) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    record = bench_prep(drawn_grid.root, "grid", clips=40, rounds=1)
    assert record["clips"] >= 4 and record["refused"] >= 3
    assert 0 < record["decode_ms"] < record["prep_ms"]


def test_folders_of_pictures_are_decoded_alone_too(drawn_lrw1000: Any) -> None:
    record = bench_prep(drawn_lrw1000.root, "lrw1000", clips=1, rounds=1)
    assert record["clips"] == 1 and 0 < record["decode_ms"] < record["prep_ms"]


def test_hours_are_told_of_one_folder_of_each_corpus(drawn_lrw: Any) -> None:
    roots = [drawn_lrw.root] * 2
    assert bench_hours(roots[:1], clips=1)["corpora"].keys() == {"lrw"}
    with pytest.raises(UsageError, match="another folder of Oxford-BBC"):
        bench_hours(roots, clips=1)
