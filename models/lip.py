"""Lip reading: pictures of a mouth to the word it speaks, helped by recalled audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.backends import GRUBackEnd, TCNBackEnd
from avb.models.frontends import AudioFrontEnd, Pool, VisualFrontEnd, check_mel
from avb.models.masks import frame_mask
from avb.models.memory import Bridge, BridgingMemory, Losses, Variant
from avb.models.precision import at_least_float32

BackEnd = Literal["gru", "mstcn"]
BACK_ENDS: dict[str, type[GRUBackEnd] | type[TCNBackEnd]] = {"gru": GRUBackEnd, "mstcn": TCNBackEnd}


@dataclass(frozen=True)
class LipOutput:
    """What the lip reader says of a batch."""

    logits: Tensor  # from video and recalled audio, [B x K]: the prediction
    real_logits: Tensor | None  # from video and real audio, [B x K]; None if no audio was given
    bridge: Bridge  # features, addressing vectors and losses of the memory


@dataclass(frozen=True)
class LipConfig:
    """The arguments of a `LipReader`; the defaults are the paper's model for LRW."""

    slots: int = 88  # N; 0 is the baseline, without memory and audio
    radius: float = 16.0  # r of the addressing
    variant: Variant = "paper"  # of the memory, `paper` or `released`
    back_end: BackEnd = "gru"  # `gru` or `mstcn`
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


class LipReader(nn.Module):
    """Front ends, memory, back end, for `classes` words (K)."""

    def __init__(self, classes: int, config: LipConfig | None = None) -> None:
        super().__init__()
        c = config or LipConfig()
        if c.back_end not in BACK_ENDS:
            raise ValueError(f"back end {c.back_end!r}: expected one of {', '.join(BACK_ENDS)}")
        self.word_boundary = c.word_boundary
        self.visual = VisualFrontEnd(c.width, c.blocks, c.pool, c.dropout)
        # What the baseline has too is built first: from one seed, both start from equal weights.
        sizes: dict[str, Any] = {"hidden": c.hidden, "dropout": c.back_dropout}
        self.back_end = BACK_ENDS[c.back_end](
            self.visual.dim + c.word_boundary,
            classes,
            **{name: size for name, size in sizes.items() if size is not None},
        )
        self.memory = BridgingMemory(
            self.visual.dim, c.audio_dim, c.slots, None, c.radius, c.variant, c.fusion_dropout,
            c.value_projection,
        )  # fmt: skip
        self.audio = (
            AudioFrontEnd(c.audio_dim, c.audio_width, dropout=c.dropout, whitened=c.audio_whitened)
            if c.slots
            else None
        )

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
        mask_BT = None if lengths_B is None else frame_mask(lengths_B, video_BCTHW.shape[2])
        source_BTC, target_BTD = self.features(video_BCTHW, mel_BFM, lengths_B)
        bridge = self.memory(source_BTC, target_BTD, mask_BT)
        return LipOutput(
            logits=self._classify(bridge.recalled, lengths_B, boundary_BT),
            real_logits=None
            if bridge.real is None
            else self._classify(bridge.real, lengths_B, boundary_BT),
            bridge=bridge,
        )

    def features(
        self, video_BCTHW: Tensor, mel_BFM: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the memory is given: f_src [B x T x C], and f_tgt [B x T x D] where there is one."""
        num_frames = video_BCTHW.shape[2]
        mask_BT = None if lengths_B is None else frame_mask(lengths_B, num_frames)
        source_BTC = self.visual(video_BCTHW, mask_BT)
        if mel_BFM is None or self.audio is None:
            return source_BTC, None
        check_mel(mel_BFM, num_frames)
        return source_BTC, self.audio(mel_BFM, mask_BT)

    def _classify(
        self, feature_BTE: Tensor, lengths_B: Tensor | None, boundary_BT: Tensor | None
    ) -> Tensor:
        if (boundary_BT is not None) != self.word_boundary:
            wanted = "expects" if self.word_boundary else "does not take"
            raise ValueError(f"this model {wanted} word boundaries (word_boundary)")
        if boundary_BT is not None:
            extra_BT1 = boundary_BT[:, :, None].to(feature_BTE.dtype)
            feature_BTE = torch.cat([feature_BTE, extra_BT1], dim=-1)
        return self.back_end(feature_BTE, lengths_B, boundary_BT)


def lip_losses(output: LipOutput, labels: Tensor, label_smoothing: float = 0.0) -> Losses:
    """Eq. 7 with cross entropy as g, and Eq. 8; labels int64 [B], or [B x K] of mixed clips."""

    def entropy(logits_BK: Tensor) -> Tensor:
        return functional.cross_entropy(
            at_least_float32(logits_BK), labels, label_smoothing=label_smoothing
        )

    return Losses(
        recalled=entropy(output.logits),
        real=None if output.real_logits is None else entropy(output.real_logits),
        saving=output.bridge.saving,
        bridging=output.bridge.bridging,
    )
