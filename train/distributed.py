"""One run over several processes, as torchrun starts them."""

import os

import torch
from torch import Tensor, distributed


def join_processes(device: str) -> tuple[int, int]:
    """Rank and number of processes as torchrun says, joined; 0 and 1 without it."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return int(os.environ.get("RANK", 0)), world


def peer_lost(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone; gloo has no type for that."""
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


def global_sum(value: Tensor, world: int) -> Tensor:
    """The sum over all processes."""
    if world > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value
