"""Real sentences where there are some, and sounds drawn like speech where not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from films import speechlike as make_speechlike
from torch import Tensor

from avb.pipeline.clip.audio import fit, log_mel
from avb.pipeline.clip.pyav import read_sound
from avb.pipeline.config import Mel, load_corpora
from avb.pipeline.corpora.grid import words_of

RATE = 16_000


@dataclass(frozen=True)
class Sentence:
    """One clip: its name, sound [48,000], log-mel [80 x 300] and six words."""

    name: str
    sound: np.ndarray
    mel: Tensor
    words: list[str]


@pytest.fixture(scope="session")
def mel() -> Mel:
    """GRID's front end."""
    return load_corpora()["grid"].mel


@pytest.fixture(scope="session")
def speechlike() -> list[np.ndarray]:
    return [make_speechlike(seed=seed) for seed in range(3)]


def read_sentence(path: Path, mel: Mel) -> Sentence:
    sound = fit(*read_sound(path), 0.0, 75, 25, RATE)[0]
    found = torch.from_numpy(log_mel(sound, mel, RATE))
    return Sentence(path.stem, sound, found, words_of(path.stem))


@pytest.fixture(scope="session")
def sentences(real_grid: Path, mel: Mel) -> list[Sentence]:
    """Fifty sentences of talker 1, spread over all of them."""
    paths = sorted((real_grid / "s1/video").glob("*.mp4"))
    if len(paths) < 50:
        pytest.skip(f"{len(paths)} clips of talker 1 in {real_grid}; these tests take 50")
    return [read_sentence(path, mel) for path in paths[:: len(paths) // 50][:50]]


@pytest.fixture(scope="session")
def talker_one(real_grid: Path, mel: Mel) -> list[Sentence]:
    """Every sentence of talker 1."""
    paths = sorted((real_grid / "s1/video").glob("*.mp4"))
    if len(paths) < 500:
        pytest.skip(f"{len(paths)} clips of talker 1 in {real_grid}; a judge learns from 500")
    return [read_sentence(path, mel) for path in paths]
