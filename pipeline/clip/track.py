"""Where the face is: a few landmarks of mediapipe's face mesh in every frame.

A look costs 1.4 ms, three quarters of a clip's preparation if every frame is looked at, so it looks
every `every`-th frame and the rest is interpolated. On 135 GRID clips of 14 talkers the centre of
the smoothed lips box (100 px wide) was, in its worst frame, this far from where a look at every
frame puts it: for 3 / 5 / 8 / 12 / 25 the median clip 0.2 / 0.4 / 0.7 / 0.9 / 1.6 px and the worst
clip 0.8 / 2.0 / 1.7 / 3.2 / 4.5 px.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import cv2
import numpy as np

from avb.pipeline.clip.facemesh import FAR, NEAR, Detection, Detector, FaceMesh, Reach
from avb.pipeline.errors import UsageError

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
#: Faces that are told apart in one picture, and in what is cut out round a small one.
MOST_FACES, MOST_NEARBY = 4, 2
#: A picture is turned only if that makes its face so much more certain (0 to 1). On GRID an upright
#: face scores 0.85 to 0.95, the same one upside down 0.67 to 0.78.
SURER = 0.05
#: Side of the part of a picture in which a small face is looked at, in sides of its detection.
AROUND = 2.0
#: What finds faces: mediapipe's networks run by LiteRT, or by mediapipe itself.
TRACKERS = ("litert", "mediapipe")
#: The one that this process uses.
_tracker = TRACKERS[0]


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
    """As `FaceMesh`, run by mediapipe itself: the reference, where that can be installed."""

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
        self._mesh.process(np.zeros((64, 64, 3), np.uint8))

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
    seen, scale = _shrunk(picture)
    return [marks[POINTS] * scale for marks in _mesh(num_faces, _tracker).landmarks(seen)]


def _shrunk(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture no longer than `LOOK_SIDE`, and the sides of its pixels [2] in those of before."""
    shrink = -(-max(picture.shape) // LOOK_SIDE)
    small = [max(1, side // shrink) for side in picture.shape[::-1]]
    seen = cv2.resize(np.ascontiguousarray(picture), small, interpolation=cv2.INTER_AREA)
    return seen, np.array(picture.shape[::-1]) / small


def height(marks: np.ndarray) -> float:
    """From hairline to chin of landmarks [10, 2], in pixels."""
    return float(np.linalg.norm(marks[CHIN] - marks[FOREHEAD]))


def middle(marks: np.ndarray) -> np.ndarray:
    """The centre [2] of landmarks [10, 2]."""
    return marks.mean(axis=0)


def faces_of(picture: np.ndarray, others: bool = True) -> list[np.ndarray]:
    """Landmarks [10, 2] of each face in a picture [H, W]; without `others` of one near one.

    Where only one is looked for, as `avb prep` does, the face found is taken over as it is, to the
    last bit. The mesh sees faces from an eighth of the picture's width on, up to a sixth not on
    every processor; smaller ones are searched where it sees none, or all are wanted.
    """
    faces = landmarks(picture)
    for marks in landmarks(picture, MOST_FACES) if others else ():
        _add(faces, marks)
    if others or not faces:
        _add_small_faces(picture, faces)
    return faces


def _add(faces: list[np.ndarray], marks: np.ndarray) -> None:
    """Append a face unless it is there already."""
    if _apart(faces, middle(marks)):
        faces.append(marks)


def _apart(faces: list[np.ndarray], centre: np.ndarray) -> bool:
    """Whether a face there is none of those."""
    return all(np.linalg.norm(centre - middle(f)) > height(f) / 2 for f in faces)


def _add_small_faces(picture: np.ndarray, faces: list[np.ndarray]) -> None:
    """Append what only the detector for far faces finds, each looked at by itself."""
    for detection in _detect(picture, FAR)[:MOST_FACES]:
        corners = detection.box.reshape(2, 2)
        centre = corners.mean(axis=0)
        if not _apart(faces, centre):
            continue
        half = AROUND / 2 * float(np.ptp(corners, axis=0).max())
        x0, y0 = np.maximum(centre - half, 0).astype(int)
        x1, y1 = (centre + half).astype(int) + 1
        forget_faces(MOST_NEARBY)
        for marks in landmarks(np.ascontiguousarray(picture[y0:y1, x0:x1]), MOST_NEARBY):
            _add(faces, marks + (x0, y0))


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
    seen, scale = _shrunk(picture)
    return [
        Detection(one.score, one.box * np.tile(scale, 2), one.points * scale)
        for one in _detector(reach).find(seen)
    ]


@cache
def _detector(reach: Reach) -> Detector:
    """A detector of this process, made once."""
    with quiet():
        return Detector(reach)
