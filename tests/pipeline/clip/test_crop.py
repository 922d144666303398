"""Promise: the centre of a stored picture is the box."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from avb.pipeline.clip.crop import cut, fixed_boxes, leaves_picture, whole_boxes
from avb.pipeline.config import Crop, load_corpora

LIPS, FACE = Crop(112, 4), Crop(96, 4)


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
