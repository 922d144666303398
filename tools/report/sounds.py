"""Addresses of single sounds side by side, after the paper's Figures 3 and 4.

One sound in two mouths, and sounds that a reader names with how alike their addresses are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avb.tools.report.examples import Array, Examples, Said
from avb.tools.report.style import HEAT, new
from avb.train.evaluate.metrics.addressing import unit_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Frames of a sound where none are named.
FRAMES = 5
_ROW = 0.75  # inches


@dataclass(frozen=True)
class Wanted:
    """Frames of a word, counted from its first; `last` is the one behind."""

    word: str
    first: int
    last: int

    @classmethod
    def of(cls, text: str) -> Wanted:
        """WORD:FRAMES as it is typed, frames of the word from 1 on: about:3-7, a:2; ValueError."""
        found = re.fullmatch(r"(.+):(\d{1,4})(?:-(\d{1,4}))?", text)
        first, last = (int(found[2]), int(found[3] or found[2])) if found else (0, 0)
        if not found or not 1 <= first <= last:
            raise ValueError(f"--pair {text}: give WORD:FRAMES, such as about:3-7")
        return cls(found[1], first - 1, last)


@dataclass(frozen=True)
class Sound:
    """Frames uint8 [F x S x S] of a word with their addresses [F x N]."""

    title: str
    frames: Array
    source: Array
    target: Array


def _cut(said: Said, wanted: Wanted | None) -> Sound | None:
    """The frames of a spoken word, if none are named its middle ones; None if it has fewer."""
    clip, length = said.clip, said.last - said.first
    first = wanted.first if wanted else max(0, (length - FRAMES) // 2)
    last = wanted.last if wanted else first + FRAMES
    if last > length or clip.source is None or clip.target is None:
        return None
    part = slice(said.first + first, said.first + last)
    title = f"{said.word}, frames {first + 1} to {last}\n{clip.key}"
    return Sound(title, clip.frames[part], clip.source[part], clip.target[part])


def in_two_mouths(examples: Examples, wanted: Wanted | None) -> list[Sound]:
    """One sound by two talkers, or in two clips where the test part has one talker alone.

    ValueError: no word is said twice, or not by so many frames.
    """
    alone = examples.num_talkers < 2
    before: dict[str, tuple[str, Sound]] = {}
    for said in examples.words(wanted.word if wanted else None):
        sound = _cut(said, wanted)
        who = said.clip.key.split("#")[0] if alone else said.talker
        if sound is None or not who:
            continue
        if said.word in before and before[said.word][0] != who:
            return [before[said.word][1], sound]
        before.setdefault(said.word, (who, sound))
    what = wanted.word if wanted else f"a word of {FRAMES} frames"
    raise ValueError(f"the test part does not hold {what} twice, by two talkers if it has several")


def named(examples: Examples, wanted: Sequence[Wanted]) -> list[Sound]:
    """The first of each sound in the test part, else ValueError; again, it is of another clip."""
    found, taken = [], set()
    for one in wanted:
        for said in examples.words(one.word):
            place = (said.clip.key, said.first, one.first)
            sound = _cut(said, one)
            if sound is not None and place not in taken:
                break
        else:
            raise ValueError(f"no clip of the test part holds {one.word} of {one.last} frames")
        taken.add(place)
        found.append(sound)
    return found


def alike(sounds: Sequence[Sound]) -> Array:
    """Cosine of the mean source addresses of any two, [sounds x sounds]."""
    means = unit_rows([one.source.mean(axis=0) for one in sounds])
    return means @ means.T


def mouths(sounds: Sequence[Sound]) -> Figure:
    """Frames of each, and under them A_src and A_tgt, a row a slot."""
    figure, axes = new(5.2, nrows=3, ncols=len(sounds), height_ratios=(1, 2, 2), squeeze=False)
    top = max(max(one.source.max(), one.target.max()) for one in sounds)
    for column, one in zip(axes.T, sounds, strict=True):
        column[0].imshow(np.concatenate(list(one.frames), axis=1), cmap="gray", vmin=0, vmax=255)
        column[0].set(xticks=[], yticks=[])
        column[0].set_title(one.title)
        for place, weights in zip(column[1:], (one.source, one.target), strict=True):
            picture = place.imshow(
                weights.T, cmap=HEAT, vmin=0, vmax=top, aspect="auto", interpolation="nearest",
                origin="lower",
            )  # fmt: skip
            place.set(xticks=[])
    for place, title in zip(axes[1:, 0], ("A_src, from video", "A_tgt, from sound"), strict=True):
        place.set_ylabel(f"{title}\nslot")
    figure.colorbar(picture, ax=axes[1:], aspect=30, label="weight").outline.set_visible(False)
    return figure


def pairs(sounds: Sequence[Sound]) -> Figure:
    """Frames of each beside how alike any two are by their source addresses."""
    height = _ROW * len(sounds) + 1.2
    figure, axes = new(height, ncols=2, width_ratios=(3, 2))
    cosines = alike(sounds)
    side = max(one.frames.shape[1] for one in sounds)
    most = max(len(one.frames) for one in sounds)
    rows = np.full((side * len(sounds), side * most), 255, np.uint8)
    for i, one in enumerate(sounds):
        strip = np.concatenate(list(one.frames), axis=1)
        rows[side * i : side * (i + 1), : strip.shape[1]] = strip
    axes[0].imshow(rows, cmap="gray", vmin=0, vmax=255)
    middles = side * (np.arange(len(sounds)) + 0.5)
    axes[0].set_yticks(middles, [one.title for one in sounds])
    axes[0].set(xticks=[])
    axes[1].imshow(cosines, cmap=HEAT, vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(cosines):
        ink = "black" if value > 0.6 else "white"
        axes[1].text(j, i, f"{value:.2f}", ha="center", va="center", color=ink)
    numbers = [str(i + 1) for i in range(len(sounds))]
    axes[1].set_xticks(range(len(sounds)), numbers)
    axes[1].set_yticks(range(len(sounds)), numbers)
    axes[1].set_title("cosine of their mean A_src")
    for place in axes:
        place.tick_params(length=0)
    return figure
