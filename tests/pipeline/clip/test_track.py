"""Promise: the box is steady and on the mouth."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importers import refusal

from avb.pipeline.clip import follow
from avb.pipeline.clip import track as tracking
from avb.pipeline.clip.crop import SIDE, cut, places, square_boxes
from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.facemesh import FaceMesh
from avb.pipeline.clip.follow import Follower, Frame
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.track import EYES, MOUTH, POINTS, interpolate
from avb.pipeline.config import Crop

LIPS = Crop(112, 4)


def tracked_boxes(points: np.ndarray, kind: str, fps: int) -> np.ndarray:
    """Boxes [T, 4] of one side round lips or face in landmarks [T, 10, 2], as a clip gets them."""
    centre, unit = places(points, kind)
    return square_boxes(centre, SIDE[kind] * float(np.median(unit)), fps)


# Boxes from landmarks


def still_head(num_frames: int, scale: float = 1.0) -> np.ndarray:
    """Landmarks [T, 10, 2] of a still face: eyes 60 px apart, face 140 px high."""
    face = np.array([[150, 120], [210, 120], [165, 180], [195, 180], [180, 172], [180, 190],
                     [180, 80], [180, 220], [125, 150], [235, 150]])  # fmt: skip
    return np.tile(face * scale, (num_frames, 1, 1)).astype(float)


def centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def test_boxes_are_square_and_of_one_size_in_a_clip() -> None:
    points = still_head(75) + np.random.default_rng(0).normal(0, 1, (75, 10, 2))
    points[40:] *= 1.05  # leaning forward
    for kind in ("lips", "face"):
        boxes = tracked_boxes(points, kind, 25)
        sides = boxes[:, 2:] - boxes[:, :2]
        assert boxes.shape == (75, 4) and np.ptp(sides) <= 0.2 + 1e-9  # rounded to a tenth
        small, large = (tracked_boxes(still_head(10, scale), kind, 25) for scale in (1, 2))
        assert np.abs(large - 2 * small).max() <= 0.1
    lips = tracked_boxes(still_head(10), "lips", 25)[0]
    assert lips.tolist() == [135, 135, 225, 225]  # 1.5 x 60 round (180, 180)
    face = tracked_boxes(still_head(10), "face", 25)[0]
    assert face.tolist() == [99.5, 69.5, 260.5, 230.5]  # 1.15 x 140 round (180, 150)


def test_trembling_landmarks_give_a_steady_box() -> None:
    points = still_head(75) + np.random.default_rng(0).normal(0, 1.2, (75, 10, 2))
    moved = np.diff(centres(tracked_boxes(points, "lips", 25)), axis=0)
    assert np.linalg.norm(moved, axis=1).max() < 0.5


def test_a_moving_head_is_followed_without_lag() -> None:
    points = still_head(75)
    points[..., 0] += 0.8 * np.arange(75)[:, None]
    found = centres(tracked_boxes(points, "lips", 25))[:, 0]
    assert np.abs(found - 180 - 0.8 * np.arange(75))[15:-15].max() < 0.1


def test_an_open_mouth_does_not_move_the_box() -> None:
    points = still_head(75)
    points[::2, tracking.LIPS[1], 1] += 25  # the lower lip, not the corners
    boxes = tracked_boxes(points, "lips", 25)
    assert np.ptp(boxes, axis=0).max() == 0


# The tracker


@dataclass
class Track:
    """Landmarks [T, 10, 2] of one film, and how often none was found."""

    points: np.ndarray
    looks: int
    misses: int


def track(frames: list[np.ndarray], every: int) -> Track:
    """One film followed as `avb prep` does."""
    follower = Follower(every, {"lips": Frame.of("lips")}, others=False, turn=False)
    blocks = list(follower.follow(frames))
    follower.require_face()
    assert follower._chosen is not None and sum(len(b.frames) for b in blocks) == len(frames)
    points = interpolate(follower._chosen.marks, 0, len(frames))
    boxes = np.concatenate([block.boxes["lips"] for block in blocks])
    assert np.array_equal(boxes, tracked_boxes(points, "lips", 25))
    return Track(points, follower.looks, follower.misses)


@pytest.mark.parametrize("every", [5, 8, 25])
@pytest.mark.parametrize(("which", "looks"), [(1, 7), (2, 5)])
def test_whenever_faces_are_seen_every_picture_comes_once_with_its_box(
    monkeypatch: pytest.MonkeyPatch, every: int, which: int, looks: int
) -> None:
    """Any look may find anybody of those there are, or nobody."""
    monkeypatch.setattr(follow, "forget_faces", lambda *_: None)
    marks = [still_head(1)[0], still_head(1)[0] + 150]
    frames = [np.full((288, 360), n, np.uint8) for n in range(looks * every - every // 2)]
    for found in itertools.product(range(which + 1), repeat=looks):
        coming = iter([*found, found[-1]])  # the last picture is looked at too
        monkeypatch.setattr(follow, "faces_of", lambda *_, coming=coming: marks[: next(coming)])
        kinds = {"lips": Frame.of("lips")}
        blocks = list(Follower(every, kinds, which, turn=False).follow(frames))
        assert [int(one[0, 0]) for b in blocks for one in b.frames] == [*range(len(frames))], found
        assert all(len(block.boxes["lips"]) == len(block.frames) for block in blocks)


@pytest.fixture(scope="module")
def films(drawn_grid: Any) -> list[list[np.ndarray]]:
    """Pictures of four talkers."""
    pytest.importorskip("ai_edge_litert", reason="tracking needs the extra prep")
    broken = {Path(what).stem for what in drawn_grid.odd.values()}
    good = [p for p in sorted(drawn_grid.root.glob("s*/video/*.mpg")) if p.stem not in broken]
    return [read_video(path, 25).frames for path in good]


def test_nothing_leaks_from_one_clip_into_the_next(films: list[list[np.ndarray]]) -> None:
    one, other = films[0][:31], films[1][:31]
    tracking._mesh.cache_clear()
    wanted = track(other, 5)
    tracking._mesh.cache_clear()
    track(one, 5)
    found = track(other, 5)
    assert np.array_equal(found.points, wanted.points)
    assert (found.looks, found.misses) == (7, 0)
    with pytest.raises(Refused):
        track([np.zeros_like(one[0])] * 6, 2)
    assert np.array_equal(track(other, 5).points, wanted.points)


def test_a_single_missed_face_is_interpolated_and_counted(films: list[list[np.ndarray]]) -> None:
    whole = track(films[0], 5)
    gap = list(films[0])
    gap[30] = np.zeros_like(gap[0])
    found = track(gap, 5)
    assert (whole.looks, whole.misses) == (16, 0) and (found.looks, found.misses) == (16, 1)
    assert found.points.shape == whole.points.shape == (75, len(POINTS), 2)
    between = np.linspace(found.points[25], found.points[35], 11)
    assert np.abs(found.points[25:36] - between).max() < 1e-9
    still = [*EYES, *MOUTH, tracking.FOREHEAD, *tracking.SIDES]  # lips and chin speak meanwhile
    assert np.linalg.norm(found.points[30] - whole.points[30], axis=1)[still].max() < 6
    boxes = tracked_boxes(found.points, "lips", 25)
    assert cut(gap, boxes, LIPS).shape == (75, 120, 120)


def test_misses_at_the_ends_repeat_the_nearest_look(films: list[list[np.ndarray]]) -> None:
    gap = [np.zeros_like(f) if i < 12 or i > 65 else f for i, f in enumerate(films[0])]
    found = track(gap, 5)  # looks at 0, 5, 10, ... 70, 74
    assert found.misses == 3 + 2
    assert (found.points[:15] == found.points[15]).all()
    assert (found.points[65:] == found.points[65]).all()
    assert np.abs(found.points[15] - found.points[40]).max() > 0.1


@pytest.mark.parametrize(("blank", "too_many"), [(3, False), (4, True), (6, True)])
def test_a_clip_is_refused_when_more_than_half_of_the_looks_find_no_face(
    films: list[list[np.ndarray]], blank: int, too_many: bool
) -> None:
    clip = [np.zeros_like(f) if i < blank else f for i, f in enumerate(films[0][:6])]
    if not too_many:
        assert track(clip, 1).misses == blank
        return
    refused = refusal(track, clip, 1)
    assert refused.status == "no_face" and f"no face in {blank} of 6 looks" in refused.error


def test_a_clip_without_a_face_is_refused(drawn_grid: Any) -> None:
    pytest.importorskip("ai_edge_litert", reason="tracking needs the extra prep")
    got = drawn_grid.load("no_face")
    with pytest.raises(Refused, match=r"no face in (\d+) of \1 looks"):
        track(got.media.frames, got.settings.face_every)


def test_looks_between_are_interpolated(films: list[list[np.ndarray]]) -> None:
    every, sparse = track(films[2], 1), track(films[2], 15)
    assert (every.looks, sparse.looks) == (75, 6)  # 0, 15, 30, 45, 60, 74
    box, wanted = (centres(tracked_boxes(t.points, "lips", 25)) for t in (sparse, every))
    assert np.linalg.norm(box - wanted, axis=1).max() < 3
    for count in (1, 2):
        assert track(films[0][:count], 15).points.shape == (count, 10, 2)


def test_large_pictures_are_cropped_alike(drawn_grid: Any, films: list[list[np.ndarray]]) -> None:
    source = drawn_grid.root / drawn_grid.odd["large_twin"]
    large = read_video(source, 25).frames
    small = read_video(source.parent.parent / source.name, 25).frames
    assert large[0].shape == (576, 720) and small[0].shape == (288, 360)
    for kind in ("lips", "face"):
        one, other = (tracked_boxes(track(f, 15).points, kind, 25) for f in (small, large))
        assert np.abs(other - one).max() > 100  # the box of the small picture cuts another place
        assert np.abs(other / 2 - one).max() < 3


#: The lips, as mediapipe's FACEMESH_LIPS has them.
OUTLINE = [
    0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191,
    267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
]  # fmt: skip


def test_the_mouth_of_drawn_talkers_lies_in_the_lips_crop(films: list[list[np.ndarray]]) -> None:
    """An independent look finds the whole mouth inside the box, and the box does not jump."""
    mesh = FaceMesh(follow=False)
    assert len(films) == 4
    for frames in films:
        boxes = tracked_boxes(track(frames, 15).points, "lips", 25)
        moved = np.linalg.norm(np.diff(centres(boxes), axis=0), axis=1)
        assert moved.max() <= 2
        looks = [(at, mesh.landmarks(frames[at])) for at in range(0, len(frames), 10)]
        seen = [(faces[0], boxes[at]) for at, faces in looks if faces]
        assert len(seen) >= 0.9 * len(looks)
        for marks, box in seen:
            mouth, side = marks[OUTLINE], box[2] - box[0]
            assert (mouth >= box[:2]).all() and (mouth <= box[2:]).all()
            middle = marks[[61, 291]].mean(axis=0)
            assert np.linalg.norm(middle - (box[:2] + box[2:]) / 2) < 0.1 * side
            assert 0.2 < np.ptp(mouth[:, 0]) / side < 0.7  # neither a dot nor the whole crop


def test_the_kept_landmarks_are_what_they_are_called(films: list[list[np.ndarray]]) -> None:
    points = track(films[0][:1], 1).points[0]
    eyes, mouth = points[EYES], points[MOUTH]
    assert eyes[:, 1].mean() < mouth[:, 1].mean()
    assert points[tracking.FOREHEAD, 1] < eyes[:, 1].min()
    assert points[tracking.CHIN, 1] > mouth[:, 1].max()
    upper, lower = points[tracking.LIPS]
    assert upper[1] < mouth[:, 1].mean() < lower[1]
    assert math.dist(*points[tracking.SIDES]) > math.dist(*eyes) > math.dist(*mouth)
