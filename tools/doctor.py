"""`avb doctor`: what is there, what is missing, and what to do about it.

A broken wheel may take its interpreter with it, so whatever imports something runs in a child
process with this one's `sys.path`, and this module imports typer and the standard library alone.
"""

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import typer

from avb.pipeline.machine import cores, free_memory
from avb.tools.fits import refusal

log = logging.getLogger(__name__)
#: Modules that are not called as their distribution, with `_` for `-`.
MODULES = {
    "opencv-python-headless": "cv2", "pyyaml": "yaml", "protobuf": "google.protobuf",
    "ai-edge-litert": "ai_edge_litert.interpreter", "ffmpeg-python": "ffmpeg",
    "scikit-learn": "sklearn",
}  # fmt: skip
_DEVELOPERS = ("dev", "docs")  # extras that no command needs
TIMEOUT_S = 120  # a cold import of torch on a slow disk takes half a minute
DISK_GB, MEMORY_GB, SHARED_GB = 10, 4, 1

_IMPORT = """
import importlib, importlib.metadata
module = importlib.import_module({module!r})
try:
    print(importlib.metadata.version({name!r}))
except importlib.metadata.PackageNotFoundError:
    print(getattr(module, "__version__", "version unknown"))
"""
# The wheels are CUDA builds; avb knows how to import them beside a CPU-only torch.
_TORCHAUDIO = "from avb.pipeline.clip.audio import torchaudio; print(torchaudio().__version__)"
#: Of each look: what to do, and code whose last line is what was found.
_PROBES = {
    "codecs": ("pip install --force-reinstall av", """
import av
av.codec.Codec("h264", "r"), av.codec.Codec("flac", "r")
print("FFmpeg", ".".join(map(str, av.library_versions["libavcodec"])), "decodes H.264 and FLAC")
"""),
    "a clip": ("avb prep fails like this; pip install --upgrade av", """
import pathlib, tempfile
import numpy
from avb.pipeline.clip.decode import read_video
from avb.tools.synth import media
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "clip.mpg"
    media.write_mpg(path, [numpy.zeros((48, 64, 3), numpy.uint8)] * 9, numpy.zeros(5760, "f4"))
    got = read_video(path, 25)
print(len(got.frames), "pictures and", len(got.sound), "samples of sound read back")
"""),
    "encoder": ("avb prep needs it; pip install --force-reinstall av", """
import av
av.codec.Codec("libx264", "w")
print("PyAV has libx264")
"""),
    "ffmpeg": ("odd films need it; pip install imageio-ffmpeg", """
import subprocess
from avb.pipeline.clip.ffmpeg import ffmpeg_program
program = ffmpeg_program()
source = ["-f", "lavfi", "-i", "color=size=16x16:duration=0.1"]
subprocess.run([program, "-v", "error", *source, "-f", "null", "-"], check=True)
version = subprocess.run([program, "-version"], check=True, capture_output=True, text=True)
print(version.stdout.split()[2], "at", program)
"""),
    "face models": ("avb models fetch", """
import numpy
from avb.pipeline.clip.track import landmarks
landmarks(numpy.zeros((64, 64), numpy.uint8))
print("the face mesh loads and looks at a picture")
"""),
    "GPU": ("all runs on the CPU; with a card, install a CUDA build of torch", """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
if not names:
    raise SystemExit(f"torch {torch.__version__} sees none")
float(torch.ones(8, 8, device="cuda").sum())
gib = torch.cuda.get_device_properties(0).total_memory / 2**30
print(f"{len(names)} x {names[0]}, {gib:.0f} GiB")
"""),
}  # fmt: skip
_CORPUS = """
from avb.pipeline.config import corpus_root, load_corpora
from avb.pipeline.corpora.inspect import inspect
from avb.pipeline.corpora.stored import listed_tree
name, file = {name!r}, {datasets!r}
corpus = load_corpora(file)[name]
root = corpus_root(name, corpus)
try:
    with listed_tree(root) as here:
        if not (here.is_dir() and any(here.iterdir())):
            raise SystemExit(f"nothing at {{root}}; its licence: {{corpus.licence.apply}}")
        found = inspect(name, corpus, here)
except Exception as error:
    raise SystemExit(str(error))
print(f"{{found['clips']:,}} clips at {{root}}")
"""


@dataclass(frozen=True)
class Line:
    """One check."""

    name: str  # what was looked at
    ok: bool  # whether it is as it should be
    found: str  # its version, size or place, or what is wrong
    todo: str = ""  # what to do if it is not ok
    needed: bool = False  # whether the base cannot work without it

    def __str__(self) -> str:
        """`ok name  found`, or `-- name  what is wrong: what to do`."""
        todo = f": {self.todo}" if self.todo and not self.ok else ""
        return f"{'ok' if self.ok else '--'} {self.name:<24} {self.found}{todo}"


def examine(datasets: Path | None = None) -> list[Line]:
    """Every check, in a fixed order; never raises for what it finds."""
    with ThreadPoolExecutor(max_workers=max(2, min(8, cores()))) as pool:
        waiting = [pool.submit(check) for check in _checks(datasets)]
        return [one.result() for one in waiting]


