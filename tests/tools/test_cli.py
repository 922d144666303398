"""The command line as it is typed: lines and their log file, faults, help, completion."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import avb, refused
from typer.testing import CliRunner

from avb.tools.cli import app


def test_a_log_file_has_the_lines_of_the_terminal_with_time_and_level(tmp_path: Path) -> None:
    log = tmp_path / "avb.log"
    for _ in range(2):
        line = refused("--log-file", log, "stats", tmp_path / "none")
        assert line == f"avb: {tmp_path}/none: no such folder"
    first, second = log.read_text().splitlines()
    assert re.fullmatch(r"[-\d]+ [:,\d]+ ERROR avb: .*/none: no such folder", first)
    assert second.endswith(" ERROR " + line)
    line = refused("--log-file", tmp_path, "stats", tmp_path)
    assert line == f"avb: --log-file {tmp_path}: cannot be written (Is a directory)"


def test_options_of_prep_may_come_before_the_corpus(tmp_path: Path) -> None:
    words = ["--root", tmp_path, "--out", "lrw", "--dry-run"]
    told = {avb("prep", *words, "grid").stderr, avb("prep", "grid", *words).stderr}
    assert len(told) == 1 and told.pop().startswith(f"avb: {tmp_path}: no GRID clip found")
    (tmp_path / "mine.csv").write_text("film\n")
    for words in (["table", tmp_path / "mine.csv", "--name"], ["--name", "table", "table"]):
        refused("prep", *words, "grid")


def test_the_help_of_a_corpus_speaks_of_it_alone() -> None:
    lrw, table = (avb("prep", name, "--help").output for name in ("lrw", "table"))
    assert "fixed box 59,95" in lrw and "WORD_00001.mp4" in lrw
    assert "--root" in lrw and "--name" not in lrw and "FILE" not in lrw
    assert "--name" in table and "--root" not in table and "label, speaker, split" in table


def test_choices_are_checked_named_and_completed() -> None:
    assert "'mp4', 'h264', 'jpeg'" in refused("prep", "lrw", "--codec", "mp5")
    asked = {"COMP_WORDS": "avb prep lrw --codec ", "COMP_CWORD": "4"}
    asked["_AVB_COMPLETE"] = "complete_bash"
    done = CliRunner().invoke(app, prog_name="avb", env=asked)
    assert done.output.split() == ["mp4", "h264", "jpeg"]
    for typed in ("avb prep --limit 3 ", "avb prep gird --li"):
        asked |= {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
        done = CliRunner().invoke(app, prog_name="avb", env=asked)
        assert done.exception is None or isinstance(done.exception, SystemExit), typed
        if typed.endswith("3 "):
            assert done.output.split() == ["lrw", "grid", "lrw1000", "table"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("train lip --epochs 1 --steps 3", "--steps"),
        ("train lip --split-file a.txt --split hash", "--split"),
        ("train judge --split-file a.txt --split hash", "--split"),
        ("train vocoder --split-file a.txt --split hash", "--split"),
        ("ablate lip --slots 0,4 --split-file a.txt --split hash", "--split"),
        ("prep lrw --face-every 2", "--face-every"),
        ("prep grid --crop lips --box whole --tracker litert", "--tracker"),
        ("plot run --figure curves --pair ABOUT:3", "--pair"),
        ("plot run --figure pairs --clip 2", "--clip"),
        ("infer lip --camera 0 --box whole", "--box"),
        ("infer lip --follow a.mp4 --face-every 3", "--face-every"),
        ("infer lip --follow a.mp4 --top 3", "--top"),
        ("infer lip a.mp4 --box whole --face 2", "--face"),
        ("sync shards --apply a.parquet --against b.parquet", "--against"),
        ("sync shards --model a.pt --steps 3", "--steps"),
        ("report run --clips 2", "--clips"),
        ("reproduce table1 --card a100", "--card"),
    ],
)
def test_an_option_without_effect_is_one_line(words: str, option: str, tmp_path: Path) -> None:
    out = [] if words.startswith("infer") else ["--out", tmp_path / "out.png"]
    assert f"avb: {option}: has no effect" in refused(*words.split(), *out)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    ("command", "option"),
    [(("prep", "lrw"), "--max-seconds"), (("prep", "lrw"), "--clip-timeout"), (("ui",), "--max-mb"),
     (("train", "lip"), "--epochs")],
)  # fmt: skip
def test_a_number_without_an_end_is_one_line(
    command: tuple[str, ...], option: str, value: str, tmp_path: Path
) -> None:
    place = ["--root", tmp_path] if command[0] == "prep" else []
    assert option in refused(*command, *place, option, value)


@pytest.mark.parametrize(
    "words", ["train judge", "train vocoder", "listen a=b --out x.html", "synth grid --out x"]
)
def test_a_seed_below_0_is_one_line(words: str) -> None:
    assert "--seed" in refused(*words.split(), "--seed", -1)


@pytest.mark.parametrize("terminal", [True, False])
def test_help_is_in_panels_on_a_terminal(terminal: bool) -> None:
    code = f"import sys; sys.stdout.isatty = lambda: {terminal}; from avb.tools.cli import app; "
    words = [sys.executable, "-c", code + "app(['--help'])"]
    shown = subprocess.run(words, capture_output=True, text=True).stdout
    assert "Usage" in shown and ("From video to shards" in shown) is terminal


def test_a_second_interrupt_of_one_that_leaves_is_no_traceback() -> None:
    leaving = "import atexit, os; atexit.register(lambda: os.kill(os.getpid(), 2))"
    program = f"{leaving}; from avb.tools.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -2 and "Usage" in done.stdout + done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_a_table_that_is_typed_as_a_corpus_is_told_its_command() -> None:
    assert "avb prep table mine.csv --name NAME" in refused("prep", "mine.csv", "--name", "mine")
    assert "avb prep lrw|grid|lrw1000|table --limit" in refused("prep", "--limit", "3")
    line = refused("prep", "gird")
    assert "did you mean grid?" in line and "lrw, grid, lrw1000, table" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, of Linux")
def test_results_that_a_full_disk_does_not_take_are_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "avb", "--version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    line = "avb: stdout, or a temporary file: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_what_is_said_where_streams_are_closed_goes_into_no_file(tmp_path: Path) -> None:
    """A file would be opened under the number of stdout, and a library that prints write there."""
    kept = tmp_path / "kept"
    at_end = f"[open({str(kept)!r}, 'w'), os.write(1, b'lost'), os.write(2, b'lost')]"
    program = (
        "import atexit, os, sys; from avb.tools.cli import main; sys.argv[1:] = ['--version'];"
        f" atexit.register(lambda: {at_end}); main()"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(closed).returncode == 0
    assert kept.read_bytes() == b""


@pytest.mark.parametrize("name", ["a\a\rb", "/".join(15 * [200 * "x"])])
def test_a_name_commands_no_terminal_and_makes_no_endless_line(name: str) -> None:
    line = refused("stats", name)
    assert line.isprintable() and len(line) < 700
    assert line.startswith(f"avb: {name[0]}") and line.endswith(": no such folder")
