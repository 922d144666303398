"""Back ends of the lip reader: a clip's fused features to the logits of its word."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avb.models.masks import frame_mask, keep_real, mean_over_time, run_recurrent, word_mask

BackEndName = Literal["gru", "mstcn"]
#: Of MS-TCN: side by side in each layer, and one after the other.
KERNELS, DILATIONS = (3, 5, 7), (1, 2, 4, 8)


class BackEnd(nn.Module, ABC):
    """Frames to states by `run`, their mean over time, and a linear classifier."""

    classifier: nn.Linear

    @abstractmethod
    def run(self, feature_BTE: Tensor, lengths_B: Tensor | None, mask_BT: Tensor | None) -> Tensor:
        """States [B x T x S], in which padded frames change nothing (in evaluation)."""

    def forward(
        self,
        feature_BTE: Tensor,
        lengths_B: Tensor | None = None,
        boundary_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits [B x K]; with `boundary_BT`, 1 inside the word, of the mean over it alone."""
        mask_BT = frame_mask(lengths_B, feature_BTE.shape[1])
        states_BTS = self.run(feature_BTE, lengths_B, mask_BT)
        if boundary_BT is not None:
            mask_BT = word_mask(boundary_BT, mask_BT)
        return self.classifier(mean_over_time(states_BTS, mask_BT))


class GRUBackEnd(BackEnd):
    """A bidirectional GRU, the mean of its states over time, and a linear classifier."""

    def __init__(self, dim: int, classes: int, hidden: int = 512, dropout: float = 0.3) -> None:
        """Build two layers of `hidden` units a direction, with dropout between them."""
        super().__init__()
        self.gru = nn.GRU(
            dim, hidden, num_layers=2, batch_first=True, bidirectional=True, dropout=dropout
        )
        self.classifier = nn.Linear(2 * hidden, classes)

    def run(self, feature_BTE: Tensor, lengths_B: Tensor | None, mask_BT: Tensor | None) -> Tensor:
        """All states of both directions."""
        return run_recurrent(self.gru, feature_BTE, lengths_B)


class Branch(nn.Module):
    """One dilated convolution over time, batch norm, PReLU."""

    def __init__(self, dim: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.margin = (kernel - 1) * dilation // 2
        self.conv = nn.Conv1d(dim, width, kernel, dilation=dilation, padding=2 * self.margin)
        self.norm = nn.BatchNorm1d(width)
        self.act = nn.PReLU(width)

    def forward(self, x_BET: Tensor) -> Tensor:
        """Map [B x dim x T] to [B x width x T]."""
        # Padded to twice what "same" needs and cut after the norm, as MS-TCN does: in training
        # the margins are part of the batch statistics.
        x_BET = self.norm(self.conv(x_BET))
        return self.act(x_BET[:, :, self.margin : x_BET.shape[2] - self.margin])


class MultiBranch(nn.Module):
    """Branches of several kernels side by side, then dropout."""

    def __init__(self, dim: int, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(dim, width, kernel, dilation) for kernel in KERNELS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BET: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Map [B x dim x T] to [B x 3 * width x T]."""
        x_BET = keep_real(x_BET, mask_BT, 2)
        return self.dropout(torch.cat([branch(x_BET) for branch in self.branches], dim=1))


class TemporalBlock(nn.Module):
    """Two multi-branch layers and a 1 x 1 convolution beside them."""

    def __init__(self, dim: int, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        total = width * len(KERNELS)
        self.first = MultiBranch(dim, width, dilation, dropout)
        self.second = MultiBranch(total, width, dilation, dropout)
        self.shortcut = nn.Conv1d(dim, total, 1)  # in every block, also between equal widths
        self.act = nn.PReLU(total)

    def forward(self, x_BET: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Map [B x dim x T] to [B x 3 * width x T]."""
        y_BET = self.second(self.first(x_BET, mask_BT), mask_BT)
        return self.act(y_BET + self.shortcut(x_BET))


class TCNBackEnd(BackEnd):
    """Multi-scale temporal convolutions (MS-TCN), the mean over time, and a linear classifier."""

    def __init__(self, dim: int, classes: int, hidden: int = 256, dropout: float = 0.2) -> None:
        """Build a block for each dilation, with `hidden` channels for each kernel."""
        super().__init__()
        total = hidden * len(KERNELS)
        self.blocks = nn.ModuleList(
            TemporalBlock(total if i else dim, hidden, dilation, dropout)
            for i, dilation in enumerate(DILATIONS)
        )
        self.classifier = nn.Linear(total, classes)

    def run(self, feature_BTE: Tensor, lengths_B: Tensor | None, mask_BT: Tensor | None) -> Tensor:
        """What the blocks make of the frames."""
        x_BET = feature_BTE.transpose(1, 2)
        for block in self.blocks:
            x_BET = block(x_BET, mask_BT)
        return x_BET.transpose(1, 2)


BACK_ENDS: dict[str, type[GRUBackEnd] | type[TCNBackEnd]] = {"gru": GRUBackEnd, "mstcn": TCNBackEnd}


def make_back_end(
    name: BackEndName, dim: int, classes: int, hidden: int | None, dropout: float | None
) -> BackEnd:
    """The back end of that name for features of width `dim`; None: its own default."""
    sizes: dict[str, Any] = {"hidden": hidden, "dropout": dropout}
    given = {key: size for key, size in sizes.items() if size is not None}
    return BACK_ENDS[name](dim, classes, **given)


def classify(
    back_end: nn.Module, feature_BTE: Tensor, lengths_B: Tensor | None,
    boundary_BT: Tensor | None, word_boundary: bool,
) -> Tensor:  # fmt: skip
    """Logits [B x K]; with `word_boundary`, 1 inside the word and 0 outside is one more feature."""
    if (boundary_BT is not None) != word_boundary:
        wanted = "expects" if word_boundary else "does not take"
        raise ValueError(f"this model {wanted} word boundaries (word_boundary)")
    if boundary_BT is not None:
        extra_BT1 = boundary_BT[:, :, None].to(feature_BTE.dtype)
        feature_BTE = torch.cat([feature_BTE, extra_BT1], dim=-1)
    logits_BK: Tensor = back_end(feature_BTE, lengths_B, boundary_BT)
    return logits_BK
