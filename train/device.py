"""The device that is computed on, and its memory."""

import ctypes
import os
import re
from typing import Any

import torch

from avb.pipeline.errors import UsageError
from avb.pipeline.machine import free_memory, peak_bytes


def choose_device(wanted: str | None) -> str:
    """The device asked for, else the accelerator if there is one; UsageError: it is not there."""
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    found = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", wanted)
    if not found:
        raise UsageError(f"--device {wanted}: cpu or cuda")
    if found[1] == "cuda" and int(found[2] or 0) >= (count := torch.cuda.device_count()):
        there = f"CUDA devices here: {count or 'none'} (torch {torch.__version__})"
        raise UsageError(f"--device {wanted}: {there}")
    return wanted


def use_threads(count: int) -> None:
    """Let this process compute on so many threads of the CPU, unless OMP_NUM_THREADS says how many.

    For a command, before it trains: where the number changes between two steps backward, oneDNN (in
    torch 2.13, with AVX-512) writes into foreign memory and the process dies.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, count))


def autocast(device: torch.device) -> Any:
    """bfloat16 on an accelerator, float32 on the CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def free_bytes(device: torch.device) -> float:
    """Memory that can still be had, of the device or the machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def peak_gib(device: torch.device) -> float:
    """Most memory in use so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_bytes() / 2**30


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, for a process that trains on the CPU.

    It gives large tensors back to the system, which fills the next ones with zeros, page by page:
    a quarter of a step of `lip/tiny`, a sixth of `l2s/tiny`. Elsewhere nothing changes.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(arena_max, 1)
