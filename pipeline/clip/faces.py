"""The faces of one picture: those that `avb prep` would see, others beside, and small ones."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from avb.pipeline.clip import track
from avb.pipeline.clip.facemesh import FAR, NEAR, Detection, Detector, Reach
from avb.pipeline.clip.facemesh_mediapipe import quiet

#: Faces that are told apart in one picture.
MOST_FACES = 4
#: A picture is turned only if that makes its face so much more certain (0 to 1). On GRID an upright
#: face scores 0.85 to 0.95, the same one upside down 0.67 to 0.78.
SURER = 0.05
#: Side of the part of a picture in which a small face is looked at, in sides of its detection.
AROUND = 2.0


def height(marks: np.ndarray) -> float:
    """From hairline to chin of landmarks [10, 2], in pixels."""
    return float(np.linalg.norm(marks[track.CHIN] - marks[track.FOREHEAD]))


def middle(marks: np.ndarray) -> np.ndarray:
    """The centre [2] of landmarks [10, 2]."""
    return marks.mean(axis=0)


def faces_of(picture: np.ndarray, others: bool = True) -> list[np.ndarray]:
    """Landmarks [10, 2] of each face in a picture [H, W]; without `others` of one near one.

    Where only one is looked for, as `avb prep` does, the face found is taken over as it is, to the
    last bit. The mesh sees faces from an eighth of the picture's width on; smaller ones are
    searched where it sees none.
    """
    faces = track.landmarks(picture)
    for marks in track.landmarks(picture, MOST_FACES) if others else ():
        _add(faces, marks)
    return faces or _small_faces(picture)


def _add(faces: list[np.ndarray], marks: np.ndarray) -> None:
    """Append a face unless it is there already."""
    if all(np.linalg.norm(middle(marks) - middle(f)) > height(f) / 2 for f in faces):
        faces.append(marks)


def _small_faces(picture: np.ndarray) -> list[np.ndarray]:
    """Landmarks of faces that only the detector for far ones finds, each looked at by itself."""
    faces: list[np.ndarray] = []
    for detection in _detect(picture, FAR)[:MOST_FACES]:
        corners = detection.box.reshape(2, 2)
        centre = corners.mean(axis=0)
        half = AROUND / 2 * float(np.ptp(corners, axis=0).max())
        x0, y0 = np.maximum(centre - half, 0).astype(int)
        x1, y1 = (centre + half).astype(int) + 1
        track.forget_faces()
        for marks in track.landmarks(np.ascontiguousarray(picture[y0:y1, x0:x1])):
            _add(faces, marks + (x0, y0))
    track.forget_faces()
    return faces


def turns_upright(picture: np.ndarray) -> int:
    """Quarter turns, for `numpy.rot90`, that bring a face in a picture [H, W] upright; or 0."""
    scores = [_upright_score(np.rot90(picture, turns)) for turns in range(4)]
    best = int(np.argmax(scores))
    return best if scores[best] > scores[0] + SURER else 0


def _upright_score(picture: np.ndarray) -> float:
    """How certain the detectors are of a face whose mouth is below its eyes: 0 to 1."""
    best = 0.0
    for reach in (NEAR, FAR):
        for detection in _detect(picture, reach):
            right_eye, left_eye, _, mouth = detection.points[:4]
            down = mouth - (right_eye + left_eye) / 2
            if down[1] > abs(down[0]):
                best = max(best, detection.score)
    return best


def _detect(picture: np.ndarray, reach: Reach) -> list[Detection]:
    shrink = -(-max(picture.shape) // track.LOOK_SIDE)
    small = (max(1, picture.shape[1] // shrink), max(1, picture.shape[0] // shrink))
    seen = cv2.resize(np.ascontiguousarray(picture), small, interpolation=cv2.INTER_AREA)
    scale = np.array(picture.shape[::-1]) / small
    return [
        Detection(one.score, one.box * np.tile(scale, 2), one.points * scale)
        for one in _detector(reach).find(seen)
    ]


@cache
def _detector(reach: Reach) -> Detector:
    """A detector of this process, made once."""
    with quiet():
        return Detector(reach)
