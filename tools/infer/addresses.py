"""Which slots of the memory a film addressed, and when."""

from __future__ import annotations

import numpy as np
import torch


class Addresses:
    """A_src of a film, collected while its windows go through the network."""

    def __init__(self) -> None:
        self._windows: list[tuple[int, np.ndarray]] = []

    def add(self, start: int, addressing_TN: torch.Tensor) -> None:
        """Keep one window's, whose first picture is number `start`."""
        self._windows.append((start, addressing_TN.float().cpu().numpy()))

    def mean(self, num_frames: int) -> np.ndarray | None:
        """A_src, float32 [num_frames x N]: mean of the windows of a picture, 0 without; or None."""
        if not self._windows:
            return None
        total = np.zeros((num_frames, self._windows[0][1].shape[1]), np.float32)
        count = np.zeros((num_frames, 1), np.float32)
        for start, rows in self._windows:
            total[start : start + len(rows)] += rows
            count[start : start + len(rows)] += 1
        return total / np.maximum(count, 1)
