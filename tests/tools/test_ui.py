"""Promise: what the page gets is what `avb infer` finds, and no film can hurt the page or stay.

Films and networks are those of conftest.py: drawn, small and random.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import multiprocessing
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from commands import did
from films import write_film
from pages import post, serving
from prepared import start, wait_for
from talkers import ffmpeg

from avb.pipeline.clip.ffmpeg import ffmpeg_program
from avb.tools.infer import lip, speech
from avb.tools.infer.crops import Piece
from avb.tools.infer.model import Addresses, load_trained
from avb.tools.ui import serve
from avb.tools.ui import server as server_module
from avb.tools.ui.child import Limits
from avb.tools.ui.server import FILM, Service

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")


# Addresses, as the two tasks collect them


@pytest.mark.parametrize("num_frames", [20, 29, 40])
@pytest.mark.parametrize("kind", ["lip", "l2s"])
def test_addresses_are_the_windows(
    tiny_models: dict[str, Path], kind: str, num_frames: int
) -> None:
    trained = load_trained(kind, tiny_models[kind])
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (num_frames, 120, 120), dtype=np.uint8)
    piece = Piece(stored, np.ones(num_frames, bool))
    addresses, clock = Addresses(), lip.Clock()
    make: Any = lip.read_words if kind == "lip" else speech.make_mels
    list(make(iter([piece]), trained, clock, addresses))
    found = addresses.mean(num_frames)
    assert found is not None and found.shape == (num_frames, 4)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    whole = stored
    if kind == "lip" and num_frames < 29:
        whole = np.concatenate([stored[:1].repeat(4, 0), stored, stored[-1:].repeat(5, 0)])
    if len(whole) == 29 or kind == "l2s":  # one window
        video = trained.network_video(torch.from_numpy(whole)[None])
        model: Any = trained.model
        with torch.no_grad():
            weights = model(video).bridge.source_addressing[0].numpy()
        first = (len(whole) - num_frames) // 2
        assert np.allclose(found, weights[first : first + num_frames], atol=1e-6)


# The server


@pytest.fixture(scope="module")
def models(tiny_models: dict[str, Path]) -> list[dict[str, Any]]:
    *paths, _ = tiny_models.values()  # the judge is none
    return asyncio.run(serve.describe(paths, "cpu", None))


@pytest.fixture
def service(models: list[dict[str, Any]], tmp_path: Path) -> Service:
    return Service(models, tmp_path, 4_000_000, 2.0, Limits(60, 60))


def begin(
    port: int, film: Path | bytes, query: str = "", **headers: str
) -> http.client.HTTPResponse:
    data = film if isinstance(film, bytes) else film.read_bytes()
    return post(port, f"/read?{query or 'model=0&box=auto&face=1'}", data, **headers)


def ask(port: int, film: Path | bytes, query: str = "") -> dict[str, Any]:
    """The last event about a film."""
    answer = begin(port, film, query)
    assert answer.status == 200, answer.read()
    return dict(json.loads(answer.read().splitlines()[-1]))


def test_the_page_gets_what_infer_finds(
    service: Service, talker_clip: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path.with_name("speech.wav")
    words = [talker_clip, "--ckpt", tiny_models["lip"], "--device", "cpu", "--json"]
    [record] = json.loads(did("infer", "lip", *words).stdout)["videos"]
    words = [talker_clip, "--ckpt", tiny_models["l2s"], "--device", "cpu", "--out", out]
    did("infer", "l2s", *words)
    with serving(service) as port:
        asked = [f"model={number}&box=auto&face=1" for number in range(3)]
        read, spoken, none = (ask(port, talker_clip, query)["result"] for query in asked)
    assert read["windows"] == record["windows"] and read["seconds"] == record["duration"] == 1.6
    assert base64.b64decode(spoken["sounds"]["From the lips"]) == out.read_bytes()
    assert list(spoken["mels"]) == list(spoken["sounds"]) == ["From the lips", "Original sound"]
    assert list(read["mels"]) == ["Original sound"]
    for result in (read, spoken):
        assert result["slots"]["count"] == 4 and len(result["slots"]["best"]) == 40
        assert all(sum(weight for _, weight in best) <= 1.01 for best in result["slots"]["best"])
    assert none["slots"] is None and none["windows"]
    assert read["crops"]["side"] == 28 and read["crops"]["columns"] == 7
    assert b"ftyp" in base64.b64decode(read["film"])[:12]
    assert not any(tmp_path.iterdir())


def test_a_drawn_clip_is_there_to_try(service: Service) -> None:
    pytest.importorskip("espeakng_loader", reason="drawn talkers speak with the extra prep")
    with serving(service) as port, urlopen(f"http://127.0.0.1:{port}/sample") as answer:
        assert answer.read()[:4] == b"\0\0\1\xba"
    assert all("not measured" in model["known"] and not model["floor"] for model in service.models)


def bad_films(talker_clip: Path, folder: Path) -> dict[str, tuple[bytes, str]]:
    """{name: (the film, what is said of it)}; more of them are in test_infer_commands.py."""
    grey = [np.full((96, 128), 90, np.uint8)] * 80
    long = write_film(folder / "long.mp4", grey, np.arange(80) / 25)
    twice = ffmpeg.input(str(talker_clip), stream_loop=1).video
    unsaid, _ = twice.output("pipe:", format="matroska", vcodec="copy").run(
        cmd=ffmpeg_program(), capture_stdout=True, quiet=True
    )  # into a pipe, where its length cannot be written
    return {
        "text": (b"no film at all\n" * 50, "not a video"),
        "unknown": (talker_clip.read_bytes().replace(b"avc1", b"zzzz"), "no decoder here knows"),
        "long": (long.read_bytes(), "3.2 s long; at most 2 s"),
        "unsaid": (unsaid, "3.2 s long; at most 2 s"),
    }


def test_bad_films_are_one_line_each(service: Service, talker_clip: Path, tmp_path: Path) -> None:
    cases = bad_films(talker_clip, tmp_path.with_name("bad"))
    with serving(service) as port:
        for data, said in cases.values():
            error = ask(port, data)["error"]
            assert said in error and "\n" not in error and str(tmp_path) not in error
        for query, said in (("box=auto&face=2", "no face number 2"), ("box=round&face=1", "box")):
            assert said in ask(port, talker_clip, f"model=0&{query}")["error"]
        assert "result" in ask(port, talker_clip, "model=0&box=whole&face=1")
    assert not any(tmp_path.iterdir())


def test_what_the_page_does_not_send_is_refused(service: Service, tmp_path: Path) -> None:
    with serving(service) as port:
        for status, film, query, headers in (
            (413, bytes(4_100_000), "", {}),
            (415, b"", "", {"Content-Type": "text/plain"}),  # what a form elsewhere could send
            (400, b"", "model=3&box=auto&face=1", {}),
            (400, b"", "model=0&box=auto&face=x", {}),
            (400, b"", "model=0&box=auto&face=-5", {}),
            (400, b"", "model=0&box=auto&face=0", {}),
            (400, b"", "model=-1&box=auto&face=1", {}),
            (400, b"", "model=0", {}),
            (400, b"", "", {"Host": "elsewhere.example"}),
        ):
            answer = begin(port, film, query, **headers)
            assert answer.status == status, query
            assert len(answer.read().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_the_page_is_answered_at_an_address_of_six_and_no_other_name(service: Service) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with serving(service, "::1") as port:
        for named, status in (
            (f"[::1]:{port}", 200), ("[::1]", 200), (f"[0:0:0:0:0:0:0:1]:{port}", 200),
            ("::1", 200), (f"[::2]:{port}", 400), ("elsewhere.example", 400), ("[", 400), ("", 400),
        ):  # fmt: skip
            connection = http.client.HTTPConnection("::1", port, timeout=10)
            connection.request("GET", "/models", headers={"Host": named})
            assert connection.getresponse().status == status, named
            connection.close()


def test_idle_connections_and_parallel_uploads_do_not_shut_out_the_next_visitor(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serve, "PATIENCE_S", 1.0)
    monkeypatch.setattr(server_module, "GRACE_S", 2.0)

    async def look(function: str, limits: Limits, film: str, *given: Any) -> Any:
        await asyncio.sleep(0.001)
        yield json.dumps({"error": f"{Path(film).stat().st_size} bytes"}).encode() + b"\n"

    monkeypatch.setattr(server_module, "events", look)  # whose work takes a second and a core

    def visit() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/models")
        return connection.getresponse().status

    head = f"POST /read?model=0&box=auto&face=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FILM}"
    with serving(service) as port, contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))

        idle = [connect() for _ in range(40)]
        assert visit() == 200
        assert all(one.recv(1) == b"" for one in idle)  # closed by then
        stalled = [connect() for _ in range(20)]  # more than films on the disk at a time
        for one in stalled:
            one.send(f"{head}\r\nContent-Length: 1000000\r\n\r\nabc".encode())
        assert visit() == 200
        with ThreadPoolExecutor(200) as crowd:
            answers = crowd.map(lambda _: ask(port, bytes(1000))["error"], range(200))
            assert visit() == 200
            assert set(answers) == {"1000 bytes"}  # each had its turn
        assert all(b" 408 " in one.recv(100) for one in stalled)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("harm", "said"),
    [(signal.SIGKILL, "signal 9"), (signal.SIGSTOP, "longer than 3 s"), (None, "")],
)
def test_a_child_that_dies_or_hangs_or_that_nobody_waits_for_leaves_nothing(
    service: Service, talker_clip: Path, tmp_path: Path, harm: signal.Signals | None, said: str
) -> None:
    service.limits = Limits(3 if harm == signal.SIGSTOP else 60, 60)
    with serving(service) as port:
        answer = begin(port, talker_clip)
        working = wait_for(multiprocessing.active_children)[0].pid
        os.kill(working, harm or signal.SIGSTOP)
        if harm:
            assert said in json.loads(answer.read().splitlines()[-1])["error"]
        answer.close()  # the page was closed
        wait_for(lambda: not Path(f"/proc/{working}").exists() and not any(tmp_path.iterdir()))
        service.limits = Limits(60, 60)  # a fresh child may take 3 s to begin
        assert "0 bytes" in ask(port, b"")["error"]  # the page lives on


def test_films_are_worked_on_one_after_the_other(service: Service, talker_clip: Path) -> None:
    with serving(service) as port:
        first = begin(port, talker_clip)
        [working] = wait_for(multiprocessing.active_children)
        os.kill(working.pid, signal.SIGSTOP)
        second = begin(port, b"")
        assert json.loads(second.readline()) == {"doing": "Waiting for another clip"}
        assert len(multiprocessing.active_children()) == 1
        os.kill(working.pid, signal.SIGCONT)
        assert b'"result"' in first.read() and b"0 bytes" in second.read()


# The command


@pytest.mark.usefixtures("hangup_heard")
@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGINT,
        signal.SIGKILL,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_ended_in_the_middle_of_a_film_nothing_stays(
    tiny_models: dict[str, Path], talker_clip: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    words = ["ui", "--ckpt", tiny_models["lip"], "--port", 0, "--device", "cpu"]
    # Torch's own cache is in the folder for temporary files, too, if nothing is said.
    places = {"TMPDIR": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path.parent / "torch")}
    with start(*words, env=os.environ | places) as server:
        assert server.stdout and server.stderr
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        answer = begin(port, talker_clip)
        answer.readline()
        assert any(path.name == "film" for path in tmp_path.rglob("*"))
        serve.sweep(tmp_path)  # as another server does when it starts
        assert any(path.name == "film" for path in tmp_path.rglob("*"))
        server.send_signal(ending)
        assert server.wait(20) == (-9 if ending == signal.SIGKILL else 130)
        said = server.stderr.read()
    if ending == signal.SIGKILL:
        serve.sweep(tmp_path)
        wait_for(lambda: not any(tmp_path.glob("avb-ui-*")))  # no film, nothing beside it
        return
    assert "Traceback" not in said and "stopped" in said.splitlines()[-1]
    wait_for(lambda: not any(tmp_path.iterdir()))
