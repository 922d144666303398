"""Drawn corpora with everything odd in them at once: each odd clip ends as it was broken."""

from pathlib import Path
from typing import Any

import pytest

from avb.pipeline.clip.status import Refused

#: Of each case its status, and its flags or what its refusal says.
ODD: dict[str, dict[str, tuple[str, Any]]] = {
    "grid": {
        "frames_74": ("ok", {"one_frame_short"}),
        "frames_70": ("short", ""),
        "grey_start": ("blank_frames", "12 pictures without content, the first is 0"),
        "other_words": ("ok", {"bad_alignment"}),
        "no_audio": ("no_audio", ""),
        "damaged": ("ok", {"damaged"}),
        "large_twin": ("duplicate", ""),
        "empty": ("bad_decode", ""),
        "text": ("bad_decode", ""),
        "truncated": ("short", ""),
        "no_face": ("ok", set()),  # the tracker's to say
        "wrong_talker_align": ("ok", {"misfiled_alignment"}),
    },
    "lrw": {
        "no_text": ("ok", {"no_boundary"}),
        "duration_zero": ("ok", {"no_boundary"}),
        "duration_too_long": ("ok", {"boundary_clamped"}),
        "duration_without_unit": ("ok", set()),
        "frames_28": ("short", "28 frames, expected 29"),
        "truncated": ("bad_decode", "Invalid data"),
        "truncated_late": ("short", "expected 29"),
        "empty": ("bad_decode", "0 bytes"),
        "text": ("bad_decode", "Invalid data"),
        "no_audio": ("no_audio", "no sound track"),
    },
    "lrw1000": {
        "frame_missing": ("ok", {"filled_frames"}),
        "audio_missing": ("missing_audio", ""),
        "zero_length": ("zero_length", ""),
        "duplicate": ("ok", set()),  # twice; the plan refuses the second
        "audio_30_short": ("ok", set()),
        "folder_missing": ("missing_frames", ""),
        "early_cut": ("ok", {"short_margin"}),
        "early_zero_filled": ("ok", {"short_margin"}),
    },
}


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("corpus", ODD)
def test_an_odd_clip_ends_as_it_was_broken(
    request: pytest.FixtureRequest, corpus: str, decoder: str
) -> None:
    drawn = request.getfixturevalue(f"drawn_{corpus}")
    made = drawn.importer(decoder=decoder)
    clips = made.clips()
    for case, (status, says) in ODD[corpus].items():
        if case == "damaged" and decoder == "ffmpeg":
            says = set()  # the program says nothing of damage that it conceals
        found = [clip for clip in clips if drawn.clip(case) in (clip.source, clip.name)]
        assert len(found) == (2 if case == "duplicate" else 1), case
        for clip in found:
            ending, said = clip.status, clip.error
            if not ending:
                try:
                    ending, said = "ok", made.read(clip).flags
                except Refused as refusal:
                    ending, said = refusal.status, refusal.error
                    assert corpus == "lrw1000" or Path(clip.source).name in said, case
            assert ending == status and "\n" not in said, (case, said)
            assert said == says if status == "ok" else says in said, (case, said)
