"""Promise: no networks but mediapipe 0.10.21's own are run; one line says what is missing."""

import re
import zipfile
from pathlib import Path
from unittest.mock import Mock

import prepared
import pytest
from commands import fault

from avb.pipeline.clip import facemodels
from avb.pipeline.clip.facemodels import MODELS, VARIABLE, model
from avb.pipeline.errors import UsageError

NAMES = list(MODELS)


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    """The models of this machine."""
    try:
        return {name: model(name) for name in NAMES}
    except UsageError as error:
        pytest.skip(str(error))


def write(folder: Path, models: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in models.items():
        (folder / f"{name}.tflite").write_bytes(data)
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has no model: its cache, which is empty, and no mediapipe."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("AVB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(facemodels, "_installed", lambda: None)
    return tmp_path / "cache" / "models"


def wheel(path: Path, models: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in models.items():
            archive.writestr(f"mediapipe/modules/face/{name}.tflite", data)
        archive.writestr("mediapipe/modules/hand/hand.tflite", b"another")
    return path


def test_without_any_the_command_that_brings_them_is_named(bare: Path) -> None:
    for name in NAMES:
        assert re.search(r"avb models fetch \(36 MB, once\).*--box fixed", fault(model, name))
    assert "avb models fetch" in fault(facemodels.check, "litert")
    (bare / f"{NAMES[0]}.tflite").mkdir(parents=True)
    assert "cannot be read" in fault(model, NAMES[0])


def test_those_of_the_cache_are_taken(bare: Path, good: dict[str, bytes]) -> None:
    write(bare, good)
    assert {name: model(name) for name in NAMES} == good
    facemodels.check("litert")


def test_an_installed_mediapipe_gives_them_without_being_imported(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("AVB_CACHE", str(tmp_path / "cache"))
    site = tmp_path / "site"
    for name, data in good.items():
        write(site / "mediapipe/modules" / name[:9], {name: data})
    (site / "mediapipe/__init__.py").write_text("raise AssertionError('imported')\n")
    (site / "mediapipe-0.10.21.dist-info").mkdir()
    (site / "mediapipe-0.10.21.dist-info/METADATA").write_text("Name: mediapipe\nVersion: 0.10.21")
    monkeypatch.syspath_prepend(str(site))
    assert {name: model(name) for name in NAMES} == good


@pytest.mark.parametrize("layout", ["", "modules/face_detection"])
def test_a_named_folder_is_the_only_one(
    bare: Path, good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    write(bare, good)
    mine = tmp_path / "mine"
    monkeypatch.setenv(VARIABLE, str(mine))
    line = fault(model, NAMES[0])
    assert f"no {NAMES[0]}.tflite in {mine}; " in line and f" unset {VARIABLE}" in line
    write(mine / layout, good)
    assert model(NAMES[0]) == good[NAMES[0]]


@pytest.mark.parametrize("what", ["cut off", "a byte flipped", "empty", "another file", "huge"])
def test_a_damaged_or_foreign_model_is_never_run(
    bare: Path, good: dict[str, bytes], what: str
) -> None:
    right = good[NAMES[0]]
    flipped = bytearray(right)
    flipped[len(right) // 2] ^= 1
    wrong = {
        "cut off": right[:1000],
        "a byte flipped": bytes(flipped),
        "empty": b"",
        "another file": good[NAMES[1]],
        "huge": right + bytes(facemodels.MOST_BYTES),
    }[what]
    write(bare, good | {NAMES[0]: wrong})
    found = f"{NAMES[0]}.tflite is not that of mediapipe==0.10.21: damaged, or of another version"
    line = fault(facemodels.check, "litert")
    assert found in line and "avb models fetch" in line


def test_a_processor_that_is_too_old_is_one_line(
    bare: Path, good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(bare, good)
    monkeypatch.setattr(facemodels, "CPU_INFO", tmp_path / "cpuinfo")
    dies = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    for flags, code, told in (
        ("sse4_2 avx2 bmi1", dies, False),  # not asked: it takes a second
        ("sse4_2 avx bmi1", facemodels._RUN_ONCE, False),
        ("sse4_2 bmi1", dies, True),
    ):
        facemodels.CPU_INFO.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr(facemodels, "_RUN_ONCE", code)
        facemodels.check_processor.cache_clear()
        if told:
            assert "too old for LiteRT (signal 4)" in fault(facemodels.check, "litert")
        else:
            facemodels.check("litert")
    facemodels.check_processor.cache_clear()


# Fetching


def test_fetch_takes_the_models_out_of_the_wheel(
    bare: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Mock(side_effect=lambda folder: wheel(folder / "mediapipe.whl", good))
    monkeypatch.setattr(facemodels, "_download", download)
    assert facemodels.fetch() == bare
    assert {p.name for p in bare.iterdir()} == {f"{name}.tflite" for name in NAMES}
    assert model(NAMES[0]) == good[NAMES[0]]
    assert facemodels.fetch() is None and download.call_count == 1  # once is enough
    write(bare, {NAMES[1]: b"damaged"})
    assert facemodels.fetch() == bare and model(NAMES[1]) == good[NAMES[1]]


def test_a_wheel_with_other_models_is_refused(
    bare: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = good | {NAMES[2]: b"newer"}
    monkeypatch.setattr(facemodels, "_download", lambda d: wheel(d / "mediapipe.whl", other))
    assert f"mediapipe.whl holds another {NAMES[2]}.tflite" in fault(facemodels.fetch)
    assert not any(bare.glob("*"))  # nothing half


def test_without_a_network_it_says_what_to_copy(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert re.search(f"could not be fetched: .*{VARIABLE}", fault(facemodels.fetch))


def test_no_models_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    film = tmp_path / "raw/s1/video/bbaf2n.mpg"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"never opened")
    done = prepared.run("prep", "grid", "--root", tmp_path / "raw", "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "avb models fetch" in line and str(tmp_path / "nowhere") in line
    assert not (tmp_path / "out").exists()
