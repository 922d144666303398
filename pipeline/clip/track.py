"""Where the face is: a few landmarks of mediapipe's face mesh in every frame.

A look costs 1.4 ms, three quarters of a clip's preparation if every frame is looked at, so it looks
every `every`-th frame and the rest is interpolated. On 135 GRID clips of 14 talkers the centre of
the smoothed lips box (100 px wide) was, in its worst frame, this far from where a look at every
frame puts it: for 3 / 5 / 8 / 12 / 25 the median clip 0.2 / 0.4 / 0.7 / 0.9 / 1.6 px and the worst
clip 0.8 / 2.0 / 1.7 / 3.2 / 4.5 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np

from avb.pipeline.clip.facemesh import FaceMesh
from avb.pipeline.clip.facemesh_mediapipe import MediapipeMesh, quiet

#: Landmarks kept, as indices of the mesh: outer eye corners, mouth corners, outer lip middles,
#: hairline, chin, face sides.
POINTS = [33, 263, 61, 291, 0, 17, 10, 152, 234, 454]
EYES = [0, 1]
MOUTH = [2, 3]  # corners: speech moves them less than the lips, so the crop stays steady
LIPS = [4, 5]
FOREHEAD, CHIN = 6, 7
SIDES = [8, 9]
#: Pictures larger than this on their longer side are shrunk before the mesh sees them.
LOOK_SIDE = 640
#: What finds faces: mediapipe's networks run by LiteRT, or by mediapipe itself.
TRACKERS = ("litert", "mediapipe")
#: The one that this process uses.
_tracker = TRACKERS[0]


def use(tracker: str) -> None:
    """Find faces by one of `TRACKERS` in this process from now on."""
    global _tracker
    _tracker = tracker


@cache
def _mesh(num_faces: int, tracker: str) -> Any:
    """What finds so many faces in this process, made once (20 ms)."""
    with quiet():
        return (FaceMesh if tracker == TRACKERS[0] else MediapipeMesh)(num_faces)


def forget_faces(num_faces: int = 1) -> None:
    """Search anew in the next look: it is at another film."""
    _mesh(num_faces, _tracker).forget()


def interpolate(marks_at: Mapping[int, np.ndarray], start: int, stop: int) -> np.ndarray:
    """Landmarks [stop - start, 10, 2] of all frames from those of some, in rising order."""
    known = np.array(list(marks_at))
    stack = np.stack(list(marks_at.values()))
    times = np.arange(start, stop)
    points = np.stack(
        [np.interp(times, known, column) for column in stack.reshape(len(known), -1).T], axis=1
    )
    return points.reshape(stop - start, len(POINTS), 2)


def landmarks(picture: np.ndarray, num_faces: int = 1) -> list[np.ndarray]:
    """Landmarks [10, 2] of up to `num_faces` faces in one luma picture [H, W], in its pixels."""
    height, width = picture.shape
    shrink = -(-max(height, width) // LOOK_SIDE)
    if shrink > 1:
        small = (width // shrink, height // shrink)
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    scale = (width / picture.shape[1], height / picture.shape[0])
    return [marks[POINTS] * scale for marks in _mesh(num_faces, _tracker).landmarks(picture)]
