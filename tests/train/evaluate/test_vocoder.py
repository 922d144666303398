"""Promise: a vocoder learns from training clips alone and serves the mels of its file alone.

Whether it is better than Griffin-Lim is proved on real speech (make slow).
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from commands import avb, did, fault, refused
from networks import other_front_end, same, weights

from avb.models.refiner import FLOOR, Refiner
from avb.pipeline.clip.audio import log_mel, mel_matrix
from avb.pipeline.config import Mel, load_corpora
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate.metrics import griffin_lim
from avb.train.evaluate.metrics.griffin_lim import invert_all, invert_mel, linear_magnitude
from avb.train.evaluate.metrics.speech import score_clip
from avb.train.evaluate.stored_mels import front_end
from avb.train.kept import fingerprint
from avb.train.recipe_file import load_recipe
from avb.train.split import split_rows
from avb.train.tasks.task import find_task
from avb.train.vocoder import file, training
from avb.train.vocoder.file import Training, Vocoder
from avb.train.vocoder.training import Pair, distance, excerpts, fit, magnitude

pytest.importorskip("pystoi", reason="speech is measured with the extra eval")
RATE = 16_000
SPLIT = "vcagan-16-7-10"  # train s1 s3, val s9, test s2
CPU = torch.device("cpu")


def load(path: Path, index: Index) -> Vocoder:
    return file.load(path, front_end(index), RATE, index.folder)


def rows_of(index: Index) -> dict[str, Any]:
    return split_rows(index, load_corpora()["grid"], SPLIT, need=("test",)).rows


def train(index: Index, out: Path, *words: Any) -> str:
    given = ["--data", index.folder, "--split", SPLIT, "--device", "cpu", *words, "--out", out]
    return did("train", "vocoder", *given).stderr


@pytest.fixture(scope="module")
def said(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of a few steps, and what its training said."""
    path = tmp_path_factory.mktemp("vocoder") / "made" / "vocoder.pt"
    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(Training, batch_size=2, columns=20, validate_every=2)
        patch.setattr(file, "Training", short)
        return path, train(grid, path, "--steps", 5, "--seed", 3)


@pytest.mark.parametrize("name", ["grid", "lrw"])
@pytest.mark.parametrize("samples", [300, 47_680])
def test_magnitudes_are_those_that_the_mel_sums_up(name: str, samples: int) -> None:
    mel = load_corpora()[name].mel
    sound = np.random.default_rng(0).normal(size=samples).astype(np.float32) * 0.1
    summed = mel_matrix(mel, RATE).T @ magnitude(sound, mel) ** mel.power
    wanted = torch.from_numpy(log_mel(sound, mel, RATE))
    torch.testing.assert_close(summed.clamp_min(mel.floor).log(), wanted, rtol=1e-4, atol=1e-4)


def test_a_new_one_changes_nothing_and_has_800_thousand_weights(
    mel: Mel, speechlike: list[np.ndarray]
) -> None:
    network = Refiner()
    assert sum(p.numel() for p in network.parameters()) == 796_305
    mels = torch.from_numpy(log_mel(speechlike[0], mel, RATE))[None]
    plain = linear_magnitude(mels, mel, RATE)
    torch.testing.assert_close(network(mels, plain), plain.clamp_min(FLOOR))


def test_sound_is_made_of_what_the_refiner_says(mel: Mel, speechlike: list[np.ndarray]) -> None:
    mels = torch.from_numpy(log_mel(speechlike[0][:16_000], mel, RATE))
    plain = invert_mel(mels, mel, RATE, iterations=4)
    halved = invert_mel(mels, mel, RATE, iterations=4, vocoder=lambda _, found: found / 2)
    torch.testing.assert_close(halved, plain / 2, rtol=1e-3, atol=1e-5)


def test_excerpts_keep_mel_and_magnitude_together(mel: Mel) -> None:
    pairs = [(torch.arange(n).expand(80, n), torch.arange(n).expand(401, n)) for n in (30, 12, 50)]
    draws = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(20):
        mels, magnitudes = excerpts(pairs, 20, draws)
        assert mels.shape == (3, 80, 12) and magnitudes.shape == (3, 401, 12)  # the shortest has 12
        assert torch.equal(mels[:, 0], magnitudes[:, 0])
        assert torch.equal(mels[0, 0] - mels[0, 0, 0], torch.arange(12))
        starts.add(int(mels[2, 0, 0]))
    assert len(starts) > 5 and max(starts) <= 38


