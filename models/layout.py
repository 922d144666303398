"""Weights with channels last, the layout in which GPUs convolve fastest."""

import torch
from torch import nn


def channels_last(network: nn.Module) -> nn.Module:
    """`network`, convolutions laid out channels last; `.to(memory_format=...)` takes no mixture."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for value in network.parameters():
        if value.dim() in formats:
            value.data = value.data.to(memory_format=formats[value.dim()])
    return network
