"""Talking faces of plain anti-aliased OpenCV shapes with shading, which face detectors find.

Lengths are in halves of the width of the face at the cheekbones, from the middle of the mouth, x to
the right and y down: the chin near +0.68, the eyes at -1.15 (measured on GRID talkers). The head is
drawn once per talker at twice its size; a frame of 360 x 288 then takes about 1 ms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from avb.tools.synth.media import FPS
from avb.tools.synth.shapes import HEAD_BOX, SHIFT, fill, lay_over, oval, shading, stroke

LIP_OPEN = 0.4  # inner-lip distance of a wide open mouth
_GRAIN = 9  # grey levels
_SHADES = {  # skin, hair in BGR
    "skin": [(168, 196, 232), (150, 182, 222), (122, 158, 204), (92, 128, 176), (62, 92, 138)],
    "hair": [
        (28, 30, 36), (34, 52, 78), (52, 84, 118), (92, 142, 178), (40, 58, 112), (96, 98, 102),
    ],
    "iris": [(92, 62, 34), (38, 62, 92), (62, 92, 72), (112, 108, 72), (24, 42, 66)],
    "wall": [(168, 122, 52), (120, 132, 128), (96, 120, 92), (70, 78, 112), (150, 140, 120)],
    "shirt": [(120, 96, 62), (52, 52, 58), (76, 60, 128), (148, 152, 156), (60, 96, 66)],
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What tells one drawn talker from another; colours are BGR, lengths relative to the mean."""

    seed: int
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    iris: tuple[int, int, int]
    wall: tuple[int, int, int]
    shirt: tuple[int, int, int]
    long_hair: bool
    jaw: float
    eye_gap: float
    mouth_width: float
    lip: float
    brow: float

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """Draws a talker; different seeds give different people."""
        rng = np.random.default_rng((seed, 0xFACE))
        colours = {key: tuple(rng.permutation(value)[0].tolist()) for key, value in _SHADES.items()}
        return cls(
            seed=seed,
            **colours,
            long_hair=bool(rng.random() < 0.5),
            jaw=float(rng.uniform(0.93, 1.06)),
            eye_gap=float(rng.uniform(0.95, 1.05)),
            mouth_width=float(rng.uniform(0.92, 1.1)),
            lip=float(rng.uniform(0.9, 1.25)),
            brow=float(rng.uniform(0.8, 1.3)),
        )