def test_the_file_says_what_it_is_and_what_it_is_worth(grid: Index, said: tuple[Path, str]) -> None:
    path, text = said
    state, rows = torch.load(path, weights_only=True), rows_of(grid)
    assert state["format"] == checkpoint.FORMAT and state["task"] == "vocoder"
    assert state["mel"] == dataclasses.asdict(front_end(grid)) and state["sample_rate"] == RATE
    assert state["data"]["fingerprint"] == grid.dataset["fingerprint"]
    assert state["data"]["split"] == SPLIT and state["data"]["corpus"] == "grid"
    assert state["data"]["keys"] == [grid.key(row) for row in rows["train"]]
    assert state["training"]["steps"] == 5 and state["training"]["seed"] == 3
    assert state["val"]["clips"] == len(rows["val"]) and state["revision"] and state["torch"]
    vocoder = load(path, grid)
    assert fingerprint(vocoder.network) == state["hash"] and not vocoder.network.training
    assert f"hash {state['hash'][:12]}" in text and f"split {SPLIT}" in text

    batch = next(training.stored_sounds(grid, rows["val"], 10))
    sounds, mel = training.sounds_of(batch), front_end(grid)
    for name, refiner in (("griffin_lim", None), ("refined", vocoder.network)):
        made = invert_all([one for one, _ in training.pairs_of(batch, mel)], mel, vocoder=refiner)
        scored = [score_clip(*pair, mel)["values"] for pair in zip(sounds, made, strict=True)]
        figure, mean = state["val"][name]["estoi"], np.mean([one["estoi"] for one in scored])
        assert figure["value"] == pytest.approx(mean, abs=1e-6)
        assert f"{figure['value']:.4f} [" in text


