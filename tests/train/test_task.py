"""How a batch reaches the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
from avb.train import task


def test_shrink_averages_squares_of_pixels(lrw: Index, recipe: Any) -> None:
    plain, shrunk = recipe("lip"), recipe("lip", shrink=2)
    scaling = task.scaling_of(lrw, plain)
    batch = next(iter(task.one_pass(lrw, plain, np.arange(2))))
    pictures, small = (
        task.prepare(batch, r, scaling, torch.device("cpu"), train=False).video_BCTHW
        for r in (plain, shrunk)
    )
    corners = [pictures[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    torch.testing.assert_close(small, torch.stack(corners).mean(dim=0))


def test_a_crop_is_not_shifted_out_of_its_margin(lrw: Index, recipe: Any) -> None:
    assert task.scaling_of(lrw, recipe("lip", augment={"jitter": 4})).margin == 4
    with pytest.raises(UsageError, match="jitter 5: these crops were stored with a margin of 4"):
        task.scaling_of(lrw, recipe("lip", augment={"jitter": 5}))


def test_a_speech_model_is_built_for_shrunk_pictures(grid: Index, recipe: Any) -> None:
    shrunk = recipe("l2s", shrink=2)
    model = task.build_model(shrunk, task.scaling_of(grid, shrunk))
    assert model.encoder.side == 48