def probe(name: str, code: str, todo: str, needed: bool = False) -> Line:
    """Run Python code in a child: the last line it prints, or the reason why it failed."""
    paths = [str(Path(p).resolve()) for p in sys.path]  # "" is the current folder here, too
    source = f"import sys\nsys.path[:] = {paths!r}\n{code}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, timeout=TIMEOUT_S,
            encoding="utf-8", errors="replace", env=os.environ | {"GLOG_minloglevel": "2"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Line(name, False, f"no answer in {TIMEOUT_S} s", todo, needed)
    except OSError as error:
        return Line(name, False, f"no child process ({error.strerror})", todo, needed)
    if done.returncode == 0:
        return Line(name, True, _last(done.stdout) or "there", todo, needed)
    why = _last(done.stderr) or "no word of why"
    if done.returncode < 0:
        why = f"ended by signal {-done.returncode}"
    elif why == f"ModuleNotFoundError: No module named {name!r}" or "PackageNotFound" in why:
        why = "not installed"
    return Line(name, False, why, todo, needed)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _checks(datasets: Path | None) -> Iterator[Callable[[], Line]]:
    """What `examine` runs, slowest first within each part."""
    yield _python
    try:
        yield from [partial(_installed, *wanted) for wanted in requirements()]
    except PackageNotFoundError:
        yield lambda: Line("avb", False, "not installed", "pip install -e . in its folder", True)
    for name, (todo, code) in _PROBES.items():
        yield partial(probe, name, code, todo, needed=name == "codecs")
    for name in ("lrw", "lrw1000", "grid"):
        code = _CORPUS.format(name=name, datasets=None if datasets is None else str(datasets))
        todo = f"set AVB_{name.upper()}_ROOT, or its root in datasets.yaml, or try avb synth"
        yield partial(probe, f"corpus {name}", code, todo)
    yield lambda: Line("cores", True, str(cores()))
    yield from (_memory, _disk, _shared_memory)


def requirements() -> Iterator[tuple[str, str, str]]:
    """Name, range and extra ("": the base) of what avb's commands need on this Python."""
    for text in requires("avb") or ():
        wanted, _, marker = text.partition(";")
        name = re.split(r"[^\w.-]", wanted, maxsplit=1)[0]
        extra = "".join(re.findall(r'extra == "(\w+)"', marker))
        pythons = re.findall(r'python_version == "([\d.]+)"', marker)
        if extra not in _DEVELOPERS and (
            "{}.{}".format(*sys.version_info) in pythons or not pythons
        ):
            yield name, wanted.removeprefix(name).strip(), extra


def _installed(name: str, wanted: str, extra: str) -> Line:
    """Whether a distribution can be imported, and is of a version in the range."""
    code = _IMPORT.format(module=MODULES.get(name, name.replace("-", "_")), name=name)
    if name == "torchaudio":
        code = _TORCHAUDIO
    todo = f"pip install '{name}{wanted}'" + (f" (extra {extra})" if extra else "")
    line = probe(name, code, todo, not extra)
    if line.ok and not within(line.found, wanted):
        return replace(line, ok=False, found=f"{line.found}, wanted {wanted}")
    return line


def within(version: str, wanted: str) -> bool:
    """Whether a version is in a range of `>=` and `<`; what has no number is."""

    def numbers(text: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", text.split("+")[0])]

    have, bounds = numbers(version), re.findall(r"(>=|<)([\d.]+)", wanted)
    return not have or all(
        have >= numbers(bound) if sign == ">=" else have < numbers(bound) for sign, bound in bounds
    )


def _python() -> Line:
    version = ".".join(map(str, sys.version_info[:3]))
    no = refusal(sys.version_info, "this one")
    return Line("python", not no, version, no, needed=True)


def _memory() -> Line:
    """What is free, and what the container leaves of it."""
    free = free_memory()
    if free == math.inf:
        return Line("memory", True, "not known here")
    todo = "a worker of avb prep takes 0.5 GB, training 2 GB and more: fewer --jobs, close others"
    return Line("memory", free >= MEMORY_GB * 1e9, f"{free / 1e9:.1f} GB free", todo)


def _disk() -> Line:
    free = shutil.disk_usage(".").free
    todo = "GRID takes 5 GB as shards, LRW 18 GB: write to another disk with --out"
    return Line("disk", free >= DISK_GB * 1e9, f"{free / 1e9:.0f} GB free in {Path.cwd()}", todo)


def _shared_memory() -> Line:
    """Workers of a reader hand batches over through /dev/shm, which Docker makes 64 MB small."""
    folder, todo = Path("/dev/shm"), "docker run --shm-size 2g, or read without workers"
    if not folder.is_dir():
        return Line("shared memory", True, "no /dev/shm on this system")
    if not os.access(folder, os.W_OK):
        return Line("shared memory", False, f"{folder} cannot be written", todo)
    free = shutil.disk_usage(folder).free
    return Line("shared memory", free >= SHARED_GB * 1e9, f"{free / 1e9:.1f} GB free", todo)


def run(datasets: Path | None, as_json: bool) -> int:
    """Print every line; the exit code: 0 if the base works, else 1."""
    lines = examine(datasets)
    broken = [line for line in lines if line.needed and not line.ok]
    if as_json:
        typer.echo(json.dumps({"ok": not broken, "lines": [asdict(line) for line in lines]}))
    else:
        for line in lines:
            typer.echo(line)
        missing = sum(not line.ok for line in lines)
        base = f"broken ({', '.join(line.name for line in broken)})" if broken else "works"
        log.info(f"the base {base}; {missing} of {len(lines)} looks want something")
    return int(bool(broken))
