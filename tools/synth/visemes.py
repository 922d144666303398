"""From the phonemes of an utterance to how far a mouth is open and how wide, frame by frame."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from avb.tools.synth.media import FPS
from avb.tools.synth.voice import Span

# Opening 0..1 and spread -1 (rounded) .. 1 (stretched) of each sound, by espeak mnemonic; stress
# and length marks are stripped first. Longest match wins, then the first character.
VISEMES: dict[str, tuple[float, float]] = {
    **dict.fromkeys("pbm", (0.0, 0.0)),
    **dict.fromkeys("fv", (0.08, 0.2)),
    **dict.fromkeys("wW", (0.12, -0.9)),
    **dict.fromkeys("szcC", (0.14, 0.5)),
    **dict.fromkeys("SZ", (0.18, -0.6)),
    **dict.fromkeys("tdnlNkgxhHTDqjJ", (0.25, 0.2)),
    **dict.fromkeys(("r", "R", "3"), (0.3, -0.4)),
    **dict.fromkeys(("i", "I", "y"), (0.32, 0.9)),
    **dict.fromkeys(("e", "E"), (0.55, 0.6)),
    **dict.fromkeys(("a", "A", "V", "aI"), (0.95, 0.2)),
    **dict.fromkeys(("aU", "Au", "O", "0", "OI"), (0.8, -0.4)),
    **dict.fromkeys(("o", "oU"), (0.55, -0.8)),
    **dict.fromkeys(("u", "U"), (0.22, -1.0)),
    "@": (0.4, 0.0),
}
_REST = (0.0, 0.0)


def viseme(mnemonic: str) -> tuple[float, float]:
    """Opening and spread of one espeak phoneme; a pause closes the mouth."""
    name = mnemonic.strip("',%=:;!|")
    if not name or name.startswith("_"):
        return _REST
    for length in (2, 1):
        if name[:length] in VISEMES:
            return VISEMES[name[:length]]
    return (0.3, 0.0)


def mouth_track(phonemes: Sequence[Span], num_frames: int) -> np.ndarray:
    """The mouth at the middle of each frame: float64 `[num_frames, 2]`, opening and spread.

    Outside the phonemes, on the clip's own clock, it rests.
    """
    step_s = 0.005
    steps = np.tile(np.array(_REST), (math.ceil(num_frames / FPS / step_s) + 1, 1))
    for name, start, end in phonemes:
        steps[max(0, round(start / step_s)) : max(0, round(end / step_s))] = viseme(name)
    # By 25 ms: lips move slower than sounds change.
    smooth = cv2.GaussianBlur(steps, (0, 0), sigmaX=1e-6, sigmaY=0.025 / step_s)
    middles = (np.arange(num_frames) + 0.5) / FPS / step_s
    grid = np.arange(len(smooth))
    return np.stack([np.interp(middles, grid, smooth[:, i]) for i in range(2)], axis=1)
