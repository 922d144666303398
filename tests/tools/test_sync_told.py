"""Where moved sound is told: `avb stats`, `avb preview`, `avb report`."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from prepared import shards

from avb.pipeline.build.resound import apply_lags
from avb.pipeline.corpora.lags import read_lags, write_lags
from avb.pipeline.shards.stats import stats
from avb.pipeline.stream.index import load_index
from avb.tools import preview
from avb.tools.report import lags as report_lags
from avb.tools.report.page import Picture, Sounds
from avb.tools.report.style import drawing

LAGS = [-52.0, 31.0, 8.0, None]  # of the last the lag is not sure


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four drawn clips whose sound was moved, and the lag of each."""
    root = tmp_path_factory.mktemp("told")
    index = shards("grid", 4, root)
    rows = [{"key": index.key(row), "lag_ms": lag or 0.0, "confidence": float(lag is not None)}
            for row, lag in enumerate(LAGS)]  # fmt: skip
    write_lags(root / "lags.parquet", rows, {})
    apply_lags(index.folder, read_lags(root / "lags.parquet"), root / "moved")
    lags = {row["key"]: row["lag_ms"] for row in rows}
    return {"plain": index.folder, "moved": root / "moved", "lag": lags}


def test_stats_tell_how_many_clips_were_moved_and_how_far(moved: dict[str, Any]) -> None:
    assert "sync" not in stats(moved["plain"])
    told = stats(moved["moved"])["sync"]
    assert told["moved"] == 3 and told["percentiles_ms"]["50"] == 8.0
    assert -52 < told["percentiles_ms"]["5"] < 0 < told["percentiles_ms"]["95"] < 31


def test_preview_shows_the_sound_as_it_is_and_as_it_was_recorded() -> None:
    strip = np.full((150, preview.WIDTH, 3), preview.PAPER, np.uint8)
    mel = np.full((80, 300), -10.0, np.float32)
    mel[:, 150] = 0.0  # a click at 1.5 s
    preview._mel(strip, mel, {"words": [], "duration": 3.0, "sync_ms": 300.0}, 10)
    drawn = strip[24:112, 10 : preview.WIDTH - 10].astype(int).sum(2)
    above, below = (int(half.argmax(axis=1).mean()) for half in (drawn[20:40], drawn[60:88]))
    assert above == pytest.approx(drawn.shape[1] * 1.505 / 3, abs=4)
    assert below - above == pytest.approx(drawn.shape[1] * 0.3 / 3, abs=4)  # later, as it was


def test_report_shows_lags_by_talker_and_the_farthest_clips_first(moved: dict[str, Any]) -> None:
    assert report_lags.section(load_index(moved["plain"])) is None
    with drawing():
        found = report_lags.section(load_index(moved["moved"]))
    assert found is not None
    text, histogram, *clips = found.blocks
    assert "3 clips was moved" in text and "of 1" in text
    assert isinstance(histogram, Picture) and ">s1 (1)<" in histogram.svg
    pictures, sounds = clips[::2], clips[1::2]
    keys = sorted(moved["lag"], key=lambda key: -abs(moved["lag"][key]))[:3]
    assert [picture.caption.split(":")[0] for picture in pictures] == keys
    assert "-52 ms" in pictures[0].caption and "+31 ms" in pictures[1].caption
    assert all(isinstance(sound, Sounds) for sound in sounds) and len(sounds) == 3


def test_preview_shows_what_is_odd_behind_a_sentence_of_any_length(
    moved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"label": "", "words": [["word", None, None]] * 100, "flags": ["silent"]}
    read = preview.read_facts
    monkeypatch.setattr(preview, "read_facts", lambda data: read(data) | more)
    preview.preview(moved["plain"], tmp_path / "sheet.png", 1)
    title = cv2.imread(str(tmp_path / "sheet.png"))[64:86].astype(int)
    assert (title[..., 1] - title[..., 2]).min() < -150  # red


def test_preview_shows_words_that_have_no_end() -> None:
    strip = np.full((150, preview.WIDTH, 3), preview.PAPER, np.uint8)
    mel, words = np.zeros((80, 300), np.float32), [["well", 0.5, None], ["then", 1.0, 1.5]]
    preview._mel(strip, mel, {"words": words, "duration": 3.0}, 10)
    assert (strip == preview.BOX).all(axis=2).any()
