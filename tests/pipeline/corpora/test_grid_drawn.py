"""The drawn GRID, with everything odd in it at once."""

from typing import Any

import numpy as np
import pytest

from avb.pipeline.corpora.grid import words_of
from avb.tools.synth import raw

SENTENCE = "bin blue at f two now".split()


def test_the_talker_without_video_is_one_notice(drawn_grid: Any) -> None:
    assert "s21" in [p.name for p in drawn_grid.root.glob("s*")]  # a talker without a clip
    listing = drawn_grid.importer().listing()
    assert listing.notices == ["talkers without a video: s21"]
    assert "s21" not in {clip.group for clip in listing.clips}


def test_word_times_are_those_at_which_the_words_are_spoken(drawn_grid: Any) -> None:
    spoken = raw.grid_clip(1, "bbaf2n").words
    got = drawn_grid.importer().load("s1/video/bbaf2n")
    assert [word for word, _, _ in got.words] == SENTENCE
    for (_, start, end), (_, from_s, to_s) in zip(got.words, spoken, strict=True):
        assert (start, end) == (pytest.approx(from_s), pytest.approx(to_s))
    sound, _ = got.fitted()
    start, end = got.words[0][1], got.words[-1][2]
    inside = np.square(sound[int(start * 16000) : int(end * 16000)]).mean()
    before = np.square(sound[: int((start - 0.05) * 16000)]).mean()
    assert inside > 100 * before


@pytest.mark.parametrize(
    ("case", "flag"),
    [("short_pause", "short_pause"), ("crlf_align", "crlf"), ("no_align", "no_alignment")],
)
def test_odd_or_no_alignments_leave_the_words_of_the_name(
    drawn_grid: Any, case: str, flag: str
) -> None:
    align = drawn_grid.root / drawn_grid.odd[case].replace("video", "align")
    naive = align.with_suffix(".align").read_bytes() if case != "no_align" else b""
    assert (b" sp\n" in naive, b"\r\n" in naive) == (case == "short_pause", case == "crlf_align")
    got = drawn_grid.load(case)
    assert [word for word, _, _ in got.words] == words_of(got.clip.name)
    assert {start is None for _, start, _ in got.words} == {case == "no_align"}
    assert got.flags == {flag}


def test_the_sound_is_22_ms_short_and_padded_to_48000_samples(drawn_grid: Any) -> None:
    got = drawn_grid.importer().load("s1/video/bbaf2n")
    assert len(got.media.sound) == 131_328 and got.media.rate == 44_100
    sound, pad = got.fitted()
    assert (len(sound), pad) == (48_000, 352) and not sound[-352:].any()
    assert got.log_mel().shape == (80, 300)
