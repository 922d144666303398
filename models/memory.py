"""The bridging memory: equations 1 to 8 of the paper.

Two memories of N slots, M_src for video and M_tgt for audio, are addressed in step: slot i of the
one stands for the same sound as slot i of the other. So an address found from video reads audio.

    Eq. 1  s[i, j]   = cos(M[i], f[j])                      similarity of slot i and frame j
    Eq. 2  A[j]      = softmax over slots of r * s[:, j]    addressing, on either side
    Eq. 3  f_hat[j]  = A_tgt[j] . M_tgt                     audio rebuilt from its own address
    Eq. 4  L_save    = mean over j of |f_tgt[j] - f_hat[j]|^2
    Eq. 5  L_bridge  = mean over j of KL(A_tgt[j] to A_src[j])
    Eq. 6  v_tgt[j]  = A_src[j] . M_tgt                     audio recalled from video alone
    Eq. 7  L_task    = g(h(f_src + v_tgt)) + g(h(f_src + f_tgt))    + is concatenation, h is linear
    Eq. 8  L_total   = L_save + L_bridge + L_task

Everything from the query to the losses is float32 under any autocast: at r = 16 the smallest
probability is 1e-14, which is 0 in float16 and makes the divergence infinite.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.masks import masked_mean
from avb.models.precision import at_least_float32, without_autocast

Variant = Literal["paper", "released"]


def similarity(feature_BTC: Tensor, slots_NC: Tensor) -> Tensor:
    """Eq. 1: cosine of every frame and every slot, [B x T x N]; 0 for a frame that is all 0."""
    return functional.linear(
        functional.normalize(feature_BTC, dim=-1), functional.normalize(slots_NC, dim=-1)
    )


def log_addressing(similarity_BTN: Tensor, radius: float) -> Tensor:
    """Eq. 2, scaled by `radius` (r), as logarithms: they stay finite where a probability is 0."""
    return functional.log_softmax(radius * similarity_BTN, dim=-1)


def read(addressing_BTN: Tensor, slots_ND: Tensor) -> Tensor:
    """Eq. 3 and 6: the slots, as they are and not normalised, weighted: [B x T x D]."""
    return addressing_BTN @ slots_ND


def saving_loss(rebuilt_BTD: Tensor, target_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """Eq. 4: squared distance, summed over D, mean over a clip's real frames, then over clips."""
    return masked_mean((target_BTD - rebuilt_BTD).square().sum(dim=-1), mask_BT)


def bridging_loss(
    log_target_BTN: Tensor, log_source_BTN: Tensor, mask_BT: Tensor | None = None
) -> Tensor:
    """Eq. 5: KL divergence of A_src from the reference A_tgt, mean as in Eq. 4."""
    divergence_BTN = log_target_BTN.exp() * (log_target_BTN - log_source_BTN)
    return masked_mean(divergence_BTN.sum(dim=-1), mask_BT)


@dataclass(frozen=True)
class Losses:
    """The terms of Eq. 8, scalars, and two more; all but the first are None where not used."""

    recalled: Tensor  # task loss of video and recalled audio
    real: Tensor | None = None  # task loss of video and real audio
    saving: Tensor | None = None  # Eq. 4.
    bridging: Tensor | None = None  # Eq. 5.
    distilled: Tensor | None = None  # distance to a teacher's features; not of the paper
    critics: Tensor | None = None  # what a vocoder's critics have to lower; not of the paper

    @property
    def task(self) -> Tensor:
        """Eq. 7: the two task terms."""
        return self.recalled if self.real is None else self.recalled + self.real

    def total(
        self, saving_weight: float = 1.0, bridging_weight: float = 1.0, distill_weight: float = 1.0
    ) -> Tensor:
        """Eq. 8: the sum; the paper weighs all terms alike. To it comes what a teacher adds."""
        total = self.task
        if self.saving is not None and self.bridging is not None:
            total = total + saving_weight * self.saving + bridging_weight * self.bridging
        if self.distilled is not None:
            total = total + distill_weight * self.distilled
        return total if self.critics is None else total + self.critics


class Recall(NamedTuple):
    """What video brings back from the memory."""

    value: Tensor  # v_tgt, the recalled audio feature, float32 [B x T x D]
    addressing: Tensor  # A_src, float32 [B x T x N], rows sum to 1


@dataclass(frozen=True)
class Bridge:
    """What the memory hands to the back end; all but the first are None where they do not apply."""

    recalled: Tensor  # h(f_src + v_tgt), [B x T x E]; with N = 0, f_src itself
    source_addressing: Tensor | None = None  # A_src, float32 [B x T x N]
    real: Tensor | None = None  # h(f_src + f_tgt), [B x T x E]
    target_addressing: Tensor | None = None  # A_tgt, float32 [B x T x N]
    saving: Tensor | None = None  # Eq. 4, float32 scalar.
    bridging: Tensor | None = None  # Eq. 5, float32 scalar.


