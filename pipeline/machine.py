"""Cores, memory and revision of this process on Linux and macOS, and how it is a good worker."""

import ctypes
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from avb.pipeline.errors import UsageError

CGROUP = Path("/sys/fs/cgroup")  # what a container may have
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of <malloc.h>


def cores() -> int:
    """Cores that this process may run on; macOS does not tell, so there it is all of them.

    Of a container's share of their time the whole cores.
    """
    usable = getattr(os, "sched_getaffinity", None)
    count = len(usable(0)) if usable else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or no limit ("max")
        quota, period = map(int, (CGROUP / "cpu.max").read_text().split())
        count = max(1, min(count, quota // period))
    return count


def at_home(path: str | Path) -> Path:
    """A path with ~ written out; UsageError: it begins with the home of a user that is not here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{path}: no such user or home on this machine; set HOME, or write the path out"
        ) from None


def cache_folder() -> Path:
    """Where copies of shards and the face models are kept: AVB_CACHE, else `~/.cache/avb`."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return at_home(os.environ.get("AVB_CACHE") or Path(home) / "avb")


def peak_bytes() -> int:
    """The most memory that this process has had; macOS counts in bytes, Linux in kibibytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def revision() -> str | None:
    """The git revision of the checkout this runs from, with + if it was changed; None outside."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if git("status", "--porcelain") else "")


def free_memory() -> float:
    """Bytes that are free, by the kernel and the container's limit; infinite if not known."""
    free = math.inf
    with suppress(OSError, ValueError, StopIteration):  # no such files, or no limit ("max")
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024.0 for x in lines if x.startswith("MemAvailable"))
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        held = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        # What was read from disks is kept as long as nobody wants the room, and counted as used.
        cache = float(held["active_file"]) + float(held["inactive_file"])
        free = min(free, float(limit) - float(used) + cache)
    return free


@cache
def settle_process() -> None:
    """Make this process a good worker: one thread, and memory that is used again.

    More threads inside one worker cost more than they give. Pictures are larger than glibc's
    128 KiB limit for fresh pages, which would be mapped, cleared and given back for each one:
    4 of 22 ms of decoding a GRID clip.
    """
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, 1 << 28)


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it does, however that may be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent(grace_s: float = 0.0) -> None:
    """End when the parent does: a new run may already be at work when that was killed.

    With `grace_s` it is asked first, by SIGTERM, upon which a training saves.
    """
    threading.Thread(target=_end_with_parent, args=(grace_s,), daemon=True).start()


def _end_with_parent(grace_s: float) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if grace_s:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(1)
