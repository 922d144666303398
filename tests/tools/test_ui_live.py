"""A camera on the page: luma goes in, the words of `infer --follow` come out, nothing is left."""

import asyncio
import http.client
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from networks import save_model
from pages import post, serving

from avb.tools.infer.live import hear
from avb.tools.infer.model import load_trained
from avb.tools.infer.sentence import record
from avb.tools.infer.video import pictures, probe
from avb.tools.ui import serve
from avb.tools.ui.child import Limits
from avb.tools.ui.server import FILM, Service
from avb.train.evaluate.words.grammar import SLOT_WORDS

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")

WIDTH, HEIGHT = 360, 288  # of the drawn talker's film


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    labels = sorted(word for words in SLOT_WORDS for word in words)
    save_model(folder / "sentence.pt", "lip", unit="sentence", labels=labels)
    save_model(folder / "words.pt", "lip")
    return [folder / "sentence.pt", folder / "words.pt"]


@pytest.fixture
def service(paths: list[Path], tmp_path: Path) -> Service:
    models = asyncio.run(serve.describe(paths, "cpu", None))
    assert [model["sentences"] for model in models] == [True, False]
    return Service(models, tmp_path, 4_000_000, 2.0, Limits(60, 60))


def event(answer: http.client.HTTPResponse) -> Any:
    return json.loads(answer.readline())


def test_a_camera_is_read_as_a_film_is_followed(
    service: Service, paths: list[Path], talker_clip: Path, tmp_path: Path
) -> None:
    film = list(pictures(probe(str(talker_clip))))
    assert film[0].shape == (HEIGHT, WIDTH)
    trained = load_trained("lip", paths[0])
    expected = [record([word])["words"][0] for word in hear(film, trained)]
    assert len(expected) > 2
    size = f"width={WIDTH}&height={HEIGHT}"
    with serving(service) as port:
        answer = post(port, f"/live?model=0&face=1&{size}")
        name = event(answer)["live"]
        assert event(answer) == {"doing": "Reading"}
        busy = post(port, f"/live?model=0&face=1&{size}")
        assert "another clip or camera" in event(busy)["error"]
        for start in range(0, len(film), 3):
            data = b"".join(picture.tobytes() for picture in film[start : start + 3])
            assert post(port, f"/live/{name}", data).status == 204
        assert post(port, f"/live/{name}").status == 204
        assert [json.loads(text) for text in answer.read().splitlines()] == expected
        assert post(port, f"/live/{name}", b"x").status == 204  # it was on its way
        wrong = post(port, f"/live?model=1&face=1&{size}")
        assert "live" in event(wrong) and "no sentences" in event(wrong)["error"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "kind", "status"),
    [
        ("/live?model=0&face=1&width=320", FILM, 400),
        ("/live?model=0&face=1&width=5000&height=240", FILM, 400),
        ("/live?model=-1&face=1&width=320&height=240", FILM, 400),
        ("/live?model=0&face=1&width=320&height=240", "text/plain", 415),
        ("/live/none", "text/plain", 415),
        ("/live/none", FILM, 404),
    ],
)
def test_what_the_page_would_not_send_is_refused(
    service: Service, address: str, kind: str, status: int
) -> None:
    with serving(service) as port:
        assert post(port, address, b"x", **{"Content-Type": kind}).status == status


def test_a_page_that_is_closed_leaves_no_child_and_no_file(
    service: Service, tmp_path: Path
) -> None:
    with serving(service) as port:
        address = "/live?model=0&face=1&width=320&height=240"
        first = post(port, address)
        assert "live" in event(first) and event(first) == {"doing": "Reading"}
        first.close()
        for _ in range(100):  # until the server has noticed
            second = post(port, address)
            if "live" in event(second):
                break
            threading.Event().wait(0.1)
        else:
            raise AssertionError("the first camera is still being read")
        second.close()
    assert list(tmp_path.iterdir()) == []
