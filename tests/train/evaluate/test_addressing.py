"""Promise: what the record says of the addresses is true of a network whose addresses are known.

The network here sees a number drawn into every picture: a word's, from the frames that show it,
and that of silence from all others. Its address is that number, so a segment's is pure if and
only if exactly its own frames were taken.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import evaluated, recipe
from torch import Tensor, nn

from avb.models.memory import BridgingMemory
from avb.pipeline.stream.assemble import frames_between
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index
from avb.train import trainer
from avb.train.evaluate import addressing
from avb.train.evaluate.addressing import Collected, choose, measure, spoken
from avb.train.evaluate.metrics.addressing import Segments
from avb.train.split import Parts
from avb.train.tasks import task as task_module
from avb.train.tasks.task import Evaluation, Scaling, Task, scaling_of

WORDS = ["bin", "lay", "blue", "red"]
SILENCE = 4
INDEX: Any = SimpleNamespace(
    dataset={"settings": {"fps": 25}}, labels=WORDS, no_audio=np.zeros(1000, bool)
)
SCALING = Scaling(0.0, 1.0, -11.5, 3.5, 0, 4, len(WORDS))


def drawn(clips: int, talkers: int = 2, size: int = 5) -> Iterator[Batch]:
    """Sentences of two words, the first from frame 3 to 9, the second from 9 or later to 15."""
    rng = np.random.default_rng(0)
    for start in range(0, clips, size):
        names = range(start, min(start + size, clips))
        video = torch.full((len(names), 20, 4, 4), SILENCE, dtype=torch.uint8)
        words: list[list[Any]] = []
        for row, _ in enumerate(names):
            first, second = rng.integers(0, 2), rng.integers(2, 4)
            later = int(rng.integers(9, 12))
            video[row, 3:9], video[row, later:15] = int(first), int(second)
            # 3.5 frames is where the middle of frame 3 is, so that it still belongs to the word.
            times = ((3.5 / 25, 9.2 / 25), ((later - 0.3) / 25, 15 / 25))
            words.append([(WORDS[w], *t) for w, t in zip((first, second), times, strict=True)])
        here = len(names)
        yield Batch(
            [f"s{n % talkers}/c{n}" for n in names], {"face": video}, torch.zeros(here, 80, 80),
            torch.full((here,), 20), torch.full((here,), 80), torch.full((here,), -1),
            torch.full((here, 2), torch.nan), torch.zeros(here),
            [f"s{n % talkers}" for n in names], words,
        )  # fmt: skip


class Seeing(nn.Module):
    """Features that are one-hot of the number in the picture, with noise; f_tgt = 3 f_src."""

    def __init__(self, noise: float, slots: int = 5) -> None:
        super().__init__()
        self.noise = noise
        self.memory = BridgingMemory(5, 5, slots)
        if slots:
            self.memory.key_memory.data = self.memory.value_memory.data = torch.eye(5)

    def features(self, video: Tensor, mel: Tensor, lengths: Any) -> tuple[Tensor, Tensor]:
        number = (video[:, 0, :, 0, 0] * 255).round().long()
        seen = nn.functional.one_hot(number, 5).float() + self.noise * torch.randn(*number.shape, 5)
        return seen, 3 * seen


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def run(network: Any, clips: int = 60, talkers: int = 2) -> dict[str, Any]:
        monkeypatch.setattr(task_module, "open_stream", lambda *_, **__: drawn(clips, talkers))
        monkeypatch.setattr(Task, "build", lambda *_: Seeing(noise=20.0))
        rows = np.arange(clips)
        given = Evaluation(network, recipe("l2s"), SCALING, INDEX, rows, torch.device("cpu"))
        return measure(given, draws=200)

    return run


def values(figures: dict[str, Any]) -> dict[str, float]:
    return {k: v["value"] for k, v in figures.items() if k not in ("nulls", "ahead_of")}


def test_addresses_that_are_words_are_told_apart_and_the_nulls_are_null(looked: Any) -> None:
    found = looked(Seeing(noise=0.0))
    json.dumps(found, default=float)
    for side in ("source", "target"):
        figures = values(found[side])
        # One frame too many, or of the word beside it, and the cosines were neither 1 nor 0.
        assert figures["same"] == pytest.approx(1, abs=1e-6)
        assert figures["other"] == pytest.approx(0, abs=1e-6) == figures["within"]
        assert figures["auc"] == figures["within_slot_auc"] == 1
        nulls = {name: values(null) for name, null in found[side]["nulls"].items()}
        assert nulls.keys() == {"initial", "random_slots", "features", "permuted"}
        assert nulls["features"]["within_slot_auc"] == 1  # the features are the words as well
        assert nulls["random_slots"]["within_slot_auc"] == 1
        assert nulls["random_slots"]["within"] > 0.05  # their slots are not the words
        for name in ("initial", "permuted"):
            assert nulls[name]["within_slot_auc"] == pytest.approx(0.5, abs=0.12)
            blind = found[side]["nulls"][name]["within_slot_auc"]
            assert blind["low"] < 0.5 < blind["high"]
            lead = found[side]["ahead_of"][name]
            assert lead["value"] == pytest.approx(1 - nulls[name]["within_slot_auc"])
            assert lead["low"] > 0.3
        assert found[side]["ahead_of"]["features"]["value"] == 0
    assert found["agreement"]["top1"]["value"] == 1 and found["agreement"]["kl"]["value"] < 1e-6
    assert found["usage"]["source"]["used"] == 4  # silence is not looked at
    counts = {"clips": 60, "segments": 120, "words": 4, "talkers": 2}
    assert counts.items() <= found["flags"].items()
    assert found["probes"]["visual_vs_audio"]["value"] == 1


def test_pairs_are_across_talkers_if_two_have_enough_clips(looked: Any) -> None:
    assert looked(Seeing(0.0))["flags"]["pairs"] == "across talkers"
    assert looked(Seeing(0.0), talkers=1)["flags"]["pairs"] == "across clips"
    assert looked(Seeing(0.0), clips=19)["flags"]["pairs"] == "across clips"  # 10 and 9


def test_without_slots_or_pairs_there_is_a_reason(looked: Any) -> None:
    none = looked(Seeing(0.0, slots=0))
    assert none == {"value": None, "reason": "a model with 0 slots has no addresses"}
    assert looked(Seeing(0.0), clips=1)["reason"].startswith("2 segments give no pair of kind")
    few = looked(Seeing(0.0), clips=4)
    assert few["source"]["auc"]["value"] == 1
    assert "4 clips for 5 folds" in few["probes"]["recalled_vs_real"]["reason"]


def test_features_of_another_width_have_no_probe(looked: Any) -> None:
    class Wide(Seeing):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.memory = BridgingMemory(5, 10, 5)

        def features(self, video: Tensor, mel: Tensor, lengths: Any) -> tuple[Tensor, Tensor]:
            seen, heard = super().features(video, mel, lengths)
            return seen, torch.cat([heard, heard], -1)

    probes = looked(Wide())["probes"]
    assert probes["visual_vs_audio"]["reason"] == "features of 5 and 10 numbers"
    assert probes["recalled_vs_real"]["value"] is not None


# Frames -------------------------------------------------------------------------------------------


def test_frames_of_a_word_are_those_whose_middle_is_inside() -> None:
    assert frames_between(0.92, 1.18, 25) == (23, 29)  # 23.0 to 29.5, where frame 29's middle is
    assert frames_between(0.0, 1.16, 25) == (0, 29)
    assert frames_between(0.141, 0.179, 25) == (4, 5)  # 3.53 to 4.47 hold no middle; 4.0 is frame 4
    rng = np.random.default_rng(0)
    middles = (np.arange(75) + 0.5) / 25
    for start, length in zip(rng.uniform(0, 2.5, 200), rng.uniform(0.05, 0.4, 200), strict=True):
        inside = np.flatnonzero((middles >= start) & (middles < start + length))
        assert frames_between(start, start + length, 25) == (inside[0], inside[-1] + 1)


def one_word(label: int, boundary: tuple[float, float], key: str = "s1/c#3") -> Batch:
    one: dict[str, Any] = {"label_id": torch.tensor([label]), "boundary": torch.tensor([boundary])}
    one |= {"keys": [key], "lengths": torch.tensor([29]), "speakers": ["s1"]}
    one |= {"video": {}, "mel": None, "mel_lengths": torch.tensor([116]), "epoch": torch.zeros(1)}
    return Batch(words=[[("bin", 0.0, 0.2), ("lay", 0.2, 0.4)]], **one)


def test_a_sample_has_its_word_and_a_sentence_those_whose_times_are_known() -> None:
    assert list(spoken(one_word(2, (0.4, 0.8)), 0, INDEX, "word")) == [("blue", 3, 10, 20)]
    found = list(spoken(one_word(2, (0.4, 0.8), "test/a"), 0, INDEX, "clip"))
    assert found == [("blue", 0, 10, 20)]
    # What lies outside of the 29 frames is cut off; what is not known, or nothing, is left out.
    assert list(spoken(one_word(0, (-0.2, 1.4)), 0, INDEX, "word")) == [("bin", 3, 0, 29)]
    nan = float("nan")
    for times in ((nan, nan), (1.2, 1.4), (-0.4, -0.1), (0.3, 0.3)):
        assert list(spoken(one_word(0, times), 0, INDEX, "word")) == []
    batch = one_word(-1, (float("nan"), float("nan")), "s1/c")
    batch.words[0].insert(1, ("red", None, None))
    assert list(spoken(batch, 0, INDEX, "clip")) == [("bin", 0, 0, 5), ("lay", 2, 5, 10)]


def test_frames_are_gathered_by_clip() -> None:
    """Words of one sentence lie apart: a batch holds one word of each sentence."""
    facts = ([0, 1, 2, 3], [0, 0, 1, 1], [7, 8, 7, 8], [0, 0, 0, 0])
    segments = Segments(*(np.array(column) for column in facts))
    frames = np.arange(7.0)[:, None]
    found = Collected({"source": frames}, np.array([2, 1, 1, 3]), segments)
    assert found.clip_of_frame.tolist() == [7, 7, 8, 7, 8, 8, 8]
    assert [part[:, 0].tolist() for part in found.by_clip("source")] == [[0, 1, 3], [2, 4, 5, 6]]


# Which clips, which network -----------------------------------------------------------------------


def test_few_of_many_clips_hold_words_more_than_once() -> None:
    label_id = np.arange(25_000) % 500
    index: Any = SimpleNamespace(label_id=label_id, no_audio=np.zeros(25_000, bool))
    rows = choose(index, "clip", np.arange(25_000), 400)
    assert np.unique(label_id[rows], return_counts=True)[1].tolist() == [10] * 40
    assert (np.diff(rows) > 0).all()
    assert choose(index, "clip", np.arange(300), 400).tolist() == list(range(300))
    facts = {"label_id": np.full(1000, -1), "no_audio": np.zeros(1000, bool)}
    index = SimpleNamespace(timed_sentences=lambda rows: rows[::2], **facts)
    rows = choose(index, "word", np.arange(1000), 100)
    assert len(np.unique(rows)) == 100 and (rows % 2 == 0).all()
    assert len(np.unique(choose(index, "clip", np.arange(1000), 100))) == 100


def test_initial_is_what_training_starts_from(grid: Index, tmp_path: Path) -> None:
    plan = recipe("l2s", seed=7)
    start = trainer.start(plan, grid, tmp_path, "cpu", 0, 1).model.state_dict()
    before = torch.get_rng_state()
    given = (scaling_of(grid, plan), grid, np.arange(8), torch.device("cpu"))
    initial = addressing.initial_model(Evaluation(nn.Identity(), plan, *given))
    assert torch.equal(torch.get_rng_state(), before) and not initial.training
    found = initial.state_dict()
    assert found.keys() == start.keys()
    assert all(torch.equal(found[name], start[name]) for name in start)
    other = addressing.initial_model(Evaluation(nn.Identity(), recipe("l2s", seed=8), *given))
    assert not torch.equal(other.state_dict()["memory.key_memory"], found["memory.key_memory"])


def test_a_new_network_is_not_ahead_of_itself(grid: Index) -> None:
    plan = recipe("l2s")
    given = (scaling_of(grid, plan), grid, np.arange(len(grid)), torch.device("cpu"))
    network = addressing.initial_model(Evaluation(nn.Identity(), plan, *given))
    found = measure(Evaluation(network, plan, *given), draws=50)
    for side in ("source", "target"):
        assert found[side]["ahead_of"]["initial"] == {"value": 0, "low": 0, "high": 0}
        assert found[side]["nulls"]["features"] != found[side]["nulls"]["initial"]
    assert found["flags"]["segments"] == 6 * len(grid) and found["flags"]["places"]


def test_avb_eval_records_the_addresses_of_a_trained_reader(grid: Index, tmp_path: Path) -> None:
    plan = recipe("lip", corpus="grid", unit="word", split="grid-hash", steps=2, validate_every=2)
    rows = np.arange(len(grid))
    parts = Parts("grid-hash", "test", {"train": rows, "val": rows[:1]})
    trainer.train(plan, grid, parts, tmp_path)
    record = evaluated("lip", tmp_path / "last.pt", grid, "all")
    found = record["addressing"]
    assert found["flags"]["segments"] == len(record["clips"]) == 6 * len(grid)
    assert found["flags"]["pairs"] == "across clips"  # two sentences a talker
    for side in ("source", "target"):  # two steps moved it from where it began
        assert found[side]["same"] != found[side]["nulls"]["initial"]["same"]
