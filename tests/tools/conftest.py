"""Shared by the tests of `avb infer` and `avb ui`: small random models, drawn talkers."""

from pathlib import Path

import pytest
from networks import save_model

from avb.tools.infer.model import Trained, load_trained
from avb.train import checkpoint

NAMES = ("lip", "l2s", "none")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random models of GRID: words, speech, and words without memory; and a judge."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        changes = {"model": {"slots": 0}} if name == "none" else {}
        save_model(folder / f"{name}.pt", "l2s" if name == "l2s" else "lip", **changes)
    checkpoint.save(folder / "judge.pt", {"task": "judge", "weights": {}})
    return {name: folder / f"{name}.pt" for name in (*NAMES, "judge")}


@pytest.fixture(scope="session")
def talker_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn talker of 1.6 s, with a tone."""
    from talkers import talker, write

    return write(tmp_path_factory.mktemp("films") / "talker.mp4", talker(3, 40, (360, 288), 50))


@pytest.fixture(scope="session")
def checkpoints(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Such of words of LRW, and of words and speech of GRID."""
    path = tmp_path_factory.mktemp("checkpoints") / "lrw.pt"
    save_model(path, "lip", "lrw")
    return {"lip": path, "sentences": tiny_models["lip"], "l2s": tiny_models["l2s"]}


@pytest.fixture
def models(checkpoints: dict[str, Path]) -> dict[str, Trained]:
    kinds = {"lip": "lip", "sentences": "lip", "l2s": "l2s"}
    return {name: load_trained(kinds[name], path) for name, path in checkpoints.items()}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of one talker, 360 x 288."""
    from talkers import talker, write

    return write(tmp_path_factory.mktemp("films") / "base.mp4", talker(3, 50, (360, 288), 50))
