"""A bucket over real HTTP: moto's server on loopback, and a door before it that can be faulty."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avb.pipeline.clip import facemodels
from avb.pipeline.storage import store
from avb.pipeline.storage.store import Store

#: What the door does with a request instead of passing it on: "500", "403", "cut", "slow", ...
Rule = Callable[[str, str], str | None]


class Door(ThreadingHTTPServer):
    """Passes requests on to a port, but for those that `rule` has something else in mind for."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.lock = threading.Lock()
        self.rule: Rule | None = None
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that left is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each body waits 40 ms for its head to be acknowledged
    server: Door

    def log_message(self, *_: Any) -> None:
        pass

    def handle_expect_100(self) -> bool:
        with self.server.lock:
            what = self.server.rule and self.server.rule("EXPECT", self.path)
        if what == "silent":
            threading.Event().wait(5)
            self.close_connection = True
            return False
        return super().handle_expect_100()

    def _any(self) -> None:
        with self.server.lock:
            self.server.seen.append((self.command, self.path))
            what = self.server.rule and self.server.rule(self.command, self.path)
        size = int(self.headers.get("Content-Length") or 0)
        if what == "cut" and size:  # the upload breaks off: half of it reaches the server
            self._pass(self.rfile.read(size // 2), half=True)
            return self._hang_up()
        body = self.rfile.read(size)
        if what and what.isdigit():
            code = {"403": "AccessDenied", "404": "NoSuchBucket"}.get(what, "InternalError")
            text = f"<Error><Code>{code}</Code><Message>{code} by the door</Message></Error>"
            return self._answer(int(what), {}, text.encode())
        if what == "deaf":
            return self._hang_up()
        status, headers, data = self._pass(body)
        self._answer(status, headers, data, what)

    def _pass(self, body: bytes, half: bool = False) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        if half:
            connection.close()
            return 0, {}, b""
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        skip = ("connection", "transfer-encoding", "date", "server")
        return answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in skip}, data

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, what: str | None = None
    ) -> None:
        self.send_response(status)
        headers = {k: v for k, v in headers.items() if k.lower() != "content-length"} | {
            "Content-Length": str(len(data)) if self.command != "HEAD" else headers.get(
                "Content-Length", headers.get("content-length", "0"))
        }  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if what == "cut":
            self.wfile.write(data[: len(data) // 2])
            return self._hang_up()
        if what == "slow":
            for start in range(0, len(data), max(1, len(data) // 5)):
                self.wfile.write(data[start : start + max(1, len(data) // 5)])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any


@dataclass
class Bucket:
    """A fresh bucket behind the door, and a client that goes past the door."""

    name: str
    door: Door
    client: Any = field(repr=False)
    reconnected: bool = False

    @property
    def store(self) -> Store:
        return Store(f"s3://{self.name}")

    def keys(self) -> dict[str, int]:
        """Names and sizes, asked past the door."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {o["Key"]: o["Size"] for page in pages for o in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def upload(self, folder: Path, prefix: str) -> Any:
        """Every file of a folder; where they are now."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.write(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return self.store / prefix

    def fail(self, what: str, times: int, method: str = "", match: str = "") -> None:
        """Have the next `times` requests of a method whose path holds `match` end as `what`."""
        left = times

        def rule(command: str, path: str) -> str | None:
            nonlocal left
            if left <= 0 or method not in command or match not in path:
                return None
            left -= 1
            return what

        self.door.rule = rule

    def reconnect(self) -> None:
        """Have the next request see what was patched or set in the environment, for this test."""
        import s3fs

        self.reconnected = True
        s3fs.S3FileSystem.clear_instance_cache()

    def vanish(self) -> None:
        for key in self.keys():
            self.client.delete_object(Bucket=self.name, Key=key)
        self.client.delete_bucket(Bucket=self.name)


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    reason = "object storage needs moto[server] and the extra cloud"
    s3fs = pytest.importorskip("s3fs", reason=reason)
    server_of = pytest.importorskip("moto.server", reason=reason)
    server = server_of.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    found = Door(server.get_host_and_port()[1])
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    s3fs.S3FileSystem.clear_instance_cache()
    found.shutdown()
    server.stop()


_numbers = iter(range(1, 10_000))


@pytest.fixture
def bucket(door: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """Named in the environment as a user would name it; waits are short, the cache is its own."""
    import boto3

    values = {
        "AWS_ENDPOINT_URL": door.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "hidden-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AVB_CACHE": str(tmp_path / "cache"),
        facemodels.VARIABLE: os.environ.get(facemodels.VARIABLE, str(facemodels.models_folder())),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.001)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{door.port}")
    name = f"corpus-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    door.rule = None
    door.seen.clear()
    found = Bucket(name, door, client)
    yield found
    door.rule = None
    if found.reconnected:  # a client takes 0.2 s to make, so all other tests share one
        found.reconnect()
