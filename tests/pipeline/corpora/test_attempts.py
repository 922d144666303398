"""An error is the disk's until every file of a clip was read: the rule by itself."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from importers import refusal, touch

from avb.pipeline.build.plan import lay_out
from avb.pipeline.clip.status import Refused
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import Clip
from avb.pipeline.corpora.source_files import SourceFault, attempts, sources_of
from avb.pipeline.settings import settings_for

CORPORA = load_corpora()


@pytest.mark.parametrize("corpus", ["lrw", "grid"])
def test_what_goes_while_it_is_listed_was_there(tmp_path: Path, corpus: str) -> None:
    """Between the folder's listing and the look at the file; a link to nowhere was never there."""
    names = {
        "lrw": ("ABOUT/train/ABOUT_00001.mp4", "ABOUT/train/ABOUT_00001.txt"),
        "grid": ("s1/bbaf2n.mpg", "s1/bbaf2n.align"),
    }
    for name in names[corpus]:
        path = touch(tmp_path, name) / name
        listing = adapter(corpus).discover(tmp_path, CORPORA[corpus])
        clips = listing.clips
        listing.clips = (clip for clip in list(clips))
        path.unlink()
        if name != names[corpus][0]:
            (tmp_path / names[corpus][0]).touch()
        settings = settings_for(corpus, CORPORA[corpus])
        with pytest.raises(SourceFault, match=rf"{path}: No such file .* while it was listed"):
            lay_out(listing, settings, tmp_path / "plan")
        path.symlink_to("nowhere")
        listing = adapter(corpus).discover(tmp_path, CORPORA[corpus])
        assert lay_out(listing, settings, tmp_path / "plan").listed == 1
        path.unlink()
        (tmp_path / names[corpus][0]).touch()


def surely(clip: Clip, root: Path, prepare: Callable[[], Any]) -> Any:
    for attempt in attempts(clip, root):
        with attempt:
            done = prepare()
            attempt.flags = done.flags
    return done


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EACCES])
def test_an_error_is_the_disk_s_until_all_files_were_read(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    clip = Clip("a", "g", "a.mp4")
    clip.sources = sources_of(tmp_path, clip)
    fails = Mock(side_effect=OSError(code, os.strerror(code), str(path)))
    # It can be read: the decoder has something to say.
    assert refusal(surely, clip, tmp_path, fails).status == "bad_decode" and fails.call_count == 2
    path.unlink()
    with pytest.raises(SourceFault, match="a.mp4: No such file"):
        surely(clip, tmp_path, fails)
    clip.sources = sources_of(tmp_path, clip)
    assert refusal(surely, clip, tmp_path, fails).status == "unreadable"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    clip = Clip("a", "g", "a.mp4")
    clip.sources = sources_of(tmp_path, clip)
    signal.alarm(10)  # without its own handler it ends the run, where a hang would not
    with pytest.raises(Refused, match="a pipe"):
        surely(clip, tmp_path, Mock(side_effect=Refused("unreadable", "a pipe")))
    signal.alarm(0)


def test_an_ending_that_does_not_come_again_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    clip = Clip("a", "g", "a.mp4")
    clip.sources = sources_of(tmp_path, clip)
    good = SimpleNamespace(flags=[])
    for first in (Refused("short", "3 of 29"), SimpleNamespace(flags=["filled_frames"])):
        tries = Mock(side_effect=[first, good])
        assert surely(clip, tmp_path, tries) is good


def test_faults_of_the_program_show_themselves(tmp_path: Path) -> None:
    fails = Mock(side_effect=OSError(errno.EINVAL, "a bug"))
    with pytest.raises(OSError, match="a bug"):
        surely(Clip("a", "g", "a.mp4"), tmp_path, fails)
