"""Faces by mediapipe's networks without mediapipe: LiteRT runs its detectors and its face mesh.

A detector finds faces in a whole picture; the mesh lays 468 landmarks over one, cut out as a turned
square. Where a face was is where it is looked for next. Sizes, thresholds and the order of steps
are those of mediapipe 0.10.21's graphs (google-ai-edge/mediapipe, modules/face_detection and
modules/face_landmark, Apache-2.0). It counts as they do, in 32-bit floats and shares of the
picture: each look begins where the last one ended, so that a difference in the last bit would be
one of 0.1 px some looks later. As it is, landmarks are mediapipe's to the last bit, and so are
shards. Of a grey picture, whose three channels are equal, only one is cut out.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from avb.pipeline.clip.facemodels import NO_LITERT, check_processor, model
from avb.pipeline.errors import UsageError

F = np.float32
#: Side of the square picture that the mesh sees, and the pixels' values in it.
MESH_SIDE, MESH_RANGE = 192, (0.0, 1.0)
DETECTOR_RANGE = (-1.0, 1.0)
#: The mesh is sure enough of a face above this.
SEEN = 0.5
#: A face is cut out with so much of what is around it.
AROUND = F(1.5)
#: Parts that share more of what they cover are of one face; so are detections.
SAME_FACE, SAME_FIND = 0.5, 0.3
#: Outer corners of the eyes, in the mesh: they say how a face is turned.
EYES = [33, 263]


class Reach(NamedTuple):
    """A detector."""

    model: str  # its file
    side: int  # of the square picture that it sees
    sure: float  # the least score of a find
    # Side of the cells that its finds are counted from, and how many in each.
    cells: tuple[tuple[int, int], ...]


#: Faces within 2 m of the camera, and smaller ones.
NEAR = Reach("face_detection_short_range", 128, 0.5, ((8, 2), (16, 6)))
FAR = Reach("face_detection_full_range_sparse", 192, 0.6, ((4, 1),))


@cache
def pixel_values(span: tuple[float, float]) -> np.ndarray:
    """What a network sees for each value of a pixel: float32 [256]."""
    low, high = map(F, span)
    return (np.arange(256) * float((high - low) / F(255)) + float(low)).astype(F)


def score_of(logit: np.ndarray) -> np.ndarray:
    """0 to 1; the exponential is rounded from 64 bits, as the C library's is."""
    return F(1) / (F(1) + np.exp(-np.clip(logit, -80, 80).astype(np.float64)).astype(F))


def _float_of(name: str, otherwise: Callable[..., float]) -> Callable[..., np.floating[Any]]:
    """A function of the C library in 32-bit floats, as mediapipe calls it.

    Rounded from 64 bits, as where there is none of that name, it is another float now and then.
    """
    function: Any = getattr(ctypes.CDLL(None), f"{name}f", otherwise)
    if function is not otherwise:
        count = 2 if name == "atan2" else 1
        function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float] * count
    return lambda *values: F(function(*map(float, values)))


cos32, sin32 = _float_of("cos", math.cos), _float_of("sin", math.sin)
atan2_32 = _float_of("atan2", math.atan2)


class Network:
    """A model that LiteRT runs on one core."""

    def __init__(self, name: str):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UsageError(f"{NO_LITERT} ({error})") from None
        check_processor()
        self._runtime = Interpreter(model_content=model(name), num_threads=1)
        self._runtime.allocate_tensors()
        (source,) = self._runtime.get_input_details()
        self._source = self._runtime.tensor(source["index"])
        # The larger one is what it says, the smaller how certain it is.
        outputs = self._runtime.get_output_details()
        self._outputs = [o["index"] for o in sorted(outputs, key=lambda o: -np.prod(o["shape"]))]

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        """What it makes of a picture [side, side(, 3)] of float32, in its range."""
        if picture.ndim == 2:  # OpenCV makes three channels of it in a fifth of numpy's time
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
        self._source()[0] = picture
        self._runtime.invoke()
        return [self._runtime.get_tensor(index) for index in self._outputs]


@cache
def network(name: str) -> Network:
    """A model of this process, loaded once: all that use it share it."""
    return Network(name)


