"""Real GRID film through the whole of `avb prep`, against what its READMEs say of it."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from importers import importer

from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.facemesh import NEAR, Detector
from avb.pipeline.clip.ffmpeg import ffmpeg_program
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.shards.tar import read_members
from avb.pipeline.shards.verify import verify
from avb.pipeline.stream.index import load_index
from avb.pipeline.stream.stream import Stream

GRID = Path(os.environ.get("AVB_TEST_GRID", Path(__file__).parents[4] / "shared" / "grid"))
ORIGINAL = GRID.parent / "grid_original"

# From the two README files beside the clips.
GREY_STARTS = {
    "bbizzn", "brwg8p", "bwwuzn", "lgbf8n", "lrarzn", "pbio7a", "pbwx1s", "prii9a", "sbbh4p",
    "sran9s",
}  # fmt: skip
ONE_SHORT = {"lrae3s", "sbbbzp", "srbb4n", "srwi5a", "swao7a"}
NO_ALIGN = {
    "s2/pwij3p", "s3/sbia1a", "s4/lwbsza", "s20/brbk7n", "s22/lbbc2a", "s26/swiz3n", "s32/sbwe5n",
}  # fmt: skip


def run(root: Path, out: Path) -> Path:
    if not root.is_dir():
        pytest.skip(f"no real GRID clips at {root}; set AVB_TEST_GRID to a folder of them")
    importer("grid", root).prep(out, jobs=1)
    return out / "grid"


def table(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in pq.read_table(folder / "manifest.parquet").to_pylist()}


def flagged(rows: dict[str, dict[str, Any]], flag: str) -> set[str]:
    return {key for key, row in rows.items() if flag in row["flags"]}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(ORIGINAL, tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(GRID, tmp_path_factory.mktemp("everything"))


def test_the_original_odd_clips_come_out_as_what_they_are(original: Path) -> None:
    rows = table(original)
    counts = {"ok": 34, "blank_frames": 4, "duplicate": 1}
    assert Counter(row["status"] for row in rows.values()) == counts
    grey = {key for key, row in rows.items() if row["status"] == "blank_frames"}
    assert grey == {"s1/bbizzn", "s1/lgbf8n", "s1/pbio7a", "s1/sran9s"}
    (twin,) = [row for row in rows.values() if row["status"] == "duplicate"]
    assert twin["source"] == "s2/video/mpg_6000/swwp2s.mpg"
    assert rows["s2/swwp2s"]["status"] == "ok"
    assert flagged(rows, "damaged") == {"s1/sgib8n"}
    assert flagged(rows, "one_frame_short") == {f"s1/{name}" for name in ONE_SHORT}
    assert flagged(rows, "no_alignment") == NO_ALIGN
    assert flagged(rows, "short_pause") == {"s1/bbiz2p", "s1/lwie4n", "s1/pbwxzn", "s1/swwv9a"}
    assert flagged(rows, "crlf") == {"s2/swwp2s", "s26/bgbsza", "s26/bwaq8s", "s26/lbbo3n"}
    for row in rows.values():
        if row["status"] == "ok":
            short = "one_frame_short" in row["flags"]
            assert (row["n_frames"], row["n_mel"]) == ((74, 296) if short else (75, 300))


def test_stored_sound_starts_with_the_picture(original: Path) -> None:
    """Against the ffmpeg program, which shares no code with the reader but the libraries."""
    pytest.importorskip("imageio_ffmpeg")
    rows = [row for row in table(original).values() if row["status"] == "ok"][::6]
    for row in rows:
        stored = decode_flac(bytes(member(original, row, "flac")))
        command = [ffmpeg_program(), "-v", "error", "-i", ORIGINAL / row["source"], "-vn"]
        command += "-ac 1 -ar 16000 -f f32le -".split()
        heard = subprocess.run(command, capture_output=True, check=True).stdout
        other = np.frombuffer(heard, np.float32)
        count = min(len(stored), len(other))
        spectrum = np.fft.rfft(stored[:count]) * np.conj(np.fft.rfft(other[:count]))
        lag = int(np.argmax(np.fft.irfft(spectrum)))
        lag = lag if lag < count // 2 else lag - count
        assert abs(lag) <= 80, (row["key"], lag)  # 5 ms


def member(folder: Path, row: dict[str, Any], extension: str) -> memoryview:
    with (folder / f"{row['shard']}.tar").open("rb") as file:
        file.seek(row["offset"])
        return read_members(file.read(row["nbytes"]))[f"{row['key']}.{extension}"]


@pytest.mark.slow
def test_every_clip_of_the_re_encoded_set_is_accounted_for(everything: Path) -> None:
    rows = table(everything)
    assert len(rows) == 969
    assert {k for k, r in rows.items() if r["status"] != "ok"} == {f"s1/{n}" for n in GREY_STARTS}
    assert {r["status"] for r in rows.values()} == {"ok", "blank_frames"}
    assert flagged(rows, "one_frame_short") == {f"s1/{name}" for name in ONE_SHORT}
    assert flagged(rows, "no_alignment") == NO_ALIGN
    assert len(flagged(rows, "short_pause")) == 23
    of_26 = {key for key in rows if key.startswith("s26/") and key != "s26/swiz3n"}
    assert flagged(rows, "crlf") == of_26 | {"s2/swwp2s"}
    assert not verify(everything).faults


@pytest.mark.slow
def test_the_word_view_of_talker_1_has_six_samples_a_sentence(everything: Path) -> None:
    index = load_index(everything)
    rows = index.select(lambda row: row.speaker == "s1")
    stream = Stream(index, batch_size=64, rows=rows, unit="word", once=True, workers=0)
    assert stream.num_samples == 5640
    labels = []
    for batch in stream:
        labels += batch.label_id.tolist()
        assert batch.video["lips"].shape[1:] == (29, 120, 120)
        assert (batch.boundary[:, 0] >= 0).all() and (batch.boundary[:, 1] <= 29 / 25).all()
    assert len(labels) == 5640 and set(labels) == set(range(51))


@pytest.mark.slow
def test_the_mouth_is_in_every_lips_crop_and_the_crop_is_steady(everything: Path) -> None:
    """Against the face detector, another network than the mesh that made the boxes."""
    detector = Detector(NEAR)
    seen = 0
    for row in table(everything).values():
        if row["status"] != "ok":
            continue
        boxes = np.array(json.loads(bytes(member(everything, row, "json")))["crop_boxes"]["lips"])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert np.abs(np.diff(centres, axis=0)).max() <= 2.0, row["key"]
        frames = read_video(GRID / row["source"], 25).frames
        for i in (2, len(frames) // 2, len(frames) - 3):
            found = detector.find(frames[i])
            if not found:
                continue
            mouth = found[0].points[3]
            at = (mouth - boxes[i, :2]) / (boxes[i, 2:] - boxes[i, :2])
            # The mouth fills two fifths of the box: a centre in here keeps all of it inside.
            assert (at > 0.25).all() and (at < 0.75).all(), (row["key"], i, at)
            seen += 1
    assert seen > 0.98 * 3 * 959
