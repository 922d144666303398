"""Promise: what cannot be served is one line, and only this machine is served unless it is said."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from commands import did, refused
from networks import save_vocoder
from pages import uvicorn

from avb.tools.infer.model import load_trained
from avb.tools.ui import film as film_module
from avb.tools.ui import serve


def test_what_cannot_be_served_is_one_line(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    for ckpt, said in (
        (tiny_models["judge"], "a checkpoint for judge"),
        (tmp_path / "none.pt", "no such checkpoint"),
        (tmp_path, "best.pt: no such checkpoint"),
    ):
        words = ["--ckpt", tiny_models["lip"], "--ckpt", ckpt, "--port", 0, "--device", "cpu"]
        line = refused("ui", *words, code=1)
        assert said in line and str(ckpt) in line
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in refused("ui", "--ckpt", tiny_models["lip"], "--port", port)


def test_a_vocoder_is_for_the_models_of_speech_and_for_their_mels_alone(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tiny_models[name] for name in ("lip", "l2s")]
    file = save_vocoder(tmp_path / "vocoder.pt")
    words, spoken = asyncio.run(serve.describe(paths, "cpu", None, file))
    assert words["vocoder"] is None and spoken["vocoder"] == str(file)
    given: list[Any] = []
    monkeypatch.setattr(film_module, "load_trained", lambda *a: given.append(a) or load_trained(*a))
    list(film_module.read("none.mp4", spoken, "auto", 1, 2.0))
    assert given[0][-1] == file
    lrw = save_vocoder(tmp_path / "lrw.pt", corpus="lrw")
    given = ("--ckpt", paths[1], "--vocoder", lrw, "--port", 0, "--device", "cpu")
    assert "lrw.pt: hears other log-mels" in refused("ui", *given, code=1)


@pytest.mark.parametrize(
    ("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_only_this_machine_is_served_unless_it_is_said_and_warned_of(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, host: str, warns: bool
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    words = ["--ckpt", tiny_models["lip"], "--host", host, "--port", 0, "--device", "cpu"]
    _, address, text = did("ui", *words)
    assert ("warning" in text) == warns and address.startswith("http://")
    assert ("no password" in text) == warns
