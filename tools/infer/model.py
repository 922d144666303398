"""What a checkpoint says: the model, and how pictures must be cut for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avb.pipeline.config import Crop, load_corpora
from avb.pipeline.parse import checked
from avb.pipeline.settings import Settings, settings_for
from avb.train.evaluate.words.reading import Reading, Slots, own_grammar
from avb.train.network import load_network
from avb.train.recipe import Recipe
from avb.train.tasks.task import Scaling, Task, find_task
from avb.train.vocoder.file import load as load_vocoder


@dataclass(frozen=True)
class Trained:
    """A model that is ready, and what its shards were made with."""

    model: nn.Module
    recipe: Recipe
    scaling: Scaling
    crop: Crop  # the picture it takes, with its margin
    settings: Settings  # of those shards: box, mel and rates
    labels: list[str]  # words, in the order of the classes
    device: torch.device
    talkers: list[str] | None  # of its training; None: all of its split
    grammar: Slots | None = None  # what a reader of sentences may say
    vocoder: nn.Module | None = None  # makes sound of mels; None: Griffin-Lim

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return find_task(self.recipe.task)

    def network_video(self, stored_BTHW: torch.Tensor) -> torch.Tensor:
        """Stored crops, uint8 on the model's device, as it takes them: [B x 1 x T x H x W]."""
        return self.task.network_video(stored_BTHW, self.recipe, self.scaling)

    @torch.no_grad()
    def output(self, stored_BTHW: np.ndarray, *more: Any) -> Any:
        """What the model makes of stored crops, uint8, and of what else it takes."""
        stored = torch.from_numpy(np.ascontiguousarray(stored_BTHW)).to(self.device)
        return self.model(self.network_video(stored), *more)

    def reading(self, repeated: bool) -> Reading:
        """What a reader of sentences may say; `repeated`: several of its grammar, in a row."""
        free = Reading(self.labels, self.recipe.unit)
        return free if self.grammar is None else free.within(self.grammar, repeated)


def load_trained(
    kind: str, path: Path, device: str = "cpu", datasets: Path | None = None,
    vocoder: Path | None = None, grammar: Slots | None = None,
) -> Trained:  # fmt: skip
    """Read a checkpoint of a task; settings that it has not are those of `datasets.yaml`.

    `vocoder`, of `avb train vocoder` or `avb train vocos`, is for the mels that the checkpoint
    makes; `grammar`, by default the corpus's own, is what a reader of sentences may say.
    """
    loaded = load_network(path, kind)
    recipe, scaling = loaded.recipe, loaded.scaling
    corpora = load_corpora(datasets)
    corpus = corpora.get(recipe.corpus, corpora["table"])
    usual = settings_for(recipe.corpus, corpus).as_dict()
    given = usual | (loaded.data.get("settings") or {})
    settings: Settings = checked(Settings, given, f"{path}: settings", strict=False)
    own = own_grammar(corpus.grammar, loaded.data["labels"], recipe.unit)
    made_by = None
    if vocoder is not None:
        made_by = load_vocoder(vocoder, settings.mel, settings.sample_rate, path, device).network
    return Trained(
        loaded.model.to(device), recipe, scaling, Crop(scaling.size, scaling.margin), settings,
        loaded.data["labels"], torch.device(device), loaded.data.get("speakers"),
        grammar or own, made_by,
    )  # fmt: skip


class Addresses:
    """A_src of a film, collected while its windows go through the network."""

    def __init__(self) -> None:
        self._windows: list[tuple[int, np.ndarray]] = []

    def add(self, start: int, addressing_TN: torch.Tensor) -> None:
        """Keep one window's, whose first picture is number `start`."""
        self._windows.append((start, addressing_TN.float().cpu().numpy()))

    def mean(self, num_frames: int) -> np.ndarray | None:
        """A_src, float32 [num_frames x N]: mean of the windows of a picture, 0 without; or None."""
        if not self._windows:
            return None
        total = np.zeros((num_frames, self._windows[0][1].shape[1]), np.float32)
        count = np.zeros((num_frames, 1), np.float32)
        for start, rows in self._windows:
            total[start : start + len(rows)] += rows
            count[start : start + len(rows)] += 1
        return total / np.maximum(count, 1)
