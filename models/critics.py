"""Critics (discriminators) of made sound: multi-period, and multi-resolution of its spectra.

Kong et al., "HiFi-GAN" (NeurIPS 2020), section 2.3; Jang et al., "UnivNet" (Interspeech 2021); with
the hinge loss as in Vocos.

Shapes: B clips, S samples.
"""

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from avb.models.precision import without_autocast

PERIODS = (2, 3, 5, 7, 11)
#: Sizes of the transforms; each moves on by a quarter of its own.
SPECTRA = (2048, 1024, 512)
_SLOPE = 0.1

Judged = list[Tensor]  # what each layer of a critic makes of a sound, at last its scores


class Critic(nn.Module, ABC):
    """Convolutions over a picture of the sound."""

    def __init__(self, layers: list[nn.Conv2d]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(weight_norm, layers))

    @abstractmethod
    def picture(self, sound_BS: Tensor) -> Tensor:
        """What the first layer sees, [B x 1 x H x W]."""

    def forward(self, sound_BS: Tensor) -> Judged:
        """The output of every layer; high scores are for true."""
        x = self.picture(sound_BS)
        found: Judged = []
        for layer in self.layers:
            x = layer(x if not found else functional.leaky_relu(x, _SLOPE))
            found.append(x)
        return found


class PeriodCritic(Critic):
    """Sees the sound in rows of `period` samples, and so every so many-th of them in a column."""

    def __init__(self, period: int, width: int) -> None:
        sizes = pairwise((1, width, 4 * width, 16 * width, 32 * width))
        layers = [nn.Conv2d(a, b, (5, 1), stride=(3, 1), padding=(2, 0)) for a, b in sizes]
        layers += [
            nn.Conv2d(32 * width, 32 * width, (5, 1), padding=(2, 0)),
            nn.Conv2d(32 * width, 1, (3, 1), padding=(1, 0)),
        ]
        super().__init__(layers)
        self.period = period

    def picture(self, sound_BS: Tensor) -> Tensor:
        """Rows of `period` samples."""
        missing = -sound_BS.shape[1] % self.period
        whole = functional.pad(sound_BS[:, None], (0, missing), mode="reflect")
        return whole.unflatten(2, (-1, self.period))


class SpectrumCritic(Critic):
    """Sees magnitudes of a transform of `n_fft` samples."""

    window: Tensor

    def __init__(self, n_fft: int, width: int) -> None:
        layers = [nn.Conv2d(1, width, (9, 3), padding=(4, 1))]
        layers += [nn.Conv2d(width, width, (9, 3), stride=(2, 1), padding=(4, 1)) for _ in range(3)]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)]
        super().__init__(layers)
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def picture(self, sound_BS: Tensor) -> Tensor:
        """Magnitudes, a row a frequency."""
        with without_autocast(sound_BS):
            spectrum = torch.stft(
                sound_BS, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True
            )
            # Of a magnitude of nothing there is no gradient.
            return torch.view_as_real(spectrum).square().sum(-1).clamp_min(1e-12).sqrt()[:, None]


class Critics(nn.Module):
    """All of them; of each group the mean counts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodCritic(period, width) for period in PERIODS)
        self.spectra = nn.ModuleList(SpectrumCritic(size, width) for size in SPECTRA)

    def judge(self, sound_BS: Tensor) -> list[Judged]:
        """What every critic makes of a sound."""
        return [critic(sound_BS) for critic in (*self.periods, *self.spectra)]

    def forward(self, made_BS: Tensor, true_BS: Tensor) -> tuple[Tensor, Tensor]:
        """What the made sound has to lower, and what the critics have to.

        The first moves no critic: hinge of the scores, and distance of every layer to the true
        sound's. The second does not reach the generator.
        """
        true = self.judge(true_BS)
        self.requires_grad_(False)
        made = self.judge(made_BS)
        self.requires_grad_(True)
        apart = self.judge(made_BS.detach())
        adversary = critics = made_BS.new_zeros(())
        shares = [1 / len(group) for group in (self.periods, self.spectra) for _ in group]
        for share, real, fooled, told in zip(shares, true, made, apart, strict=True):
            near = [functional.l1_loss(f, r.detach()) for f, r in zip(fooled, real, strict=True)]
            adversary = adversary + share * (
                (1 - fooled[-1]).relu().mean() + torch.stack(near).sum()
            )
            critics = critics + share * (
                (1 - real[-1]).relu().mean() + (1 + told[-1]).relu().mean()
            )
        return adversary, critics