def test_only_training_clips_teach_and_the_best_on_validation_is_kept(
    grid: Index, said: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, text = said
    found = [float(x) for x in re.findall(r"validation (\d\.\d+),", text)]
    assert len(found) == 3  # steps 2, 4, 5
    state, mel, rows = torch.load(path, weights_only=True), front_end(grid), rows_of(grid)
    assert state["val"]["step"] == (2, 4, 5)[int(np.argmin(found))]
    held = [pair for batch in training.stored_sounds(grid, rows["val"], 10)
            for pair in training.pairs_of(batch, mel)]  # fmt: skip
    network = load(path, grid).network
    own = [float(distance(network, (a[None], b[None]), mel, RATE)) for a, b in held]
    assert np.mean(own) == pytest.approx(min(found), abs=1e-4)

    opened = Mock(wraps=training.open_stream)
    monkeypatch.setattr(training, "open_stream", opened)
    train(grid, tmp_path / "again.pt", "--steps", 1)
    read = [sorted(call.kwargs["rows"]) for call in opened.call_args_list]
    assert read == [sorted(rows[p]) for p in ("train", "val", "val")]


def drawn_pairs(count: int) -> list[Pair]:
    draws = torch.Generator().manual_seed(count)
    return [(torch.randn(80, 24, generator=draws) - 5, torch.rand(401, 24, generator=draws))
            for _ in range(count)]  # fmt: skip


def test_seed_decides_and_a_step_that_makes_it_worse_is_not_kept(mel: Mel) -> None:
    pairs = drawn_pairs(4)

    def fitted(**changes: Any) -> tuple[str, int]:
        plan = dataclasses.replace(Training(steps=3, columns=8, validate_every=1), **changes)
        network, step = fit([pairs] * 9, pairs, mel, RATE, plan, CPU)
        return fingerprint(network), step

    state = torch.get_rng_state()
    first, again = fitted(seed=1), fitted(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert first == again and first[0] != fitted(seed=2)[0] and first[1] == 3
    assert fitted(learning_rate=10.0)[1] < 3


def test_no_vocoder_for_these_mels_is_one_line(
    grid: Index, said: tuple[Path, str], tmp_path: Path
) -> None:
    """The rest of what `kept.restore` refuses is proved with judges."""
    found = fault(load, said[0], other_front_end(grid, window=400, power=2.0))
    assert "window 800, there 400; power 1.0, there 2.0" in found and "avb train vocoder" in found
    state = torch.load(said[0], weights_only=True)
    checkpoint.save(tmp_path / "odd.pt", state | {"val": {}})
    assert "val: the key" in fault(load, tmp_path / "odd.pt", grid)


def test_shards_without_sound_teach_no_vocoder(lrw: Index, tmp_path: Path) -> None:
    words = ["--data", lrw.folder, "--out", tmp_path / "vocoder.pt", "--device", "cpu"]
    done = avb("train", "vocoder", *words)
    assert done.exit_code == 2 and "holds no sound to learn from" in done.stderr
    assert not list(tmp_path.iterdir())


# A run of avb train vocos

VOCOS = ["train", "vocos", "--split", SPLIT, "--device", "cpu", "--recipe", "tiny"]
for text in ("batch_size=2", "window=10", "validate_every=2", "model.width=16", "model.blocks=1"):
    VOCOS += ["--set", text]


@pytest.fixture(scope="module")
def run(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    out = tmp_path_factory.mktemp("vocos") / "run"
    told = did(*VOCOS, "--data", grid.folder, "--steps", 4, "--out", out).stderr
    assert "minus the distance of log-mels" in told
    return out


def test_a_run_is_a_vocoder_whose_sound_needs_no_griffin_lim(
    grid: Index, run: Path, monkeypatch: pytest.MonkeyPatch, speechlike: list[np.ndarray]
) -> None:
    state, rows = checkpoint.load(run / "best.pt"), rows_of(grid)
    generator = {k: v for k, v in state["model"].items() if k.startswith("generator.")}
    monkeypatch.setattr(griffin_lim, "griffin_lim", None)  # to call it would be an error
    for path in (run, run / "best.pt"):
        vocoder = load(path, grid)
        held = {f"generator.{k}": v for k, v in vocoder.network.state_dict().items()}
        assert held.keys() == generator.keys()
        assert all(torch.equal(held[name], generator[name]) for name in held)
        [made] = vocoder.copies(speechlike[:1])
        assert len(made) == len(speechlike[0]) // 160 * 160
        keys = [grid.key(row) for row in rows["train"]]
        assert vocoder.saw([*keys[:2], "s2/other"], "grid") == 2
        flags = vocoder.flags()
        assert flags["hash"] == fingerprint(vocoder.network)
        assert flags["steps"] == state["counters"]["step"]
        assert flags["split"] == SPLIT and flags["clips"] == len(keys) and "keys" not in flags


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(grid: Index, tmp_path: Path) -> None:
    words = [*VOCOS, "--set", "schedule=constant", "--data", grid.folder]
    for steps in (2, 4):
        did(*words, "--steps", steps, "--out", tmp_path, "--resume")
    did(*words, "--steps", 4, "--out", tmp_path / "whole")
    assert same(weights(tmp_path), weights(tmp_path / "whole"))


def test_a_run_s_shards_and_mels_are_looked_at(
    lrw: Index, grid: Index, run: Path, tmp_path: Path
) -> None:
    words = ("--data", lrw.folder, "--split", "official", "--out", tmp_path / "a")
    assert "holds no sound" in refused(*VOCOS, *words)
    task, recipe = find_task("vocos"), load_recipe("vocos", "tiny")
    line = fault(task.usable_rows, other_front_end(grid, hop=200), np.arange(2), recipe)
    assert "a column every 200 samples; this vocoder is for 80" in line
    line = fault(load, run, other_front_end(grid, window=400))
    assert "hears other log-mels" in line and "avb train vocos" in line


@pytest.mark.slow
def test_true_mels_of_real_speech_sound_better_with_it(sentences: list[Any], mel: Mel) -> None:
    """Three minutes of a busy core: 100 steps on 44 sentences of a talker, judged on six others."""
    pairs = [(s.mel, magnitude(s.sound, mel)) for s in sentences]
    test, taught = pairs[::9], [pair for i, pair in enumerate(pairs) if i % 9]
    plan = Training(steps=100)
    rng = np.random.default_rng(0)
    batches = ([taught[i] for i in rng.choice(len(taught), 16)] for _ in range(plan.steps))
    network, _ = fit(batches, taught[:6], mel, RATE, plan, CPU)
    scores = []
    for refiner in (None, network):
        made = invert_all([one for one, _ in test], mel, vocoder=refiner)
        values = [score_clip(s.sound, m, mel)["values"]
                  for s, m in zip(sentences[::9], made, strict=True)]  # fmt: skip
        scores.append({k: np.mean([v[k] for v in values]) for k in training.SHOWN})
    plain, refined = scores
    assert refined["stoi"] > plain["stoi"] and refined["estoi"] > plain["estoi"]
    assert refined["mel_distance"] < 0.95 * plain["mel_distance"]
