"""Promise: each face of a picture is found, whoever else is in it, and followed while it is seen.

Faces are drawn where the test says, by shapes that know nothing of landmarks.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import cv2
import numpy as np
import pytest
from importers import importer

from avb.pipeline.clip import facemodels
from avb.pipeline.clip.facemesh import FAR, NEAR, Detector, FaceMesh, Reach
from avb.tools.synth import face

pytest.importorskip("ai_edge_litert", reason="faces are found with the extra prep")

MOUTH, MIDDLE = [61, 291, 13, 14], (180.0, 210.0)


def drawn(person: int, unit: float = 50.0, at: tuple[float, float] = MIDDLE) -> np.ndarray:
    """A grey picture [288, 360] of somebody whose mouth is `at`, `unit` px half a face's width."""
    picture = face.draw(face.Identity.from_seed(person), 0.2, mouth=at, unit=unit)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)


def mouths(faces: list[np.ndarray]) -> list[tuple[float, float]]:
    return [tuple(marks[MOUTH].mean(axis=0)) for marks in faces]


def near(found: tuple[float, float], wanted: tuple[float, float], most: float = 6.0) -> bool:
    return float(np.hypot(found[0] - wanted[0], found[1] - wanted[1])) < most


@pytest.fixture
def looks() -> Iterator[Mock]:
    """What detectors search pictures with, counted."""
    real = Detector.find_shares
    with patch.object(Detector, "find_shares", autospec=True, side_effect=real) as counted:
        yield counted


@pytest.mark.parametrize("person", range(6))
def test_the_mesh_lies_on_the_drawn_face(person: int) -> None:
    (marks,) = FaceMesh().landmarks(drawn(person))
    assert marks.shape == (468, 2)
    assert near(mouths([marks])[0], MIDDLE)
    left, right = marks[234], marks[454]
    assert 1.4 < (right[0] - left[0]) / 50 < 2.4  # half a face's width is 50 px


def test_a_picture_in_colour_not_in_rows_or_of_a_face_elsewhere_is_looked_at_alike() -> None:
    grey = drawn(1)
    turned = np.rot90(np.ascontiguousarray(np.rot90(grey)), -1)
    assert not turned.flags.c_contiguous
    wanted = FaceMesh().landmarks(grey)[0]
    for picture in (turned, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)):
        assert np.array_equal(FaceMesh().landmarks(picture)[0], wanted)
    other = FaceMesh().landmarks(drawn(1, at=(210.0, 190.0)))[0]
    assert np.abs(other - wanted - (30, -20)).max() < 4


def test_a_tilted_head_is_cut_out_upright() -> None:
    matrix = cv2.getRotationMatrix2D(MIDDLE, 40, 1)
    picture = cv2.warpAffine(drawn(2), matrix, (360, 288), borderMode=cv2.BORDER_REPLICATE)
    (marks,) = FaceMesh().landmarks(picture)
    across = marks[263] - marks[33]
    assert abs(np.degrees(np.arctan2(-across[1], across[0])) - 40) < 5
    assert near(mouths([marks])[0], MIDDLE, 10)


# Following


def test_a_face_in_sight_is_not_searched_again(looks: Mock) -> None:
    mesh = FaceMesh()
    for shift in range(6):
        (marks,) = mesh.landmarks(drawn(0, at=(180.0 + 3 * shift, 210.0)))
        assert near(mouths([marks])[0], (180.0 + 3 * shift, 210.0))
    assert looks.call_count == 1


def test_still_pictures_are_each_searched(looks: Mock) -> None:
    mesh = FaceMesh(follow=False)
    first, *others = [mesh.landmarks(drawn(0))[0] for _ in range(3)]
    assert looks.call_count == 3
    assert all(np.array_equal(first, other) for other in others)


def test_a_face_that_was_lost_is_searched_until_it_is_back(looks: Mock) -> None:
    mesh, nothing = FaceMesh(), np.zeros((288, 360), np.uint8)
    assert len(mesh.landmarks(drawn(3))) == 1
    assert mesh.landmarks(nothing) == []  # the mesh alone saw that it is gone
    assert looks.call_count == 1
    assert mesh.landmarks(nothing) == []
    assert len(mesh.landmarks(drawn(3, at=(150.0, 200.0)))) == 1
    assert looks.call_count == 3


