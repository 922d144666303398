"""Where numbers must stay in float32 whatever the caller's autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast within; tensors on the device `meta`, which only have shapes, know none."""
    kind = tensor.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor`, half precision raised to float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
