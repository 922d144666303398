"""Promise: the centre of a stored picture is the box, and the box is steady and on the mouth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from importers import importer

from avb.pipeline.clip import track as tracking
from avb.pipeline.clip.crop import (
    SIDE,
    cut,
    fixed_boxes,
    leaves_picture,
    places,
    square_boxes,
    whole_boxes,
)
from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.facemesh import FaceMesh
from avb.pipeline.clip.follow import Follower, Frame
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.track import EYES, MOUTH, POINTS, interpolate
from avb.pipeline.config import Crop, load_corpora
from avb.pipeline.corpora import adapter

LIPS, FACE = Crop(112, 4), Crop(96, 4)


# Crops: where things land


def tracked_boxes(points: np.ndarray, kind: str, fps: int) -> np.ndarray:
    """Boxes [T, 4] of one side round lips or face in landmarks [T, 10, 2], as a clip gets them."""
    centre, unit = places(points, kind)
    return square_boxes(centre, SIDE[kind] * float(np.median(unit)), fps)


def dots(height: int, width: int, at: np.ndarray, sigma: float) -> np.ndarray:
    """Round bright dots at continuous positions [N, 2]; pixel (i, j) covers i..i+1, j..j+1."""
    y, x = np.mgrid[:height, :width] + 0.5
    picture = np.full((height, width), 20.0)
    for dot_x, dot_y in at:
        picture += 200 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * sigma**2))
    return np.clip(picture.round(), 0, 255).astype(np.uint8)


def centroid(picture: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    """The continuous position of the dot that lies near a place."""
    x0, y0 = (int(v) - reach for v in near)
    part = picture[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach].astype(float) - 20
    part[part < 8] = 0
    y, x = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
    return np.array([x0 + (x * part).sum() / part.sum(), y0 + (y * part).sum() / part.sum()])


@pytest.mark.parametrize(
    ("height", "width", "box", "crop"),
    [
        (256, 256, (59, 95, 195, 231), LIPS),  # LRW: 1.2 source pixels a stored one
        (288, 360, (130.3, 150.7, 229.9, 250.3), LIPS),  # GRID lips: 0.9
        (288, 360, (95.4, 60.2, 256.1, 220.9), FACE),  # GRID face: 1.7
        (576, 720, (201.7, 121.3, 522.9, 442.5), FACE),  # twice as large: 3.3
        (1080, 1920, (700.4, 210.3, 1400.8, 910.7), LIPS),  # 6.3
        (80, 100, (0, 0, 100, 80), LIPS),  # LRW-1000: all of it, stretched
    ],
)
def test_a_stored_centre_is_the_box_s(
    height: int, width: int, box: Sequence[float], crop: Crop
) -> None:
    x0, y0, x1, y1 = box
    step = np.array([x1 - x0, y1 - y0]) / crop.size
    shares = np.stack(np.meshgrid([0.15, 0.37, 0.5, 0.71, 0.86], [0.12, 0.5, 0.83]), -1)
    inside = shares.reshape(-1, 2)
    at = np.array([x0, y0]) + inside * np.array([x1 - x0, y1 - y0])
    picture = dots(height, width, at, sigma=2.2 * float(step.max()))
    [stored] = cut([picture], np.array([box]), crop)
    assert stored.shape == (crop.stored, crop.stored) and stored.dtype == np.uint8
    wanted = crop.margin + inside * crop.size
    # A dot of 2.2 source steps is oval in the stored picture where the box is.
    found = np.array([centroid(stored, place, 7) for place in wanted])
    assert np.abs(found - wanted).max() < 0.1


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 3])
def test_the_margin_is_room_for_jitter(scale: int) -> None:
    """The box moved by n stored pixels, cut anew, is the stored picture's window moved by n."""
    picture = texture(260 * scale, 300 * scale)
    box = np.array([[80.0, 70.0, 216.0, 206.0]]) * scale
    step = 136 * scale / 112
    [stored] = cut([picture], box, LIPS)
    for dx, dy in ((0, 0), (4, -4), (-3, 2)):
        moved = box + step * np.array([dx, dy, dx, dy])
        [wanted] = cut([picture], moved, Crop(112, 0))
        window = stored[4 + dy : 116 + dy, 4 + dx : 116 + dx]
        assert np.abs(window.astype(int) - wanted).max() <= (1 if scale == 1 else 12)
        assert np.abs(window.astype(int) - wanted).mean() < 1


