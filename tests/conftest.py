"""Shared by all folders: the ffmpeg of the packages, drawn corpora and real clips."""

import csv
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prepared
import pytest
from importers import Importer, Loaded, importer

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


@pytest.fixture
def hangup_heard() -> Iterator[None]:
    """SIGHUP ends what it is sent to, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


# Drawn corpora ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Synth:
    """A drawn corpus with its odd cases: {case: path or index row}."""

    root: Path
    odd: dict[str, str]

    def importer(self, **flags: Any) -> Importer:
        return importer(self.root.name, self.root, **flags)

    def clip(self, case: str) -> str:
        """The source of a case, or the name that its row of LRW-1000 gives."""
        folder, *row = self.odd[case].split(",")
        return "_".join([folder, *(str(round(float(time) * 100)) for time in row[1:])])

    def load(self, case: str, **flags: Any) -> Loaded:
        return self.importer(**flags).load(self.clip(case))


def _drawn(corpus: str) -> Any:
    """The fixture `drawn_<corpus>`."""

    @pytest.fixture(scope="session", name=f"drawn_{corpus}")
    def draw(tmp_path_factory: pytest.TempPathFactory) -> Synth:
        folder = prepared.draw(corpus, tmp_path_factory.mktemp("drawn") / corpus, 4, odd=True)
        with open(folder / "odd_cases.csv", encoding="utf-8", newline="") as table:
            return Synth(folder, {row["case"]: row["what"] for row in csv.DictReader(table)})

    return draw


drawn_grid, drawn_lrw, drawn_lrw1000 = map(_drawn, ("grid", "lrw", "lrw1000"))


@pytest.fixture(scope="session")
def real_grid() -> Path:
    """Real GRID clips, where there are some: AVB_TEST_GRID, else ../shared/grid."""
    root = Path(os.environ.get("AVB_TEST_GRID") or REPO.parent / "shared/grid")
    if not any(root.glob("s*/video/*.mp*")):
        pytest.skip(f"no real GRID clips in {root}; set AVB_TEST_GRID to a folder of sN/video")
    return root
