"""Promise: LiteRT finds what mediapipe finds: landmarks, detections and boxes within 0.2 px.

mediapipe 0.10.21 runs the same networks by its own graphs. It has to be there (`make reference`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avb.pipeline.clip import track as tracking
from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.facemesh import FAR, NEAR, Detector, FaceMesh
from avb.pipeline.clip.follow import Follower, Frame
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.track import MediapipeMesh

mediapipe = pytest.importorskip("mediapipe", reason="the reference: make reference")
pytest.importorskip("ai_edge_litert", reason="faces are found with the extra prep")

MOST_PX = 0.2
KINDS = ("lips", "face")


def tracked_boxes(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Boxes [T, 4] round lips and face, as GRID's clips get them."""
    follower = Follower(8, {kind: Frame.of(kind) for kind in KINDS}, others=False, turn=False)
    blocks = list(follower.follow(frames))
    follower.require_face()
    return {kind: np.concatenate([block.boxes[kind] for block in blocks]) for kind in KINDS}


@pytest.fixture(scope="module")
def films(drawn_grid: Any) -> list[list[np.ndarray]]:
    """Every second picture of four talkers' films."""
    broken = {Path(what).stem for what in drawn_grid.odd.values()}
    good = [p for p in sorted(drawn_grid.root.glob("s*/video/*.mpg")) if p.stem not in broken]
    return [read_video(path, 25).frames[::2] for path in good[:4]]


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    assert len(one) == len(other)
    kept = tracking.POINTS
    apart = (np.abs(a[kept] - b[kept]).max() for a, b in zip(one, other, strict=True))
    return max(apart, default=0)


def test_every_look_at_a_film_is_the_same(films: list[list[np.ndarray]]) -> None:
    ours, theirs = FaceMesh(), MediapipeMesh()
    for film in films:
        ours.forget()
        theirs.forget()
        gap = [np.zeros_like(film[0])] * 2
        pictures = film[:20] + gap + film[20:]
        found = [(ours.landmarks(picture), theirs.landmarks(picture)) for picture in pictures]
        assert sum(map(len, (a for a, _ in found))) == len(film)
        assert max(largest_difference(*pair) for pair in found) < MOST_PX


@pytest.mark.parametrize("most", [2, 4])
def test_several_faces_are_in_the_same_order(films: list[list[np.ndarray]], most: int) -> None:
    quads = [np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]) for four in zip(*films)]  # noqa: B905
    ours, theirs = FaceMesh(most), MediapipeMesh(most)
    for picture in quads:
        one, other = ours.landmarks(picture), theirs.landmarks(picture)
        assert len(one) == most
        assert largest_difference(one, other) < MOST_PX


def test_still_pictures_are_the_same_to_a_hundredth(films: list[list[np.ndarray]]) -> None:
    ours, theirs = FaceMesh(follow=False), MediapipeMesh(follow=False)
    for film in films:
        for picture in film[::9]:
            one = ours.landmarks(picture)
            assert len(one) == 1 and largest_difference(one, theirs.landmarks(picture)) < 0.01


@pytest.mark.parametrize(("reach", "number", "scale"), [(NEAR, 0, 1.0), (FAR, 1, 1.0), (FAR, 1, 4)])
def test_detections_agree(
    films: list[list[np.ndarray]], reach: Any, number: int, scale: float
) -> None:
    theirs = mediapipe.solutions.face_detection.FaceDetection(model_selection=number)
    seen = 0
    for picture in [picture for film in films for picture in film[::6]]:
        small = cv2.resize(picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        margins = [(0, n - m) for n, m in zip(picture.shape, small.shape, strict=True)]
        picture = np.pad(small, margins)
        size = np.array(picture.shape[::-1])
        there = theirs.process(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)).detections or []
        here = Detector(reach).find(picture)
        assert len(here) == len(there)
        for ours, other in zip(here, there, strict=True):
            marks = [(p.x, p.y) for p in other.location_data.relative_keypoints] * size
            assert np.abs(marks - ours.points).max() < 0.01
            assert abs(ours.score - other.score[0]) < 1e-4
            box = other.location_data.relative_bounding_box
            corner = np.array([box.xmin, box.ymin])
            both = np.array([corner, corner + (box.width, box.height)]) * size
            assert np.abs(both.ravel() - ours.box).max() < 0.01
            seen += 1
    assert seen >= 15


def real_clips(shared: Path) -> Iterator[Path]:
    """All originals, all of the other talkers' clips, and 20 of the rest, from every talker."""
    for folder, most in (("grid_original", None), ("grid_talkers", None), ("grid", 20)):
        found = sorted((shared / folder).glob("s*/video/*.mp*"))
        yield from found[:: 1 if most is None else max(1, len(found) // most)][:most]


@pytest.mark.slow
def test_boxes_of_real_clips_are_the_same(real_grid: Path, record_property: Any) -> None:
    worst: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for path in real_clips(real_grid.parent):
        try:
            frames = read_video(path, 25).frames
        except Refused:
            continue
        boxes = []
        for tracker in tracking.TRACKERS:
            tracking.use(tracker)
            try:
                boxes.append(tracked_boxes(frames))
            except Refused:
                boxes.append({})
        tracking.use(tracking.TRACKERS[0])
        assert boxes[0].keys() == boxes[1].keys(), f"{path}: only one of them found the face"
        for kind in boxes[0]:
            worst[kind].append(float(np.abs(boxes[0][kind] - boxes[1][kind]).max()))
            assert worst[kind][-1] < MOST_PX, f"{path}: {kind} {worst[kind][-1]:.3f} px"
    assert len(worst["lips"]) > 140
    for kind, found in worst.items():
        median, most = np.median(found), max(found)
        said = f"{kind}: {len(found)} clips, median {median:.3f} px, worst {most:.3f} px"
        record_property(kind, said)
        if os.environ.get("AVB_SAY"):
            print(said)  # noqa: T201
