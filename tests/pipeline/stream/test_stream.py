"""The reader's promise: batch b of seed s is the same samples whatever reads it.

For every world size W and number of workers: the ranks' parts of batch b, joined, are global batch
b; the first k batches + those of a stream resumed at k = the uninterrupted stream; every clip
appears exactly once per epoch; a pass sees each sample exactly once.
"""

import itertools
import json
import multiprocessing
import pickle
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import fault

from avb.pipeline.stream import stream
from avb.pipeline.stream.assemble import WORD_FRAMES, first_frame
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, load_index
from avb.pipeline.stream.stream import Stream
from avb.tools.bench.read import bench_read


def first(stream: Stream, count: int) -> list[Batch]:
    return list(itertools.islice(stream, count))


def keys(batches: list[Batch]) -> list[list[str]]:
    return [batch.keys for batch in batches]


@pytest.fixture(scope="module")
def sentences(grid: Any) -> Index:
    return load_index(grid.folder)


@pytest.fixture(scope="module")
def words(lrw: Any) -> Index:
    return load_index(lrw.folder)


# Whole streams.


@pytest.mark.parametrize("unit", ["clip", "word"])
def test_order_is_the_same_for_any_number_of_processes(sentences: Index, unit: str) -> None:
    options: dict[str, Any] = {"batch_size": 5, "unit": unit, "workers": 0, "crops": ()}
    whole = keys(first(Stream(sentences, **options), 14))
    for world in (2, 3):
        ranks = [first(Stream(sentences, rank=rank, world=world, **options), 14)
                 for rank in range(world)]  # fmt: skip
        joined = [[k for b in parts for k in b.keys] for parts in zip(*ranks, strict=True)]
        assert joined == whole


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
@pytest.mark.parametrize("unit", ["clip", "word"])
def test_content_and_order_do_not_depend_on_workers(sentences: Index, unit: str) -> None:
    def read(workers: int) -> list[Batch]:
        return first(Stream(sentences, batch_size=4, unit=unit, workers=workers, seed=5), 8)

    expected = read(0)
    for workers in (1, 2):
        for batch, wanted in zip(read(workers), expected, strict=True):
            assert batch.keys == wanted.keys
            assert torch.equal(batch.video["lips"], wanted.video["lips"])
            assert torch.equal(batch.mel, wanted.mel)
            assert torch.equal(batch.epoch, wanted.epoch)


@pytest.mark.parametrize("unit", ["clip", "word"])
def test_resumed_stream_equals_the_uninterrupted_one(sentences: Index, unit: str) -> None:
    options: dict[str, Any] = {"batch_size": 4, "unit": unit, "workers": 0, "crops": (), "seed": 2}
    whole = first(Stream(sentences, **options), 20)
    for k in (1, 6, 7, 11):
        stream = Stream(sentences, **options)
        first(stream, k)
        assert stream.position == k
        rest = first(Stream(sentences, **options, position=k), 20 - k)
        assert keys(rest) == keys(whole[k:])
        assert all(map(torch.equal, [b.mel for b in rest], [b.mel for b in whole[k:]]))


def test_every_clip_once_an_epoch(grid: Any, sentences: Index) -> None:
    batches = first(Stream(sentences, batch_size=5, workers=0, crops=(), mel=False), 24)
    seen = Counter(pair for b in batches for pair in zip(b.epoch.tolist(), b.keys, strict=True))
    assert seen == Counter((epoch, key) for epoch in range(10) for key in grid.clips)


@pytest.mark.parametrize("unit", ["clip", "word"])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_a_pass_sees_each_sample_once(grid: Any, sentences: Index, unit: str, world: int) -> None:
    options: dict[str, Any] = {"batch_size": 5, "unit": unit, "workers": 0, "crops": ()}
    seen: Counter[str] = Counter()
    for rank in range(world):
        stream = Stream(sentences, once=True, rank=rank, world=world, mel=False, **options)
        passes = [keys(list(stream)), keys(list(stream))]
        assert passes[0] == passes[1]
        seen.update(key for batch in passes[0] for key in batch)
    of_words = [f"{key}#{slot}" for key in grid.aligned for slot in range(6)]
    assert seen == Counter(list(grid.clips) if unit == "clip" else of_words)


# What is inside a batch.


def check_clips(stored: Any, batches: list[Batch], crops: tuple[str, ...]) -> None:
    step = 15.0 / 255 if stored.folder.name.startswith("lrw") else 0.02
    for batch in batches:
        for i, key in enumerate(batch.keys):
            clip = stored.clips[key]
            length = clip.row["n_frames"]
            assert batch.lengths[i] == length and batch.mel_lengths[i] == 4 * length
            for crop in crops:
                frames = batch.video[crop][i].numpy().astype(int)
                assert np.abs(frames[:length] - clip.video[crop]).mean() < 2
                assert not frames[length:].any()
            mel = batch.mel[i].numpy()
            assert np.abs(mel[:, : 4 * length] - clip.mel).max() <= step / 2 + 0.01
            assert np.allclose(mel[:, 4 * length :], np.log(1e-5))


