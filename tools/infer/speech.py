"""Speech from a film: mels of overlapping windows joined by fading, then sound of them.

Both work on spans, so that a film may be of any length: windows of the network fade into each
other, spans of sound change over at the quietest place that they share. A film no longer than a
clip of training is one window and one span. Shapes: F mel bins, M columns, four to a picture.
"""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from avb.models.frontends import COLUMNS_PER_FRAME
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.files import open_atomic
from avb.tools.infer.crops import Piece, Window, slide
from avb.tools.infer.model import Addresses, Trained
from avb.train.evaluate.metrics.griffin_lim import invert_mel
from avb.train.network import finite

#: Pictures in a window where the corpus does not say how long its clips are.
WINDOW = 75
#: The part of a window that fades into the next one.
OVERLAP = 1 / 3
#: Columns of sound that are made at a time, and those two spans share.
SPAN, SHARED = 2000, 200
#: Columns over which one span of sound turns into the next.
FADE = 4


def make_mels(
    pieces: Iterator[Piece], trained: Trained, clock: Clock, addresses: Addresses | None = None
) -> Iterator[np.ndarray]:
    """Log-mels float32 [F, n] that follow each other, silent where nobody is seen."""
    size = trained.settings.frames or WINDOW
    overlap = int(size * OVERLAP)
    silence = trained.scaling.mel_low
    torch.manual_seed(0)  # as in evaluation: the pre-net's dropout stays on
    total = weight = np.empty((0, 0), np.float32)
    first = last = 0  # column at which they begin, and where the latest window does
    for window in slide(pieces, size, size - overlap):
        mel = _mel(window, trained, clock, addresses)
        mel[:, ~np.repeat(window.seen, COLUMNS_PER_FRAME)] = silence
        rise = np.arange(1, mel.shape[1] + 1, dtype=np.float32) / (overlap * COLUMNS_PER_FRAME + 1)
        ramp = np.minimum(1, np.minimum(rise, rise[::-1]))  # nowhere 0
        start = window.start * COLUMNS_PER_FRAME
        if last < start:  # what is before this window, no later one will touch
            done = start - first
            yield total[:, :done] / weight[:, :done]
            total, weight, first = total[:, done:], weight[:, done:], start
        last = start
        more = start + mel.shape[1] - first - total.shape[1]
        rows = len(mel)
        total = np.concatenate([total.reshape(rows, -1), np.zeros((rows, more), np.float32)], 1)
        weight = np.concatenate([weight.reshape(1, -1), np.zeros((1, more), np.float32)], 1)
        total[:, start - first :] += mel * ramp
        weight[:, start - first :] += ramp
    if total.size:
        yield total / weight


def _mel(window: Window, trained: Trained, clock: Clock, addresses: Addresses | None) -> np.ndarray:
    """Log-mel [F, 4 n] of one window."""
    with clock("network"):
        output = trained.output(window.crops[None])
        if addresses is not None and output.bridge.source_addressing is not None:
            addresses.add(window.start, output.bridge.source_addressing[0])
        mel = trained.scaling.from_speech_range(finite(output.mels.after.float()))
        low, high = trained.scaling.mel_low, trained.scaling.mel_high
        return mel[0].clamp(low, high).cpu().numpy()


def make_sound(mels: Iterator[np.ndarray], trained: Trained, clock: Clock) -> Iterator[np.ndarray]:
    """Sound float32 [n] that follows each other: in all 160 samples a column."""
    held = np.empty((0, 0), np.float32)
    before = np.empty(0, np.float32)  # the shared end of the last span's sound
    for mel in mels:
        held = np.concatenate([held, mel], axis=1) if held.size else mel
        while held.shape[1] >= SPAN + SHARED:  # enough is left for a span that is not tiny
            sound = _invert(held[:, :SPAN], trained, clock)
            shared = SHARED * trained.settings.mel.hop
            yield _join(before, sound[:-shared], trained.settings.mel.hop)
            before, held = sound[-shared:], held[:, SPAN - SHARED :]
    if held.size:
        yield _join(before, _invert(held, trained, clock), trained.settings.mel.hop)


def _invert(mel: np.ndarray, trained: Trained, clock: Clock) -> np.ndarray:
    with clock("vocoder"):
        on_device = torch.from_numpy(np.ascontiguousarray(mel)).to(trained.device)
        settings = trained.settings
        made = invert_mel(on_device, settings.mel, settings.sample_rate, vocoder=trained.vocoder)
        return made.cpu().numpy()


def _join(before: np.ndarray, sound: np.ndarray, hop: int) -> np.ndarray:
    """`sound` with its start replaced by `before`, up to the quietest place of both.

    Phases of two spans have nothing to do with each other: a fade in loud speech would be heard.
    """
    if not len(before):
        return sound
    fade = FADE * hop
    places = range(0, len(before) - fade, hop)
    loud = [np.square(before[p : p + fade]).sum() + np.square(sound[p : p + fade]).sum()
            for p in places]  # fmt: skip
    at = places[int(np.argmin(loud))]
    rise = np.linspace(0, 1, fade, dtype=np.float32)
    mixed = before[at : at + fade] * (1 - rise) + sound[at : at + fade] * rise
    return np.concatenate([before[:at], mixed, sound[at + fade :]])


def write_wav(path: Path, sounds: Iterator[np.ndarray], rate: int) -> None:
    """Sound float32 [n], part after part, as a mono file of 16 bits; whole or not at all."""
    with open_atomic(path) as file, wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        for sound in sounds:
            levels = np.rint(np.clip(sound, -1, 1) * 32767)
            out.writeframes(levels.astype("<i2").tobytes())
