"""Speech from a silent face: video encoder, bridging memory, and a decoder to mels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avb.models.encoder import VideoEncoder
from avb.models.frontends import COLUMNS_PER_FRAME, AudioFrontEnd, check_mel
from avb.models.masks import frame_mask, masked_mean
from avb.models.memory import Bridge, BridgingMemory, Losses, Variant
from avb.models.postnet import Mels
from avb.models.precision import at_least_float32
from avb.models.synchronous import SynchronousConfig, SynchronousDecoder
from avb.models.tacotron import TacotronConfig, TacotronDecoder

Decoder = Literal["tacotron", "synchronous"]
DECODERS: dict[str, tuple[Any, Any]] = {
    "tacotron": (TacotronDecoder, TacotronConfig),
    "synchronous": (SynchronousDecoder, SynchronousConfig),
}


@dataclass(frozen=True)
class SpeechOutput:
    """What the speech model says of a batch."""

    mels: Mels  # from video and recalled audio; `mels.after` is the result
    real_mels: Mels | None  # from video and real audio; None if no audio was given
    bridge: Bridge  # features, addressing vectors and losses of the memory
    mask_BT: Tensor | None  # which frames are real; None if all are


@dataclass(frozen=True)
class SpeechConfig:
    """The arguments of a `SpeechReconstructor`; the defaults are the paper's for GRID.

    The public record leaves C, D and E open: C = 384 as in the port of Lip2Wav by an author of the
    paper, D = 512 as in lip reading, and E = C, so that the decoder of the baseline is the same.
    """

    slots: int = 150  # N; 0 is the baseline, without memory and audio
    radius: float = 16.0  # r of the addressing
    variant: Variant = "paper"  # of the memory, `paper` or `released`
    decoder: Decoder = "tacotron"  # `tacotron`, or `synchronous`, which is faster
    width: int = 24  # channels after the encoder's first convolution
    blocks: int = 2  # residual convolutions in each of the encoder's five groups
    hidden: int = 192  # units of the encoder's LSTM a direction; C is twice that
    dropout: float = 0.5  # after each group of the encoder's convolutions
    audio_dim: int = 512  # D, width of audio features
    audio_width: int = 128  # channels of the first audio convolution
    audio_whitened: bool = False  # audio features leave without correlation (`whitening.py`)
    value_projection: bool | None = None  # of the memory; None: what the variant says
    audio_dropout: float = 0.3  # at the end of the audio front end
    fused_dim: int | None = None  # E; C if not given
    fusion_dropout: float | None = None  # before h; None: what the variant says
    # What differs from the defaults of the decoder's own config.
    decoder_sizes: Mapping[str, Any] | None = None
    # The encoder's LSTM runs after the memory, over h(...), not before it: f_src then sees as
    # little of the sentence at once as the audio features do. C and E are the convolutions' width.
    lstm_late: bool = False


class SpeechReconstructor(nn.Module):
    """Encoder, memory, decoder: T frames to 4 T mel columns; audio joins before the decoder."""

    def __init__(
        self, config: SpeechConfig | None = None, side: int = 96, channels: int = 3
    ) -> None:
        """Build a speech model for pictures of `side` pixels, in 3 colours or 1 grey channel."""
        super().__init__()
        c = config or SpeechConfig()
        if c.lstm_late and c.fused_dim is not None:
            raise ValueError("fused_dim with lstm_late: the LSTM takes the convolutions' width")
        self.encoder = VideoEncoder(side, channels, c.width, c.blocks, c.hidden, c.dropout)
        self.lstm_late = c.lstm_late
        dim = self.encoder.dim if c.fused_dim is None or not c.slots else c.fused_dim
        # What the baseline has too is built first: from one seed, both start from equal weights.
        decoder, sizes = DECODERS[c.decoder]
        self.decoder = decoder(dim, config=sizes(**(c.decoder_sizes or {})))
        self.memory = BridgingMemory(
            self.encoder.local_dim if c.lstm_late else self.encoder.dim, c.audio_dim, c.slots,
            c.fused_dim, c.radius, c.variant, c.fusion_dropout, c.value_projection,
        )  # fmt: skip
        self.audio = (
            AudioFrontEnd(
                c.audio_dim, c.audio_width, dropout=c.audio_dropout, extra_convolution=True,
                whitened=c.audio_whitened,
            )
            if c.slots
            else None
        )  # fmt: skip

    def forward(
        self,
        video_BCTHW: Tensor,
        mel_BFM: Tensor | None = None,
        lengths_B: Tensor | None = None,
        teacher_ratio: float | None = None,
    ) -> SpeechOutput:
        """Reconstruct mels from pictures in [0, 1], with true mels, M = 4 T, to learn from.

        `teacher_ratio`: share of decoder steps that see the true last columns. By default 1 in
        training and 0 in evaluation, where `mels` is then the same with or without audio.
        """
        if teacher_ratio is None:
            teacher_ratio = 1.0 if self.training else 0.0
        mask_BT = frame_mask(lengths_B, video_BCTHW.shape[2])
        source_BTC, target_BTD = self.features(video_BCTHW, mel_BFM, lengths_B)
        bridge = self.memory(source_BTC, target_BTD, mask_BT)
        mels, *real = self._decode(bridge, mask_BT, mel_BFM, teacher_ratio)
        return SpeechOutput(mels, real[0] if real else None, bridge, mask_BT)

    def features(
        self, video_BCTHW: Tensor, mel_BFM: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the memory is given: f_src [B x T x C], and f_tgt [B x T x D] where there is one."""
        num_frames = video_BCTHW.shape[2]
        mask_BT = frame_mask(lengths_B, num_frames)
        if self.lstm_late:
            source_BTC = self.encoder.convolve(video_BCTHW, mask_BT)
        else:
            source_BTC = self.encoder(video_BCTHW, lengths_B, mask_BT)
        if mel_BFM is None:
            return source_BTC, None
        check_mel(mel_BFM, num_frames)
        return source_BTC, None if self.audio is None else self.audio(mel_BFM, mask_BT)

    def windowed(
        self, video_BCTHW: Tensor, size: int = 40, stride: int = 30, cover_tail: bool = True
    ) -> Tensor:
        """Mels of overlapping windows of `size` frames joined, [B x F x 4 T], of whole clips.

        The paper's samples were made so: 40 frames each, 30 apart, and from the second window on
        without the columns that overlap. Of 75 frames that leaves 70, or 280 columns; `cover_tail`
        adds a last window that ends with the clip, and keeps what is missing of it.
        """
        num_frames = video_BCTHW.shape[2]
        size = min(size, num_frames)
        starts = window_starts(num_frames, size, stride, cover_tail)
        windows = torch.cat([video_BCTHW[:, :, start : start + size] for start in starts])
        pieces, done = [], 0
        for start, mel_BFM in zip(starts, self(windows).mels.after.chunk(len(starts)), strict=True):
            pieces.append(mel_BFM[:, :, (done - start) * COLUMNS_PER_FRAME :])
            done = start + size
        return torch.cat(pieces, dim=2)

    def _decode(
        self, bridge: Bridge, mask_BT: Tensor | None, mel_BFM: Tensor | None, teacher_ratio: float
    ) -> list[Mels]:
        """Both terms of Eq. 7, or the first alone: one decoder on recalled and on real audio."""
        terms = [bridge.recalled] if bridge.real is None else [bridge.recalled, bridge.real]
        if not self.training:
            # One after the other, so that random draws of the first do not depend on the second.
            return [self._speak(term_BTE, mask_BT, mel_BFM, teacher_ratio) for term_BTE in terms]
        # Side by side as one batch of 2 B: the loop over time is paid for once.
        count = len(terms)
        both = self._speak(
            torch.cat(terms),
            None if mask_BT is None else mask_BT.repeat(count, 1),
            None if mel_BFM is None else mel_BFM.repeat(count, 1, 1),
            teacher_ratio,
        )
        return list(map(Mels, both.before.chunk(count), both.after.chunk(count)))

    def _speak(
        self,
        feature_BTE: Tensor,
        mask_BT: Tensor | None,
        mel_BFM: Tensor | None,
        teacher_ratio: float,
    ) -> Mels:
        """Mels of what the memory handed on."""
        if self.lstm_late:
            lengths_B = None if mask_BT is None else mask_BT.sum(dim=1)
            feature_BTE = self.encoder.run_lstm(feature_BTE, lengths_B)
        return self.decoder(feature_BTE, mask_BT, mel_BFM, teacher_ratio)


def window_starts(num_frames: int, size: int, stride: int, cover_tail: bool) -> list[int]:
    """First frames of the windows that fit into a clip, and of one that ends with it."""
    starts = list(range(0, num_frames - size + 1, stride))
    if cover_tail and starts[-1] + size < num_frames:
        starts.append(num_frames - size)
    return starts


def speech_losses(output: SpeechOutput, mel_BFM: Tensor) -> Losses:
    """Eq. 7 with the L1 distance as g, before and after the post-net, and the terms of Eq. 8.

    The distance is a mean over bins and a clip's real columns, then over clips. Whether the
    paper's covers both outputs is not known; Lip2Wav's covers both.
    """

    def distance(mel: Tensor) -> Tensor:
        error_BM = (at_least_float32(mel) - mel_BFM).abs().mean(dim=1)
        return masked_mean(error_BM.unflatten(1, (-1, COLUMNS_PER_FRAME)).mean(2), output.mask_BT)

    def both(mels: Mels) -> Tensor:
        return distance(mels.before) + distance(mels.after)

    return Losses(
        recalled=both(output.mels),
        real=None if output.real_mels is None else both(output.real_mels),
        saving=output.bridge.saving,
        bridging=output.bridge.bridging,
    )
