"""Decoded pictures: their first plane, their size, and whether there is anything in them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Luma deviation below this is a picture without content: a missing intra picture decodes to
#: 0.0 to 1.2 over its first two frames, a face to more than 30.
BLANK_STD = 2.0
#: Pictures with more pixels than this (the largest camera format) are refused: a decoder holds up
#: to 16 of them.
MAX_PIXELS = 8192 * 4320
#: Pictures longer than this are shrunk by a whole factor as they are read: a face in them is
#: large, and a second of 4K is 200 MB.
MAX_SIDE = 1920


def first_plane(frame: Any, kind: str = "u1") -> np.ndarray:
    """The first plane of PyAV's frame [H, W] without the padding of its rows, not copied."""
    plane, size = frame.planes[0], int(kind[-1])
    rows: np.ndarray = np.frombuffer(plane, kind).reshape(-1, plane.line_size // size)
    return rows[: frame.height, : frame.width]


def fitted(picture: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """A picture in the size of the first; the first one, `shape` None, at most `MAX_SIDE` long."""
    if shape is None:
        shrink = -(-max(picture.shape[:2]) // MAX_SIDE)
        shape = (picture.shape[0] // shrink, picture.shape[1] // shrink, *picture.shape[2:])
    if picture.shape == shape:
        return picture
    import cv2

    return np.asarray(cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA))


def is_blank(picture: np.ndarray) -> bool:
    """Whether a picture has no content, judged by every eighth pixel."""
    import cv2

    deviation = cv2.meanStdDev(np.ascontiguousarray(picture[::8, ::8]))[1]
    return bool(deviation[0, 0] < BLANK_STD)