def test_clips_come_back_padded_with_their_lengths(grid: Any, sentences: Index) -> None:
    stream = Stream(sentences, batch_size=12, crops=("lips", "face"), workers=0, audio=True)
    (batch,) = first(stream, 1)
    assert batch.video["lips"].shape == (12, 75, 32, 32)
    assert batch.video["face"].dtype == torch.uint8
    assert batch.mel.shape == (12, 80, 300) and batch.mel.dtype == torch.float32
    check_clips(grid, [batch], ("lips", "face"))
    for i, key in enumerate(batch.keys):
        clip = grid.clips[key]
        samples = int(batch.audio_lengths[i])
        assert samples == 640 * clip.row["n_frames"]
        assert np.abs(batch.audio[i, :samples].numpy() - clip.sound).max() < 1e-4
        assert not batch.audio[i, samples:].any()
        assert batch.speakers[i] == key.split("/")[0]
        assert len(batch.words[i]) == 6
    assert (batch.label_id == -1).all() and batch.boundary.isnan().all()


def test_single_words_have_label_and_boundary(lrw: Any, words: Index) -> None:
    batches = list(Stream(words, batch_size=5, once=True, workers=0))
    check_clips(lrw, batches, ("lips",))
    for batch in batches:
        for i, key in enumerate(batch.keys):
            row = lrw.clips[key].row
            assert lrw.labels[batch.label_id[i]] == row["label"]
            if row["words"][0]["start"] is None:
                assert batch.boundary[i].isnan().all()
            else:
                assert batch.boundary[i].tolist() == pytest.approx([0.4, 0.8])


def test_word_windows_hold_their_word_and_repeat_the_edge(grid: Any, sentences: Index) -> None:
    floor = np.log(1e-5)
    for batch in Stream(sentences, batch_size=4, unit="word", once=True, workers=0):
        assert batch.video["lips"].shape[1:] == (29, 32, 32)
        assert batch.mel.shape[1:] == (80, 116)
        for i, key in enumerate(batch.keys):
            name, slot = key.split("#")
            clip = grid.clips[name]
            word = clip.row["words"][int(slot)]
            start = first_frame(word["start"], word["end"], 25)
            window = np.arange(start, start + WORD_FRAMES)
            inside = np.clip(window, 0, clip.row["n_frames"] - 1)
            frames = batch.video["lips"][i].numpy().astype(int)
            assert np.abs(frames - clip.video["lips"][inside]).mean() < 2
            # The level of the corner counts the frames.
            assert np.abs(frames[:, 2:6, 2:6].mean((1, 2)) - 3 * inside).max() <= 2
            columns = np.arange(4 * start, 4 * start + 116)
            held = (columns >= 0) & (columns < 4 * clip.row["n_frames"])
            mel = batch.mel[i].numpy()
            assert np.abs(mel[:, held] - clip.mel[:, columns[held]]).max() < 0.02
            assert np.allclose(mel[:, ~held], floor)
            assert grid.labels[batch.label_id[i]] == word["word"]
            times = batch.boundary[i].numpy() + start / 25
            assert np.allclose(times, [word["start"], word["end"]], atol=1e-5)
            assert batch.words[i][int(slot)][1:] == pytest.approx(batch.boundary[i].tolist())
            if word["end"] - word["start"] <= 1.12:
                assert batch.boundary[i, 0] >= 0 and batch.boundary[i, 1] <= 29 / 25
    slots = [first_frame(*times, 25) for times in ((0.1, 0.3), (2.5, 2.9))]
    assert slots[0] < 0 and slots[1] + 29 > 75  # both edges were really crossed


def test_window_is_centred_on_the_frame_shown_at_the_middle() -> None:
    assert first_frame(0.56, 0.60, 25) == 14 - 14  # middle 0.58 s: frame 14 is shown from 0.56
    assert first_frame(0.58, 0.62, 25) == 15 - 14  # middle 0.60 s: the first instant of frame 15
    assert first_frame(0.0, 0.02, 25) == -14


def test_bench_reads_the_same_clips_with_both_readers(grid: Any) -> None:
    result = bench_read(grid.folder, clips=5, rounds=1)
    assert result["clips"] == 5 and result["codec"] == "mp4"
    assert result["crops"] == ["lips", "face"]
    ratio = result["clips_per_s"] / result["webdataset_clips_per_s"]
    assert result["ratio"] == pytest.approx(ratio, rel=0.01)  # printed rounded


