"""Words from a film: the lip reader on a window of 29 pictures every 5."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avb.models.masks import boundary_as
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.stream.assemble import WORD_FRAMES
from avb.tools.infer.crops import Piece, Window, slide
from avb.tools.infer.model import Addresses, Trained
from avb.tools.infer.video import FPS
from avb.train.network import finite

STRIDE = 5
#: Windows that go through the network together.
BATCH = 8


@dataclass(frozen=True)
class Reading:
    """What one window says."""

    # start, stop: its pictures, `stop` being the one after the last
    start: int
    stop: int
    probabilities: np.ndarray | None  # float32 [classes]; None where nobody is seen in half of it

    def ranked(self, labels: list[str], top: int) -> list[dict[str, Any]]:
        """The likeliest words, best first: `word` and `probability`."""
        if self.probabilities is None:
            return []
        best = np.argsort(-self.probabilities, kind="stable")[:top]
        return [
            {"word": labels[i], "probability": round(float(self.probabilities[i]), 4)} for i in best
        ]

    def record(self, labels: list[str], top: int) -> dict[str, Any]:
        """As it goes into JSON: times in seconds, words."""
        start_s, end_s = self.start / FPS, self.stop / FPS
        return {"start": start_s, "end": end_s, "words": self.ranked(labels, top)}


def read_words(
    pieces: Iterator[Piece], trained: Trained, clock: Clock, addresses: Addresses | None = None
) -> Iterator[Reading]:
    """A reading for every window of a film, in order; 29 pictures are one window.

    The windows of training were centred on a word, so a word is best read where it is the middle
    one. A film of fewer than 29 pictures is one window, its first and last picture repeated, as the
    windows of words at the ends of sentences were.
    """
    batch: list[Window] = []
    for window in slide(pieces, WORD_FRAMES, STRIDE):
        batch.append(window)
        if len(batch) == BATCH:
            yield from _read(batch, trained, clock, addresses)
            batch = []
    yield from _read(batch, trained, clock, addresses)


def _read(
    batch: list[Window], trained: Trained, clock: Clock, addresses: Addresses | None
) -> Iterator[Reading]:
    there = [window for window in batch if window.seen.mean() >= 0.5]
    probabilities: dict[int, np.ndarray] = {}
    if there:
        with clock("network"):
            boundary = None
            if trained.recipe.model.get("word_boundary"):
                frames = torch.empty(len(there), WORD_FRAMES, device=trained.device)
                boundary = boundary_as("guessed", frames)
            stored = np.stack([_whole(window.crops) for window in there])
            output = trained.output(stored, None, None, boundary)
            rows = finite(output.logits.float().softmax(1)).cpu().numpy()
            if addresses is not None and output.bridge.source_addressing is not None:
                for window, weights in zip(there, output.bridge.source_addressing, strict=True):
                    first = (WORD_FRAMES - len(window.crops)) // 2
                    addresses.add(window.start, weights[first : first + len(window.crops)])
        probabilities = {window.start: row for window, row in zip(there, rows, strict=True)}
    for window in batch:
        stop = window.start + len(window.crops)
        yield Reading(window.start, stop, probabilities.get(window.start))


def _whole(crops: np.ndarray) -> np.ndarray:
    """Crops [n, H, W] of a window as 29, the ends repeated."""
    lack = WORD_FRAMES - len(crops)
    ends = ((lack // 2, lack - lack // 2), (0, 0), (0, 0))
    return np.pad(crops, ends, mode="edge") if lack else crops


def overall(readings: list[Reading]) -> Reading | None:
    """The mean of all readings of a film; None if nobody was seen in any."""
    known = [r.probabilities for r in readings if r.probabilities is not None]
    if not known:
        return None
    return Reading(readings[0].start, readings[-1].stop, np.mean(known, axis=0))