@dataclass(frozen=True)
class Detection:
    """A face in a picture, in its pixels."""

    score: float  # how certain it is, 0.5 to 1
    box: np.ndarray  # float [4], left, top, right, bottom: from the brows to the chin
    points: np.ndarray  # float [6, 2]: its right eye, left eye, nose, mouth, right ear, left ear


@dataclass(frozen=True)
class Part:
    """A part of a picture, square in pixels; numbers are 32-bit floats."""

    middle: np.ndarray  # [2], x and y in shares of the picture
    sides: np.ndarray  # [2], across and down in shares of the picture
    turn: np.floating[Any]  # how it is turned, in radians, clockwise as it is seen

    @classmethod
    def around(cls, corner: np.ndarray, sides: np.ndarray, eyes: np.ndarray, size: Any) -> Part:
        """The part in which the mesh looks for the face in a box; its eyes will lie level.

        In shares of the picture, of `size` [2]: `corner` [2], top left, `sides` [2], `eyes` [2, 2].
        """
        right, left = eyes * size
        across, down = left - right
        longest = (sides * size).max()
        return cls(corner + sides / F(2), longest / size * AROUND, -atan2_32(-down, across))

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 2], in shares of it from its top left corner, in shares of the picture."""
        x, y = (points - F(0.5)).T
        cosine, sine = cos32(self.turn), sin32(self.turn)
        turned = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)
        return turned * self.sides + self.middle


class FaceMesh:
    """The faces of the pictures of a film, one after another."""

    def __init__(self, most: int = 1, follow: bool = True):
        """Look for `most` faces (more, if some are followed), from picture to picture or anew."""
        self.most, self.follow = most, follow
        self._mesh, self._near = network("face_landmark"), Detector(NEAR)
        self._parts: list[Part] = []

    def forget(self) -> None:
        """Search anew in the next picture: it is of another film."""
        self._parts = []

    def landmarks(self, picture: np.ndarray) -> list[np.ndarray]:
        """Landmarks [468, 2] of each face in a picture [H, W] or [H, W, RGB], in its pixels."""
        size = _size(picture)
        parts = self._parts
        if len(parts) < self.most:
            detections = self._near.find_shares(picture)[: self.most]
            around = [Part.around(m[0], m[1] - m[0], m[2:4], size) for _, m in detections]
            parts = _apart([*around, *parts])
        faces = [face for part in parts if (face := self._face_in(picture, part)) is not None]
        if self.follow:
            boxes = [(face.min(axis=0), face.max(axis=0), face[EYES]) for face in faces]
            self._parts = [Part.around(low, high - low, eyes, size) for low, high, eyes in boxes]
        return [face * size.astype(np.float64) for face in faces]

    def _face_in(self, picture: np.ndarray, part: Part) -> np.ndarray | None:
        """Landmarks [468, 2] of the face in a part, in shares of the picture, if there is one."""
        size = _size(picture)
        sides = part.sides * size
        if not (np.isfinite(part.middle).all() and np.isfinite(sides).all() and sides.all()):
            return None
        whole = part.middle * size
        seen = _cut(picture, whole, sides, part.turn, MESH_SIDE, cv2.BORDER_REPLICATE)
        landmarks, logit = self._mesh.run(cv2.LUT(seen, pixel_values(MESH_RANGE)))
        if score_of(logit).item() <= SEEN:
            return None
        return part.back(landmarks.reshape(-1, 3)[:, :2] / F(MESH_SIDE))


class Detector:
    """Finds the faces of one picture."""

    def __init__(self, reach: Reach):
        self._network, self._reach = network(reach.model), reach
        # Where its finds are counted from: float [n, 2], x and y in shares of its picture.
        layers = []
        for cell, count in reach.cells:
            centres = (np.arange(reach.side // cell, dtype=F) + F(0.5)) / F(reach.side // cell)
            places = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
            layers.append(np.repeat(places, count, axis=0))
        self._anchors = np.concatenate(layers)

    def find(self, picture: np.ndarray) -> list[Detection]:
        """The faces of a picture [H, W] or [H, W, RGB], the most certain first."""
        size = _size(picture).astype(np.float64)
        shares = self.find_shares(picture)
        return [Detection(sure, (m[:2] * size).ravel(), m[2:] * size) for sure, m in shares]

    def find_shares(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """The same: score, then two corners and six points [8, 2], in shares of the picture."""
        size, side = _size(picture), F(self._reach.side)
        whole = np.repeat(size.max(), 2)
        middle = F(0.5) * size
        seen = _cut(picture, middle, whole, F(0), self._reach.side, cv2.BORDER_CONSTANT)
        boxes, logits = self._network.run(cv2.LUT(seen, pixel_values(DETECTOR_RANGE)))
        score = score_of(logits.reshape(-1))
        sure = np.flatnonzero(score >= self._reach.sure)
        # Centre and size of the box, then six points; all but the size count from the anchor.
        pairs = boxes.reshape(-1, 8, 2)[sure] / side
        anchors, half = self._anchors[sure], pairs[:, 1] / F(2)
        corner, end = pairs[:, 0] + anchors - half, pairs[:, 0] + anchors + half
        sides = end - corner
        points = pairs[:, 2:] + anchors[:, None]
        marks = np.concatenate([np.stack([corner, corner + sides], axis=1), points], axis=1)
        good = (sides >= 0).all(axis=1)
        # From shares of the square round the picture to shares of the picture.
        scale = whole * (F(1) / size)
        shift = (F(-0.5) * whole + middle) * (F(1) / size)
        return [(s, m * scale + shift) for s, m in _one_of_each(score[sure][good], marks[good])]


def _size(picture: np.ndarray) -> np.ndarray:
    """Width and height [2]."""
    return np.array(picture.shape[1::-1], F)


def _one_of_each(score: np.ndarray, marks: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """For each face the weighted mean [8, 2] of all [n, 8, 2] that found it, surest first."""
    order = np.argsort(-score, kind="stable")
    faces = []
    while len(order):
        boxes = marks[order, :2].reshape(-1, 4)
        same = shared(boxes[0], boxes) > SAME_FIND
        same[0] = True  # also where a box has no area
        total, mean = F(0), np.zeros((8, 2), F)
        for one in order[same]:  # in this order: sums of floats depend on it
            total, mean = total + score[one], mean + marks[one] * score[one]
        mean /= total
        mean[1] = mean[0] + (mean[1] - mean[0])
        faces.append((float(score[order[0]]), mean))
        order = order[~same]
    return faces


def shared(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How much of what one box [4] and each of others [n, 4] cover both do: 0 to 1, float [n]."""
    box, boxes = box.astype(np.float64), boxes.astype(np.float64)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.divide(both, areas - both, out=np.zeros(len(boxes)), where=areas > both)