def draw(
    identity: Identity, opening: float, spread: float = 0.0,
    offset: tuple[float, float] = (0.0, 0.0), tilt: float = 0.0, *,
    size: tuple[int, int] = (360, 288), mouth: tuple[float, float] = (180.0, 210.0),
    unit: float = 50.0, lids: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Draws one picture of a talker, uint8 BGR `[height, width, 3]`.

    Args:
        opening: inner-lip distance, 0 closed to 1 wide open (`LIP_OPEN` units).
        spread: -1 rounded to 1 stretched lips.
        offset: movement of the head in px; `tilt` its rotation about the mouth, in degrees.
        mouth: middle of the mouth at rest in px; `unit` px of half the face's width.
        lids: 0 open eyes to 1 closed.
    """
    head = _head(identity, unit).copy()
    _move_jaw(head, opening, unit)
    _draw_mouth(head, identity, opening, spread, unit)
    if lids > 0.02:
        _draw_lids(head, identity, lids, unit)
    frame = _background(identity, size, mouth, unit).copy()
    lay_over(frame, head, (mouth[0] + offset[0], mouth[1] + offset[1]), tilt, unit)
    return frame


def film(
    identity: Identity, track: np.ndarray, size: tuple[int, int], mouth: tuple[float, float],
    unit: float, seed: int,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Films a talker: `draw` for each row of `track` [T, 2], with sway, blinking and noise."""
    rng = np.random.default_rng((seed, 0xF11))
    phases = rng.uniform(0, 2 * math.pi, 3)
    blink_s = rng.uniform(0.3, 2.5)
    noise = _noise(size)
    for index, (opening, spread) in enumerate(track):
        time_s = (index + 0.5) / FPS
        # Slow sines: a seated talker drifts by a few px over seconds, never by 2 px in a frame.
        sway = np.sin(2 * math.pi * np.array([0.31, 0.23, 0.19]) * time_s + phases)
        offset, tilt = (0.035 * unit * sway[0], 0.02 * unit * sway[1]), 1.2 * sway[2]
        lids = math.exp(-(((time_s - blink_s) / 0.06) ** 2))
        frame = draw(
            identity, opening, spread, offset, tilt, size=size, mouth=mouth, unit=unit, lids=lids
        )
        grain = noise[int(rng.integers(len(noise)))]
        yield cv2.addWeighted(frame, 1.0, grain, 1.0, -_GRAIN)


@functools.lru_cache(maxsize=4)
def _noise(size: tuple[int, int]) -> list[np.ndarray]:
    """Eight pictures of camera noise with mean `_GRAIN`, uint8."""
    rng = np.random.default_rng(0xA015E)
    shape = (size[1], size[0], 3)
    pictures = (np.clip(rng.normal(_GRAIN, 3, shape), 0, 2 * _GRAIN) for _ in range(8))
    return [picture.round().astype(np.uint8) for picture in pictures]


def _outline(jaw: float) -> np.ndarray:
    """The face: round above, narrowing towards the chin, `[N, 2]`."""
    angle = np.radians(np.linspace(0, 360, 120, endpoint=False))
    x, y = np.cos(angle), np.sin(angle)
    below = np.clip(y, 0, 1)
    square = np.abs(x) ** 0.8 * np.sign(x)  # a jaw is fuller than an ellipse
    x = np.where(y > 0, square * (1 - 0.2 * below**1.5), x)
    return np.stack([x, -0.8 + y * np.where(y > 0, 1.48 * jaw, 1.5)], axis=1)


@functools.lru_cache(maxsize=32)
def _head(identity: Identity, unit: float) -> np.ndarray:
    """The head without its mouth: BGR times alpha, and alpha, uint8 `[H, W, 4]`."""
    scale = 2.0 * unit  # drawn at twice the size, then averaged
    x0, y0, x1, y1 = HEAD_BOX
    width, height = round((x1 - x0) * unit) * 2, round((y1 - y0) * unit) * 2
    layer = np.zeros((height, width, 4), np.uint8)
    hair, skin = (*identity.hair, 255), (*identity.skin, 255)
    fill(layer, oval(0, -1.15, 1.2, 1.42), hair, scale)
    if identity.long_hair:
        fill(layer, np.array([(-1.2, -1.1), (1.2, -1.1), (1.3, 0.9), (-1.3, 0.9)]), hair, scale)
    for side in (-1, 1):
        fill(layer, oval(side * 1.02, -0.8, 0.13, 0.3), skin, scale)
    fill(layer, _outline(identity.jaw), skin, scale)
    hairline = oval(0, -1.45, 0.98, 0.5, 180, 360)
    fill(layer, np.concatenate([oval(0, -1.15, 1.19, 1.41, 195, 345), hairline[::-1]]), hair, scale)
    picture = layer[..., :3] * shading(width, height, scale)
    layer[..., :3] = np.clip(picture, 0, 255)
    _draw_features(layer, identity, scale)
    return cv2.resize(layer, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def _draw_features(layer: np.ndarray, identity: Identity, scale: float) -> None:
    """Eyes, brows and nostrils on the head layer."""
    dark = tuple(0.35 * c for c in identity.skin)
    for side in (-1, 1):
        x = side * 0.44 * identity.eye_gap
        lids = oval(x, -1.15, 0.2, 0.1, 180, 360), oval(x, -1.15, 0.2, 0.07, 0, 180)
        eye = np.concatenate(lids)
        fill(layer, eye, (232, 234, 236, 255), scale)
        fill(layer, oval(x, -1.155, 0.085, 0.085), (*identity.iris, 255), scale)
        fill(layer, oval(x, -1.155, 0.04, 0.04), (12, 12, 14, 255), scale)
        fill(layer, oval(x - 0.03, -1.185, 0.016, 0.016), (250, 250, 250, 255), scale)
        for arc, thick in zip(lids, (0.03, 0.012), strict=True):
            stroke(layer, arc, (*dark, 255), thick, scale)
        brow = oval(x + side * 0.02, -1.33, 0.29, 0.12, 200, 340)
        brow = np.concatenate([brow, brow[::-1] + np.array([0, 0.055 * identity.brow])])
        fill(layer, brow, (*(0.8 * c for c in identity.hair), 255), scale)
        fill(layer, oval(side * 0.09, -0.33, 0.05, 0.026), (*dark, 255), scale)


def _move_jaw(head: np.ndarray, opening: float, unit: float) -> None:
    """Stretches what lies below the mouth, up to 12 % for a wide open one."""
    top = round(-HEAD_BOX[1] * unit)
    matrix = np.array([[1, 0, 0], [0, 1 + 0.12 * opening, 0]], np.float64)
    size, edge = head[top:].shape[1::-1], cv2.BORDER_REPLICATE
    head[top:] = cv2.warpAffine(head[top:], matrix, size, borderMode=edge)


def _draw_mouth(
    head: np.ndarray, identity: Identity, opening: float, spread: float, unit: float
) -> None:
    """Lips and teeth; the lower lip makes three quarters of the way.

    There is no tongue: one drawn as a light shape is taken for the lower lip by the face mesh.
    """
    half = 0.37 * identity.mouth_width * (1 + 0.16 * spread) * (1 - 0.08 * opening)
    upper, lower = -0.25 * LIP_OPEN * opening, 0.75 * LIP_OPEN * opening
    t = np.linspace(-1, 1, 25)
    arch = np.cos(t * math.pi / 2)
    full = identity.lip * (1 + 0.35 * max(0.0, -spread))
    bow = 0.1 * full * arch**0.7 * (1 - 0.25 * np.exp(-((t / 0.16) ** 2)))
    x = half * t

    def curve(height: np.ndarray) -> np.ndarray:
        return np.stack([x, height], axis=1)

    def between(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.concatenate([curve(above), curve(below)[::-1]])

    inner_top, inner_bottom = upper * arch**0.6, lower * arch**0.6
    lip = [0.45 * c + 0.55 * r for c, r in zip(identity.skin, (78, 62, 160), strict=True)]
    both = between(inner_top - bow, inner_bottom + 0.14 * full * arch**0.7)
    fill(head, both, (*(0.86 * c for c in lip), 255), unit)
    shine = oval(-0.04, lower + 0.07 * full, 0.4 * half, 0.026)
    fill(head, shine, (*(min(255, 1.1 * c) for c in lip), 255), unit)
    if opening > 0.03:
        fill(head, between(inner_top, inner_bottom), (24, 18, 38, 255), unit)
        gap = inner_bottom - inner_top
        teeth = inner_top + np.minimum(0.05 * arch, 0.25 * gap)
        fill(head, between(inner_top, teeth), (168, 178, 186, 255), unit)
    else:
        stroke(head, curve(0.012 * arch), (*(0.5 * c for c in lip), 255), 0.02, unit)


def _draw_lids(head: np.ndarray, identity: Identity, closed: float, unit: float) -> None:
    """Upper lids drawn down over the eyes."""
    for side in (-1, 1):
        x = side * 0.44 * identity.eye_gap
        rim = oval(x, -1.15, 0.2, 0.1, 180, 360)
        edge = rim[::-1].copy()
        edge[:, 1] += closed * 0.17 * np.sin(np.linspace(0, math.pi, len(edge)))
        fill(head, np.concatenate([rim, edge]), (*(0.82 * c for c in identity.skin), 255), unit)
        stroke(head, edge, (*(0.35 * c for c in identity.skin), 255), 0.02, unit)


def backdrop(identity: Identity, size: tuple[int, int]) -> np.ndarray:
    """The wall behind a talker with nobody before it, uint8 BGR `[H, W, 3]`."""
    width, height = size
    rng = np.random.default_rng((identity.seed, 0xBAC))
    clouds = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), width / 12)
    clouds = np.asarray(clouds) / np.abs(clouds).max()
    x, y = np.meshgrid(np.linspace(-0.6, 1, width), np.linspace(-0.6, 1, height))
    lit = 1.12 - 0.3 * np.hypot(x, y) + 0.06 * clouds
    return np.clip(np.array(identity.wall) * lit[..., None], 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=32)
def _background(
    identity: Identity, size: tuple[int, int], mouth: tuple[float, float], unit: float
) -> np.ndarray:
    """Wall, shoulders and neck, uint8 BGR `[H, W, 3]`."""
    frame = backdrop(identity, size)

    def paint(xy: np.ndarray, colour: Sequence[float]) -> None:
        px = np.rint((xy * unit + np.array(mouth)) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(frame, [px], colour, cv2.LINE_AA, SHIFT)

    paint(oval(0, 2.6, 2.5, 1.5), identity.shirt)
    neck = [0.72 * c for c in identity.skin]
    paint(oval(0, 1.2, 0.66, 0.55), neck)
    paint(np.array([(-0.62, 0), (0.62, 0), (0.66, 1.2), (-0.66, 1.2)]), neck)
    paint(oval(0, 0.35, 0.63, 0.62, 0, 180), [0.5 * c for c in identity.skin])  # the chin's shadow
    return cv2.GaussianBlur(frame, (0, 0), 0.05 * unit)
