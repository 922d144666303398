"""What this process may use of its machine, on Linux and macOS; by the standard library alone."""

from __future__ import annotations

import os
import resource
import sys


def cores() -> int:
    """Cores that this process may run on; macOS does not tell, so there it is all of them."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def peak_bytes() -> int:
    """The most memory that this process has had; macOS counts in bytes, Linux in kibibytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
