"""A faster speech decoder: mels are in step with the video, so there is no attention to learn."""

from dataclasses import dataclass

from torch import Tensor, nn

from avb.models.dropout import Dropout
from avb.models.frontends import COLUMNS_PER_FRAME
from avb.models.masks import keep_real
from avb.models.postnet import Mels, PostNet


class ResidualUnit(nn.Module):
    """Two convolutions over columns beside a shortcut."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.norm2 = nn.BatchNorm1d(width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BEM: Tensor, mask_BM: Tensor | None) -> Tensor:
        """Map [B x width x M] to the same; padded columns become 0."""
        y_BEM = keep_real(self.norm1(self.conv1(x_BEM)).relu(), mask_BM, 2)
        y_BEM = self.norm2(self.conv2(self.dropout(y_BEM)))
        return keep_real((x_BEM + y_BEM).relu(), mask_BM, 2)


@dataclass(frozen=True)
class SynchronousConfig:
    """Sizes of a `SynchronousDecoder`: `units` residual units of `width`, then the post-net."""

    width: int = 512
    units: int = 4
    kernel: int = 5
    dropout: float = 0.1
    post_width: int = 512
    post_dropout: float = 0.5


class SynchronousDecoder(nn.Module):
    """Frames to mels, all columns at once.

    A linear layer spreads each frame over its 4 columns, convolutions smooth and refine them, and
    the post-net is the same as behind Tacotron 2.
    """

    def __init__(
        self, dim: int, mel_bins: int = 80, config: SynchronousConfig | None = None
    ) -> None:
        """Build a decoder of features `dim` wide."""
        super().__init__()
        c = config or SynchronousConfig()
        self.spread = nn.Linear(dim, COLUMNS_PER_FRAME * c.width)
        units = (ResidualUnit(c.width, c.kernel, c.dropout) for _ in range(c.units))
        self.units = nn.ModuleList(units)
        self.projection = nn.Conv1d(c.width, mel_bins, 1)
        self.postnet = PostNet(mel_bins, c.post_width, dropout=c.post_dropout)

    def forward(
        self,
        feature_BTE: Tensor,
        mask_BT: Tensor | None = None,
        mel_BFM: Tensor | None = None,
        teacher_ratio: float = 0.0,
    ) -> Mels:
        """Decode 4 T columns; true mels are not used, as columns do not depend on each other's."""
        mask_BM = None if mask_BT is None else mask_BT.repeat_interleave(COLUMNS_PER_FRAME, 1)
        columns_BME = self.spread(feature_BTE).unflatten(2, (COLUMNS_PER_FRAME, -1)).flatten(1, 2)
        x_BEM = keep_real(columns_BME.transpose(1, 2), mask_BM, 2)
        for unit in self.units:
            x_BEM = unit(x_BEM, mask_BM)
        before_BFM = keep_real(self.projection(x_BEM), mask_BM, 2)
        return Mels(before_BFM, self.postnet(before_BFM, mask_BM))
