"""Promise: of clips with any number of timed words each is one sample an epoch, in a fixed order.

Batches are of equal size, the same for any processes and any place to start; of GRID's sentences
they are what they always were.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, load_index
from avb.pipeline.stream.order import EndlessOrder, word_order
from avb.pipeline.stream.stream import Stream

SAID = ["oh", "yes", "no", "so", "well", "now", "then", "why"]


def timed(count: int) -> list[dict[str, Any]]:
    return [{"word": SAID[i % 8], "start": 0.1 * i, "end": 0.1 * i + 0.09} for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store: Any) -> Path:
    """Clips of 0 to 9 words that can be samples, and words that cannot between them."""
    clips = []
    for number in range(23):
        words = timed(number % 10)
        if number % 4 == 1:
            words.insert(0, {"word": "oh", "start": None, "end": None})
            words.append({"word": "no", "start": 40.0, "end": 41.0})  # of shards of format 1
            words.append({"word": "no", "start": 0.9, "end": 0.3})
            words.append({"word": "no", "start": 0.5, "end": None})
        clips.append((f"all/a{number}", 25 + number % 3, {"words": words}))
    out = tmp_path_factory.mktemp("any")
    store(out, clips, [])
    return out


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    return load_index(folder)


def samples(index: Index) -> set[str]:
    """Keys of all words that can be samples."""
    return {
        f"{index.key(row)}#{place}"
        for row in range(len(index))
        for place, (_, start, end) in enumerate(index.words(row))
        if start is not None and end is not None and start <= end and start < 20
    }


def take(stream: Stream, count: int) -> list[Batch]:
    return list(itertools.islice(stream, count))


@pytest.mark.parametrize("size", [1, 4, 16, 200])
def test_every_word_is_one_sample_an_epoch(index: Index, size: int) -> None:
    wanted = samples(index)
    stream = Stream(index, batch_size=size, unit="word", workers=0, crops=(), seed=2)
    assert stream.num_samples == len(wanted)
    batches = take(stream, 3 * len(wanted) // size + 1)
    assert {len(batch) for batch in batches} == {size}
    by_epoch: dict[int, list[str]] = {}
    for batch in batches:
        for key, epoch in zip(batch.keys, batch.epoch.tolist(), strict=True):
            by_epoch.setdefault(epoch, []).append(key)
    assert len(by_epoch) > 2
    if size < len(wanted):  # a block of more clips than there are deals several epochs as one
        assert sorted(by_epoch[0]) == sorted(by_epoch[1]) == sorted(wanted)
        assert by_epoch[0] != by_epoch[1]
    once = list(Stream(index, batch_size=size, unit="word", once=True, workers=0, crops=()))
    assert sorted(key for batch in once for key in batch.keys) == sorted(wanted)
    assert max(map(len, once)) <= size


def test_words_of_a_clip_lie_apart(index: Index) -> None:
    rows = np.array([row for row in range(len(index)) if row % 10 == 8])
    stream = Stream(index, rows=rows, batch_size=2, unit="word", workers=0, crops=())
    for batch in take(stream, 16):
        assert len({key.split("#")[0] for key in batch.keys}) == 2


@pytest.mark.parametrize("size", [5, 16])
def test_order_is_the_same_for_any_processes_and_from_any_place(index: Index, size: int) -> None:
    def stream(**more: Any) -> Stream:
        return Stream(index, batch_size=size, unit="word", workers=0, crops=(), **more)

    whole = [batch.keys for batch in take(stream(), 60)]
    for world in (2, 3):
        ranks = [take(stream(rank=rank, world=world), 60) for rank in range(world)]
        assert [[k for b in parts for k in b.keys] for parts in zip(*ranks, strict=True)] == whole
        once = [list(stream(rank=rank, world=world, once=True)) for rank in range(world)]
        assert sorted(k for rank in once for b in rank for k in b.keys) == sorted(samples(index))
    for position in (1, 7, 30, 53):
        late = stream(position=position)
        assert [batch.keys for batch in take(late, 60 - position)] == whole[position:]
        assert late.position == 60


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_content_is_that_of_the_word_whatever_batch_it_is_in(index: Index) -> None:
    one_by_one = Stream(index, batch_size=1, unit="word", once=True, workers=0)
    alone = {batch.keys[0]: batch for batch in one_by_one}
    for workers in (0, 1):
        for batch in take(Stream(index, batch_size=7, unit="word", workers=workers), 20):
            for i, key in enumerate(batch.keys):
                one = alone[key]
                assert batch.video["lips"][i].equal(one.video["lips"][0])
                assert batch.mel is not None and one.mel is not None
                assert batch.mel[i].equal(one.mel[0])
                assert batch.label_id[i] == one.label_id[0]
                assert batch.boundary[i].equal(one.boundary[0])
                assert batch.words[i] == one.words[0]


def test_classes_are_the_words_where_no_labels_are(index: Index) -> None:
    words = index.of_unit("word")
    assert words.labels == sorted(SAID) and words.of_unit("word") is words
    assert index.of_unit("clip") is index and index.labels == []
    for batch in Stream(index, batch_size=9, unit="word", once=True, workers=0, crops=()):
        for i, key in enumerate(batch.keys):
            name, place = key.split("#")
            row = index.keys.to_pylist().index(name)
            word, start, end = index.words(row)[int(place)]
            assert words.labels[batch.label_id[i]] == word
            length = batch.boundary[i, 1] - batch.boundary[i, 0]
            assert start is not None and end is not None
            assert float(length) == pytest.approx(end - start, abs=1e-5)


def test_labels_of_clips_are_no_classes_of_their_words(tmp_path: Path, store: Any) -> None:
    clips = [("all/a", 25, {"label": "happy", "words": timed(3)}),
             ("all/b", 25, {"label": "sad", "words": timed(1)})]  # fmt: skip
    store(tmp_path, clips, ["happy", "sad"])
    index = load_index(tmp_path)
    assert index.of_unit("word").labels == ["no", "oh", "yes"]
    [batch] = Stream(index, batch_size=9, unit="clip", once=True, workers=0, crops=())
    assert batch.label_id.tolist() == [0, 1]
    subset = load_index(_with_labels(tmp_path, ["happy", "no", "oh", "sad", "yes", "zero"]))
    assert subset.of_unit("word") is subset  # as GRID's 51, of which a talker may lack some


def _with_labels(folder: Path, labels: list[str]) -> Path:
    record = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(record | {"labels": labels}))
    return folder


def test_sentences_of_six_are_dealt_as_ever(grid: Any) -> None:
    """Of `batch_size` clips batch j has the j-th word of each: resumed runs rely on it."""
    index = load_index(grid.folder)
    rows = index.timed_sentences(np.arange(len(index)))
    order = EndlessOrder(index.shard.codes[rows], 3, 2048)
    first, expected = 6 * np.arange(len(rows) + 1), []
    for block in range(5):
        clips, epochs = order.take(4 * block, 4 * block + 4)
        slots = [next(word_order(clips[i : i + 1], 3, int(epochs[i]), first)) for i in range(4)]
        for j in range(6):
            dealt = zip(rows[clips], slots, strict=True)
            expected.append([f"{index.key(row)}#{own[j]}" for row, own in dealt])
    stream = Stream(index, batch_size=4, unit="word", workers=0, crops=(), seed=3)
    assert [batch.keys for batch in take(stream, 30)] == expected
