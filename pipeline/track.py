"""Where the face is: a few landmarks of mediapipe's face mesh in every frame.

The mesh costs 2.6 ms a look, two thirds of a clip's preparation if every frame is looked at, so
it looks every `every`-th frame and the rest is interpolated. On 45 GRID clips of nine talkers the
centre of the smoothed lips box (100 px wide) was, in its worst frame, this far from where a look
at every frame puts it: for 4 / 8 / 15 / 25 the median clip 0.3 / 0.7 / 1.1 / 1.7 px and the worst
clip 1.1 / 1.5 / 3.0 / 3.9 px.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from avb.pipeline.config import UsageError

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
#: A picture in which the mesh loses its face.
NO_FACE = np.zeros((64, 64, 3), np.uint8)
#: Numbers of faces whose graph has met one.
_met: set[int] = set()


@cache
def _mesh(num_faces: int = 1) -> Any:
    """The mesh graph of this process for so many faces, made once (20 ms)."""
    try:
        import mediapipe
    except ImportError as error:
        raise UsageError(
            f"tracking needs mediapipe ({error}); pip install 'avb[prep]', or use --box fixed"
        ) from None
    return mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=num_faces)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what mediapipe's C++ side writes to stderr, whatever its log level, off the terminal."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def forget_faces(num_faces: int = 1) -> None:
    """Make the graph search anew: the next look is at another film."""
    _process(NO_FACE, num_faces)


def _process(picture: np.ndarray, num_faces: int) -> list[Any]:
    """The mesh of each face in one RGB picture [H, W, 3]."""
    # It greets and warns when the graph is made and when it meets its first face.
    with nullcontext() if num_faces in _met else quiet():
        faces = _mesh(num_faces).process(picture).multi_face_landmarks or []
    if faces:
        _met.add(num_faces)
    return [face.landmark for face in faces]


def interpolate(found: Mapping[int, np.ndarray], start: int, stop: int) -> np.ndarray:
    """Landmarks [stop - start, 10, 2] of the frames between, from those of some frames.

    Args:
        found: frame number -> landmarks [10, 2], in rising order; at the ends they are repeated.
        start: first frame wanted.
        stop: the one after the last.
    """
    known = np.array(list(found))
    stack = np.stack(list(found.values()))
    times = np.arange(start, stop)
    points = np.stack(
        [np.interp(times, known, column) for column in stack.reshape(len(known), -1).T], axis=1
    )
    return points.reshape(stop - start, len(POINTS), 2)


def look(picture: np.ndarray, num_faces: int = 1) -> list[np.ndarray]:
    """Landmarks [10, 2] of up to `num_faces` faces in one luma picture [H, W], in its pixels."""
    import cv2

    height, width = picture.shape
    shrink = -(-max(height, width) // LOOK_SIDE)
    if shrink > 1:
        small = (width // shrink, height // shrink)
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    found = _process(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), num_faces)
    return [
        np.array([(marks[p].x * width, marks[p].y * height) for p in POINTS]) for marks in found
    ]
