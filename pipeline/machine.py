"""Cores and memory of this process, its revision; Linux and macOS, standard library alone."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path


def cores() -> int:
    """Cores that this process may run on; macOS does not tell, so there it is all of them."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


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
