"""Shared by all folders: drawn corpora, a film writer, and an importer with its settings."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.clip import audio
from avb.pipeline.clip.media import Media
from avb.pipeline.config import Corpus, corpus_root, load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.settings import Settings, settings_for

REPO = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Use the ffmpeg inside imageio-ffmpeg, here and in what tests start; hear Ctrl-C there.

    What a machine has on its PATH differs: Debian 12's 5.1 knows less than tests ask of it. A
    script's background job is told to ignore Ctrl-C, and all that it starts after it.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return
    folder = tempfile.mkdtemp(prefix="avb-test-ffmpeg-")
    os.symlink(program, Path(folder) / "ffmpeg")
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"

    def undo() -> None:
        os.environ["PATH"] = before
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(undo)


# Importers ----------------------------------------------------------------------------------------


@dataclass
class Loaded:
    """One clip as its adapter reads it."""

    clip: Clip
    media: Media
    words: list[Word]
    settings: Settings

    @property
    def flags(self) -> set[str]:
        return {*self.media.flags, *self.clip.flags}

    def fitted(self) -> tuple[np.ndarray, int]:
        """The sound under the pictures, and what was padded."""
        m = self.media
        return audio.fit(m.sound, m.rate, m.sound_start_s, len(m.frames), 25, 16000)

    def log_mel(self) -> np.ndarray:
        return audio.log_mel(self.fitted()[0], self.settings.mel, 16000)


@dataclass
class Importer:
    """A corpus at a place: what it lists, and any clip of it read."""

    corpus: Corpus
    settings: Settings
    root: Path

    def listing(self) -> Listing:
        return adapter(self.settings.corpus).discover(self.root, self.corpus)

    def clips(self) -> list[Clip]:
        return list(self.listing().clips)

    def load(self, match: str = "") -> Loaded:
        """The one clip whose source or name holds `match`."""
        listing = self.listing()
        found = [c for c in listing.clips if match in c.source or match in c.name]
        assert len(found) == 1, f"{match!r} matches {[c.source for c in found]}"
        return self.read(found[0], listing.root)

    def read(self, clip: Clip, root: Path | None = None) -> Loaded:
        """A listed clip as its adapter reads it."""
        corpus, root = adapter(self.settings.corpus), root or self.root
        media = corpus.load(root, clip, self.settings).whole()
        words = corpus.words(root, clip, len(media.frames), self.settings, media.flags)
        return Loaded(clip, media, words, self.settings)


def make_importer(corpus: str, root: str | Path | None, **flags: Any) -> Importer:
    """What `avb prep CORPUS --root ROOT` with these flags would work with."""
    entry = load_corpora()[corpus]
    if corpus == "table":
        return Importer(entry, settings_for("mine", entry, **flags), Path(root or ""))
    where = corpus_root(corpus, entry, root and Path(root))
    return Importer(entry, settings_for(corpus, entry, **flags), where)


@pytest.fixture(scope="session")
def importer() -> Callable[..., Importer]:
    return make_importer


# Drawn corpora ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Synth:
    """A drawn corpus with its odd cases: {case: path or index row}."""

    root: Path
    odd: dict[str, str]


def _draw(corpus: str, folder: Path) -> Synth:
    pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
    from avb.tools.synth import make

    make(corpus, folder, clips=4, odd=True)
    with open(folder / "odd_cases.csv", encoding="utf-8", newline="") as table:
        return Synth(folder, {row["case"]: row["what"] for row in csv.DictReader(table)})


@pytest.fixture(scope="session")
def drawn_grid(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    return _draw("grid", tmp_path_factory.mktemp("drawn") / "grid")


@pytest.fixture(scope="session")
def drawn_lrw(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    return _draw("lrw", tmp_path_factory.mktemp("drawn") / "lrw")


@pytest.fixture(scope="session")
def drawn_lrw1000(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    return _draw("lrw1000", tmp_path_factory.mktemp("drawn") / "lrw1000")


@pytest.fixture(scope="session")
def real_grid() -> Path:
    """Real GRID clips, where there are some: AVB_TEST_GRID, else ../shared/grid."""
    root = Path(os.environ.get("AVB_TEST_GRID") or REPO.parent / "shared/grid")
    if not any(root.glob("s*/video/*.mp*")):
        pytest.skip(f"no real GRID clips in {root}; set AVB_TEST_GRID to a folder of sN/video")
    return root


# Films --------------------------------------------------------------------------------------------


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    times_s: Sequence[float],
    sound: np.ndarray | None = None,
    rate: int = 16000,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    sound_at_s: float = 0.0,
) -> Path:
    """Write luma pictures [H, W] at any times, without loss if it can be, and sound [n] or [C, n].

    Written with PyAV alone, so that it owes nothing to the code under test.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        # The period of most pictures: the last one lasts as long.
        rate_hz = 1 / float(np.median(np.diff(times_s))) if len(times_s) > 1 else 25
        video = container.add_stream(video_codec, rate=Fraction(rate_hz).limit_denominator(1001))
        video.height, video.width = pictures[0].shape
        video.pix_fmt = pix_fmt
        if video_codec == "libx264":
            video.options = {"qp": "0", "preset": "ultrafast"}
        video.codec_context.time_base = clock
        track = None
        if sound is not None:
            sound = np.atleast_2d(sound).astype(np.float32)
            layout = "stereo" if len(sound) == 2 else "mono"
            track = container.add_stream(audio_codec, rate=rate, layout=layout)
        for picture, time in zip(pictures, times_s, strict=True):
            frame = luma_frame(picture, pix_fmt)
            frame.pts, frame.time_base = round(time / clock), clock
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None and sound is not None:
            kind = track.codec_context.format.name
            if not kind.startswith("fl"):
                sound = np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)
            if not kind.endswith("p"):
                sound = sound.T.reshape(1, -1)
            chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), kind, layout)
            chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
            chunk.pts = round(sound_at_s * rate)
            container.mux(track.encode(chunk))
            container.mux(track.encode(None))
    return path


def luma_frame(picture: np.ndarray, pix_fmt: str) -> Any:
    """A frame whose luma plane is `picture`, in its upper bits if it has more, and grey chroma."""
    import av

    height, width = picture.shape
    frame = av.VideoFrame(width, height, pix_fmt)
    depth = frame.format.components[0].bits
    for number, plane in enumerate(frame.planes):
        samples = np.full((plane.height, plane.line_size), 128, np.uint16)
        if number == 0:
            samples[:, :width] = picture
        if depth > 8:
            samples = samples[:, : plane.line_size // 2] << (depth - 8)
        plane.update(samples.astype(np.uint16 if depth > 8 else np.uint8).tobytes())
    return frame


@pytest.fixture(scope="session")
def film() -> Callable[..., Path]:
    return write_film
