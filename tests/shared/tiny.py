"""Tiny networks, and weights that make no two paths alike."""

import torch
from torch import nn

TINY_LIP = {"width": 2, "blocks": 1, "hidden": 6, "audio_dim": 10, "audio_width": 3, "slots": 7}
TINY_SPEECH = TINY_LIP | {"side": 32, "hidden": 5, "audio_dim": 12}
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


def stir(network: nn.Module) -> nn.Module:
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


def count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(value.numel() for value in network.parameters())
