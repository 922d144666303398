"""What is installed: every folder that is listed, under `avb` only, with its data file."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "cv2", "webdataset", "mediapipe", "pyarrow", "numpy", "av", "scipy"}


def run(*code: str, path: Path, cwd: Path) -> str:
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *code], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_package_list_matches_the_folders() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"avb": "avb"}
    for top in ("pipeline", "models", "train", "tools"):
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT).as_posix()
            folders["avb." + folder.replace("/", ".")] = folder
    assert sorted(tool["packages"]) == sorted(folders)
    assert tool["package-dir"] == folders


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    loaded = run(
        "-c",
        "import sys; from avb.tools.cli import app; print(*sys.modules)",
        path=ROOT,
        cwd=tmp_path,
    )
    assert not HEAVY & set(loaded.split())


def test_plain_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    copy = tmp_path / "clone"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = run(
        "-c", "import avb.pipeline.config as c; print(c.__file__, c.builtin_path())",
        path=copy, cwd=tmp_path,
    )  # fmt: skip
    assert out.split() == [str(copy / "pipeline/config.py"), str(copy / "datasets.yaml")]


@pytest.mark.slow
def test_wheel_installs_one_name_and_runs(tmp_path: Path) -> None:
    target = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
         "--target", str(target), str(ROOT)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    installed = {p.name for p in target.iterdir() if p.is_dir() and not p.name.endswith("-info")}
    assert installed - {"bin"} == {"avb"}
    out = run(
        "-c", "import avb.pipeline.config as c; print(c.builtin_path()); c.load_corpora()",
        path=target, cwd=tmp_path,
    )  # fmt: skip
    assert out.strip() == str(target / "avb/datasets.yaml")
    for recipe in (ROOT / "train/recipes").rglob("*.yaml"):
        assert (target / "avb/train" / recipe.relative_to(ROOT / "train")).is_file()
    assert "prep" in run("-m", "avb", "--help", path=target, cwd=tmp_path)
