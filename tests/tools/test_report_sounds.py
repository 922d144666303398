"""Sounds side by side: which are taken, and how alike their addresses are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from avb.tools.report import figures, sounds
from avb.tools.report.examples import Clip, Said
from avb.tools.report.sounds import Wanted

RNG = np.random.default_rng(0)


class Spoken:
    """The words of a test part: word, talker, key, frames."""

    def __init__(self, *said: tuple[str, str, str, int]) -> None:
        self.said = said
        self.num_talkers = len({talker for _, talker, _, _ in said if talker})

    def words(self, wanted: str | None = None) -> Iterator[Said]:
        for word, talker, key, length in self.said:
            frames = np.arange(20, dtype=np.uint8)[:, None, None] + np.zeros((20, 8, 8), np.uint8)
            source, target = RNG.dirichlet(np.ones(4), (2, 20))
            clip = Clip(key, key, 25.0, frames, [], np.zeros((4, 80)), source, target)
            if wanted in (None, word):
                yield Said(word, talker, clip, 2, 2 + length)


def two(*said: tuple[str, str, str, int], wanted: Wanted | None = None) -> list[Any]:
    return sounds.in_two_mouths(Spoken(*said), wanted)  # type: ignore[arg-type]


def test_one_sound_is_taken_of_two_talkers() -> None:
    said = ("at", "s1", "s1/a", 9), ("at", "s1", "s1/b", 9), ("at", "s2", "s2/c", 4)
    with pytest.raises(ValueError, match="a word of 5 frames twice"):
        two(*said)  # the second talker's has four
    found = two(*said, ("at", "s2", "s2/d", 7))
    assert [one.title.split("\n")[1] for one in found] == ["s1/a", "s2/d"]
    # The middle five of the word, which begins at frame 2.
    assert [one.frames[:, 0, 0].tolist() for one in found] == [[4, 5, 6, 7, 8], [3, 4, 5, 6, 7]]
    named = two(*said, wanted=Wanted.of("at:2-4"))
    assert [one.frames[:, 0, 0].tolist() for one in named] == [[3, 4, 5]] * 2
    assert [one.title.split("\n")[1] for one in named] == ["s1/a", "s2/c"]
    # Where all are of one talker, or talkers are not known: of two clips.
    assert len(two(*said[:2])) == 2
    with pytest.raises(ValueError, match="twice"):
        two(("at", "", "train/x#0", 9), ("at", "", "train/x#3", 9))


def test_named_sounds_are_other_places_and_their_cosines_are_of_means() -> None:
    part: Any = Spoken(("at", "s1", "s1/a", 9), ("by", "s1", "s1/a", 9), ("at", "s1", "s1/b", 9))
    wanted = [Wanted.of(text) for text in ("at:1-3", "by:2", "at:1-3")]
    found = sounds.named(part, wanted)
    assert [one.title.split("\n")[1] for one in found] == ["s1/a", "s1/a", "s1/b"]
    cosines = sounds.alike(found)
    a, b = (one.source.mean(axis=0) for one in found[:2])
    assert cosines[0, 1] == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)))
    assert np.diag(cosines) == pytest.approx(1)
    with pytest.raises(ValueError, match="no clip of the test part holds by of 10 frames"):
        sounds.named(part, [Wanted.of("by:4-10")])
    for text in ("at", "at:", ":3", "at:0", "at:4-3", "at:x"):
        with pytest.raises(ValueError, match="give WORD:FRAMES"):
            Wanted.of(text)


def test_features_of_other_widths_lie_in_one_map() -> None:
    pytest.importorskip("sklearn", reason="the map of features needs the extra report")
    wide, narrow = RNG.normal(size=(40, 24)), RNG.normal(size=(40, 6))
    assert figures._of_one_width(wide, narrow).shape == (80, 6)
    same = figures._of_one_width(wide, wide + 1)
    assert np.array_equal(same, np.concatenate([wide, wide + 1]))
