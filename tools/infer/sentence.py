"""Sentences from a film: overlapping windows, joined frame by frame before words are read."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.pipeline.clip.stopwatch import Clock
from avb.tools.infer.crops import Piece, slide
from avb.tools.infer.model import Addresses, Trained
from avb.tools.infer.video import FPS
from avb.train.evaluate.words.reading import Spoken
from avb.train.network import finite

#: Frames of a window, some more than a sentence of GRID, and from one to the next. Each frame is
#: taken from the window in which it lies furthest inside.
WINDOW, STRIDE = 100, 50
#: ln of what a frame in which nobody is seen says but blank.
UNSEEN = -20.0
#: A subtitle ends with so many words, or before a pause of so many seconds.
LINE_WORDS, LINE_PAUSE_S = 8, 0.6

Floats = NDArray[np.float32]


def read_sentences(
    pieces: Iterator[Piece], trained: Trained, clock: Clock, addresses: Addresses | None = None
) -> list[Spoken]:
    """The words of a film with their frames.

    With a grammar a film of one window is one sentence of it, as in `avb eval`; in a longer one,
    sentences follow each other.
    """
    windows = []
    for window in slide(pieces, WINDOW, STRIDE):
        with clock("network"):
            rows = frame_log_probs(window.crops, window.seen, trained, window.start, addresses)
        windows.append((window.start, rows))
    with clock("network"):
        return trained.reading(repeated=len(windows) > 1).words(joined(windows))


def joined(windows: Iterable[tuple[int, Floats]]) -> Floats:
    """One row a frame from overlapping windows (first frame, rows), in order."""
    whole: list[Floats] = []
    done = 0
    for start, rows in windows:
        if whole:
            cut = (done + start) // 2  # the middle of what both hold
            whole[-1] = whole[-1][: len(whole[-1]) - (done - cut)]
            rows, start = rows[cut - start :], cut
        whole.append(rows)
        done = start + len(rows)
    return np.concatenate(whole)


def frame_log_probs(
    crops: NDArray[np.uint8], seen: NDArray[np.bool_], trained: Trained, start: int = 0,
    addresses: Addresses | None = None,
) -> Floats:  # fmt: skip
    """Log-probabilities of each frame's token, [n x K + 1], of crops [n x S x S]."""
    output = trained.output(crops[None])
    if addresses is not None and output.bridge.source_addressing is not None:
        addresses.add(start, output.bridge.source_addressing[0])
    rows: Floats = finite(output.logits[0].float()).log_softmax(dim=-1).cpu().numpy()
    rows[~seen, :-1], rows[~seen, -1] = UNSEEN, 0.0
    return rows


def record(words: list[Spoken]) -> dict[str, Any]:
    """As it goes into JSON: the sentence, and its words with times in seconds."""
    return {
        "sentence": " ".join(one.word for one in words),
        "words": [
            {"word": one.word, "start": one.first / FPS, "end": one.stop / FPS}
            | {"confidence": round(one.confidence, 4)}
            for one in words
        ],
    }


def subtitles(words: list[Spoken]) -> list[tuple[int, int, str]]:
    """Lines to show: first frame, the one after the last, text."""
    lines: list[list[Spoken]] = []
    for one in words:
        line = lines[-1] if lines else []
        pause = line and one.first - line[-1].stop > LINE_PAUSE_S * FPS
        if not line or pause or len(line) == LINE_WORDS:
            lines.append([])
        lines[-1].append(one)
    return [(line[0].first, line[-1].stop, " ".join(w.word for w in line)) for line in lines]


def srt(words: list[Spoken]) -> str:
    """Subtitles as a SubRip file."""

    def stamp(frame: int) -> str:
        minutes, ms = divmod(frame * 1000 // FPS, 60_000)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{ms // 1000:02},{ms % 1000:03}"

    lines = enumerate(subtitles(words), 1)
    blocks = [
        f"{n}\n{stamp(first)} --> {stamp(stop)}\n{text}\n" for n, (first, stop, text) in lines
    ]
    return "\n".join(blocks)
