"""Weights with channels last, the layout in which GPUs convolve fastest."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(network: nn.Module) -> nn.Module:
    """`network` itself, weights of 2D and 3D convolutions laid out channels last.

    What `network.to(memory_format=...)` refuses for a network that has both kinds.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for value in network.parameters():
        if value.dim() in formats:
            value.data = value.data.to(memory_format=formats[value.dim()])
    return network
