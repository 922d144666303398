"""Boxes round the lips or the face, and the pictures cut from them with a margin.

A box is x0, y0, x1, y1 in source pixels; its content fills the centre `size` pixels of the stored
picture. Sub-pixel positions keep a slowly moving crop from jumping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d

from avb.pipeline.config import Crop
from avb.pipeline.track import CHIN, EYES, FOREHEAD, MOUTH, SIDES

#: Side of the lips box in distances between the outer eye corners: the mouth fills two fifths.
LIPS_SIDE = 1.5
#: Side of the face box in heights from hairline to chin.
FACE_SIDE = 1.15
#: Deviation, in seconds, of the Gaussian that smooths centres: slower than speech (3 to 8 Hz).
SMOOTH_S = 0.2


def fixed_boxes(box: list[int], picture: list[int], height: int, width: int) -> np.ndarray:
    """The fixed box [1, 4], given for pictures of size `picture`, in those of another size."""
    scale = np.array([width / picture[0], height / picture[1]] * 2)
    return (np.array([box], np.float64) * scale).round(1)


def whole_boxes(height: int, width: int) -> np.ndarray:
    """The whole picture as box [1, 4]."""
    return np.array([[0.0, 0.0, width, height]])


def tracked_boxes(points: np.ndarray, kind: str, fps: int) -> np.ndarray:
    """Square boxes [T, 4] round lips or face: one side length a clip, smoothed centres.

    Args:
        points: float [T, 10, 2], of `track.POINTS`.
        kind: "lips" or "face".
    """
    if kind == "lips":
        centre = points[:, MOUTH].mean(axis=1)
        side = LIPS_SIDE * np.median(np.linalg.norm(np.diff(points[:, EYES], axis=1)[:, 0], axis=1))
    else:
        centre = np.stack(
            [points[:, SIDES, 0].mean(axis=1), points[:, [FOREHEAD, CHIN], 1].mean(axis=1)], axis=1
        )
        height = np.linalg.norm(points[:, CHIN] - points[:, FOREHEAD], axis=1)
        side = FACE_SIDE * np.median(height)
    centre = gaussian_filter1d(centre, SMOOTH_S * fps, axis=0, mode="nearest")
    half = side / 2
    # A tenth of a pixel is what the sample's JSON holds, so its boxes are exactly those cut.
    return np.concatenate([centre - half, centre + half], axis=1).round(1)


def leaves_picture(boxes: np.ndarray, height: int, width: int) -> bool:
    """Whether a box reaches beyond the picture by more than a pixel."""
    return bool((boxes[:, :2] < -1).any() or (boxes[:, 2:] > np.array([width, height]) + 1).any())


def cut(frames: Sequence[np.ndarray], boxes: np.ndarray, crop: Crop) -> np.ndarray:
    """Pictures of the boxes: uint8 [T, stored, stored] from T of [H, W]; edges are repeated.

    Large pictures are first shrunk by a whole factor over areas, so that the bilinear step never
    skips source pixels.
    """
    import cv2

    side = crop.stored
    out = np.empty((len(frames), side, side), np.uint8)
    for i, frame in enumerate(frames):
        x0, y0, x1, y1 = boxes[i if len(boxes) > 1 else 0]
        step_x, step_y = (x1 - x0) / crop.size, (y1 - y0) / crop.size
        shrink = max(1, math.floor(min(step_x, step_y)))
        if shrink > 1:
            frame, x0, y0 = _shrink(frame, x0, y0, x1, y1, shrink, crop)
            step_x, step_y = step_x / shrink, step_y / shrink
        # Centre of stored pixel (u, v) in source coordinates; OpenCV puts pixel centres at
        # whole numbers, hence the halves.
        matrix = np.array(
            [
                [step_x, 0, x0 + (0.5 - crop.margin) * step_x - 0.5],
                [0, step_y, y0 + (0.5 - crop.margin) * step_y - 0.5],
            ]
        )
        cv2.warpAffine(
            frame,
            matrix,
            (side, side),
            dst=out[i],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return out


def _shrink(
    frame: np.ndarray, x0: float, y0: float, x1: float, y1: float, shrink: int, crop: Crop
) -> tuple[np.ndarray, float, float]:
    """The surroundings of a box, shrunk by a whole factor, and the box's corner in them."""
    import cv2

    reach_x = (x1 - x0) * (crop.margin / crop.size) + 2 * shrink
    reach_y = (y1 - y0) * (crop.margin / crop.size) + 2 * shrink
    height, width = frame.shape
    left = int(np.clip((x0 - reach_x) // shrink * shrink, 0, width - shrink))
    top = int(np.clip((y0 - reach_y) // shrink * shrink, 0, height - shrink))
    right = int(np.clip(x1 + reach_x, left + shrink, width))
    bottom = int(np.clip(y1 + reach_y, top + shrink, height))
    columns, rows = max(1, (right - left) // shrink), max(1, (bottom - top) // shrink)
    part = frame[top : top + rows * shrink, left : left + columns * shrink]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return small, (x0 - left) / shrink, (y0 - top) / shrink
