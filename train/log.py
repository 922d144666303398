"""The folder of a run: held against a second one, `metrics.jsonl`, TensorBoard files; pace."""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avb.pipeline.errors import RunError
from avb.pipeline.files import locked, write_atomic
from avb.pipeline.parse import parse_json


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of a run against a second training; RunError, which names who holds it.

    A lock of POSIX, which goes with the process, children that decode do not inherit, and network
    file systems pass on.
    """
    busy = "another training writes here ({holder}); wait for it, or choose another --out"
    with locked(out / ".lock", out, busy, fcntl.lockf) as lock:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} of {os.uname().nodename}\n")
        lock.flush()
        yield


class Metrics:
    """`metrics.jsonl` and TensorBoard files, each step once, also after a resume."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open the log of a run that goes on at `first_step`; later lines are cut off."""
        self._path = folder / "metrics.jsonl"
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) < first_step]
            write_atomic(self._path, "".join(f"{line}\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # a machine that was given only what trains
            self._board: Any = None
        else:
            self._board = SummaryWriter(str(folder), purge_step=first_step)
            self._hook, threading.excepthook = threading.excepthook, self._tell

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One line: the step and its values; RunError: the file is gone, perhaps the lock too."""
        if not os.fstat(self._file.fileno()).st_nlink and self._path.parent.is_dir():
            gone = "is gone, removed while it was trained; start again in another --out"
            raise RunError(f"{self._path}: {gone}")
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
            threading.excepthook = self._hook

    def _tell(self, fault: threading.ExceptHookArgs) -> None:
        """Pass on what a thread died of, but not of TensorBoard's what the disk said.

        The disk says it of `metrics.jsonl` or a checkpoint too, which is then one line.
        """
        theirs = type(fault.thread).__module__.startswith("tensorboard")
        if not (theirs and issubclass(fault.exc_type, OSError)):
            self._hook(fault)


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a kill cut short
        return float("inf")


@dataclass
class Pace:
    """Clips a second, MFU, share of time spent waiting for data, and time left, since last look."""

    steps: int
    batch_size: int
    seconds_at_peak: float | None  # that a clip would take at best
    step: int  # of the last look
    waited: float = 0.0  # seconds since then in which the device had no batch
    looked: float = field(default_factory=time.perf_counter)

    def look(self, step: int) -> dict[str, float | None]:
        """`clips_per_s`, `mfu` (0 to 1, None where no peak is known), `data_wait` and `left_s`.

        All are over the steps since the last look; `data_wait` is 0 to 1 too.
        """
        done, now = step - self.step, time.perf_counter()
        passed = max(now - self.looked, 1e-9)
        speed = done * self.batch_size / passed
        found = {
            "clips_per_s": speed,
            "mfu": None if self.seconds_at_peak is None else speed * self.seconds_at_peak,
            "data_wait": min(1.0, self.waited / passed),
            "left_s": (self.steps - step) * passed / max(done, 1),
        }
        self.step, self.looked, self.waited = step, now, 0.0
        return found