def test_the_fixed_box_is_the_paper_s_slice_and_mouth_pictures_are_whole() -> None:
    picture = texture(256, 256)
    lrw = load_corpora()["lrw"]
    boxes = fixed_boxes(lrw.fixed_box, lrw.picture, 256, 256)
    naive = cv2.resize(picture[95:231, 59:195], (112, 112), interpolation=cv2.INTER_AREA)
    [stored] = cut([picture], boxes, LIPS)
    assert np.abs(stored[4:-4, 4:-4].astype(int) - naive).mean() < 2
    moved = np.abs(stored[5:-3, 4:-4].astype(int) - naive).mean()
    assert moved > 4  # one pixel off would show
    assert fixed_boxes(lrw.fixed_box, lrw.picture, 512, 512).tolist() == [[118, 190, 390, 462]]
    picture = texture(90, 90)
    assert whole_boxes(70, 90).tolist() == [[0, 0, 90, 70]]
    [stored] = cut([picture], whole_boxes(90, 90), LIPS)
    naive = cv2.resize(picture, (112, 112), interpolation=cv2.INTER_LINEAR)
    assert np.abs(stored[4:-4, 4:-4].astype(int) - naive).max() <= 2


def test_boxes_beyond_the_picture_repeat_its_edge() -> None:
    picture = np.tile(np.linspace(50, 200, 100).astype(np.uint8), (100, 1))
    box = np.array([[-30.0, 20.0, 82.0, 132.0]])
    [stored] = cut([picture], box, LIPS)
    assert (stored[:, :33] == 50).all() and (stored[0] == stored[-1]).all()
    assert stored[60, 80] == pytest.approx(picture[50, 46], abs=2)
    large = np.full((400, 400), 90, np.uint8)
    large[:, :8], large[:, -8:] = 30, 150
    [stored] = cut([large], np.array([[-120.0, -120.0, 520.0, 520.0]]), LIPS)
    assert (stored[:, :20] == 30).all() and (stored[:, -20:] == 150).all()
    assert (stored[:, 40:80] == 90).all()
    assert leaves_picture(box, 100, 100)
    assert not leaves_picture(np.array([[-0.6, 0.0, 100.5, 99.0]]), 100, 100)
    for side in range(4):
        inside = np.array([[10.0, 10.0, 90.0, 90.0]])
        inside[0, side] += -20 if side < 2 else 20
        assert leaves_picture(inside, 100, 100)


@pytest.mark.parametrize("scale", [1, 4])
def test_slow_motion_gives_no_jump(scale: int) -> None:
    box = np.array([60.0, 60.0, 160.0, 160.0]) * scale
    shift = 0.13 * scale * np.arange(40)
    boxes = (box + shift[:, None]).round(1)
    picture = dots(280 * scale, 280 * scale, np.array([[110.0, 110.0]]) * scale, 4.0 * scale)
    step = 100 * scale / 112
    wanted = 4 + (110 * scale - 60 * scale - shift) / step

    def jumps(boxes: np.ndarray) -> np.ndarray:
        stored = cut([picture] * 40, boxes, LIPS)
        found = [centroid(s, np.array([w, w]), 14)[0] for s, w in zip(stored, wanted, strict=True)]
        return np.abs(np.diff(np.array(found) - wanted))

    assert jumps(boxes).max() < 0.12
    if scale == 1:
        assert jumps(boxes.round()).max() > 0.5  # whole pixels, as by slicing


