"""Recipes are checked key by key; those that come with the package load and build their models."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fault
from torch import nn

from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.train.optimizer import make_optimizer
from avb.train.recipe_file import load_recipe, make_recipe, names
from avb.train.tasks.task import Scaling, find_task

SHIPPED = [(task, name) for task in ("lip", "l2s", "asr") for name in names(task)]


def scaling(size: int) -> Scaling:
    return Scaling(128, 40, -11, 4, 4, size, 51)


@pytest.mark.parametrize(("task", "name"), SHIPPED)
def test_shipped_recipes_build_their_models(task: str, name: str) -> None:
    recipe = load_recipe(task, name)  # type: ignore[arg-type]
    corpus = load_corpora()[recipe.corpus]
    assert recipe.crop in corpus.crops
    split = [s for n, s in corpus.splits.items() if recipe.split in (n, *s.aliases)]
    assert len(split) == 1
    with torch.device("meta"):
        find_task(recipe.task).build(recipe, scaling(corpus.crops[recipe.crop].size))
    assert recipe.augment.jitter <= corpus.crops[recipe.crop].margin


def test_the_paper_s_numbers_are_in_its_recipes() -> None:
    lrw, lrw1000 = load_recipe("lip", "paper"), load_recipe("lip", "paper-lrw1000")
    assert (lrw.model["slots"], lrw.lr, lrw.batch_size, lrw.optimizer) == (88, 0.03, 320, "sgd")
    assert (lrw1000.model["slots"], lrw1000.lr, lrw1000.batch_size) == (112, 1e-4, 60)
    speech = load_recipe("l2s", "paper")
    assert (speech.model["slots"], speech.lr, speech.batch_size) == (150, 1e-3, 64)
    released = load_recipe("lip", "released")
    assert released.model["pool"] == "released" and released.model["variant"] == "released"
    assert lrw.augment.jitter == 0 < released.augment.jitter  # paper.md 5.3, row 10


def test_overrides_are_read_as_yaml_and_reach_into_mappings() -> None:
    recipe = load_recipe("lip", "tiny", ["model.slots=0", "lr=1e-2", "augment.flip=0"])
    assert recipe.model["slots"] == 0 and recipe.lr == 0.01 and recipe.augment.flip == 0.0
    assert recipe.model["width"] == load_recipe("lip", "tiny").model["width"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "'stepz'; the nearest right one is 'steps'"),
        ("model.slotz=3", "'model.slotz'; the nearest right one is 'model.slots'"),
        ("augment.flop=1", "'flop'; the nearest right one is 'flip'"),
        ("steps=many", "expected int, found 'many'"),
        ("optimizer=adamm", "did you mean adam"),
        ("steps", "expected key=value"),
        ("accumulate=5", "cannot be worked off in 5 equal parts"),
        ("accumulate=0", "accumulate 0: expected 1 or more"),
        ("validate_every=0", "validate_every 0: expected 1 or more"),
        ("augment.flip=1.5", "flip 1.5: expected 0 to 1"),
        ("lr=.nan", "lr nan: expected 0 or more"),
        ("momentum=1", "momentum 1.0: expected 0 to 0.9999"),
        ("seed=8388608", "seed 8388608: expected 0 to 8388607"),
        ("model.slots=-3", "model.slots -3: expected 0 or more"),
        ("model.hidden=0", "model.hidden 0: expected 1 or more"),
        ("model.width=wide", "model.width: expected int, found 'wide'"),
        ("model.variant=papr", "did you mean paper"),
        ("model.mel_bins=40", "unknown key 'model.mel_bins'"),  # the shards decide
        ("l2s model.decoder_sizes.wdth=3", "sizes.wdth'; the nearest .*sizes.width'"),
        ("l2s unit=word", "unit word is not of the task l2s"),
        ("l2s model.decoder=tacotron", "unknown key 'model.decoder_sizes.width'"),
        ("l2s shrink=100", "shrink 100: the crops have 96 pixels a side"),
        ("l2s model.dropout=2.0", "model.dropout 2.0: expected 0 to 1"),
        ("l2s model.decoder_sizes.kernel=4", "sizes.kernel 4: expected an odd number"),
        ("window=20", "window is for speech"),
        ("sync window=20", "window is for speech"),
    ],
)
def test_a_wrong_key_or_value_names_the_nearest_right_one(override: str, message: str) -> None:
    task, word = override.split(" ") if " " in override else ("lip", override)
    with pytest.raises(UsageError, match=message):
        recipe = load_recipe(task, "tiny", [word])  # type: ignore[arg-type]
        find_task(task).build(recipe, scaling(96))  # what does not go with the shards


def test_the_flag_is_blamed_for_what_the_flag_says(tmp_path: Path) -> None:
    for words, blamed in (
        (["lr=0.1", "modl.slots=3"], "--set modl.slots=3: unknown key 'modl'; .*'model'"),
        (["accumulate=5", "batch_size=7"], "--set accumulate=5: .*in 5 equal parts"),
        (["model.slots=x"], "--set model.slots=x: model.slots: expected int"),
        (["batch_size=many"], "--set batch_size=many: batch_size: expected int"),
    ):
        assert re.search(blamed, fault(load_recipe, "lip", "tiny", words))
    assert load_recipe("lip", "tiny", ["accumulate=5", "batch_size=10"]).accumulate == 5
    (tmp_path / "mine.yaml").write_text("stps: 3\n")
    line = fault(load_recipe, "lip", str(tmp_path / "mine.yaml"), ["lr=0.1"])
    assert "mine.yaml: unknown key 'stps'" in line


def test_an_unknown_recipe_and_another_task_s_are_named(tmp_path: Path) -> None:
    assert "did you mean tiny" in fault(load_recipe, "lip", "tinny")
    mine = tmp_path / "mine.yaml"
    mine.write_text("task: l2s\n")
    assert "is a recipe for l2s, not for lip" in fault(load_recipe, "lip", str(mine))


def test_the_teacher_s_share_falls_along_a_cosine_to_its_end() -> None:
    falling = make_recipe("l2s", {"teacher_end": 0.0, "steps": 100}, "test")
    shares = [falling.teacher_at(step) for step in (0, 25, 50, 75, 100)]
    assert shares == pytest.approx([1, 0.5 + 0.5**0.5 / 2, 0.5, 0.5 - 0.5**0.5 / 2, 0])
    even = make_recipe("l2s", {"teacher_ratio": 0.3}, "t")
    assert even.teacher_at(0) == even.teacher_at(1000) == 0.3
    assert make_recipe("l2s", even.as_dict(), "saved") == even
    assert make_recipe("l2s", {}, "t").teacher_at(1000) == 1.0


@pytest.mark.parametrize(
    ("task", "name", "betas"), [("vocos", "paper", (0.8, 0.9)), ("lip", "tiny", (0.9, 0.999))]
)
def test_a_vocoder_s_optimiser_is_the_published_one(task: str, name: str, betas: Any) -> None:
    group = make_optimizer(load_recipe(task, name), nn.Linear(1, 1)).param_groups[0]
    assert group["betas"] == betas
