"""`avb ui` between the flags and the server."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import json
import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from avb.machine import cores
from avb.pipeline.config import UsageError
from avb.tools.console import FAILED, fail, say
from avb.tools.ui.child import Limits, Stopped, lines

#: Clips sent at a time, the one that is worked on and those that wait.
MOST_REQUESTS = 16


@dataclass(frozen=True)
class Options:
    """The flags of `avb ui` as they were given."""

    ckpt: list[Path]
    host: str
    port: int
    max_mb: float
    max_seconds: float
    device: str | None
    datasets: Path | None


def run(options: Options) -> None:
    """Serve the page until Ctrl-C or SIGTERM; nothing is left behind.

    Raises:
        UsageError: the extra is missing, or the address cannot be had.
    """
    if not all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn")):
        raise UsageError("starlette and uvicorn not installed: pip install starlette uvicorn")
    listening = _listen(options.host, options.port)
    models = asyncio.run(describe(options))
    with TemporaryDirectory(prefix="avb-ui-") as folder, listening:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is tidied up
        serve(options, models, Path(folder), listening)


def serve(
    options: Options, models: list[dict[str, Any]], folder: Path, listening: socket.socket
) -> None:
    """Answer on a listening socket."""
    import uvicorn

    from avb.tools.ui.server import Service

    wall_s = 60 + 10 * options.max_seconds
    limits = Limits(wall_s, wall_s * cores())
    service = Service(models, folder, int(options.max_mb * 1e6), options.max_seconds, limits)
    open_to_all = not _is_loopback(options.host)
    hosts = ["*"] if open_to_all else ["localhost", "127.0.0.1", "::1", options.host]
    config = uvicorn.Config(
        service.app(hosts), log_level="error", limit_concurrency=MOST_REQUESTS,
        timeout_graceful_shutdown=1, server_header=False,
    )  # fmt: skip
    host, port = listening.getsockname()[:2]
    if open_to_all:
        say(f"warning: --host {options.host}: whoever reaches this machine can use the page, and"
            " its processor; there is no password and no encryption")  # fmt: skip
    say(f"on {models[0]['device']}, clips of up to {options.max_seconds:g} s and"
        f" {options.max_mb:g} MB; Ctrl-C ends it")  # fmt: skip
    typer.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server = uvicorn.Server(config)
    # Requests that are cut off when it ends are no faults.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port}: {reason}; give another --port or --host") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


async def describe(options: Options) -> list[dict[str, Any]]:
    """What each checkpoint is; ends the program where one cannot be used."""
    datasets = None if options.datasets is None else str(options.datasets)
    paths = [str(path) for path in options.ckpt]
    work = lines(
        "avb.tools.ui.work:describe", Limits(600, 600, 1 << 40), paths, options.device, datasets
    )
    try:
        models = [json.loads(line) async for line in work]
    except Stopped as reason:
        fail(f"looking at the checkpoints: {reason}", FAILED)
    if "error" in models[-1]:
        fail(models[-1]["error"], FAILED)
    return models
