"""Promise: in a real browser a clip goes in, its result is on screen, and nothing goes elsewhere.

The browser is headless Chromium; its camera shows the drawn talker.
"""

import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from prepared import start

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
ffmpeg = pytest.importorskip("ffmpeg", reason="films are read with the extra prep")
pytest.importorskip("uvicorn", reason="the page is served with the extra ui")
pytest.importorskip("starlette", reason="the page is served with the extra ui")
sync_api = pytest.importorskip("playwright.sync_api", reason="it drives the browser")

NAMES = ("chromium", "chromium-browser", "google-chrome")
SENTENCE = Path(str(files("avb.models"))) / "bundled/sentence/model.safetensors"
DONE = "#result:not([hidden]), #error:not([hidden])"


@pytest.fixture(scope="module")
def address(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Where `avb ui` answers, and the folder that it keeps its files in."""
    folder = tmp_path_factory.mktemp("served")
    models = [*(tiny_models[name] for name in ("lip", "l2s", "none")), SENTENCE]
    words = [f"--ckpt={path}" for path in models]
    words += ["--port=0", "--device=cpu", "--max-mb=4", "--max-seconds=3"]
    with start("ui", *words, stderr=None, env=os.environ | {"TMPDIR": str(folder)}) as server:
        assert server.stdout
        yield server.stdout.readline().strip(), folder
        server.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def browser(talker_clip: Path) -> Iterator[Any]:
    from avb.pipeline.clip.ffmpeg import ffmpeg_program

    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is there")
    camera = talker_clip.with_name("camera.y4m")
    output = ffmpeg.input(str(talker_clip)).output(str(camera), pix_fmt="yuv420p", an=None)
    output.run(cmd=ffmpeg_program(), quiet=True, overwrite_output=True)
    options = ["--no-sandbox", f"--use-file-for-fake-video-capture={camera}"]
    options += [f"--use-fake-{what}-for-media-stream" for what in ("ui", "device")]
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: tuple[str, Path]) -> Iterator[Any]:
    """The page; afterwards it made no complaint, asked nobody else, and left no film behind."""
    url, folder = address
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert not complaints
    assert asked and all(one.startswith((url, f"blob:{url}", "data:")) for one in asked)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["in-use"]


def give(page: Any, clip: Any, **choices: int) -> None:
    for name, value in choices.items():
        page.select_option(f"#{name}", str(value))
    page.set_input_files("#file", clip)
    page.wait_for_selector(DONE)


def crop(page: Any) -> np.ndarray:
    """The crop as it is on screen."""
    return cv2.imdecode(np.frombuffer(page.locator("#crop").screenshot(), np.uint8), 0)


def test_words_are_on_screen_and_follow_the_film(page: Any, talker_clip: Path) -> None:
    give(page, talker_clip, model=0)
    assert page.locator("#about").inner_text().startswith("talker.mp4: 1.60 s, box tracked")
    assert page.locator("#words li").count() == 4
    assert page.locator("#windows li").count() == 4
    assert page.locator("#tracks .strip img").count() == 2
    assert page.locator("#slots").inner_text().startswith("At 0.00 s: slot ")
    first = crop(page)
    assert first.std() > 10
    page.locator("#windows button").last.click()
    page.wait_for_function("() => document.querySelector('#place').value > 0.9")
    assert page.locator("#words h2").inner_text() == "Read from 0.44 to 1.60 s"
    assert np.abs(crop(page).astype(int) - first).max() > 10  # the mouth has moved


def test_of_a_film_without_a_word_no_words_of_the_last_one_stay(
    page: Any, talker_clip: Path
) -> None:
    give(page, talker_clip, model=0)
    assert page.locator("#words li").count() == 4

    def without(route: Any) -> None:
        *doing, last = route.fetch().text().splitlines()
        result = json.loads(last)["result"] | {"windows": []}
        route.fulfill(body="\n".join([*doing, json.dumps({"result": result}), ""]))

    page.route("**/read?*", without)
    give(page, talker_clip)
    page.wait_for_selector("text=No word was read")
    assert page.locator("#words li").count() == 0


def test_speech_plays_with_the_film(page: Any, talker_clip: Path) -> None:
    give(page, talker_clip, model=1)
    titles = [title.strip() for title in page.locator("#hear label").all_inner_texts()]
    assert titles == ["From the lips save", "Original sound", "Nothing"]
    assert page.locator("#tracks .strip img").count() == 3
    with page.expect_download() as saved:
        page.click("a[download]")
    assert saved.value.path().read_bytes()[:4] == b"RIFF"
    page.click("#play")
    page.wait_for_function("() => document.querySelector('#hear audio').currentTime > 0.5")
    assert page.locator("#play").inner_text() == "Pause"
    page.click("text=Original sound")
    page.wait_for_function("() => document.querySelectorAll('#hear audio')[1].currentTime > 1")
    assert page.evaluate("() => document.querySelector('#hear audio').paused")
    page.wait_for_function("() => document.querySelector('#film').ended")
    assert page.locator("#play").inner_text() == "Play"


@pytest.mark.slow
def test_another_model_takes_the_clip_that_was_dropped(page: Any, talker_clip: Path) -> None:
    make = """data => { const dropped = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
        dropped.items.add(new File([bytes], "dropped.mp4")); return dropped; }"""
    dropped = page.evaluate_handle(make, base64.b64encode(talker_clip.read_bytes()).decode())
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector(DONE)
    assert page.locator("#about").inner_text().startswith("dropped.mp4: 1.60 s")
    assert page.locator("#tracks .strip img").count() == 2
    page.select_option("#model", "2")
    page.wait_for_selector("text=This model has no memory (0 slots)")
    assert page.locator("#slots").inner_text() == ""
    assert page.locator("#words li").count() == 4


@pytest.mark.slow
def test_the_camera_is_recorded(page: Any) -> None:
    page.click("#camera")
    page.wait_for_function("() => document.querySelector('#preview').videoWidth > 0")
    page.click("#record")
    page.wait_for_function("() => parseFloat(document.querySelector('#clock').textContent) > 1.5")
    page.click("#record")
    page.wait_for_selector(DONE)
    assert page.locator("#about").inner_text().startswith("Recording: ")


#: As the Fetch standard says; Chromium gives an answer without a body an empty one.
NO_BODY = """() => { const real = Object.getOwnPropertyDescriptor(Response.prototype, "body").get;
    Object.defineProperty(Response.prototype, "body",
        { get() { return this.status === 204 ? null : real.call(this); } }); }"""


@pytest.mark.parametrize("standard", [False, True])
def test_the_camera_is_read_live_until_it_is_told_to_stop(page: Any, standard: bool) -> None:
    if standard:
        page.evaluate(NO_BODY)
    page.select_option("#model", "3")
    page.click("#camera")
    page.wait_for_function("() => document.querySelector('#preview').videoWidth > 0")
    page.click("#live")
    page.wait_for_selector("#heard span")
    assert page.locator("#live").inner_text() == "Stop"
    page.click("#live")
    page.wait_for_selector("#live:text('Read live')")
    word = page.locator("#heard span").first
    assert word.inner_text().strip().islower()
    assert word.get_attribute("title").endswith("%")
    page.click("#live")  # once more: nothing of the first is in the way
    page.wait_for_selector("#heard span")
    page.click("#leave")
    page.wait_for_selector("#drop", state="visible")


def test_bad_clips_are_one_line_on_the_page(page: Any, talker_clip: Path) -> None:
    for name, data, said in (
        ("notes.txt", b"no film at all\n" * 50, "not a video"),
        ("large.mp4", bytes(4_100_000), "4 MB: larger than 4 MB"),
    ):
        give(page, {"name": name, "mimeType": "video/mp4", "buffer": data})
        assert page.locator("#clip").inner_text() == name
        assert said in page.locator("#error").inner_text()
        assert page.locator("#result").is_hidden()
    give(page, talker_clip)
    assert page.locator("#error").is_hidden()
