"""Sync: features of lips and of sound that meet where the two belong together, in steps of 10 ms.

After SyncNet ("Out of time", 2016) in what it learns by, pictures and sound of the same clip, and
unlike it in steps: sound has a feature a mel column, so a shift need not be a whole frame.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.frontends import COLUMNS_PER_FRAME, VisualFrontEnd, check_mel
from avb.models.masks import keep_real, mean_over_time
from avb.models.precision import at_least_float32, without_autocast

#: Milliseconds of a mel column, the step between two shifts.
STEP_MS = 10.0
#: Frames that a feature of the pictures, or of the sound, looks to either side.
CONTEXT = 5

#: Mel columns to either side by which speech made of lips is moved: farther, the rhythm of another
#: word can fit better. Its correlations, times the scale, are logits.
ENVELOPE_REACH, ENVELOPE_SCALE = 10, 15.0


@dataclass(frozen=True)
class SyncConfig:
    """The arguments of a `SyncNetwork`."""

    # width, blocks, dropout: of the visual front end, as in `LipConfig`
    width: int = 64
    blocks: int = 2
    dropout: float = 0.1
    hidden: int = 256  # channels behind both front ends
    dim: int = 256  # width of the features that are compared
    reach: int = 20  # shifts to either side, in mel columns
    tolerance_ms: float = 25.0  # deviation of the lags that a corpus is expected to have


class SyncNetwork(nn.Module):
    """The lip reader's front end beside convolutions over mel columns."""

    def __init__(self, config: SyncConfig | None = None, mel_bins: int = 80) -> None:
        super().__init__()
        c = config or SyncConfig()
        self.reach = c.reach
        self.visual = VisualFrontEnd(c.width, c.blocks, dropout=c.dropout)
        self.video_head = _convolutions((self.visual.dim, c.hidden, c.dim), (5, 3), c.dropout)
        self.audio = _convolutions((mel_bins, c.hidden, c.hidden, c.dim), (5, 5, 5), c.dropout)
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, video_BCTHW: Tensor, mel_BFM: Tensor) -> Tensor:
        """How well every frame fits the sound at every shift, logits [B x T x 2 reach + 1].

        Shift k, from -reach to reach, compares frame t with the column k after its middle: a sound
        that is late fits at k > 0. Beyond the clip there is nothing, and the logit is 0.
        """
        check_mel(mel_BFM, video_BCTHW.shape[2])
        video_BDT = self.video_head(self.visual(video_BCTHW).transpose(1, 2))
        audio_BDM = self.audio(mel_BFM)
        with without_autocast(mel_BFM):  # of a cosine half precision leaves two digits
            video_BDT, audio_BDM = (
                functional.normalize(at_least_float32(f), dim=1) for f in (video_BDT, audio_BDM)
            )
            around_BDM = functional.pad(audio_BDM, (self.reach, self.reach))
            windows_BDTK = around_BDM[:, :, COLUMNS_PER_FRAME // 2 :].unfold(
                2, 2 * self.reach + 1, COLUMNS_PER_FRAME
            )
            return self.log_scale.exp() * torch.einsum("bdt,bdtk->btk", video_BDT, windows_BDTK)


