"""Every command and example of the documentation runs, page after page, in one empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from commands import avb

ROOT = Path(__file__).parents[1]
PAGES = [
    name
    for page in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    for name in page.values()
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: str, language: str) -> list[str]:
    """Blocks of a language; `console` is for what cannot run here, such as several machines."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [m[2] for m in BLOCK.finditer(text) if m[1] == language]


def run_line(line: str) -> None:
    """As it is typed, except that trainings are cut to two steps."""
    line = re.sub(r"--steps \d+", "--steps 2", line) if "--resume" not in line else line
    if not line.startswith("avb "):
        subprocess.run(line, shell=True, check=True, capture_output=True)
        return
    done = avb(*shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    monkeypatch.chdir(tmp_path)
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    assert len(lines) > 20
    for line in lines:
        run_line(line)


def test_every_example_runs() -> None:
    examples = [block for page in PAGES for block in blocks(page, "python")]
    assert examples
    for example in examples:
        exec(example, {})


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere() -> None:
    assert set(PAGES) == {path.name for path in (ROOT / "docs").glob("*.md")}
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / "docs" / target).exists(), f"{page}: {target}"


def test_the_tests_that_hold_what_went_wrong_once_are_there() -> None:
    named = set(
        re.findall(r"`(test_\w+)`", (ROOT / "docs/findings.md").read_text(encoding="utf-8"))
    )
    files = Path(__file__).parent.rglob("test_*.py")
    there = {name for f in files for name in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    assert len(named) > 50 and named <= there, named - there
