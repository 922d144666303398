"""Tiny networks, weights that make no two paths alike, and one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

TINY_LIP = {"width": 2, "blocks": 1, "hidden": 6, "audio_dim": 10, "audio_width": 3, "slots": 7}
TINY_SPEECH = {
    "side": 32,
    "width": 2,
    "blocks": 1,
    "hidden": 5,
    "audio_dim": 12,
    "audio_width": 3,
    "slots": 7,
}
TINY_DECODERS = {
    "tacotron": {
        "prenet_width": 6,
        "prenet_dropout": 0.0,  # on at inference too: two passes would never agree
        "rnn_dim": 16,
        "attention_width": 8,
        "location_filters": 4,
        "location_kernel": 7,
        "post_width": 8,
    },
    "synchronous": {"width": 8, "units": 2, "post_width": 8},
}


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def stir_network(network: nn.Module) -> nn.Module:
    """Random weights and batch statistics, so that zeros do not stay zero and all paths differ."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("covariance"):
                tensor.add_(torch.diag(torch.rand(len(tensor))))
            elif tensor.is_floating_point():
                fan_in = tensor[0].numel() if tensor.dim() > 1 else 10
                tensor.normal_(0, fan_in**-0.5)
    return network


@pytest.fixture
def stir() -> Callable[[nn.Module], nn.Module]:
    return stir_network


@pytest.fixture
def tiny_lip() -> dict:
    return dict(TINY_LIP)


@pytest.fixture
def tiny_speech() -> dict:
    return dict(TINY_SPEECH)


@pytest.fixture
def tiny_decoders() -> dict:
    return {name: dict(sizes) for name, sizes in TINY_DECODERS.items()}


@pytest.fixture
def count() -> Callable[[nn.Module], int]:
    """Number of trainable values."""
    return lambda network: sum(value.numel() for value in network.parameters())