class BridgingMemory(nn.Module):
    """Key memory M_src, value memory M_tgt and the fusion h.

    The variant `paper` is the equations to the letter. `released` differs as the authors' public
    code does: query and value go through linear layers before addressing; f_tgt is held constant
    in the saving loss, M_tgt in the recall and A_tgt in the bridging loss, so that the value
    memory learns from the saving loss alone and no loss but the task's moves the audio features;
    the saving loss is a mean over D; half of the concatenation is dropped before h.

    To the letter, Eq. 4 pulls the audio features onto the slots with D = 512 times the weight: at
    the paper's rate the loss is 2.6e6 in the second step and no number in the fourth.

    With 0 slots it is the baseline: no memory, no h, video features as they came. With 0 slots and
    `audio_term` it is a control that the paper lacks: h and the back end learn from real audio in
    the second term of Eq. 7, as beside a memory, but nothing is recalled, and zeros stand for
    v_tgt in the first. What it gains over the baseline is not the memory's gain.

    Attributes:
        fused_dim: width E of what comes out.
    """

    def __init__(
        self,
        source_dim: int = 512,
        target_dim: int = 512,
        slots: int = 88,
        fused_dim: int | None = None,
        radius: float = 16.0,
        variant: Variant = "paper",
        dropout: float | None = None,
        value_projection: bool | None = None,
        audio_term: bool = False,
    ) -> None:
        """Build a memory of `slots` slots (N) for features of widths C and D.

        Args:
            fused_dim: width E of what comes out; C if not given.
            radius: r, sharpness of the addressing; the paper gives no value, its code 16.
            dropout: before h; by default 0 in `paper` and 0.5 in `released`.
            value_projection: whether a linear layer stands before A_tgt; by default in `released`.
                Without it A_tgt compares the audio features as they are. Where it stands, only the
                saving loss moves it, to what few slots can hold (`docs/model.md`).
        """
        super().__init__()
        if variant not in ("paper", "released"):  # else it would pass for the paper's
            raise ValueError(f"memory variant {variant!r}: expected 'paper' or 'released'")
        if slots and audio_term:
            raise ValueError(f"audio_term with {slots} slots: it is for 0, a memory has that term")
        self.slots, self.radius, self.variant = slots, radius, variant
        self.target_dim, self.audio_term = target_dim, audio_term
        fuses = slots > 0 or audio_term
        self.fused_dim = source_dim if fused_dim is None or not fuses else fused_dim
        released = variant == "released"
        if slots:
            self.key_memory = nn.Parameter(torch.empty(slots, source_dim).normal_(0, 0.5))
            self.value_memory = nn.Parameter(torch.empty(slots, target_dim).normal_(0, 0.5))
            self.query = nn.Linear(source_dim, source_dim) if released else nn.Identity()
            projected = released if value_projection is None else value_projection
            self.value = nn.Linear(target_dim, target_dim) if projected else nn.Identity()
        if not fuses:
            return
        if dropout is None:
            dropout = 0.5 if released else 0.0
        self.dropout = nn.Dropout(dropout)
        self.fusion = nn.Linear(source_dim + target_dim, self.fused_dim)

    def forward(
        self, source_BTC: Tensor, target_BTD: Tensor | None = None, mask_BT: Tensor | None = None
    ) -> Bridge:
        """Recall audio from video f_src and, where real audio f_tgt is given, learn from it."""
        if not self.slots:
            return self._without_recall(source_BTC, target_BTD)
        log_source_BTN = self._address(source_BTC, self.query, self.key_memory)
        value_BTD, source_BTN = self._recall(log_source_BTN)
        recalled_BTE = self.fuse(source_BTC, value_BTD)
        if target_BTD is None:
            return Bridge(recalled_BTE, source_BTN)

        constant_BTD = self._constant(target_BTD)
        log_target_BTN = self._address(constant_BTD, self.value, self.value_memory)
        with without_autocast(target_BTD):
            rebuilt_BTD = read(log_target_BTN.exp(), self.value_memory)  # Eq. 3
            saving = saving_loss(rebuilt_BTD, at_least_float32(constant_BTD), mask_BT)
            if self.variant == "released":
                saving = saving / target_BTD.shape[-1]
            bridging = bridging_loss(self._constant(log_target_BTN), log_source_BTN, mask_BT)
        return Bridge(
            recalled=recalled_BTE,
            source_addressing=source_BTN,
            real=self.fuse(source_BTC, target_BTD),
            target_addressing=log_target_BTN.exp(),
            saving=saving,
            bridging=bridging,
        )

    def _without_recall(self, source_BTC: Tensor, target_BTD: Tensor | None) -> Bridge:
        if not self.audio_term:
            return Bridge(recalled=source_BTC)
        silence_BTD = source_BTC.new_zeros(*source_BTC.shape[:2], self.target_dim)
        real_BTE = None if target_BTD is None else self.fuse(source_BTC, target_BTD)
        return Bridge(self.fuse(source_BTC, silence_BTD), real=real_BTE)

    def recall(self, source_BTC: Tensor) -> Recall:
        """Eq. 1, 2 and 6: audio recalled from video alone."""
        if not self.slots:
            raise ValueError("a model with 0 slots has no memory to recall from")
        return self._recall(self._address(source_BTC, self.query, self.key_memory))

    def fuse(self, source_BTC: Tensor, audio_BTD: Tensor) -> Tensor:
        """h: video and audio, recalled or real, as one feature [B x T x E]."""
        both = torch.cat([source_BTC, audio_BTD.to(source_BTC.dtype)], dim=-1)
        return self.fusion(self.dropout(both))

    def _address(self, feature: Tensor, projection: nn.Module, slots: Tensor) -> Tensor:
        """Eq. 1 and 2 on either side: logarithms of A, float32 [B x T x N]."""
        with without_autocast(feature):
            projected = projection(at_least_float32(feature))
            return log_addressing(similarity(projected, slots), self.radius)

    def _recall(self, log_source_BTN: Tensor) -> Recall:
        with without_autocast(log_source_BTN):
            addressing_BTN = log_source_BTN.exp()
            return Recall(read(addressing_BTN, self._constant(self.value_memory)), addressing_BTN)

    def _constant(self, tensor: Tensor) -> Tensor:
        """Without gradient in the variant `released`."""
        return tensor.detach() if self.variant == "released" else tensor
