"""`avb doctor` says what is broken in one line each, whatever breaks, and never dies of it."""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import prepared
import pytest
from importers import touch

from avb.tools import doctor

ROOT = Path(__file__).parents[2]


def modules(folder: Path, **sources: str) -> Path:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def avb_doctor(*words: str, path: Path | None = None, cwd: Path = ROOT) -> Any:
    paths = [str(p) for p in (path, ROOT) if p is not None]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return prepared.run("doctor", *words, cwd=cwd, env=env)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('a wheel for\\nanother machine')", "another machine"),
        ("import os; os.abort()", "ended by signal 6"),
        ("import sys; sys.exit(3)", "no word of why"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart.so.13"),
    ],
)
def test_a_module_that_breaks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.syspath_prepend(modules(tmp_path, fragile=source))
    line = doctor.probe("fragile", doctor._IMPORT.format(module="fragile", name="fragile"), "mend")
    assert not line.ok and said in line.found
    assert str(line).startswith("-- fragile") and str(line).endswith(": mend")
    assert "\n" not in str(line)


def test_what_hangs_is_absent_or_is_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "TIMEOUT_S", 0.2)
        line = doctor.probe("slow", "import time; time.sleep(9)", "mend")
    assert not line.ok and "no answer" in line.found
    monkeypatch.syspath_prepend(modules(tmp_path, sound="__version__ = '7.1'"))
    code = doctor._IMPORT
    there = doctor.probe("sound", code.format(module="sound", name="sound"), "mend")
    assert str(there).split() == ["ok", "sound", "7.1"]
    absent = doctor.probe("gone", code.format(module="gone", name="gone"), "pip install gone")
    assert absent.found == "not installed" and str(absent).endswith("pip install gone")


def test_with_everything_broken_it_still_reports(tmp_path: Path) -> None:
    wanted = [name for name, _, _ in doctor.requirements() if name != "typer"]
    names = [doctor.MODULES.get(name, name.replace("-", "_")) for name in wanted]
    broken = {name: "raise RuntimeError('broken on purpose')" for name in names if "." not in name}
    done = avb_doctor("--json", path=modules(tmp_path, **broken), cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    record = json.loads(done.stdout)
    lines = {line["name"]: line for line in record["lines"]}
    assert not record["ok"]
    for name in ("torch", "pyyaml", "numpy", "onnx", "face models", "ffmpeg", "corpus grid", "GPU"):
        assert not lines[name]["ok"] and lines[name]["todo"], name
    assert "broken on purpose" in lines["scipy"]["found"] and lines["scipy"]["needed"]
    assert lines["python"]["ok"] and lines["typer"]["ok"]


@pytest.mark.parametrize(("needed", "code"), [(True, 1), (False, 0)])
def test_only_the_base_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], needed: bool, code: int
) -> None:
    bad = doctor.Line("part", False, "gone", "bring it", needed)
    good = doctor.Line("cores", True, "2")
    monkeypatch.setattr(doctor, "_checks", lambda datasets: [lambda: bad, lambda: good])
    assert doctor.run(None, as_json=False) == code
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["--", "part", "gone:", "bring", "it"] and second.startswith("ok")


def test_a_corpus_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/lwbz9s.mpg")
    monkeypatch.setenv("AVB_GRID_ROOT", str(tmp_path))
    code = doctor._CORPUS.format(name="grid", datasets=None)
    line = doctor.probe("corpus grid", code, "set it")
    assert line.ok and line.found == f"2 clips at {tmp_path}"
    monkeypatch.setenv("AVB_GRID_ROOT", str(tmp_path / "nothing"))
    line = doctor.probe("corpus grid", code, "set it")
    assert not line.ok and "nothing at" in line.found


def test_it_looks_at_every_dependency_and_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"": project["dependencies"]} | project["optional-dependencies"]
    texts = [f"{one}; extra == {extra!r}" for extra, own in wanted.items() for one in own]
    texts = [text.replace("'", '"').replace('; extra == ""', "") for text in texts]
    monkeypatch.setattr(doctor, "requires", lambda name: texts)
    found = [*doctor.requirements()]
    assert {extra for *_, extra in found} == set(wanted) - {"dev", "docs"}
    assert {("ray", ">=2.40,<3", "ray"), ("torch", ">=2.11,<3", "")} <= set(found)
    version = "{}.{}".format(*sys.version_info)
    assert ("pocketsphinx" in [name for name, *_ in found]) == (version in ("3.11", "3.13"))


@pytest.mark.parametrize(
    ("version", "wanted", "ok"),
    [
        ("2.11.0", ">=2.11,<3", True), ("2.13.0+cpu", ">=2.11,<3", True), ("3.0", ">=2,<3", False),
        ("2.9.1", "<3,>=2.11", False), ("version unknown", ">=1", True), ("7.1", "", True),
    ],
)  # fmt: skip
def test_a_version_out_of_its_range_is_told(version: str, wanted: str, ok: bool) -> None:
    assert doctor.within(version, wanted) is ok
    line = doctor._installed("numpy", ">=1000", "")
    assert not line.ok and line.needed
    assert str(line).endswith(", wanted >=1000: pip install 'numpy>=1000'")


@pytest.mark.slow
def test_where_the_base_works_it_says_so() -> None:
    done = avb_doctor()
    assert done.returncode == 0, done.stdout
    assert "ok torch" in done.stdout and "the base works" in done.stderr
    assert "9 pictures and" in done.stdout and "of sound read back" in done.stdout  # a clip
