"""Sentences from films: windows joined without doubling, subtitles, and the words of `eval`."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import avb, did
from networks import save_model

from avb.models import ctc
from avb.pipeline.clip.stopwatch import Clock
from avb.tools.infer import sentence
from avb.tools.infer.crops import Piece
from avb.tools.infer.model import load_trained
from avb.tools.infer.sentence import joined, srt, subtitles
from avb.train.evaluate.words.reading import Spoken


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "sentence.pt"
    words = ["at", "bin", "bl\u00fce", "f", "now", "two"]
    save_model(path, "lip", unit="sentence", labels=words)
    return path


def test_overlapping_windows_become_one_row_a_frame() -> None:
    whole = np.arange(230, dtype=np.float32)[:, None].repeat(2, axis=1)
    starts = [0, 50, 100, 130]  # the last ends with the film
    windows = [(start, whole[start : start + 100].copy()) for start in starts]
    for number, (_, rows) in enumerate(windows):
        rows[:, 1] = number
    found = joined(windows)
    assert (found[:, 0] == np.arange(230)).all()
    # Each frame comes from the window in which it lies furthest inside.
    distance = [[min(f - s, s + 99 - f) for s in starts] for f in range(230)]
    assert all(distance[f][int(found[f, 1])] >= max(distance[f]) - 1 for f in range(230))
    assert (joined(windows[:1]) == windows[0][1]).all()


def test_subtitles_break_at_pauses_and_after_eight_words() -> None:
    words = [Spoken(str(i), 10 * i, 10 * i + 8, 1.0) for i in range(9)]
    late = Spoken("late", 130, 140, 1.0)
    assert subtitles([*words, late]) == [
        (0, 78, "0 1 2 3 4 5 6 7"), (80, 88, "8"), (130, 140, "late"),
    ]  # fmt: skip
    assert srt([late, Spoken("again", 90_050, 90_075, 1.0)]) == (
        "1\n00:00:05,200 --> 00:00:05,600\nlate\n\n2\n01:00:02,000 --> 01:00:03,000\nagain\n"
    )


def test_frames_in_which_nobody_is_seen_say_nothing(reader: Path) -> None:
    trained = load_trained("lip", reader)
    trained.model.back_end.classifier.bias.data[0] += 100  # it says "at" in every frame
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (120, 120, 120), np.uint8)

    def pieces(seen: np.ndarray) -> Iterator[Piece]:
        yield Piece(crops, seen)

    everywhere = sentence.read_sentences(pieces(np.ones(120, bool)), trained, Clock())
    assert [(word.word, word.first, word.stop) for word in everywhere] == [("at", 0, 120)]
    seen = np.arange(120) < 60
    half = sentence.read_sentences(pieces(seen), trained, Clock())
    assert [(word.word, word.first, word.stop) for word in half] == [("at", 0, 60)]
    assert sentence.read_sentences(pieces(np.zeros(120, bool)), trained, Clock()) == []


def test_a_film_is_read_subtitled_and_told(
    talker_clip: Path, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar = tmp_path / "grammar.yaml"
    grammar.write_text("[[bin, at], [bl\u00fce], [f, two], [now]]", "utf-8")
    given = ("infer", "lip", talker_clip, "--ckpt", reader, "--device", "cpu", "--grammar", grammar)
    run = did(*given, "--json", "--srt", tmp_path / "film.srt", "--track", tmp_path / "film.mp4")
    [record] = json.loads(run.stdout)["videos"]
    words = [word["word"] for word in record["words"]]
    assert record["sentence"] == " ".join(words) and len(words) == 4
    assert words[0] in ("bin", "at") and words[1] == "bl\u00fce" and words[3] == "now"
    assert all(0 <= w["start"] < w["end"] <= 1.6 for w in record["words"])
    assert " ".join(words) in (tmp_path / "film.srt").read_text("utf-8")
    assert "other letters as ?" in run.stderr
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert record["sentence"] in did(*given).stdout
    monkeypatch.setattr(ctc, "MOST_STEPS", 100)
    code, _, text = avb(*given, talker_clip)  # the next film is read all the same
    assert code == 1 and text.count(f"avb: {talker_clip}: 40 frames are too many for a gram") == 2