def _convolutions(widths: tuple[int, ...], kernels: tuple[int, ...], dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for before, wide, kernel in zip(widths, widths[1:], kernels, strict=False):
        layers += [nn.Conv1d(before, wide, kernel, padding=kernel // 2)]
        layers += [nn.BatchNorm1d(wide), nn.PReLU(wide)]
    layers[-2:] = []  # the last one is the feature
    return nn.Sequential(*layers[:-1], nn.Dropout(dropout), layers[-1])


def edge_of(reach: int) -> int:
    """Frames at either end of a clip that are not counted: their shifts reach beyond it."""
    return max(CONTEXT, math.ceil(reach / COLUMNS_PER_FRAME) + 2)


def envelope_logits(made_BFM: Tensor, true_BFM: Tensor, mask_BM: Tensor | None = None) -> Tensor:
    """How well speech made of lips fits the true sound at every shift, [B x T x 2 reach + 1].

    Of natural-log mels; `mask_BM` tells which columns are real, all if None. Correlations of their
    envelopes, frame by frame: a sound that is late fits at k > 0, as in `SyncNetwork`.
    """
    made_BFM, true_BFM = (_envelopes(mel_BFM, mask_BM) for mel_BFM in (made_BFM, true_BFM))
    reach = ENVELOPE_REACH
    around_BFMK = functional.pad(true_BFM, (reach, reach)).unfold(2, 2 * reach + 1, 1)
    fits_BMK = torch.einsum("bfm,bfmk->bmk", made_BFM, around_BFMK)
    return ENVELOPE_SCALE * fits_BMK.unflatten(1, (-1, COLUMNS_PER_FRAME)).mean(2)


def _envelopes(mel_BFM: Tensor, mask_BM: Tensor | None) -> Tensor:
    """Some hearing's loudness, each bin about its mean, one clip as loud as the other."""
    loud_BMF = torch.exp(0.3 * at_least_float32(mel_BFM)).transpose(1, 2)
    loud_BMF = keep_real(loud_BMF - mean_over_time(loud_BMF, mask_BM)[:, None], mask_BM, 1)
    power_BF = mean_over_time(loud_BMF.square(), mask_BM)
    return (loud_BMF / power_BF.sum(1).clamp_min(1e-12).sqrt()[:, None, None]).transpose(1, 2)


def mean_over(logits_BTK: Tensor, first_B: Tensor, stop_B: Tensor) -> Tensor:
    """The mean over frames `first` to `stop` of each clip, [B x 2 reach + 1]."""
    frames = torch.arange(logits_BTK.shape[1], device=logits_BTK.device)
    counted_BT = (frames >= first_B[:, None]) & (frames < stop_B[:, None])
    total_BK = logits_BTK.where(counted_BT[:, :, None], 0).sum(1)
    return total_BK / counted_BT.sum(1).clamp_min(1)[:, None]


def sync_loss(logits_BK: Tensor, tolerance_ms: float) -> Tensor:
    """Minus the log-likelihood of each clip or window, [B]: its true shift is one near 0, unknown.

    A normal distribution of that deviation says how near. So a clip whose sound lies 20 ms off
    teaches that, and not a blurred 0: lags need no second round of training.
    """
    reach = logits_BK.shape[1] // 2
    shifts_K = torch.arange(-reach, reach + 1, device=logits_BK.device) * STEP_MS
    prior_K = functional.log_softmax(-0.5 * (shifts_K / tolerance_ms).square(), 0)
    return -torch.logsumexp(functional.log_softmax(logits_BK, 1) + prior_K, 1)


def find_lags(logits_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Lag in milliseconds [B], late sound positive, and how sure it is [B].

    The lag is the top of a parabola through the best shift and its neighbours; how sure is the
    share of the softmax that lies within 20 ms of it.
    """
    reach = logits_BK.shape[1] // 2
    best_B = logits_BK[:, 1:-1].argmax(1) + 1
    around_B3 = logits_BK.gather(1, best_B[:, None] + torch.arange(-1, 2, device=best_B.device))
    left_B, top_B, right_B = around_B3.unbind(1)
    bend_B = (2 * top_B - left_B - right_B).clamp_min(1e-9)
    within_B = (0.5 * (right_B - left_B) / bend_B).clamp(-0.5, 0.5)
    lag_B = (best_B - reach + within_B) * STEP_MS
    shifts_K = torch.arange(-reach, reach + 1, device=best_B.device) * STEP_MS
    near_BK = (shifts_K - lag_B[:, None]).abs() <= 20.0
    return lag_B, (logits_BK.softmax(1) * near_BK).sum(1)
