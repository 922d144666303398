"""What is installed: every file of the four folders, once, under `avb` only, with its data."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "cv2", "webdataset", "mediapipe", "pyarrow", "numpy", "av", "scipy"}
FOLDERS = ("pipeline", "models", "train", "tools")


def run(*code: str, path: Path, cwd: Path) -> str:
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin"}
    words = [sys.executable, *code]
    done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checkout(copy: Path) -> Path:
    """What a clone holds, links as links."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            target.write_bytes(source.read_bytes())
    return copy


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from avb.tools.cli import app; app(['--help'], standalone_mode=False)"
    loaded = run("-c", f"{code}; print(*sys.modules)", path=ROOT, cwd=tmp_path)
    assert not HEAVY & set(loaded.splitlines()[-1].split())


def test_every_folder_is_a_package_that_tools_can_follow() -> None:
    for folder in FOLDERS:
        link = ROOT / "avb" / folder
        assert link.is_symlink() and link.resolve() == ROOT / folder
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module


def test_plain_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    copy = checkout(tmp_path / "clone")
    code = "import avb.pipeline.config as c; c.load_corpora(); print(c.__file__, c.builtin_path())"
    out = run("-c", code, path=copy, cwd=tmp_path)
    assert out.split() == [str(copy / "avb/pipeline/config.py"), str(copy / "avb/datasets.yaml")]


@pytest.mark.slow
def test_wheel_and_source_archive_hold_every_file_once(tmp_path: Path) -> None:
    copy, target = checkout(tmp_path / "clone"), tmp_path / "site"
    build = "import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))"
    run("-c", build, str(tmp_path), path=copy, cwd=copy)
    archive = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
         "--target", str(target), str(unpacked)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    installed = {p.name for p in target.iterdir() if p.is_dir() and not p.name.endswith("-info")}
    assert installed - {"bin"} == {"avb"}
    kinds = (".py", ".yaml", ".html", ".js", ".css", ".typed", ".safetensors", ".json", ".md")
    wanted = {
        file.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.suffix in kinds and "__pycache__" not in file.parts
    }
    for place in (target / "avb", unpacked / "avb"):
        held = [f.relative_to(place).as_posix() for f in place.rglob("*") if f.suffix in kinds]
        assert sorted(n for n in held if "/" in n) == sorted(wanted)
    code = "import avb.pipeline.config as c; print(c.builtin_path()); c.load_corpora()"
    out = run("-c", code, path=target, cwd=tmp_path)
    assert out.strip() == str(target / "avb/datasets.yaml")
    assert "prep" in run("-m", "avb", "--help", path=target, cwd=tmp_path)
