"""Promise: stamps that step back, repeat, jump or tremble move no picture and no sound by 20 ms.

Whatever is wrong with one stamp, all that follows stands where it stood; recordings joined end to
end run on, with their streams in step.
"""

import numpy as np
import pytest

from avb.pipeline.clip.sound_track import Sound
from avb.pipeline.clip.timeline import Rate, Timeline, coded_order, rising_order

PERIOD = 0.04


def times(stamps: list[float | None]) -> list[float]:
    line = Timeline()
    return [line.time(stamp, PERIOD) for stamp in stamps]


def shown(stamps: list[float | None]) -> list[int]:
    """Which picture stands at each 1 / 25 s."""
    timed = zip(times(stamps), range(len(stamps)), strict=True)
    return list(Rate(25).lay(rising_order(timed)))


def regular(count: int, start: float = 0.0, step: float = PERIOD) -> list[float | None]:
    return [start + step * i for i in range(count)]


def test_streams_of_joined_recordings_stay_in_step() -> None:
    shifts = [0.0]
    pictures, sound = Timeline(shifts), Timeline(shifts)
    for i in range(50):
        pictures.time(PERIOD * i, PERIOD)
    for i in range(99):
        sound.time(0.02 * i, 0.02)  # it ends 20 ms before the pictures
    first = sound.time(0.0, 0.02)
    assert pictures.time(0.0, PERIOD) == first == pytest.approx(1.98)
    sound.time(0.02, 0.02)
    assert [pictures.time(s, PERIOD) - sound.time(s, 0.02) for s in (PERIOD, 2 * PERIOD)] == [0, 0]


@pytest.mark.parametrize("away", [-1e5, -3.0, -0.3, 0.2, 3.0, 300.0, 1e9])
def test_one_wrong_stamp_moves_nothing_after_it(away: float) -> None:
    stamps = regular(100)
    stamps[40] = PERIOD * 40 + away
    found = shown(stamps)
    assert len(found) == 100
    assert [i for i in found if not 38 < i < 43] == [i for i in range(100) if not 38 < i < 43]


def test_a_stamp_that_is_missing_or_repeated_takes_the_next_place() -> None:
    stamps = regular(60)
    stamps[20], stamps[40] = None, PERIOD * 39
    found = shown(stamps)
    assert len(found) == 60
    assert np.abs(np.array(found) - np.arange(60)).max() <= 1
    assert found[:39] == list(range(39)) and found[41:] == list(range(41, 60))


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_stamps_of_the_order_of_coding_are_dealt_out_in_the_order_of_showing(delay: int) -> None:
    stamps = [s + delay for s in (0, 2, 1, 5, 3, 4, 6, 9, 7, 8)]
    found = list(coded_order((PERIOD * s, i) for i, s in enumerate(stamps)))
    assert [time for time, _ in found] == pytest.approx(regular(10))
    assert [picture for _, picture in found] == list(range(10))


@pytest.mark.parametrize("rate", [24.8, 25.2, 24.99, 10.0, 23.976, 29.97, 59.94])
def test_no_rate_drifts_from_the_clock(rate: float) -> None:
    count = round(60 * rate)
    lay = Rate(25)
    found = list(lay.lay((i / rate, i) for i in range(count)))
    inside = np.array(found) < count - 1  # the last one stands for as long as the others
    away = np.abs(np.array(found) / rate - np.arange(len(found)) / 25)[inside]
    assert away.max() <= 0.5 / min(rate, 25) + 1e-6
    assert abs(len(found) / 25 - 60) <= 0.02 + 0.5 / rate and not lay.kept


def test_stamps_that_tremble_about_the_rate_keep_every_picture() -> None:
    trembling = np.arange(1500) * PERIOD + np.random.default_rng(0).uniform(-0.0195, 0.0195, 1500)
    trembling[0] = 0.0
    lay = Rate(25)
    assert list(lay.lay((t, i) for i, t in enumerate(trembling))) == list(range(1500))
    assert lay.kept


@pytest.mark.parametrize("start", [0.0, 0.6, 0.95, 40.0])
def test_what_says_no_duration_lasts_as_long_as_what_came_before(start: float) -> None:
    line = Timeline()
    stamps = [start + s for s in (0.0, 0.04, 0.08)]
    assert [line.time(s, 0.0) for s in stamps] == stamps
    assert line.time(0.0 - 9.0, 0.0) == pytest.approx(start + 0.12)  # another recording


# Sound


def noise(seconds: float, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def placed(blocks: list[np.ndarray], starts: list[float], rate: int = 16000) -> np.ndarray:
    sound = Sound()
    for block, start in zip(blocks, starts, strict=True):
        sound.add(block[None], rate, ("FC",), start)
    mono, found, begin = sound.mono("x")
    assert (found, begin) == (rate, starts[0])
    return mono


def test_sound_that_comes_twice_is_kept_once() -> None:
    whole = noise(4.0)
    twice = [*range(100), *range(90, 200)]
    found = placed([whole[i * 320 :][:320] for i in twice], [i * 0.02 for i in twice])
    assert np.array_equal(found, whole)


def test_stamps_that_tremble_cut_no_sound() -> None:
    whole = noise(4.0)
    starts = np.arange(200) * 0.02 + np.random.default_rng(1).uniform(-0.012, 0.012, 200)
    starts[0], starts[50] = 0.0, 3.0  # and one that is wrong
    found = placed([whole[i * 320 :][:320] for i in range(200)], starts.tolist())
    away = [  # of each tenth of a second from where it was
        np.argmax(np.correlate(found[max(0, at - 400) : at + 2000], whole[at : at + 1600]))
        - min(at, 400)
        for at in range(0, 60000, 1600)
    ]
    assert np.abs(away).max() <= 0.008 * 16000


def test_a_clock_that_runs_fast_is_followed() -> None:
    whole = noise(10.0)
    starts = np.arange(500) * 0.02 * 1.01  # a hundred milliseconds late in the end
    found = placed([whole[i * 320 :][:320] for i in range(500)], starts.tolist())
    at = round(starts[480] * 16000)
    piece = whole[480 * 320 :][:3200]
    late = np.argmax(np.correlate(found[at - 800 : at + 4000], piece)) - 800
    assert abs(late) <= 0.008 * 16000


@pytest.mark.parametrize(
    ("names", "levels", "wanted"),
    [
        (("FL", "FR"), (0.5, -0.5), 0.5),  # wired against each other
        (("FL", "FR"), (0.5, 0.0), 0.25),
        (("FL", "FR", "FC", "LFE", "SL", "SR"), (0, 0, 0.4, 0.4, 0, 0), 0.4),
        (("FL", "FR", "FC", "LFE", "BL", "BR"), (0.2, 0.2, 0, 0, 0, 0), 0.2 * 2**0.5),
        (("FL", "FR", "FC", "LFE", "BL", "BR"), (0.2, -0.2, 0.3, 0, 0, 0), 0.3),
        (("A", "B", "C", "D"), (0.4, 0, 0, 0), 0.1),
    ],
)
def test_what_is_heard_is_kept(
    names: tuple[str, ...], levels: tuple[float, ...], wanted: float
) -> None:
    tone = np.sin(np.arange(16000) * 0.1)
    for kind, full in ((np.float32, 1.0), (np.int16, 32767), (np.int32, 2**31 - 1)):
        sound = Sound()
        block = (np.array(levels)[:, None] * tone * full).astype(kind)
        sound.add(block, 16000, names, 0.0)
        mono, _, _ = sound.mono("x")
        assert np.abs(mono).max() == pytest.approx(wanted, rel=1e-3)
