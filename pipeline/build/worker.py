"""What makes a process a good worker of the one that started it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of <malloc.h>


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
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A new run may already be at work when the parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
