"""Vocos: the sound of log-mels in one pass, from magnitude and phase of its spectrum.

Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (ICLR 2024),
for 16 kHz and 100 columns a second.

Shapes: B clips, N mel bins, M columns, C channels, F frequencies, S = M * HOP samples.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.critics import Critics
from avb.models.precision import without_autocast

#: Samples at 16 kHz to a mel column.
HOP = 160
#: Largest log-magnitude of a frequency, 100: what the first steps ask for has no bound.
_LOUDEST = math.log(1e2)


@dataclass(frozen=True)
class VocosConfig:
    """Sizes of the network; the published ones by default, 13.3 M weights and the critics."""

    width: int = 512  # C, channels of every block; inside they are three times as many
    blocks: int = 8  # ConvNeXt blocks
    n_mels: int = 80  # N
    n_fft: int = 800  # even, and at least two hops, or samples are in no frame
    critic_width: int = 32  # channels of the critics' first layers; 0 for none, and no adversary

    def __post_init__(self) -> None:
        if self.n_fft % 2 or self.n_fft < 2 * HOP:
            raise ValueError(f"n_fft {self.n_fft}: expected an even number, {2 * HOP} or more")


@dataclass(frozen=True)
class VocosOutput:
    """Float32 sound [B x S]; in training with critics what they make of it, scalars."""

    sound: Tensor
    adversary: Tensor | None = None  # what the sound has to lower to pass for true
    critics: Tensor | None = None  # what the critics have to lower to tell them apart


class Block(nn.Module):
    """A ConvNeXt block: each channel over seven columns, then channels with each other."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x_BCM: Tensor) -> Tensor:
        """The same shape."""
        x_BMC = self.norm(self.depthwise(x_BCM).transpose(1, 2))
        x_BMC = self.scale * self.outer(functional.gelu(self.inner(x_BMC)))
        return x_BCM + x_BMC.transpose(1, 2)


class Generator(nn.Module):
    """Log-mels to sound; every column sees `3 + 3 * blocks` to either side."""

    window: Tensor

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        width = config.width
        self.first = nn.Conv1d(config.n_mels, width, 7, padding=3)
        self.first_norm = nn.LayerNorm(width)
        blocks = [Block(width, 1 / config.blocks) for _ in range(config.blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.n_fft + 2)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, log_mel_BNM: Tensor) -> Tensor:
        """Sound [B x S], float32, column i at sample i * HOP, of natural-log mels."""
        # M columns end HOP samples before the last that a centred transform would have: it is held.
        held_BNM = functional.pad(log_mel_BNM / 4 + 1, (0, 1), mode="replicate")
        x_BCM = self.first(held_BNM)
        x_BCM = self.first_norm(x_BCM.transpose(1, 2)).transpose(1, 2)
        x_BMC = self.last_norm(self.blocks(x_BCM).transpose(1, 2))
        log_magnitude_BMF, phase_BMF = self.head(x_BMC).float().chunk(2, dim=2)
        # An infinite one has no gradient.
        magnitude_BMF = log_magnitude_BMF.clamp_max(_LOUDEST).exp()
        with without_autocast(log_mel_BNM):
            frames_BML = torch.fft.irfft(torch.polar(magnitude_BMF, phase_BMF), dim=2)
            return overlap_add(frames_BML, self.window)


def overlap_add(frames_BML: Tensor, window_L: Tensor) -> Tensor:
    """Sound [B x (M - 1) HOP] of centred frames, as `torch.istft`, which takes no meta tensors."""
    size, count = len(window_L), frames_BML.shape[1]
    length = (count - 1) * HOP + size

    def added(columns_BLM: Tensor) -> Tensor:
        return functional.fold(columns_BLM, (1, length), (1, size), stride=(1, HOP))[:, 0, 0]

    sound_BS = added((frames_BML * window_L).transpose(1, 2))
    weight_1S = added(window_L.square()[None, :, None].expand(1, size, count))
    inside = slice(size // 2, length - size // 2)
    return sound_BS[:, inside] / weight_1S[:, inside]


class Vocos(nn.Module):
    """The generator with its critics."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.generator = Generator(config)
        self.critics = Critics(config.critic_width) if config.critic_width else None

    def forward(self, log_mel_BNM: Tensor, true_BS: Tensor | None = None) -> VocosOutput:
        """Sound of log-mels; in training, and with the true sound, judged by the critics."""
        sound_BS = self.generator(log_mel_BNM)
        if self.critics is None or true_BS is None or not self.training:
            return VocosOutput(sound_BS)
        return VocosOutput(sound_BS, *self.critics(sound_BS, true_BS))
