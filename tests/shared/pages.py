"""The server of `avb ui` in this process."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the page is served with the extra ui")
pytest.importorskip("starlette", reason="the page is served with the extra ui")

from avb.tools.ui import serve  # noqa: E402
from avb.tools.ui.server import FILM, Service  # noqa: E402


@contextmanager
def serving(service: Service, host: str = "127.0.0.1") -> Iterator[int]:
    """The service on a port of this machine."""
    server = uvicorn.Server(serve.server_config(service.app([host])))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def post(port: int, address: str, data: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    """Send a film, or what these headers call it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", address, data, {"Content-Type": FILM} | headers)
    return connection.getresponse()
