"""The drawn LRW-1000, with everything odd in it at once."""

from typing import Any

import numpy as np
import pytest

from avb.pipeline.clip.status import Refused

STEP = 160  # samples in a hundredth of a second


@pytest.mark.parametrize("case", ["early_cut", "early_zero_filled"])
def test_drawn_words_near_the_start_are_heard_where_seen(drawn_lrw1000: Any, case: str) -> None:
    got = drawn_lrw1000.load(case)
    assert "short_margin" in got.flags
    sound, _ = got.fitted()
    start = np.flatnonzero(np.abs(sound) > 0.05)[0] / 16000
    assert start == pytest.approx(float(drawn_lrw1000.odd[case].split(",")[2]), abs=0.06)


def test_sound_a_few_samples_short_is_padded_at_the_end(drawn_lrw1000: Any) -> None:
    got = drawn_lrw1000.load("audio_30_short")
    start, end = map(int, got.clip.name.split("_")[1:])
    assert len(got.media.sound) == (end - start + 40) * STEP - 30
    sound, pad = got.fitted()
    lead = round(got.media.sound_start_s * 16000)
    assert len(sound) == 640 * len(got.media.frames)
    assert pad == len(sound) - lead - len(got.media.sound) and 30 <= pad <= 640 + 30
    assert not sound[-30:].any() and sound[: len(sound) - pad].any()


def test_the_drawn_corpus_ends_as_it_was_broken(drawn_lrw1000: Any) -> None:
    lrw1000 = drawn_lrw1000.importer()
    found: dict[str, list[str]] = {}
    for clip in lrw1000.clips():
        try:
            ending = clip.status or ",".join(["ok", *sorted(lrw1000.read(clip).media.flags)])
        except Refused as refusal:
            ending = refusal.status
        found.setdefault(clip.name, []).append(ending)
    wanted = {
        "frame_missing": ["ok,filled_frames"],
        "audio_missing": ["missing_audio"],
        "zero_length": ["zero_length"],
        "duplicate": ["ok", "ok"],  # the plan refuses the second
        "audio_30_short": ["ok"],
        "folder_missing": ["missing_frames"],
        "early_cut": ["ok,short_margin"],
        "early_zero_filled": ["ok,short_margin"],
    }
    assert {case: found[drawn_lrw1000.clip(case)] for case in wanted} == wanted
