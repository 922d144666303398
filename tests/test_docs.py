"""Every command and example of the documentation runs, page after page, in one empty folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import did

ROOT = Path(__file__).parents[1]
NAVIGATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
PAGES = [name for page in NAVIGATION for name in page.values()]
OWN = "own-videos.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: str, language: str) -> list[str]:
    """Blocks of a language; `console` is for what cannot run here, such as several machines."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [m[2] for m in BLOCK.finditer(text) if m[1] == language]


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is typed, except that trainings are cut to two steps."""
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    monkeypatch.chdir(tmp_path)
    pages = [page for page in PAGES if page != OWN]
    lines = [line for page in pages for block in blocks(page, "sh") for line in block.splitlines()]
    assert len(lines) > 20
    for line in lines:
        if not line.startswith("avb "):
            subprocess.run(line, shell=True, check=True, capture_output=True)
        else:
            steps = "--steps 2" if "--resume" not in line else r"\g<0>"
            did(*shlex.split(re.sub(r"--steps \d+", steps, line))[1:])


#: Slurm of one machine: a job runs when it is sent, and the first training is pre-empted.
SLURM = {
    "avb": f'exec "{sys.executable}" -m avb "$@"',
    "scontrol": "touch again",
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        "$@" & step=$!
        if [ ! -e preempted ]; then
            touch preempted
            until [ -s runs/mine-slurm/metrics.jsonl ] || ! kill -0 $step; do sleep 0.1; done
            kill -TERM $step
        fi
        wait $step""",
    "sbatch": """
        while [[ $1 == --* && $1 != --wrap ]]; do shift; done
        [ "$1" = --wrap ] && exec bash -c "$2" >&2
        count=$(sed -n 's/^#SBATCH --array=1-\\([0-9]*\\).*/\\1/p' "$1")
        export SLURM_CPUS_PER_TASK=1 SLURM_JOB_ID=7 SLURM_ARRAY_TASK_COUNT=${count:-1}
        for SLURM_ARRAY_TASK_ID in $(seq ${count:-1}); do
            export SLURM_ARRAY_TASK_ID
            rm -f again
            bash "$1" >&2 || { [ -e again ] && bash "$1" >&2; } || exit
        done
        echo 7""",
}


@pytest.mark.slow
def test_films_and_a_table_become_a_trained_reader_also_under_slurm(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    text = (ROOT / "docs" / OWN).read_text(encoding="utf-8")
    for told, quick in (
        ("--clips 40", "--clips 12"), ("--steps 1000", "--steps 2"),
        ("--steps 20000", "--steps 12"), ("batch_size=64", "batch_size=2 --set shrink=4"),
    ):  # fmt: skip
        assert told in text
        text = text.replace(told, quick)
    for name, script in re.findall(r"`(\w+\.sbatch)`:\n\n```bash\n(.*?)^```", text, re.M | re.S):
        (tmp_path / name).write_text(script)
    (tmp_path / "bin").mkdir()
    for name, script in SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    own = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", script], cwd=tmp_path, env=own, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    said = run("".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)))
    assert "12  clips listed" in said and "chance" in said
    assert re.search(r"^   0.00    1.16  [A-Z]+ 0\.\d\d", said, re.M)
    shutil.rmtree(tmp_path / "shards")
    (sent,) = re.findall(r"^```bash\n(parts=.*?)^```", text, re.M | re.S)
    said = run(sent)
    assert said.count("is done; after all parts") == 4
    assert "saved at step" in said and "done at step 12" in said and (tmp_path / "again").exists()


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
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    files = Path(__file__).parent.rglob("test_*.py")
    there = {name for f in files for name in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    assert len(named) > 50 and named <= there, named - there
