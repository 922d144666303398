"""A function in a child process with limits, and the lines of JSON it writes.

A film may come from anywhere, so whatever looks into one runs apart, in a child forked from a
process that has imported everything and seen no film (0.1 s; fresh imports take several). It is
killed with the ffmpeg it started when it is done, hangs or wants too much. Nothing it says is
unpickled or run here.
"""

import asyncio
import ctypes
import json
import multiprocessing
import os
import pkgutil
import resource
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["avb.tools.ui.film"])

#: Forms cannot send this type, so pages of other sites have to ask first, and are refused.
FILM = "application/octet-stream"
#: The longest line, and the largest file that is written, in bytes.
MOST_BYTES = 1 << 28
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_NO_MEMORY = 12  # as exit code; it is the number of ENOMEM


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    wall_s: float  # seconds until it is killed
    cpu_s: float  # seconds of processor time, of it and of each program that it starts
    # Of data, of it and of each of these. Not of addresses: CUDA alone reserves more of them than
    # there is memory.
    memory_bytes: int = 4 << 30


class Stopped(Exception):
    """A child that did not come to its end; the message says why."""


async def lines(function: str, limits: Limits, *given: Any) -> AsyncGenerator[bytes, None]:
    """Each thing that `function(*given)` yields in a child, as a line of JSON.

    `function` is `module:name`, looked up in the child. Stopped: it crashed, failed, or went over a
    limit. It is gone by then, as it is when the iterator is closed early.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.wall_s
    stream = asyncio.StreamReader(limit=MOST_BYTES)
    ours, theirs = _context.Pipe(duplex=False)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), ours)
    process = _context.Process(target=_run, args=(theirs, function, limits, given), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        while line := await _line(stream, deadline - loop.time(), limits):
            yield line
        process.join(1)  # it has nothing more to say; only its exit code is missing
        if process.exitcode:
            raise Stopped(_why(process.exitcode, limits))
    finally:
        transport.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # where it did not come to make its group
        process.join()


async def events(function: str, limits: Limits, *given: Any) -> AsyncGenerator[bytes, None]:
    """As `lines`; that it did not come to its end is the last line, an `error`."""
    async with aclosing(lines(function, limits, *given)) as told:
        try:
            async for one in told:
                yield one
        except Stopped as reason:
            yield line(error=str(reason))


async def _line(stream: asyncio.StreamReader, timeout_s: float, limits: Limits) -> bytes:
    """The next whole line; nothing at the end."""
    try:
        line = await asyncio.wait_for(stream.readline(), timeout_s)
    except TimeoutError:
        raise Stopped(f"it took longer than {limits.wall_s:g} s and was stopped") from None
    except ValueError:  # of asyncio: a line without end
        raise Stopped(f"its result is larger than {MOST_BYTES >> 20} MB") from None
    return line if line.endswith(b"\n") else b""


def _why(code: int, limits: Limits) -> str:
    """What an exit code that is not 0 means."""
    if code == -signal.SIGXCPU:
        return f"it took more than {limits.cpu_s:g} s of processor time and was stopped"
    if code == _NO_MEMORY:
        return f"it wanted more than {limits.memory_bytes >> 20} MB of memory and was stopped"
    if code < 0:
        return f"it was ended by signal {-code}; a broken file, or no memory left"
    return "it failed; the terminal of avb ui says why"


def _run(pipe: Connection, function: str, limits: Limits, given: tuple[Any, ...]) -> None:
    """The life of a child."""
    os.setsid()  # a group that can be killed as one
    with suppress(AttributeError):  # not Linux
        # The process that forks ends with the server, and this one with it, though it is killed.
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.alarm(int(limits.wall_s) + 2)  # should nobody be left to kill it
    for kind, most in (
        (resource.RLIMIT_CPU, int(limits.cpu_s)),
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, MOST_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]  # the machine's own, which nobody can go above
        resource.setrlimit(
            kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
    try:
        with os.fdopen(os.dup(pipe.fileno()), "w", encoding="utf-8") as out:
            for event in pkgutil.resolve_name(function)(*given):
                out.write(json.dumps(event) + "\n")
                out.flush()
    except MemoryError:
        os._exit(_NO_MEMORY)
    except RuntimeError as error:
        if "allocate memory" in str(error):  # as torch says it
            os._exit(_NO_MEMORY)
        raise


def line(**event: str) -> bytes:
    """An event as a line of JSON."""
    return json.dumps(event).encode() + b"\n"
