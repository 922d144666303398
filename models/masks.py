"""Clips of different lengths in one batch: which frames are real, and what runs only over those."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Boundary = Literal["told", "guessed", "none"]
#: Pictures in the middle of a window that are guessed to be the word: a quarter of a second, about
#: the mean of GRID's words.
GUESSED_WORD = 7


def frame_mask(lengths_B: Tensor | None, num_frames: int) -> Tensor | None:
    """Which frames are real: bool [B x num_frames]; None, as for lengths, where all are."""
    if lengths_B is None:
        return None
    return torch.arange(num_frames, device=lengths_B.device) < lengths_B[:, None]


def boundary_as(
    how: Boundary, told_BT: Tensor | None, lengths_B: Tensor | None = None
) -> Tensor | None:
    """Which frames a model with `word_boundary` is told are the word, 1 or 0, [B x T].

    `told`: as the corpus says; `guessed`: those in the middle of each clip, as for a film in which
    nobody has marked a word; `none`: all. Of lengths None means that all clips are whole.
    """
    if told_BT is None or how == "told":
        return told_BT
    if how == "none":
        return torch.ones_like(told_BT)
    at_T = torch.arange(told_BT.shape[1], device=told_BT.device)
    lengths_B = told_BT.new_full(told_BT.shape[:1], len(at_T)) if lengths_B is None else lengths_B
    first_B1 = ((lengths_B - GUESSED_WORD) // 2).clamp_min(0)[:, None]
    return ((at_T >= first_B1) & (at_T < first_B1 + GUESSED_WORD)).to(told_BT)


def word_mask(boundary_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Which frames are of the word, bool [B x T]: all real ones where no real one is said to be."""
    real_BT = torch.ones_like(boundary_BT, dtype=torch.bool) if mask_BT is None else mask_BT
    inside_BT = (boundary_BT > 0) & real_BT
    return inside_BT | (real_BT & ~inside_BT.any(dim=1, keepdim=True))


def masked_mean(values_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean over clips of each one's mean over its real frames: scalar."""
    if mask_BT is None:
        return values_BT.mean()
    return (values_BT.where(mask_BT, 0).sum(dim=1) / mask_BT.sum(dim=1)).mean()


def mean_over_time(feature_BTE: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean over those frames of each clip that the mask tells, all if None: [B x E]."""
    if mask_BT is None:
        return feature_BTE.mean(dim=1)
    weights_BT1 = mask_BT[:, :, None]
    return feature_BTE.where(weights_BT1, 0).sum(dim=1) / weights_BT1.sum(dim=1)


def keep_real(feature: Tensor, mask_BT: Tensor | None, time_axis: int) -> Tensor:
    """`feature` with padded frames set to 0, which is what a convolution's own padding holds."""
    return feature if mask_BT is None else feature.where(along(mask_BT, feature, time_axis), 0)


def along(mask_BT: Tensor, values: Tensor, axis: int) -> Tensor:
    """A mask of places along `axis` of values [B x ...], with as many axes as they have."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = mask_BT.shape
    return mask_BT.view(shape)


def run_recurrent(network: nn.RNNBase, feature_BTC: Tensor, lengths_B: Tensor | None) -> Tensor:
    """All states of a batch-first recurrent network: [B x T x directions * hidden].

    With lengths, the backward direction starts at each clip's last real frame, and padded frames
    get 0. Lengths are then needed on the CPU; without them nothing waits for the device.
    """
    if lengths_B is None:
        return network(feature_BTC)[0]
    packed = pack_padded_sequence(
        feature_BTC, lengths_B.cpu(), batch_first=True, enforce_sorted=False
    )
    states, _ = network(packed)
    return pad_packed_sequence(states, batch_first=True, total_length=feature_BTC.shape[1])[0]
