"""Warm children: each imports everything once and then runs command after command.

Memory is resident memory, as the kernel counts it: the peak of the child since the command began
(VmHWM, which `clear_refs` resets) and that of every program it starts. A limit on addresses would
count what torch and mediapipe only reserve; a limit on data would turn a command that wants too
much into a MemoryError, and hide how much it wanted.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Any, TypeVar

#: Seconds of processor; waiting may take `PATIENCE` times as long, since the machine may be busy.
LIMIT_S, LIMIT_MB = 30.0, 2048
PATIENCE = 4
_LOOK_S = 0.05
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Outcome:
    """What became of one command: `kind` is ok, line or finding, `why` what is wrong with it."""

    code: int | None = None
    out: str = ""
    err: str = ""
    why: str = ""
    seconds: float = 0.0
    mb: int = 0
    trace: str = field(default="", repr=False)

    @property
    def kind(self) -> str:
        """Ok, a clear line, or a finding."""
        return "finding" if self.why else "line" if self.code else "ok"


class Child:
    """One warm process; started when it is needed, and again after it died or was killed."""

    def __init__(self, log: Path, module: str = "fuzzing.child") -> None:
        self._log, self._module = log, module
        self._process: subprocess.Popen[bytes] | None = None
        self._programs_mb = 0

    def run(self, argv: list[str], limit_s: float = LIMIT_S, limit_mb: int = LIMIT_MB) -> Outcome:
        """Run one command line of `avb`."""
        process = self._started()
        assert process.stdin and process.stdout
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        said, began, most, why = self._log.stat().st_size, time.monotonic(), 0, ""
        before_s = sum(map(busy_s, [process.pid, *started_by(process.pid)]))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(list(map(str, argv))).encode() + b"\n")
            process.stdin.flush()
        line, ended = b"", False
        while not ended and not why:
            if select.select([process.stdout], [], [], _LOOK_S)[0]:
                got = os.read(process.stdout.fileno(), 1 << 20)
                line += got
                ended = not got or line.endswith(b"\n")
            pids = [process.pid, *started_by(process.pid)]
            most = max(most, *map(peak_mb, pids))
            busy = sum(map(busy_s, pids)) - before_s
            if most > limit_mb:
                why = f"more than {limit_mb} MB of memory"
            elif not ended and max(busy, (time.monotonic() - began) / PATIENCE) > limit_s:
                why = f"longer than {limit_s:g} s"
        seconds = time.monotonic() - began
        if why or not line.endswith(b"\n"):
            self.close()
            code = process.returncode
            why = why or f"the process ended with {code}: {self._said(said)}"
            return Outcome(code, why=why, seconds=seconds, mb=most)
        answer = json.loads(line)
        if answer["programs_mb"] > self._programs_mb:  # the most of all programs it ever started
            most = max(most, answer["programs_mb"])
            self._programs_mb = answer["programs_mb"]
        code, out, err, trace = (answer[name] for name in ("code", "out", "err", "trace"))
        found = Outcome(code, out, err, "", seconds, most, trace)
        found.why = fault_of(found, argv[0])
        if most > limit_mb:
            found.why = f"more than {limit_mb} MB of memory"
        return found

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._programs_mb = 0
            place = str(Path(__file__).parents[1])
            with open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", self._module], stdin=subprocess.PIPE, stderr=log,
                    stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
                    env=os.environ | {"PYTHONPATH": place, "GLOG_minloglevel": "2"},
                )  # fmt: skip
            assert self._process.stdout
            self._process.stdout.readline()  # it is ready; what it imported is no command's time
        return self._process

    def _said(self, start: int) -> str:
        """The last lines of what the process itself wrote to stderr since byte `start`."""
        with open(self._log, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")[-2000:]

    def close(self) -> None:
        """End it, with all that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
            self._process = None


def fault_of(outcome: Outcome, command: str) -> str:
    """What of an answer no user should see; nothing if it is ok, or a clear line."""
    if outcome.trace:
        return f"a fault that nothing caught: {outcome.trace.strip().splitlines()[-1][:300]}"
    if outcome.code == 0:
        return _not_json(outcome.out) if outcome.out.startswith("{") else ""
    if outcome.code not in (1, 2, 3):
        return f"exit code {outcome.code}"
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    if not lines:
        return "no line says why"
    if odd := [line for line in lines if len(line) > 700 or not line.isprintable()]:
        return f"a line that cannot be read: {odd[0][:100]!r}"
    told = sum(line.startswith("avb: ") for line in lines)
    # `verify` and `prep` account for every sample in lines of their own.
    if told > 1 or not told and (outcome.code == 2 or command not in ("verify", "prep")):
        return f"{told} lines that begin with avb:, expected one"
    return ""


def _not_json(text: str) -> str:
    """What a strict reader of JSON says of it."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return f"a result that is no JSON: {error}"
    return ""


def peak_mb(pid: int) -> int:
    """The most memory that a process held, in MB; 0 if it is gone."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) >> 10 if found else 0
    return 0


def busy_s(pid: int) -> float:
    """Seconds of processor of a process and of those it started that ended; 0 if it is gone."""
    with contextlib.suppress(OSError):
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def started_by(pid: int) -> Iterator[int]:
    """Processes that a process started, and those that these started."""
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                yield child
                yield from started_by(child)


def in_children(
    work: Callable[[Child, Item], Result], items: Iterable[Item], logs: Path, jobs: int
) -> Iterator[Result]:
    """`work(child, item)` for each item, as they end, by `jobs` children; all are ended after."""
    mine, children = local(), list[Child]()

    def with_mine(item: Item) -> Result:
        if not hasattr(mine, "child"):
            log = logs / f"child-{len(children)}.log"
            log.touch()
            mine.child = Child(log)
            children.append(mine.child)
        return work(mine.child, item)

    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(with_mine, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        for child in children:
            child.close()
