"""The face mesh as mediapipe itself runs it: the reference, where that can be installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np

from avb.pipeline.errors import UsageError

#: A picture in which the mesh loses its face.
NO_FACE = np.zeros((64, 64, 3), np.uint8)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what C++ writes to stderr, whatever its log level, off the terminal."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


class MediapipeMesh:
    """As `facemesh.FaceMesh`."""

    def __init__(self, most: int = 1, follow: bool = True):
        try:
            import mediapipe

            mesh = mediapipe.solutions.face_mesh.FaceMesh
        except (ImportError, AttributeError) as error:  # newer ones have no solutions
            raise UsageError(
                f"--tracker mediapipe needs mediapipe 0.10.21 ({error}), for Python 3.11 or 3.12;"
                " --tracker litert finds the same landmarks without it"
            ) from None
        # It greets when it is made, and warns when it meets its first face.
        self._met = False
        with quiet():
            self._mesh = mesh(max_num_faces=most, static_image_mode=not follow)

    def forget(self) -> None:
        """Search anew: a picture without a face does it at half the price of a reset."""
        self._mesh.process(NO_FACE)

    def landmarks(self, picture: np.ndarray) -> list[np.ndarray]:
        """Landmarks [468, 2] of each face in a grey picture [H, W], in its pixels."""
        height, width = picture.shape
        with nullcontext() if self._met else quiet():
            result = self._mesh.process(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB))
        faces = result.multi_face_landmarks
        self._met = self._met or bool(faces)
        return [
            np.array([(mark.x * width, mark.y * height) for mark in face.landmark])
            for face in faces or []
        ]