@pytest.mark.parametrize(
    ("side", "crop"), [(160, FACE), (220, LIPS), (320, FACE), (450, LIPS), (1000, FACE)]
)
def test_fine_patterns_leave_no_moire(side: int, crop: Crop) -> None:
    size = side + 60
    stripes = np.tile(np.array([0, 255], np.uint8), (size, size // 2))  # 1 pixel wide
    box = np.array([[30.3, 30.3, 30.3 + side, 30.3 + side]])
    step = side / crop.size
    places = (30.3 + (np.arange(crop.size) + 0.5) * step).astype(int)
    naive = stripes[np.ix_(places, places)]
    assert naive.std() > 100  # black and white bars that were not there
    [stored] = cut([stripes], box, crop)
    assert abs(float(stored.mean()) - 127.5) < 3
    # The mean of an odd number of pixels keeps 1 of n of these stripes, a third at worst.
    assert stored[:, 8:-8].std() < 127.5 / 4


def test_pictures_that_are_views_are_cut_alike() -> None:
    """Decoded rows are padded, and a film held sideways is a turned view."""
    picture = np.zeros((300, 420), np.uint8)
    picture[:, :360] = texture(300, 360)
    for view in (picture[:, :360], np.rot90(picture[:, :360]), np.rot90(picture, 2)):
        box = np.array([[90.2, 100.4, 190.2, 200.4]])
        [found], [wanted] = cut([view], box, LIPS), cut([view.copy()], box, LIPS)
        assert np.array_equal(found, wanted) and found.std() > 20


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


@pytest.fixture(scope="module")
def films(drawn_grid: Any) -> list[list[np.ndarray]]:
    """Pictures of four talkers."""
    pytest.importorskip("ai_edge_litert", reason="tracking needs the extra prep")
    broken = {Path(what).stem for what in drawn_grid.odd.values()}
    good = [p for p in sorted(drawn_grid.root.glob("s*/video/*.mpg")) if p.stem not in broken]
    return [read_video(path, 25).frames for path in good]


def landmarks(mesh: FaceMesh, picture: np.ndarray) -> np.ndarray | None:
    """All landmarks of a picture, [468, 2] in pixels."""
    return next(iter(mesh.landmarks(picture)), None)


def test_nothing_leaks_from_one_clip_into_the_next(films: list[list[np.ndarray]]) -> None:
    one, other = films[0][:31], films[1][:31]
    fresh, used = FaceMesh(), FaceMesh()
    for frame in one[::5]:
        landmarks(used, frame)
    alone, after = landmarks(fresh, other[0]), landmarks(used, other[0])
    assert alone is not None and after is not None
    assert np.abs(alone - after).max() > 0.05  # a kept graph goes on from where the last face was

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
    assert np.abs(wanted.points[0] - alone[POINTS]).max() < 1e-3


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


@pytest.mark.parametrize(("blank", "refused"), [(3, False), (4, True), (6, True)])
def test_a_clip_is_refused_when_more_than_half_of_the_looks_find_no_face(
    films: list[list[np.ndarray]], blank: int, refused: bool
) -> None:
    clip = [np.zeros_like(f) if i < blank else f for i, f in enumerate(films[0][:6])]
    if not refused:
        assert track(clip, 1).misses == blank
        return
    with pytest.raises(Refused, match=f"no face in {blank} of 6 looks") as refusal:
        track(clip, 1)
    assert refusal.value.status == "no_face"


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


def check_on_mouth(frames: list[np.ndarray], found: Track, mesh: FaceMesh, step: int) -> None:
    """An independent look finds the whole mouth inside the box, and the box does not jump."""
    boxes = tracked_boxes(found.points, "lips", 25)
    moved = np.linalg.norm(np.diff(centres(boxes), axis=0), axis=1)
    assert moved.max() <= 2
    seen = 0
    for i in range(0, len(frames), step):
        marks = landmarks(mesh, frames[i])
        if marks is None:
            continue
        seen += 1
        mouth, side = marks[OUTLINE], boxes[i, 2] - boxes[i, 0]
        assert (mouth >= boxes[i, :2]).all() and (mouth <= boxes[i, 2:]).all()
        middle = marks[[61, 291]].mean(axis=0)
        assert np.linalg.norm(middle - centres(boxes)[i]) < 0.1 * side
        assert 0.2 < np.ptp(mouth[:, 0]) / side < 0.7  # neither a dot nor the whole crop
    assert seen >= 0.9 * len(range(0, len(frames), step))


def test_the_mouth_of_drawn_talkers_lies_in_the_lips_crop(films: list[list[np.ndarray]]) -> None:
    mesh = FaceMesh(follow=False)
    assert len(films) == 4
    for frames in films:
        check_on_mouth(frames, track(frames, 15), mesh, 10)


def test_the_mouth_of_real_talkers_lies_in_the_lips_crop(real_grid: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="tracking needs the extra prep")
    mesh = FaceMesh(follow=False)
    grid = importer("grid", real_grid)
    talkers: dict[str, int] = {}
    for clip in grid.clips():
        if clip.status or talkers.get(clip.group, 0) >= 2:
            continue
        try:
            media = adapter("grid").load(real_grid, clip, grid.settings).whole()
        except Refused:
            continue
        found = track(media.frames, grid.settings.face_every)
        assert found.misses == 0
        check_on_mouth(media.frames, found, mesh, 12)
        talkers[clip.group] = talkers.get(clip.group, 0) + 1
    assert talkers


def test_the_kept_landmarks_are_what_they_are_called(films: list[list[np.ndarray]]) -> None:
    points = track(films[0][:1], 1).points[0]
    eyes, mouth = points[EYES], points[MOUTH]
    assert eyes[:, 1].mean() < mouth[:, 1].mean()
    assert points[tracking.FOREHEAD, 1] < eyes[:, 1].min()
    assert points[tracking.CHIN, 1] > mouth[:, 1].max()
    upper, lower = points[tracking.LIPS]
    assert upper[1] < mouth[:, 1].mean() < lower[1]
    assert math.dist(*points[tracking.SIDES]) > math.dist(*eyes) > math.dist(*mouth)
