"""Sync: by how much a clip's sound comes before or after its lips."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.frontends import COLUMNS_PER_FRAME
from avb.models.memory import Losses
from avb.models.sync import SyncConfig, SyncNetwork, edge_of, mean_over, sync_loss
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints
from avb.train.recipe import Recipe
from avb.train.tasks.task import Inputs, Scaling, Task

#: Most frames of a clip that a step looks at.
EXCERPT = 46
#: Frames that have to tell the shift alone. Of whole clips, as soon as each has a best shift there
#: is no more to learn: two networks of a third of GRID's talker 1 each, on the last third, agreed
#: to 6.0 ms and r .945 so, and to 4.7 ms and r .966 by windows of 8.
WINDOW = 8
#: Least frames, in the middle of a clip, that a lag is measured by.
LEAST = 4


class Sync(Task):
    """`SyncNetwork` on clips and their own sound, scored by the log-likelihood of the shift."""

    name = "sync"
    makes = "lag"
    title = "Sync"
    summary = "Tells by how much a clip's sound comes before or after its lips."
    config = SyncConfig
    data = Path("shards/grid")
    output = ("logits", "logits [batch x shifts]")
    loss, score_name = "log-likelihood of one shift (nats)", "log-likelihood of the shift"

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return SyncNetwork(SyncConfig(**recipe.model))

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        """In training the loss of short windows of a random excerpt, else of whole clips.

        Of whole clips the output are logits [B x T x K] and the loss of each [B].
        """
        video, mel, lengths = inputs.video_BCTHW, inputs.mel_BFM, inputs.lengths_B
        config = SyncConfig(**recipe.model)
        edge = edge_of(config.reach)
        if not model.training:
            logits_BTK = model(video, mel)
            edge_B = torch.full_like(lengths, edge)
            logits_BK = mean_over(logits_BTK, edge_B, lengths - edge_B)
            losses_B = sync_loss(logits_BK, config.tolerance_ms)
            return Losses(recalled=losses_B.mean()), (logits_BTK, losses_B)
        # Where in a recording the speech lies says nothing of its lag: places are drawn, and
        # silence at either end is at no fixed place.
        least = video.shape[2] if not inputs.ragged else int(lengths.min())
        frames = min(EXCERPT, max(shortest_clip(recipe), least - 6), least)
        start = int(torch.randint(least - frames + 1, (), device="cpu"))
        video = video[:, :, start : start + frames]
        mel = mel[:, :, COLUMNS_PER_FRAME * start : COLUMNS_PER_FRAME * (start + frames)]
        logits_BKT = model(video, mel)[:, edge : frames - edge].transpose(1, 2)
        size = min(WINDOW, logits_BKT.shape[2])
        windows_BKW = functional.avg_pool1d(logits_BKT, size, max(1, size // 2))
        losses = sync_loss(windows_BKW.transpose(1, 2).flatten(0, 1), config.tolerance_ms)
        return Losses(recalled=losses.mean()), None

    def shift_logits(self, model: nn.Module, inputs: Inputs, scaling: Scaling) -> Tensor:
        logits_BTK: Tensor = model(inputs.video_BCTHW, inputs.mel_BFM)
        return logits_BTK

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        """The log-likelihood of the shift."""
        return -output[1]

    def usable_rows(self, index: Index, rows: Ints, recipe: Recipe) -> Ints:
        """Those that are long enough to be shifted."""
        return rows[index.num_frames[rows] >= shortest_clip(recipe)]

    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        raise UsageError("a sync network takes sound beside pictures, and is not exported")


def shortest_clip(recipe: Recipe) -> int:
    """Frames of the shortest clip whose lag can be measured."""
    return 2 * edge_of(SyncConfig(**recipe.model).reach) + LEAST


TASK = Sync()
