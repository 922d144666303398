"""The speech model's video encoder: 3D convolutions of Lip2Wav, then a bidirectional LSTM."""

import math

from torch import Tensor, nn

from avb.models.dropout import Dropout
from avb.models.masks import keep_real, run_recurrent

HALVINGS = 5


class Unit(nn.Module):
    """Conv3d, batch norm, a shortcut where nothing changes shape, ReLU."""

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv3d(width_in, width, kernel, stride, padding)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x_BCTHW: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Map [B x C x T x H x W]; padded frames become 0."""
        y_BCTHW = self.norm(self.conv(x_BCTHW))
        if self.residual:
            y_BCTHW = y_BCTHW + x_BCTHW
        return keep_real(y_BCTHW.relu(), mask_BT, 2)


class VideoEncoder(nn.Module):
    """Convolutions that halve the picture five times, then an LSTM over time: [B x T x C].

    Widths follow the PyTorch port by an author of the paper: 24 to 384 channels, an LSTM of 192
    units a direction and so C = 384. Lip2Wav's own has 384 a direction and no dropout. In training,
    batch norm counts padded frames; in evaluation they change nothing.
    """

    def __init__(
        self,
        side: int = 96,
        channels: int = 3,
        width: int = 24,
        blocks: int = 2,
        hidden: int = 192,
        dropout: float = 0.5,
    ) -> None:
        """Build an encoder for square pictures of `side` pixels, in 3 colours or 1 grey channel.

        `width` channels after the first convolution, `blocks` residual ones after each of the first
        five, `hidden` units of the LSTM a direction (C is twice that), dropout after each group.
        """
        super().__init__()
        self.side, self.dim = side, 2 * hidden
        groups: list[nn.ModuleList] = []
        before = channels
        for level in range(HALVINGS):
            wide, kernel = width << level, 3 if level else 5
            units = [Unit(before, wide, kernel, (1, 2, 2), kernel // 2)]
            units += [Unit(wide, wide, residual=True) for _ in range(blocks)]
            groups.append(nn.ModuleList(units))
            before = wide
        # Covers what is left of the picture, 3 x 3 of 96 x 96, and so leaves one vector a frame.
        rest = math.ceil(side / 2**HALVINGS)
        groups.append(nn.ModuleList([Unit(before, before, (3, rest, rest), 1, (1, 0, 0))]))
        self.groups = nn.ModuleList(groups)
        self.dropout = Dropout(dropout)
        self.local_dim = before
        self.lstm = nn.LSTM(before, hidden, batch_first=True, bidirectional=True)

    def forward(
        self, video_BCTHW: Tensor, lengths_B: Tensor | None = None, mask_BT: Tensor | None = None
    ) -> Tensor:
        """Features of every frame, 0 where padded: [B x T x dim]."""
        return self.run_lstm(self.convolve(video_BCTHW, mask_BT), lengths_B)

    def convolve(self, video_BCTHW: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """What the convolutions say of every frame, 0 where padded: [B x T x local_dim]."""
        if video_BCTHW.shape[3:] != (self.side, self.side):
            height, width = video_BCTHW.shape[3:]
            raise ValueError(
                f"pictures of {height} x {width} for an encoder built for {self.side} x "
                f"{self.side}; build it with side={height} or resize the pictures"
            )
        x_BCTHW = keep_real(video_BCTHW, mask_BT, 2)
        for units in self.groups:
            for unit in units:  # type: ignore[attr-defined]
                x_BCTHW = unit(x_BCTHW, mask_BT)
            x_BCTHW = self.dropout(x_BCTHW)
        return x_BCTHW.flatten(2).transpose(1, 2)

    def run_lstm(self, local_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """The LSTM over [B x T x local_dim]: [B x T x dim]."""
        return run_recurrent(self.lstm, local_BTC, lengths_B)