def test_another_film_owes_nothing_to_the_one_before() -> None:
    used = FaceMesh()
    for shift in range(3):
        used.landmarks(drawn(0, at=(150.0 + 2 * shift, 205.0)))
    fresh = FaceMesh().landmarks(drawn(1))[0]
    assert not np.array_equal(used.landmarks(drawn(1))[0], fresh)  # a kept one goes on where it was
    used.forget()
    assert np.array_equal(used.landmarks(drawn(1))[0], fresh)


# Several faces


def crowd() -> np.ndarray:
    rows = [np.hstack([drawn(a), drawn(b)]) for a, b in ((0, 1), (2, 3))]
    return np.vstack(rows)


PLACES = [(180.0 + x, 210.0 + y) for y in (0, 288) for x in (0, 360)]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_so_many_faces_are_found_as_are_there_and_wanted(most: int) -> None:
    found = mouths(FaceMesh(most).landmarks(crowd()))
    assert len(found) == min(most, 4)
    hit = [next(p for p in PLACES if near(mouth, p, 8)) for mouth in found]
    assert len(set(hit)) == len(hit)  # nobody twice


def test_each_is_followed_and_nobody_becomes_two(looks: Mock) -> None:
    mesh, pair = FaceMesh(2), np.hstack([drawn(0), drawn(1)])
    assert [len(mesh.landmarks(pair)) for _ in range(5)] == [2] * 5
    assert looks.call_count == 1
    more = FaceMesh(4)  # two places stay free, so it goes on searching
    assert [len(more.landmarks(pair)) for _ in range(5)] == [2] * 5
    assert looks.call_count == 1 + 5


def test_one_who_comes_later_is_found_beside_the_one_followed() -> None:
    mesh, wall = FaceMesh(2), np.full((288, 360), 90, np.uint8)
    assert len(mesh.landmarks(np.hstack([drawn(0), wall]))) == 1
    faces = mouths(mesh.landmarks(np.hstack([drawn(0), drawn(1)])))
    assert sorted(round(x / 360) for x, _ in [(x - 180, y) for x, y in faces]) == [0, 1]


# Detectors


def test_only_the_detector_for_far_ones_finds_small_faces() -> None:
    small = drawn(0, unit=10.0)
    assert [len(Detector(reach).find(small)) for reach in (NEAR, FAR)] == [0, 1]
    (found,) = Detector(FAR).find(small)
    assert near(tuple(found.points[3]), MIDDLE)


@pytest.mark.parametrize("reach", [NEAR, FAR])
def test_a_detection_says_where_eyes_and_mouth_are(reach: Reach) -> None:
    (found,) = Detector(reach).find(drawn(4, unit=25.0))
    right_eye, left_eye, _, mouth = found.points[:4]
    assert near(tuple(mouth), MIDDLE, 12)  # half the width of this face is 25 px
    assert right_eye[0] < mouth[0] < left_eye[0] and right_eye[1] < mouth[1] - 15
    x0, y0, x1, y1 = found.box
    assert x0 < right_eye[0] and x1 > left_eye[0] and y0 < right_eye[1] and y1 > mouth[1]
    assert reach.sure <= found.score <= 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (700, 3), (17, 31), (1080, 1920)])
def test_pictures_of_any_size_without_a_face_have_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert FaceMesh(2).landmarks(noise) == []
    assert Detector(NEAR).find(noise) == []


def test_dataset_json_says_who_looked(drawn_grid: Any, tmp_path: Path) -> None:
    importer("grid", drawn_grid.root, limit=2).prep(tmp_path)
    found = json.loads((tmp_path / "grid/dataset.json").read_text())
    runtime = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    told = {"name": "litert", "runtime": runtime, "models": facemodels.MODELS}
    assert found["tracker"] == told
    assert found["settings"]["tracker"] == "litert"
