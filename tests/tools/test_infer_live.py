"""Sentences while they are spoken: every word once, in order, soon, and never taken back."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import avb
from films import write_film
from networks import save_model

from avb.tools.infer import live
from avb.tools.infer.crops import Piece
from avb.tools.infer.live import AHEAD, SETTLED, Listener
from avb.tools.infer.model import Trained

LABELS = ["bin", "blue", "now", "set"]
CHUNK = 3
#: Word, first frame, frame after the last; a pause after the third.
SPOKEN = [
    ("bin", 10, 16), ("blue", 17, 25), ("now", 25, 34),
    ("set", 90, 97), ("blue", 99, 104), ("now", 110, 120), ("set", 150, 156),
]  # fmt: skip


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    """Its network says what was scripted of each frame, whose number is in the pixels."""
    script = np.full((200, len(LABELS) + 1), 0.02)
    silence = np.ones(200, bool)
    for word, first, stop in SPOKEN:
        script[first:stop, LABELS.index(word)] = 0.92
        silence[first:stop] = False
    script[silence, -1] = 0.92

    def scripted(crops: np.ndarray, seen: np.ndarray, trained: Any) -> np.ndarray:
        assert len(crops) <= live.WINDOW and len(seen) == len(crops)
        return np.log(script[crops[:, 0, 0]])

    monkeypatch.setattr(live, "frame_log_probs", scripted)
    return Listener(reader(None))


def reader(grammar: Any) -> Any:
    recipe = SimpleNamespace(unit="sentence")
    said: Any = SimpleNamespace(labels=LABELS, recipe=recipe, grammar=grammar)
    said.reading = partial(Trained.reading, said)
    return said


def pieces(count: int) -> list[Piece]:
    numbers = np.arange(count, dtype=np.uint8)[:, None, None].repeat(2, axis=1).repeat(2, axis=2)
    return [Piece(numbers[i : i + CHUNK], np.ones(CHUNK, bool)) for i in range(0, count, CHUNK)]


def test_every_word_is_told_once_and_soon_after_its_end(listener: Listener) -> None:
    told = []
    for number, piece in enumerate(pieces(198), 1):
        for word in listener.push(piece):
            told.append((word.word, word.first, word.stop))
            assert number * CHUNK - word.stop <= AHEAD + SETTLED + CHUNK
    assert told == SPOKEN


def test_what_is_spoken_at_the_end_is_told_at_the_end(listener: Listener) -> None:
    told = [word for piece in pieces(30) for word in listener.push(piece)]
    assert [word.word for word in told] == ["bin"]
    last = [(word.word, word.first, word.stop) for word in listener.end()]
    assert last == [("blue", 17, 25), ("now", 25, 30)]


def test_speech_without_a_pause_is_cut_between_words(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LONGEST", 30)
    told = [(w.word, w.first, w.stop) for piece in pieces(198) for w in listener.push(piece)]
    assert told == SPOKEN
    assert len(listener._rows) < 100


def test_a_grammar_holds_from_sentence_to_sentence(listener: Listener) -> None:
    bound = Listener(reader([["bin", "set"], ["blue"], ["now"]]))
    told = [word for piece in pieces(147) for word in bound.push(piece)]
    assert [word.word for word in told] == ["bin", "blue", "now", "set", "blue", "now"]


def test_a_camera_gives_its_newest_picture_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = "color=c=white:size=64x48:rate=50:duration=0.4,realtime"
    monkeypatch.setattr(live, "device", lambda number: (drawn, "lavfi"))
    camera = live.Camera(0)
    pictures = iter(camera)
    picture = next(pictures)
    assert picture.shape == (48, 64) and picture.min() > 200
    camera._thread.join()  # the source ends
    assert next(pictures, None) is None
    camera.close()


def test_a_film_is_followed_as_typed(talker_clip: Path, tmp_path: Path) -> None:
    reader, words, grammar = (tmp_path / name for name in ("s.pt", "w.pt", "grammar.yaml"))
    save_model(reader, "lip", unit="sentence", labels=["bin", "blue"])
    save_model(words, "lip")
    grammar.write_text("[[bin], [blue]]")
    nobody = write_film(tmp_path / "nobody.mp4", [np.full((96, 128), 90, np.uint8)] * 30,
                        np.arange(30) / 25)  # fmt: skip
    run = avb("infer", "lip", "--follow", talker_clip, "--ckpt", reader, "--device", "cpu",
              "--json", "--grammar", grammar)  # fmt: skip
    assert run.exit_code == 0, run.output
    record = json.loads(run.stdout)
    assert {"words", "delay", "fps"} <= set(record)
    assert {word["word"] for word in record["words"]} == {"bin", "blue"}
    for wrong, said in (
        (["--follow", talker_clip, "--ckpt", words], "a reader of sentences"),
        (["--follow", tmp_path / "none.mp4", "--ckpt", reader], "no such file"),
        (["--follow", talker_clip, talker_clip, "--ckpt", reader], "name VIDEO files, or"),
        (["--follow", talker_clip, "--srt", "x.srt", "--ckpt", reader], "write no --srt"),
        ([talker_clip, "--srt", "x.srt", "--ckpt", words], "subtitles are of sentences"),
        ([talker_clip, "--grammar", grammar, "--ckpt", words], "a grammar is of sentences"),
        ([talker_clip, "--top", 3, "--ckpt", reader], "--top: has no effect on the sentences"),
        (["--follow", nobody, "--ckpt", reader], f"{nobody}: no face was found"),
        (["--camera", 99, "--ckpt", reader], "no picture comes from it"),
    ):
        run = avb("infer", "lip", *wrong, "--device", "cpu")
        assert run.exit_code in (1, 2) and said in run.output, run.output
        assert "Traceback" not in run.output
