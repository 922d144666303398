"""From mel columns to linear magnitudes: what the filters' pseudo-inverse leaves open, learnt.

Shapes: B clips, N mel bins, F frequencies, M columns.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

#: Least magnitude that is corrected: below it the pseudo-inverse holds nothing but its own errors.
FLOOR = 1e-3
#: Most that a magnitude is moved by, in nats, whatever a mel asks for.
MOST = 8.0


class Refiner(nn.Module):
    """Convolutions over mel columns, whose last layer moves each magnitude up or down.

    New ones move nothing. 0.8 M weights, which see five columns to either side.
    """

    def __init__(self, n_mels: int = 80, frequencies: int = 401, width: int = 256) -> None:
        super().__init__()
        sizes = pairwise((n_mels, width, width, width, width))
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, size, padding=size // 2, padding_mode="replicate")
            for (before, after), size in zip(sizes, (5, 3, 3, 3), strict=True)
        )
        self.last = nn.Conv1d(width, frequencies, 1)
        for weights in self.last.parameters():
            nn.init.zeros_(weights)

    def forward(self, log_mel_BNM: Tensor, magnitude_BFM: Tensor) -> Tensor:
        """Magnitudes [B x F x M] of natural-log mels and those of their pseudo-inverse."""
        first, *others = self.layers
        hidden = functional.gelu(first(log_mel_BNM / 4 + 1))  # -11.5 to 3.5, to about -2 to 2
        for layer in others:
            hidden = hidden + functional.gelu(layer(hidden))
        return magnitude_BFM.clamp_min(FLOOR) * self.last(hidden).clamp(-MOST, MOST).exp()
