"""Which parts of a reader each loss moves, with the memory's variants."""

import pytest
import torch
from tiny import TINY_LIP

from avb.models.lip import LipConfig, LipReader, lip_losses

PARTS = {
    "video front end": "visual.", "audio front end": "audio.", "key memory": "memory.key_memory",
    "value memory": "memory.value_memory", "query proj.": "memory.query.",
    "value proj.": "memory.value.", "fusion": "memory.fusion.", "back end": "back_end.",
}  # fmt: skip
# paper.md 5.3: the released code as it was checked, and the equations with nothing detached.
GRADIENTS = {
    ("released", "saving"): {"value memory", "value proj."},
    ("released", "bridging"): {"video front end", "key memory", "query proj."},
    ("released", "recalled"): {
        "video front end",
        "key memory",
        "query proj.",
        "fusion",
        "back end",
    },
    ("released", "real"): {"video front end", "audio front end", "fusion", "back end"},
    ("paper", "saving"): {"audio front end", "value memory"},
    ("paper", "bridging"): {"video front end", "audio front end", "key memory", "value memory"},
    ("paper", "recalled"): {"video front end", "key memory", "value memory", "fusion", "back end"},
    ("paper", "real"): {"video front end", "audio front end", "fusion", "back end"},
}


@pytest.mark.parametrize(("variant", "loss"), GRADIENTS)
@pytest.mark.parametrize("padded", [False, True])
def test_each_loss_moves_the_parts_of_the_table(variant: str, loss: str, padded: bool) -> None:
    model = LipReader(3, LipConfig(variant=variant, **TINY_LIP))
    lengths = torch.tensor([4, 3]) if padded else None
    output = model(torch.randn(2, 1, 4, 32, 32), torch.randn(2, 80, 16), lengths)
    getattr(lip_losses(output, torch.tensor([0, 2])), loss).backward()
    moved = {
        part
        for part, prefix in PARTS.items()
        for name, value in model.named_parameters()
        if name.startswith(prefix) and value.grad is not None and value.grad.abs().max() > 0
    }
    assert moved == GRADIENTS[variant, loss]
