"""One run over several processes, as torchrun starts them."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from avb.train.device import choose_device


def join_processes(device: str) -> tuple[int, int, str]:
    """Rank, number of processes and device as torchrun says, joined; 0, 1 and `device` without it.

    UsageError: there are fewer accelerators here than processes.
    """
    world = int(os.environ.get("WORLD_SIZE") or 1)
    if world > 1:
        if cuda := device.startswith("cuda"):
            device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK') or 0}")
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo")
    return int(os.environ.get("RANK") or 0), world, device


def peer_lost(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone; gloo has no type for that."""
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


def global_sum(value: Tensor, world: int) -> Tensor:
    """The sum over all processes."""
    if world > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def take_from_first(buffers: Iterable[Tensor], world: int) -> None:
    """Set tensors to those of process 0."""
    if world > 1:
        for buffer in buffers:
            distributed.broadcast(buffer, 0)
