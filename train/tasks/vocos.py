"""A vocoder that makes sound of mels by itself, against critics; the refiner needs Griffin-Lim."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avb.models.masks import frame_mask, keep_real, mean_over_time
from avb.models.memory import Losses
from avb.models.precision import without_autocast
from avb.models.vocos import HOP, Vocos, VocosConfig
from avb.pipeline.clip.audio import torchaudio
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints
from avb.train.recipe import Recipe
from avb.train.tasks.task import Inputs, Scaling, Task

#: Weight of the distance of log-mels beside the adversary, as published.
MEL_WEIGHT = 45.0
_FLOOR = 1e-5


class Vocoding(Task):
    """`Vocos` on true mels and their sound, scored by minus the distance of log-mels."""

    name = "vocos"
    makes = "sound"
    title = "Vocoder"
    summary = "Makes sound of log-mels."
    config = VocosConfig
    data = Path("shards/grid")
    sees = False
    hears = True
    output = ("sound", "sound [batch x samples]")
    loss, score_name = "distance of log-mels, against critics", "minus the distance of log-mels"

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return Vocos(VocosConfig(**recipe.model))

    def scale_mel(self, mel_BFM: Tensor, lengths_B: Tensor, scaling: Scaling) -> Tensor:
        return mel_BFM

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        """The output are distances [B], in nats a bin and column."""
        assert inputs.sound_BS is not None
        made = model(inputs.mel_BFM, inputs.sound_BS)
        with without_autocast(made.sound):
            # Padding is no part of a clip: neither its sound nor columns behind the last, of which
            # a centred transform has one more than there are hops.
            columns_B = 4 * inputs.lengths_B
            samples_BS = frame_mask(HOP * columns_B, made.sound.shape[1])
            wanted, found = map(log_mel, (inputs.sound_BS, keep_real(made.sound, samples_BS, 1)))
            apart_BM1 = (wanted - found).abs().mean(dim=1)[:, :, None]
            mask_BM = frame_mask(columns_B + 1, apart_BM1.shape[1])
            distance_B = mean_over_time(apart_BM1, mask_BM)[:, 0]
        loss = MEL_WEIGHT * distance_B.mean()
        if made.adversary is not None:
            loss = loss + made.adversary
        return Losses(recalled=loss, critics=made.critics), distance_B

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        return -output

    def usable_rows(self, index: Index, rows: Ints, recipe: Recipe) -> Ints:
        """All, of shards that hold their sound and have such mels."""
        config, mel = VocosConfig(**recipe.model), index.dataset["mel"]
        if not index.dataset["settings"].get("keep_audio", True):
            raise UsageError(f"{index.folder}: holds no sound (avb prep --keep-audio)")
        if (mel["n_mels"], mel["hop"]) != (config.n_mels, HOP):
            raise UsageError(
                f"{index.folder}: its mels have {mel['n_mels']} bins and a column every"
                f" {mel['hop']} samples; this vocoder is for {config.n_mels} and {HOP}"
            )
        return rows

    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        raise UsageError("a vocoder takes no pictures, and is not exported")


def log_mel(sound_BS: Tensor) -> Tensor:
    """Natural-log mels [B x 80 x M] that sounds are compared by, whatever they are made of."""
    mel: Tensor = _front_end(sound_BS.device)(sound_BS)
    return mel.clamp_min(_FLOOR).log()


@cache
def _front_end(device: torch.device) -> Any:
    with torch.device("cpu"):  # also where a cost is counted on no device at all
        front_end = torchaudio().transforms.MelSpectrogram(
            16_000, 1024, hop_length=160, n_mels=80, power=1
        )
    return front_end.to(device)


TASK = Vocoding()
