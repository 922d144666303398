"""The paper's speech decoder: Tacotron 2, for speech whose length the video already tells.

There is no stop token: T frames are 4 T columns, so the number of steps is known. The attention
sits between the two LSTM cells and all `columns_per_step` (r) columns of a step are fed back.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.frontends import COLUMNS_PER_FRAME
from avb.models.masks import keep_real
from avb.models.postnet import Mels, PostNet
from avb.models.precision import at_least_float32


class PreNet(nn.Module):
    """Two narrow layers between decoded columns and the recurrent cells.

    Their dropout stays on at inference: without it the decoder, which has only seen noisy history,
    meets a kind of input it was not trained on.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(dim, width, bias=False), nn.Linear(width, width, bias=False)]
        )
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map [... x dim] to [... x width]."""
        for layer in self.layers:
            x = functional.dropout(layer(x).relu(), self.dropout, training=True)
        return x


class LocationSensitiveAttention(nn.Module):
    """Attention that also sees where it has been: the last weights, and the sum of all so far."""

    def __init__(self, query_dim: int, dim: int, width: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_dim, width, bias=False)
        self.keys = nn.Linear(dim, width, bias=False)
        self.location = nn.Conv1d(2, filters, kernel, padding=kernel // 2, bias=False)
        self.location_out = nn.Linear(filters, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)

    def forward(
        self, query: Tensor, keys_BTA: Tensor, history_B2T: Tensor, mask_BT: Tensor | None
    ) -> Tensor:
        """Weights of the frames, float32 [B x T], from the last ones and their sum so far."""
        place_BTA = self.location_out(self.location(history_B2T).transpose(1, 2))
        hidden_BTA = (self.query(query)[:, None] + keys_BTA + place_BTA).tanh()
        energy_BT = at_least_float32(self.energy(hidden_BTA)[:, :, 0])
        if mask_BT is not None:
            energy_BT = energy_BT.masked_fill(~mask_BT, -torch.inf)
        return energy_BT.softmax(dim=-1)


class _State:
    """What a step of the decoder leaves to the next: all 0 at the start."""

    def __init__(self, feature_BTE: Tensor, rnn_dim: int) -> None:
        batch, frames, dim = feature_BTE.shape
        self.attention = (feature_BTE.new_zeros(batch, rnn_dim),) * 2
        self.decoder = (feature_BTE.new_zeros(batch, rnn_dim),) * 2
        self.context = feature_BTE.new_zeros(batch, dim)
        self.history_B2T = at_least_float32(feature_BTE.new_zeros(batch, 2, frames))


@dataclass(frozen=True)
class TacotronConfig:
    """Sizes of a `TacotronDecoder`; `columns_per_step` is r: 1, 2 or 4."""

    columns_per_step: int = 2
    prenet_width: int = 256
    prenet_dropout: float = 0.5
    rnn_dim: int = 1024
    rnn_dropout: float = 0.1
    attention_width: int = 128
    location_filters: int = 32
    location_kernel: int = 31
    post_width: int = 512
    post_dropout: float = 0.5


class TacotronDecoder(nn.Module):
    """Frames to mels, r columns a step, each step attending to the frames."""

    def __init__(self, dim: int, mel_bins: int = 80, config: TacotronConfig | None = None) -> None:
        """Build a decoder of features `dim` wide."""
        super().__init__()
        c = config or TacotronConfig()
        if COLUMNS_PER_FRAME % c.columns_per_step:
            raise ValueError(
                f"{c.columns_per_step} columns per step: expected 1, 2 or 4, so that "
                f"{COLUMNS_PER_FRAME} columns a frame come out even"
            )
        self.mel_bins, self.columns_per_step, self.rnn_dim = mel_bins, c.columns_per_step, c.rnn_dim
        self.rnn_dropout = c.rnn_dropout
        step_dim = mel_bins * c.columns_per_step
        self.prenet = PreNet(step_dim, c.prenet_width, c.prenet_dropout)
        self.attention_rnn = nn.LSTMCell(c.prenet_width + dim, c.rnn_dim)
        self.attention = LocationSensitiveAttention(
            c.rnn_dim, dim, c.attention_width, c.location_filters, c.location_kernel
        )
        self.decoder_rnn = nn.LSTMCell(c.rnn_dim + dim, c.rnn_dim)
        self.projection = nn.Linear(c.rnn_dim + dim, step_dim)
        self.postnet = PostNet(mel_bins, c.post_width, dropout=c.post_dropout)

    def forward(
        self,
        feature_BTE: Tensor,
        mask_BT: Tensor | None = None,
        mel_BFM: Tensor | None = None,
        teacher_ratio: float = 1.0,
    ) -> Mels:
        """Decode 4 T columns; a drawn share `teacher_ratio` of steps see the true last columns."""
        steps = feature_BTE.shape[1] * COLUMNS_PER_FRAME // self.columns_per_step
        # A step sees the columns before it; the first sees a column of 0.
        start = feature_BTE.new_zeros(feature_BTE.shape[0], self.projection.out_features)
        forced = [False] * steps
        if mel_BFM is not None and teacher_ratio > 0:
            # Drawn on the CPU, so that choosing a branch does not wait for the device.
            forced = (torch.rand(steps, device="cpu") < teacher_ratio).tolist()
            steps_BSI = mel_BFM.transpose(1, 2).unflatten(1, (-1, self.columns_per_step)).flatten(2)
            seen_BSI = self.prenet(steps_BSI)

        keys_BTA = self.attention.keys(feature_BTE)
        state = _State(feature_BTE, self.rnn_dim)
        said = [start]
        for step in range(steps):
            if step and forced[step]:
                seen_BI = seen_BSI[:, step - 1]
            else:
                seen_BI = self.prenet(said[-1].detach())
            said.append(self._step(seen_BI, feature_BTE, keys_BTA, mask_BT, state))

        columns_BMF = torch.stack(said[1:], dim=1).unflatten(2, (-1, self.mel_bins)).flatten(1, 2)
        mask_BM = None if mask_BT is None else mask_BT.repeat_interleave(COLUMNS_PER_FRAME, 1)
        before_BFM = keep_real(columns_BMF.transpose(1, 2), mask_BM, 2)
        return Mels(before_BFM, self.postnet(before_BFM, mask_BM))

    def _step(
        self,
        seen_BI: Tensor,
        feature_BTE: Tensor,
        keys_BTA: Tensor,
        mask_BT: Tensor | None,
        state: _State,
    ) -> Tensor:
        """One step: its r columns, [B x r * F]; `state` moves on."""
        state.attention = self.attention_rnn(
            torch.cat([seen_BI, state.context], dim=1), state.attention
        )
        state.attention = (self._drop(state.attention[0]), state.attention[1])
        weights_BT = self.attention(state.attention[0], keys_BTA, state.history_B2T, mask_BT)
        state.history_B2T = torch.stack([weights_BT, state.history_B2T[:, 1] + weights_BT], dim=1)
        state.context = (weights_BT.to(feature_BTE.dtype)[:, None] @ feature_BTE)[:, 0]
        state.decoder = self.decoder_rnn(
            torch.cat([state.attention[0], state.context], dim=1), state.decoder
        )
        state.decoder = (self._drop(state.decoder[0]), state.decoder[1])
        return self.projection(torch.cat([state.decoder[0], state.context], dim=1))

    def _drop(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, self.rnn_dropout, self.training)
