"""Promise: a wrong Python is told before anything is downloaded, and how much is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from avb.tools import fits

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("version", "good"),
    [((3, 8), False), ((3, 10, 13), False), ((3, 11, 0), True), ((3, 14), True), ((3, 15), False)],
)
def test_a_wrong_python_is_refused_by_name(version: tuple[int, ...], good: bool) -> None:
    said = fits.refusal(version, "/usr/bin/python3")
    assert bool(said) != good
    if not good:
        assert "3.11 to 3.14" in said and f"{version[0]}.{version[1]}" in said
        assert "make env PYTHON=" in said and "\n" not in said


def test_it_agrees_with_the_package_and_a_cuda_build_without_a_gpu_names_the_other() -> None:
    oldest, (major, minor) = ".".join(map(str, fits.OLDEST)), fits.NEWEST
    assert PROJECT["requires-python"] == f">={oldest},<{major}.{minor + 1}"
    assert "TORCH_INDEX" in fits.coming(cuda=True, gpu=False)
    others = fits.coming(cuda=True, gpu=True) + fits.coming(cuda=False, gpu=False)
    assert "TORCH_INDEX" not in others


def printed(*words: str) -> list[str]:
    """What a program says in the checkout."""
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def test_make_env_begins_with_it() -> None:
    first = printed("make", "--no-print-directory", "-n", "env", "VENV=build/none")[0]
    assert "tools/fits.py" in first and "pip" not in first


def test_the_floors_of_all_ranges_are_known() -> None:
    """`make ends` installs these; a range without a floor would be skipped in silence."""
    lines = printed(sys.executable, "tests/floors.py", "prep,eval")
    floors = dict(line.partition(";")[0].split("==") for line in lines)
    named = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["prep"]
    assert {re.split(r"[<>=\[; ]", one)[0] for one in named} <= floors.keys()
    assert floors["pyarrow"] == "23.0.1" and floors["numpy"] == "2.0.*"
    # Above known advisories: its JPEG reader (CVE-2025-53644), and protobuf's.
    assert floors["opencv-python-headless"].startswith("4.12.") and floors["protobuf"] == "4.25.8"


def test_an_audit_that_could_not_look_is_no_all_clear() -> None:
    """pip-audit passes over packages that the registry does not know, and exits with 0."""
    lines = printed("make", "--no-print-directory", "-n", "audit")
    (asked,) = [line for line in lines if "/pip-audit " in line]
    assert "--strict" in asked.split()
    # Else it could never succeed: avb itself and torch 2.13.0+cpu are in no registry.
    assert any("freeze --exclude-editable | sed 's/+.*//'" in line for line in lines)
