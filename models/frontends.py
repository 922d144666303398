"""Front ends: lip pictures, or mels, to one feature vector for each video frame."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.masks import keep_real
from avb.models.whitening import Whitening

Pool = Literal["global", "released"]

STEM_FRAMES = 5
COLUMNS_PER_FRAME = 4  # 100 mel columns and 25 pictures a second


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut; an activation after each."""

    def __init__(
        self, width_in: int, width: int, stride: int, activation: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = activation(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act2 = activation(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Map [B x C x rows x columns]; `mask_BT` tells which columns are real, all if None."""
        x = keep_real(x, mask_BT, 3)
        y = keep_real(self.act1(self.norm1(self.conv1(x))), mask_BT, 3)
        return self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))


class Stem(nn.Conv3d):
    """The convolution over 5 frames, as one of two dimensions over 5 times the channels.

    cuDNN has no kernel for tensor cores where a 3-D convolution has one channel: of a step of the
    paper's network on an H200 (320 clips, bfloat16) it took 105 of 332 ms, as this 34 of 248. On a
    CPU the small front end takes .77 of the time (16 clips of 29 pictures, 16 channels).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B x C x T x rows x columns] to as many frames."""
        around = STEM_FRAMES // 2
        windows = functional.pad(x, (0, 0, 0, 0, around, around)).unfold(2, STEM_FRAMES, 1)
        windows_NCHW = windows.permute(0, 2, 1, 5, 3, 4).flatten(2, 3).flatten(0, 1)
        windows_NCHW = windows_NCHW.contiguous(memory_format=torch.channels_last)
        weight = self.weight.flatten(1, 2)
        frames = functional.conv2d(windows_NCHW, weight, None, self.stride[1:], self.padding[1:])
        return frames.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


class VisualFrontEnd(nn.Module):
    """A convolution over 5 frames, then ResNet-18 with PReLU on each: [B x T x 8 * width].

    Time is folded into the batch right after the one convolution that looks across it, and padded
    frames are left out there, so that they cost nothing and no batch norm counts them.

    `pool="released"` averages rows and columns 0 to 2 of the last map, which is what the released
    code's 3 x 3 window does with the 4 x 4 map of a 112 x 112 picture. Weights trained with it lose
    accuracy with the global mean, and the other way round.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 2,
        pool: Pool = "global",
        dropout: float = 0.3,
        channels: int = 1,
    ) -> None:
        """Build a trunk of four stages, `width` to 8 * `width` wide, of `blocks` blocks each."""
        super().__init__()
        if pool not in ("global", "released"):  # else it would pass for the global one
            raise ValueError(f"pool {pool!r}: expected 'global' or 'released'")
        self.pool, self.dim = pool, 8 * width
        self.stem = Stem(
            channels, width, (STEM_FRAMES, 7, 7), (1, 2, 2), (STEM_FRAMES // 2, 3, 3), bias=False
        )
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.PReLU(width)
        stages = []
        for stage in range(4):
            wide, stride = width << stage, 2 if stage else 1
            before = wide // stride
            layers = [BasicBlock(before, wide, stride, nn.PReLU)]
            layers += [BasicBlock(wide, wide, 1, nn.PReLU) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, video_BCTHW: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Features of every frame, 0 where padded: [B x T x 8 * width]."""
        video_BCTHW = keep_real(video_BCTHW, mask_BT, 2)
        frames_BTCHW = self.stem(video_BCTHW).transpose(1, 2)
        frames_PCHW = frames_BTCHW.flatten(0, 1) if mask_BT is None else frames_BTCHW[mask_BT]
        x = functional.max_pool2d(self.act(self.norm(frames_PCHW)), 3, stride=2, padding=1)
        x = self.stages(x)
        if self.pool == "released":
            x = x[:, :, :3, :3]
        features_PC = self.dropout(x.mean(dim=(2, 3)))
        if mask_BT is None:
            return features_PC.unflatten(0, frames_BTCHW.shape[:2])
        features_BTC = features_PC.new_zeros(*mask_BT.shape, self.dim)
        features_BTC[mask_BT] = features_PC
        return features_BTC


class AudioFrontEnd(nn.Module):
    """Two convolutions that halve bins and columns, a residual block, a linear layer: [B x T x D].

    The speech model has one more convolution of kernel 5 before the residual block. The paper says
    no more of it than that; here it keeps the width, looks over bins and columns, and is followed
    by batch norm and PReLU. In training, batch norm counts padded columns.
    """

    def __init__(
        self,
        dim: int = 512,
        width: int = 128,
        mel_bins: int = 80,
        dropout: float = 0.3,
        extra_convolution: bool = False,
        whitened: bool = False,
    ) -> None:
        """Build convolutions of `width` and 2 * `width`; `extra_convolution` for speech."""
        super().__init__()
        self.dim = dim
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.act2 = nn.PReLU(2 * width)
        self.extra = None
        if extra_convolution:
            self.extra = nn.Sequential(
                nn.Conv2d(2 * width, 2 * width, 5, padding=2),
                nn.BatchNorm2d(2 * width),
                nn.PReLU(2 * width),
            )
        self.block = BasicBlock(2 * width, 2 * width, 1, lambda _: nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * width * (mel_bins // 4), dim)
        self.whitening = Whitening(dim) if whitened else None

    def forward(self, mel_BFM: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Features of every video frame, from mels of 4 columns a frame: [B x T x D]."""
        x = self.act1(self.norm1(self.conv1(mel_BFM[:, None])))
        x = self.act2(self.norm2(self.conv2(x)))
        if self.extra is not None:
            x = self.extra(keep_real(x, mask_BT, 3))
        x = self.block(x, mask_BT)
        # Channel-major, channel * rows + row: the published weights depend on this order.
        feature_BTD = self.linear(self.dropout(x.permute(0, 3, 1, 2).flatten(2)))
        return feature_BTD if self.whitening is None else self.whitening(feature_BTD, mask_BT)


def check_mel(mel_BFM: Tensor, num_frames: int) -> None:
    """Refuse mels that are not exactly 4 columns a frame: all later ones would be off by one."""
    columns = mel_BFM.shape[-1]
    if columns != COLUMNS_PER_FRAME * num_frames:
        raise ValueError(
            f"mel of {columns} columns beside {num_frames} video frames: expected "
            f"{COLUMNS_PER_FRAME * num_frames}, {COLUMNS_PER_FRAME} a frame; trim or pad the mel"
        )


def normalise_clip(mel_BFM: Tensor, lengths_B: Tensor) -> Tensor:
    """Each bin of each clip to mean 0 and deviation 1 over its real columns.

    paper.md 2.1: unbiased deviation + 1e-10; bins without change and padded columns become 0.
    """
    real = torch.arange(mel_BFM.shape[2], device=mel_BFM.device) < lengths_B[:, None]
    weights = real[:, None, :]
    count = lengths_B[:, None, None].to(mel_BFM.dtype)
    mean = mel_BFM.where(weights, 0).sum(2, keepdim=True) / count
    # The mean of equal values is off by its rounding, which the deviation would blow up to 1.
    flat = ((mel_BFM == mel_BFM[:, :, :1]) | ~weights).all(2, keepdim=True)
    centred = (mel_BFM - mean).where(weights & ~flat, 0)
    deviation = (centred.square().sum(2, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return centred / (deviation + 1e-10)
