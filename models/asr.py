"""Words read from sound: the lip reader's audio front end and its back end, without pictures."""

from dataclasses import dataclass

from torch import Tensor, nn

from avb.models.backends import BackEndName, classify, make_back_end
from avb.models.frontends import COLUMNS_PER_FRAME, AudioFrontEnd
from avb.models.masks import frame_mask


@dataclass(frozen=True)
class AudioReaderConfig:
    """The arguments of an `AudioReader`, as in `LipConfig`."""

    back_end: BackEndName = "gru"
    audio_dim: int = 512  # D, width of audio features
    audio_width: int = 128
    audio_whitened: bool = False
    hidden: int | None = None
    dropout: float = 0.3
    back_dropout: float | None = None
    word_boundary: bool = False


class AudioReader(nn.Module):
    """Audio front end and back end, for `classes` words (K)."""

    def __init__(self, classes: int, config: AudioReaderConfig | None = None) -> None:
        super().__init__()
        c = config or AudioReaderConfig()
        self.audio = AudioFrontEnd(
            c.audio_dim, c.audio_width, dropout=c.dropout, whitened=c.audio_whitened
        )
        self.back_end = make_back_end(
            c.back_end, c.audio_dim + c.word_boundary, classes, c.hidden, c.back_dropout
        )
        self.word_boundary = c.word_boundary

    def forward(
        self, mel_BFM: Tensor, lengths_B: Tensor | None = None, boundary_BT: Tensor | None = None
    ) -> Tensor:
        """Logits [B x K] of normalised mels, M = 4 T; the rest as the lip reader takes it."""
        feature_BTD = self.features(mel_BFM, lengths_B)
        return classify(self.back_end, feature_BTD, lengths_B, boundary_BT, self.word_boundary)

    def features(self, mel_BFM: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """What a lip reader can be taught: f_a of every video frame, [B x T x D]."""
        mask_BT = frame_mask(lengths_B, mel_BFM.shape[2] // COLUMNS_PER_FRAME)
        feature_BTD: Tensor = self.audio(mel_BFM, mask_BT)
        return feature_BTD