def _apart(parts: list[Part]) -> list[Part]:
    """One part for each face: of two on the same one the later, which is the one followed."""
    # Left, top, right and bottom as if they were not turned.
    boxes = [np.concatenate([p.middle - p.sides / 2, p.middle + p.sides / 2]) for p in parts]
    return [
        part
        for i, part in enumerate(parts)
        if not any(shared(later, boxes[i][None])[0] > SAME_FACE for later in boxes[i + 1 :])
    ]


def _cut(
    picture: np.ndarray,
    middle: np.ndarray,
    sides: np.ndarray,
    turn: np.floating[Any],
    side: int,
    border: int,
) -> np.ndarray:
    """A turned square of a picture as one of its own, [side, side] or [side, side, RGB].

    `middle` and `sides` [2] are in pixels, `turn` in radians, `border` is OpenCV's.
    """
    angle = float(F(float(turn * F(180)) / math.pi)) * math.pi / 180
    cosine, sine = F(math.cos(angle)) * F(0.5), F(math.sin(angle)) * F(0.5)
    (x, y), (across, down) = middle, sides
    first = np.array([x - sine * down - cosine * across, y + cosine * down - sine * across], F)
    second = np.array([x + sine * down - cosine * across, y - cosine * down - sine * across], F)
    corners = np.stack([first, second, F(2) * middle - first, F(2) * middle - second])
    edges = np.array([(0, side), (0, 0), (side, 0), (side, side)], F)
    matrix = cv2.getPerspectiveTransform(corners, edges)
    # In 32nds of a pixel, as in the OpenCV inside mediapipe; newer ones round otherwise. A camera
    # without distortion has the same places.
    places = cv2.initUndistortRectifyMap(np.eye(3), None, None, matrix, (side, side), cv2.CV_16SC2)
    return cv2.remap(picture, *places, cv2.INTER_LINEAR, borderMode=border)
