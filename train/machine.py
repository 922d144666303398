"""What the loop needs of the machine: processes, devices, signals, memory."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from avb.machine import peak_bytes


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


def autocast(device: torch.device) -> Any:
    """bfloat16 on an accelerator, float32 on the CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and SIGUSR1 only raise a flag, which the loop reads between steps."""
    flag: list[int] = []
    old = {
        s: signal.signal(s, lambda n, _: flag.append(n)) for s in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield lambda: bool(flag)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def free_bytes(device: torch.device) -> float:
    """Memory that can still be had: of the device, or by the kernel and the container's limit."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    about, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if not about.is_file():  # not Linux
        return math.inf
    lines = about.read_text().splitlines()
    free = float(next(n.split()[1] for n in lines if n.startswith("MemAvailable"))) * 1024
    if (group / "memory.max").is_file() and (group / "memory.max").read_text().strip() != "max":
        limit, used = (float((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        free = min(free, limit - used)
    return free


def peak_gib(device: torch.device) -> float:
    """Most memory in use so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_bytes() / 2**30
