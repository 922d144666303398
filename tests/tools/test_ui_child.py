"""Promise: a child has no more than its limits, and is gone with all it started when it is over."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from avb.tools.ui import child
from avb.tools.ui.child import Limits, Stopped, lines


def run(function: str, *given: Any, **limits: Any) -> list[Any]:
    wanted = Limits(**({"wall_s": 60, "cpu_s": 60, "memory_bytes": 2 << 30} | limits))

    async def collect() -> list[Any]:
        return [json.loads(line) async for line in lines(function, wanted, *given)]

    return asyncio.run(collect())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("function", "given", "limits", "said"),
    [
        (time.sleep, 100, {"wall_s": 0.3}, "longer than 0.3 s"),
        (all, range(1, 1 << 60), {"cpu_s": 1}, "1 s of processor time"),
        (bytearray, 4 << 30, {}, "2048 MB of memory"),
        (torch.zeros, 1 << 31, {}, "2048 MB of memory"),
        (os._exit, 3, {}, "terminal"),
        (int, "x", {}, "terminal"),
        (signal.raise_signal, signal.SIGSEGV, {}, "signal 11"),
    ],
)
def test_a_child_that_goes_wrong_is_stopped_and_one_line_says_why(
    function: Any, given: Any, limits: dict[str, float], said: str
) -> None:
    with pytest.raises(Stopped, match=said):
        run("builtins:map", function, [given], **limits)


def test_a_machine_s_own_limits_are_kept() -> None:
    limit = "import resource, runpy; resource.setrlimit(resource.RLIMIT_CPU, (500, 500))"
    code = "; print([one async for one in lines('builtins:map', Limits(60, 600), abs, [-2])])"
    code = f"async def run(): from avb.tools.ui.child import Limits, lines{code}"
    program = f"{limit}\n{code}\nimport asyncio; asyncio.run(run())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[b'2\\n']\n", done.stderr


def test_what_a_child_started_goes_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with pytest.raises(Stopped):
        run("builtins:map", os.system, [f"echo $$ > {told}; sleep 100; true"], wall_s=1)
    assert not alive(int(told.read_text()))


def test_a_child_cannot_fill_the_memory_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MOST_BYTES", 1 << 20)
    with pytest.raises(Stopped, match="larger than 1 MB"):
        run("builtins:map", str.upper, ["x" * (3 << 20)])