# Selection and errors.


def test_clips_are_selected_by_what_is_known(grid: Any, sentences: Index, words: Index) -> None:
    rows = sentences.select(lambda row: row.speaker == row.group == "s20")
    wanted = [sentences.key(row) for row in rows]
    assert set(wanted) == {key for key in grid.clips if "s20/" in key}
    stream = Stream(sentences, rows=rows, batch_size=5, once=True, workers=0, crops=())
    assert keys(list(stream)) == [wanted]
    rows = words.select(lambda row: row.label == "ZEBRA" and row.split == "train")
    assert all(words.key(row).startswith("train/ZEBRA") for row in rows)


def test_what_cannot_be_selected_is_an_error(sentences: Index, grid: Any) -> None:
    with pytest.raises(ValueError, match="no clip of 12 stored ones.*speakers s1, s20"):
        sentences.select(lambda row: row.key == "s1/bbaf6n")  # it was refused
    untimed = (set(grid.clips) - set(grid.aligned)).pop()
    faults: dict[str, dict[str, Any]] = {
        "6 words with times": {
            "rows": sentences.select(lambda row: row.key == untimed), "unit": "word"
        },
        "no nose crop, but lips, face": {"crops": ("nose",)},
        "unit 'verse'": {"unit": "verse"},
        "batches of 1": {"rank": 0, "world": 3},
    }  # fmt: skip
    for said, options in faults.items():
        with pytest.raises(ValueError, match=said):
            Stream(sentences, batch_size=1, **options)


def read_all(folder: Path, **options: Any) -> int:
    return sum(map(len, Stream(load_index(folder), batch_size=4, once=True, **options)))


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_and_damaged_shards_are_named(copy: Path, workers: int) -> None:
    assert read_all(copy, workers=workers) == 12
    shard = copy / "s1-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:-12_000])
    with pytest.raises(ValueError, match=r"s1-000001.tar: clip s1/bbaf5n: ends after") as caught:
        read_all(copy, workers=workers)
    assert "avb verify" in str(caught.value) and "\n" not in str(caught.value)
    for damage in (b"\1" * 600, bytes(600)):
        shard.write_bytes(damage + data[600:])
        with pytest.raises(ValueError, match="s1-000001.tar: clip s1/bbaf3n"):
            read_all(copy, workers=workers)
    shutil.copy(copy / "s20-000000.tar", shard)
    with pytest.raises(ValueError, match="s1-000001.tar: clip s1/"):
        read_all(copy, workers=workers)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"s1-000001.tar: missing"):
        read_all(copy, workers=workers)


def test_folders_that_are_no_shards_are_named(copy: Path) -> None:
    manifest, dataset = copy / "manifest.parquet", copy / "dataset.json"
    table = pq.read_table(manifest)
    assert re.search("no such folder.*avb prep", fault(load_index, copy / "nowhere"))
    manifest.write_bytes(b"PAR1 no parquet")
    assert "manifest.parquet: damaged" in fault(load_index, copy)
    pq.write_table(table.drop_columns(["offset"]), manifest)
    assert "no column offset" in fault(load_index, copy)
    pq.write_table(table.filter(np.zeros(len(table), bool)), manifest)
    assert "no clip has status ok" in fault(load_index, copy)
    manifest.unlink()
    assert "manifest.parquet: missing" in fault(load_index, copy)
    dataset.write_text(json.dumps({"labels": []}))
    assert re.search("dataset.json: the key .* is missing", fault(load_index, copy))
    dataset.write_text("{")
    assert "dataset.json: cannot be read" in fault(load_index, copy)
    dataset.unlink()
    assert "not finished" in fault(load_index, copy)


def test_streams_travel_to_spawned_workers_and_batches_move_as_a_whole(sentences: Index) -> None:
    stream = Stream(sentences, batch_size=2, workers=0)
    batches = first(stream, 2)
    stream.position = 0
    assert keys(first(pickle.loads(pickle.dumps(stream)), 2)) == keys(batches)
    moved = batches[0].to("meta")
    assert moved.video["lips"].is_meta and moved.mel.is_meta and moved.boundary.is_meta
    assert moved.keys == batches[0].keys and moved.audio is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_workers_share_the_index_whatever_python_does_by_default(
    sentences: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Mock(side_effect=AssertionError("an index was sent to a worker"))
    monkeypatch.setattr(Index, "__getstate__", sent, raising=False)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # as it is from Python 3.14 on
    try:
        assert first(Stream(sentences, batch_size=2, seed=0, workers=1), 1)
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_readers_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "cores", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
    assert stream.default_workers() == 15
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # torchrun says so
    assert stream.default_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert stream.default_workers() == 0
