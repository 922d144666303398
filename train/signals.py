"""Signals that ask a run to stop: it saves and leaves after the step, in all its processes."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from avb.train.distributed import global_sum

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


class Preempted(Exception):
    """A signal asked to stop, and the run is saved (exit 75, after Ctrl-C 130)."""

    def __init__(self, text: str, by: int = 0) -> None:
        super().__init__(text)
        self.by = by  # the number of the signal; 0 if only another process got one


class Leave:
    """Whether to stop after a step; all processes leave after the same one.

    A signal reaches them at different steps. So each step tells the others, and the answer is
    taken one step later, when it has long come.
    """

    def __init__(self, stopped: Callable[[], int], world: int, device: torch.device) -> None:
        self._stopped, self._world, self._device = stopped, world, device
        self._told: Tensor | None = None

    def now(self) -> bool:
        """Ask once after each step."""
        if self._world == 1:
            return bool(self._stopped())
        heard = self._told is not None and bool(self._told)
        mine = torch.tensor(float(self._stopped()), device=self._device)
        self._told = global_sum(mine, self._world)
        return heard
