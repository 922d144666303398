"""The lip reader of sentences: the same front ends and memory, and a back end for every frame."""

from torch import Tensor

from avb.models.ctc import ctc_loss, frame_loss
from avb.models.lip import LipConfig, LipOutput, LipReader, bridged_losses
from avb.models.masks import frame_mask
from avb.models.memory import Losses


class SentenceReader(LipReader):
    """`LipReader` whose logits are [B x T x K + 1]: of each frame one of K tokens, or blank (K)."""

    def __init__(self, classes: int, config: LipConfig | None = None) -> None:
        config = config or LipConfig()
        if config.word_boundary:
            raise ValueError("word_boundary is of single words; a sentence is read whole")
        super().__init__(classes + 1, config)

    def _classify(
        self, feature_BTE: Tensor, lengths_B: Tensor | None, boundary_BT: Tensor | None
    ) -> Tensor:
        mask_BT = frame_mask(lengths_B, feature_BTE.shape[1])
        return self.back_end.classifier(self.back_end.run(feature_BTE, lengths_B, mask_BT))


def sentence_losses(
    output: LipOutput, tokens_BL: Tensor, lengths_B: Tensor, frames_BT: Tensor | None = None,
    frame_weight: float = 0.0,
) -> Losses:  # fmt: skip
    """Eq. 7 with CTC as g, and Eq. 8; tokens and frames as `ctc_loss` and `frame_loss` have them.

    What frames cost is weighted and comes to g: CTC alone says a token in one or two frames,
    somewhere in it.
    """

    def loss(logits_BTK: Tensor) -> Tensor:
        found = ctc_loss(logits_BTK, tokens_BL, lengths_B)
        if frames_BT is not None and frame_weight:
            found = found + frame_weight * frame_loss(logits_BTK, frames_BT)
        return found

    return bridged_losses(output, loss)
