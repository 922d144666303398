"""The server of `avb ui`: its address, its folder, its models, its end."""

import asyncio
import fcntl
import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import typer

from avb.pipeline.errors import RunError, UsageError
from avb.pipeline.machine import cores
from avb.tools.ui.child import Limits, Stopped, lines
from avb.train.checks import need

log = logging.getLogger(__name__)
PREFIX, LOCK = "avb-ui-", "in-use"
#: A connection that has not asked for anything by then is closed.
PATIENCE_S = 10.0


def run(
    ckpt: list[Path], host: str, port: int, max_mb: float, max_seconds: float,
    device: str | None, datasets: Path | None, vocoder: Path | None = None,
) -> None:  # fmt: skip
    """Serve the page until Ctrl-C or SIGTERM; nothing is left behind."""
    need("starlette", "uvicorn")
    import uvicorn

    from avb.tools.ui.server import Service

    listening = _listen(host, port)
    models = asyncio.run(describe(ckpt, device, datasets, vocoder))
    sweep(Path(gettempdir()))
    wall_s = 60 + 10 * max_seconds
    limits = Limits(wall_s, wall_s * cores())
    open_to_all = not _is_loopback(host)
    hosts = ["*"] if open_to_all else ["localhost", "127.0.0.1", "::1", host]
    with TemporaryDirectory(prefix=PREFIX) as folder, listening:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is tidied up
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the terminal was closed
            signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with (Path(folder) / LOCK).open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # goes with this process, whatever ends it
            service = Service(models, Path(folder), int(max_mb * 1e6), max_seconds, limits)
            server = uvicorn.Server(server_config(service.app(hosts)))
            if open_to_all:
                log.info(
                    f"warning: --host {host}: whoever reaches this machine can use the page, and"
                    " its processor; there is no password and no encryption"
                )
            size = f"{max_seconds:g} s and {max_mb:g} MB"
            log.info(f"on {models[0]['device']}, clips of up to {size}; Ctrl-C ends it")
            address, port = listening.getsockname()[:2]
            typer.echo(f"http://{f'[{address}]' if ':' in address else address}:{port}")
            # Requests that are cut off when it ends are no faults.
            logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
            server.run(sockets=[listening])


def sweep(place: Path) -> None:
    """Remove the folders of servers that were killed, with the films in them."""
    for path in place.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), path.open("r+") as lock:  # held, gone meanwhile, or another user's
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)


def server_config(app: Any) -> Any:
    """How uvicorn serves the page; connections that ask for nothing are closed."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """uvicorn itself waits without end for the first request of a connection."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(PATIENCE_S, self._look)

        def _look(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return uvicorn.Config(
        app, log_level="error", http=Impatient, timeout_graceful_shutdown=1, server_header=False
    )


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


async def describe(
    ckpt: list[Path], device: str | None, datasets: Path | None, vocoder: Path | None = None
) -> list[dict[str, Any]]:
    """What each checkpoint is, in order; RunError: one cannot be used."""
    work = lines(
        "avb.tools.ui.film:describe", Limits(600, 600, 1 << 40), [str(path) for path in ckpt],
        device, datasets and str(datasets), vocoder and str(vocoder),
    )  # fmt: skip
    try:
        models = [json.loads(line) async for line in work]
    except Stopped as reason:
        raise RunError(f"looking at the checkpoints: {reason}") from None
    if "error" in models[-1]:
        raise RunError(models[-1]["error"])
    return models
