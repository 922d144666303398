"""Lip reading: pictures of a mouth to the word it speaks, helped by recalled audio."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from avb.models.backends import BackEndName, classify, make_back_end
from avb.models.frontends import AudioFrontEnd, Pool, VisualFrontEnd, check_mel
from avb.models.masks import frame_mask, masked_mean
from avb.models.memory import Bridge, BridgingMemory, Losses, Variant
from avb.models.precision import at_least_float32


@dataclass(frozen=True)
class LipOutput:
    """What the lip reader says of a batch."""

    logits: Tensor  # from video and recalled audio, [B x K]: the prediction
    real_logits: Tensor | None  # from video and real audio, [B x K]; None if no audio was given
    bridge: Bridge  # features, addressing vectors and losses of the memory
    led: Tensor | None = None  # W f_src, what a teacher's features are compared with


@dataclass(frozen=True)
class LipConfig:
    """The arguments of a `LipReader`; the defaults are the paper's model for LRW."""

    slots: int = 88  # N; 0 is the baseline, without memory and audio
    radius: float = 16.0  # r of the addressing
    variant: Variant = "paper"  # of the memory, `paper` or `released`
    back_end: BackEndName = "gru"  # `gru` or `mstcn`
    pool: Pool = "global"  # of the visual front end, `global` or `released`
    width: int = 64  # channels of the visual stem; video features are 8 times as wide
    blocks: int = 2  # residual blocks in each of the four stages
    audio_dim: int = 512  # D, width of audio features
    audio_width: int = 128  # channels of the first audio convolution
    audio_whitened: bool = False  # audio features leave without correlation (`whitening.py`)
    value_projection: bool | None = None  # of the memory; None: what the variant says
    hidden: int | None = None  # units a direction (`gru`, 512) or channels a kernel (`mstcn`, 256)
    dropout: float = 0.3  # at the end of both front ends
    fusion_dropout: float | None = None  # before h; None: what the variant says
    back_dropout: float | None = None  # in the back end; None: 0.3 (`gru`) or 0.2 (`mstcn`)
    # Take one more feature a frame, 1 inside the word and 0 outside, and classify the mean over the
    # word alone.
    word_boundary: bool = False
    # The control that tells recall from more teaching: with 0 slots, real audio still enters the
    # second term of Eq. 7, and zeros stand for recalled audio in the first.
    audio_term: bool = False
    teacher_dim: int = 0  # width of a teacher's audio features, set by `--teacher`; 0: no teacher


class LipReader(nn.Module):
    """Front ends, memory, back end, for `classes` words (K)."""

    def __init__(self, classes: int, config: LipConfig | None = None) -> None:
        super().__init__()
        c = config or LipConfig()
        self.word_boundary = c.word_boundary
        self.visual = VisualFrontEnd(c.width, c.blocks, c.pool, c.dropout)
        # What the baseline has too is built first: from one seed, both start from equal weights.
        self.back_end = make_back_end(
            c.back_end, self.visual.dim + c.word_boundary, classes, c.hidden, c.back_dropout
        )
        self.memory = BridgingMemory(
            self.visual.dim, c.audio_dim, c.slots, None, c.radius, c.variant, c.fusion_dropout,
            c.value_projection, c.audio_term,
        )  # fmt: skip
        self.audio = (
            AudioFrontEnd(c.audio_dim, c.audio_width, dropout=c.dropout, whitened=c.audio_whitened)
            if c.slots or c.audio_term
            else None
        )
        self.led = nn.Linear(self.visual.dim, c.teacher_dim) if c.teacher_dim else None

    def forward(
        self,
        video_BCTHW: Tensor,
        mel_BFM: Tensor | None = None,
        lengths_B: Tensor | None = None,
        boundary_BT: Tensor | None = None,
    ) -> LipOutput:
        """Read words from pictures; `logits` is the same whether or not there is audio.

        Grey pictures (C = 1); normalised mels, M = 4 T, to learn from; real frames of each clip;
        and 1 inside the word, 0 outside, for a model with `word_boundary`.
        """
        mask_BT = frame_mask(lengths_B, video_BCTHW.shape[2])
        source_BTC, target_BTD = self.features(video_BCTHW, mel_BFM, lengths_B)
        bridge = self.memory(source_BTC, target_BTD, mask_BT)
        return LipOutput(
            logits=self._classify(bridge.recalled, lengths_B, boundary_BT),
            real_logits=None
            if bridge.real is None
            else self._classify(bridge.real, lengths_B, boundary_BT),
            bridge=bridge,
            led=None if self.led is None else self.led(source_BTC),
        )

    def features(
        self, video_BCTHW: Tensor, mel_BFM: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the memory is given: f_src [B x T x C], and f_tgt [B x T x D] where there is one."""
        num_frames = video_BCTHW.shape[2]
        mask_BT = frame_mask(lengths_B, num_frames)
        source_BTC = self.visual(video_BCTHW, mask_BT)
        if mel_BFM is None or self.audio is None:
            return source_BTC, None
        check_mel(mel_BFM, num_frames)
        return source_BTC, self.audio(mel_BFM, mask_BT)

    def _classify(
        self, feature_BTE: Tensor, lengths_B: Tensor | None, boundary_BT: Tensor | None
    ) -> Tensor:
        return classify(self.back_end, feature_BTE, lengths_B, boundary_BT, self.word_boundary)


def lip_losses(output: LipOutput, labels: Tensor, label_smoothing: float = 0.0) -> Losses:
    """Eq. 7 with cross entropy as g, and Eq. 8; labels int64 [B], or [B x K] of mixed clips."""
    return bridged_losses(output, lambda logits: word_loss(logits, labels, label_smoothing))


def bridged_losses(output: LipOutput, loss: Callable[[Tensor], Tensor]) -> Losses:
    """Eq. 7 with `loss` of logits as g, and the memory's terms of Eq. 8."""
    return Losses(
        recalled=loss(output.logits),
        real=None if output.real_logits is None else loss(output.real_logits),
        saving=output.bridge.saving,
        bridging=output.bridge.bridging,
    )


def word_loss(logits_BK: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy in float32; labels as in `lip_losses`."""
    return functional.cross_entropy(
        at_least_float32(logits_BK), labels, label_smoothing=label_smoothing
    )


def distillation_loss(led_BTD: Tensor, taught_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean squared distance of W f_v to a teacher's f_a, over D, real frames and clips.

    Each frame of f_a is brought to mean 0 and deviation 1 first, so that the loss does not depend
    on how large a teacher's features have grown.
    """
    taught_BTD = at_least_float32(taught_BTD)
    normed_BTD = functional.layer_norm(taught_BTD, taught_BTD.shape[-1:])
    return masked_mean((at_least_float32(led_BTD) - normed_BTD).square().mean(dim=-1), mask_BT)
