"""What the loop needs of the machine: processes, devices, signals, memory."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from avb.pipeline.errors import UsageError
from avb.pipeline.files import locked
from avb.pipeline.machine import peak_bytes


def choose_device(wanted: str | None) -> str:
    """The device asked for, or the accelerator if there is one.

    Raises:
        UsageError: an accelerator was asked for and there is none.
    """
    there = torch.cuda.is_available()
    if wanted is None:
        return "cuda" if there else "cpu"
    if wanted.startswith("cuda") and not there:
        raise UsageError(f"--device {wanted}: no CUDA device here (torch {torch.__version__})")
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device {wanted}: cpu or cuda")
    return wanted


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


STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
#: Ctrl-C reaches a process twice where a wrapper passes on what the terminal sent already.
_AGAIN_S = 1.0
_ASKED = b"\nsaving after this step; Ctrl-C again stops at once, without\n"


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """While inside, signals only raise a flag: the first that came, or 0, read between steps.

    What was ignored, as SIGHUP is under nohup, still is. A second Ctrl-C, a second or more after
    the first, is the usual KeyboardInterrupt: a step may take long, or hang.
    """
    came: list[int] = []
    asked_s: list[float] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if number == signal.SIGINT:
            asked_s.append(time.monotonic())
            if asked_s[-1] - asked_s[0] >= _AGAIN_S:
                raise KeyboardInterrupt
            if len(asked_s) == 1:
                with contextlib.suppress(OSError):
                    os.write(2, _ASKED)  # a print that was interrupted cannot be entered again

    old = {
        number: signal.signal(number, note)
        for number in STOPPING
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of a run against a second training; the lock goes with the process.

    A lock of POSIX, which children that decode do not inherit and network file systems pass on.

    Raises:
        RunError: another training holds it, or there can be no lock; the line names who.
    """
    busy = "another training writes here ({holder}); wait for it, or choose another --out"
    with locked(out / ".lock", out, busy, fcntl.lockf) as lock:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} of {os.uname().nodename}\n")
        lock.flush()
        yield


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
