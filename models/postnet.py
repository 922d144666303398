"""What both speech decoders end in: mels, and convolutions that correct them."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from avb.models.dropout import Dropout
from avb.models.masks import keep_real


@dataclass(frozen=True)
class Mels:
    """Decoded mels, padded columns 0."""

    before: Tensor  # without the post-net's correction, [B x F x M]
    after: Tensor  # with it, [B x F x M]: the result


class PostNet(nn.Module):
    """Five convolutions over columns, tanh between them; their sum with the input is the result."""

    def __init__(self, mel_bins: int = 80, width: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [mel_bins] + [width] * 4 + [mel_bins]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.dropout = Dropout(dropout)

    def forward(self, mel_BFM: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """Corrected mels [B x F x M]; padded columns become 0."""
        x = mel_BFM
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(keep_real(x, mask_BM, 2)))
            if index < len(self.convs) - 1:
                x = x.tanh()
            x = self.dropout(x)
        return keep_real(mel_BFM + x, mask_BM, 2)
