"""How long each stage of the work takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Milliseconds spent in each stage by one clip, of the wall or of another timer."""

    timer: Callable[[], float] = time.perf_counter
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start = self.timer()
        try:
            yield
        finally:
            self.add(stage, start)

    def add(self, stage: str, start: float) -> None:
        """Add the time since `start`, of the timer: a third of the cost where there are many."""
        self.ms[stage] = self.ms.get(stage, 0.0) + (self.timer() - start) * 1e3
