"""Boxes round the lips or the face, and the pictures cut from them with a margin.

A box is x0, y0, x1, y1 in source pixels; its content fills the centre `size` pixels of the stored
picture. Sub-pixel positions keep a slowly moving crop from jumping.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from avb.pipeline.clip.track import CHIN, EYES, FOREHEAD, MOUTH, SIDES
from avb.pipeline.config import Crop

#: Side of the lips box in distances between the outer eye corners (the mouth fills two fifths), of
#: the face box in heights from hairline to chin.
SIDE = {"lips": 1.5, "face": 1.15}
#: Deviation, in seconds, of the Gaussian that smooths centres: slower than speech (3 to 8 Hz).
SMOOTH_S = 0.2
#: From this many source pixels a stored pixel on, the source is smoothed before it is sampled.
SMOOTH_STEP = 1.3


def fixed_boxes(box: list[int], picture: list[int], height: int, width: int) -> np.ndarray:
    """The fixed box [1, 4], given for pictures of size `picture`, in those of another size."""
    scale = np.array([width / picture[0], height / picture[1]] * 2)
    return (np.array([box], np.float64) * scale).round(1)


def whole_boxes(height: int, width: int) -> np.ndarray:
    """The whole picture as box [1, 4]."""
    return np.array([[0.0, 0.0, width, height]])


def places(points: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Where lips or face are in points [T, 10, 2]: centres [T, 2], and the units of `SIDE` [T]."""
    if kind == "lips":
        eyes = np.linalg.norm(np.diff(points[:, EYES], axis=1)[:, 0], axis=1)
        return points[:, MOUTH].mean(axis=1), eyes
    centre = np.stack(
        [points[:, SIDES, 0].mean(axis=1), points[:, [FOREHEAD, CHIN], 1].mean(axis=1)], axis=1
    )
    return centre, np.linalg.norm(points[:, CHIN] - points[:, FOREHEAD], axis=1)


def square_boxes(centre: np.ndarray, side: float, fps: int) -> np.ndarray:
    """Boxes [T, 4] of one side round centres [T, 2], which are smoothed first."""
    centre = gaussian_filter1d(centre, SMOOTH_S * fps, axis=0, mode="nearest")
    half = side / 2
    # A tenth of a pixel is what the sample's JSON holds, so its boxes are exactly those cut.
    return np.concatenate([centre - half, centre + half], axis=1).round(1)


def leaves_picture(boxes: np.ndarray, height: int, width: int) -> bool:
    """Whether a box reaches beyond the picture by more than a pixel."""
    return bool((boxes[:, :2] < -1).any() or (boxes[:, 2:] > np.array([width, height]) + 1).any())


def cut(frames: Sequence[np.ndarray], boxes: np.ndarray, crop: Crop) -> np.ndarray:
    """Pictures of the boxes: uint8 [T, stored, stored] from T of [H, W]; edges are repeated.

    Where the box is larger than the crop, its surroundings are first shrunk by a whole factor
    over areas and blurred for the rest, so that the bilinear step does not alias.
    """
    side = crop.stored
    out = np.empty((len(frames), side, side), np.uint8)
    boxes = np.broadcast_to(boxes, (len(frames), 4))
    step = (boxes[:, 2:] - boxes[:, :2]) / crop.size  # source pixels a stored pixel, [T, 2]
    corner = boxes[:, :2]
    if step.max() > SMOOTH_STEP:
        frames, first, shrink = _smaller(frames, boxes, crop)
        corner, step = (corner - first) / shrink, step / shrink
    # Centre of stored pixel (u, v) in source coordinates; OpenCV puts pixel centres at whole
    # numbers, hence the halves.
    matrices = np.zeros((len(frames), 2, 3))
    matrices[:, [0, 1], [0, 1]] = step
    matrices[:, :, 2] = corner + (0.5 - crop.margin) * step - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for frame, matrix, picture in zip(frames, matrices, out, strict=True):
        cv2.warpAffine(frame, matrix, (side, side), picture, flags, cv2.BORDER_REPLICATE)
    return out


def _smaller(
    frames: Sequence[np.ndarray], boxes: np.ndarray, crop: Crop
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """The parts that the boxes need, shrunk and blurred; their corner (x, y), and the factor."""
    size = boxes[:, 2:] - boxes[:, :2]
    shrink = max(1, math.floor(size.min() / crop.size))
    rest = size.max() / crop.size / shrink
    sigma = 0.5 * math.sqrt(max(0.0, rest * rest - 1))
    limit = np.array(frames[0].shape[::-1])
    reach = size.max() * crop.margin / crop.size + 3 * shrink
    # Multiples of the factor, so that areas are the same ones whatever the part.
    first = np.clip((boxes[:, :2].min(axis=0) - reach) // shrink * shrink, 0, limit - shrink)
    last = np.clip(boxes[:, 2:].max(axis=0) + reach, first + shrink, limit)
    columns, rows = ((last - first) // shrink).astype(int).tolist()
    left, top = first.astype(int).tolist()
    parts = []
    for frame in frames:
        part = frame[top : top + rows * shrink, left : left + columns * shrink]
        if shrink > 1:
            part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
        if rest > SMOOTH_STEP:
            part = cv2.GaussianBlur(part, (3, 3), sigma, borderType=cv2.BORDER_REPLICATE)
        parts.append(part)
    return parts, first, shrink
