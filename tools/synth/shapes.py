"""Anti-aliased shapes on the layer of a head, in face units: see `face`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

HEAD_BOX = (-1.5, -2.75, 1.5, 1.05)  # x0 y0 x1 y1 of the head layer
SHIFT = 4  # fraction bits of cv2's integer coordinates


def points(xy: np.ndarray, unit: float) -> np.ndarray:
    """Face units to the head layer's fixed-point px."""
    px = (xy - np.array(HEAD_BOX[:2])) * unit
    return np.rint(px * (1 << SHIFT)).astype(np.int32)


def fill(layer: np.ndarray, xy: np.ndarray, colour: Sequence[float], unit: float) -> None:
    """Fills a polygon given in face units, with smooth edges."""
    cv2.fillPoly(layer, [points(xy, unit)], colour, cv2.LINE_AA, SHIFT)


def stroke(
    layer: np.ndarray, xy: np.ndarray, colour: Sequence[float], thick: float, unit: float
) -> None:
    """Draws an open line given in face units, at least 1 px thick."""
    width = max(1, round(thick * unit))
    cv2.polylines(layer, [points(xy, unit)], False, colour, width, cv2.LINE_AA, SHIFT)


def oval(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0
) -> np.ndarray:
    """Points of an ellipse's arc, `[N, 2]`, angles in degrees from +x towards +y."""
    angle = np.radians(np.linspace(start, end, 40))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def shading(width: int, height: int, scale: float) -> np.ndarray:
    """Light from the upper left on an egg with a nose, eye sockets and cheeks, `[H, W, 3]`."""
    x = (np.arange(width, dtype=np.float32) / scale + HEAD_BOX[0])[None, :]
    y = (np.arange(height, dtype=np.float32) / scale + HEAD_BOX[1])[:, None]

    def bump(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    nx, ny = x / 1.12, (y + 0.85) / 1.75
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
    light = 0.45 + 0.62 * np.clip(-0.3 * nx - 0.35 * ny + 0.88 * nz, 0, 1)
    for side in (-1, 1):
        light -= 0.2 * bump(side * 0.44, -1.2, 0.3, 0.2)
        light += 0.06 * bump(side * 0.52, -0.55, 0.3, 0.25)
        light -= 0.1 * bump(side * 0.3, -0.3, 0.08, 0.2)  # folds from nose to mouth
    light += 0.14 * bump(-0.03, -0.7, 0.08, 0.4) - 0.14 * bump(0.16, -0.65, 0.08, 0.35)
    light += 0.1 * bump(-0.02, -0.44, 0.13, 0.1) - 0.22 * bump(0.0, -0.27, 0.24, 0.06)
    light -= 0.06 * bump(0, -0.14, 0.05, 0.1)
    light -= 0.16 * bump(0, 0.27, 0.3, 0.06) - 0.08 * bump(0, 0.45, 0.22, 0.12)
    blush = sum(bump(side * 0.6, -0.45, 0.3, 0.25) for side in (-1, 1))
    return np.stack([light * (1 - 0.07 * blush), light * (1 - 0.05 * blush), light], axis=2)


def lay_over(
    frame: np.ndarray, head: np.ndarray, mouth: tuple[float, float], tilt: float, unit: float
) -> None:
    """Lays the head over the frame in place, its origin at `mouth` px, turned by `tilt` degrees."""
    margin, (height, width) = 0.1 * unit, frame.shape[:2]
    left, top, right, bottom = np.array(HEAD_BOX) * unit + (*mouth, *mouth)
    x0, y0 = max(0, math.floor(left - margin)), max(0, math.floor(top - margin))
    x1, y1 = min(width, math.ceil(right + margin)), min(height, math.ceil(bottom + margin))
    origin = (-HEAD_BOX[0] * unit, -HEAD_BOX[1] * unit)
    matrix = np.asarray(cv2.getRotationMatrix2D(origin, tilt, 1.0), np.float64)
    matrix[:, 2] = matrix[:, 2] + np.array(mouth) - origin - (x0, y0)
    warped = np.asarray(cv2.warpAffine(head, matrix, (x1 - x0, y1 - y0)))
    patch = frame[y0:y1, x0:x1]
    clear = cv2.cvtColor(255 - warped[..., 3], cv2.COLOR_GRAY2BGR)
    # The head's colours hold its alpha already, so that smooth edges are drawn without a halo.
    patch[...] = cv2.add(cv2.multiply(patch, clear, scale=1 / 255), warped[..., :3])
