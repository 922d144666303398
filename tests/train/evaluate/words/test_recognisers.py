"""Promise: pocketsphinx reads GRID's sentences and nothing else, each clip on its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.bounds import other_clips
from avb.train.evaluate.metrics.griffin_lim import invert_all
from avb.train.evaluate.words.grammar import SLOT_WORDS, word_error_rate
from avb.train.evaluate.words.recognisers import dictionary, grammar, recognise

pocketsphinx = pytest.importorskip(
    "pocketsphinx", reason="the independent judge is pocketsphinx, in the extra eval"
)


def bundled() -> str:
    folder = Path(pocketsphinx.get_model_path()) / "en-us"
    return (folder / "cmudict-en-us.dict").read_text(encoding="utf-8")


def test_dictionary_says_the_51_words_and_letters_by_name() -> None:
    lines = dictionary(bundled()).splitlines()
    spoken: dict[str, list[str]] = {}
    for line in lines:
        entry, phones = line.split(" ", 1)
        spoken.setdefault(entry.split("(")[0], []).append(phones)
    assert set(spoken) == {word for words in SLOT_WORDS for word in words} and len(spoken) == 51
    assert spoken["a"] == ["EY"]  # not as in "a day"
    assert spoken["z"] == ["Z EH D", "Z IY"] and spoken["nine"] == ["N AY N"]
    entries = [line.split(" ")[0] for line in lines]
    assert len(set(entries)) == len(entries)


def test_a_word_without_pronunciation_is_named() -> None:
    text = "\n".join(line for line in bundled().splitlines() if not line.startswith("soon "))
    with pytest.raises(ValueError, match="soon"):
        dictionary(text)


def test_grammar_has_six_slots() -> None:
    text = grammar()
    assert "<preposition> = at | by | in | with;" in text
    assert text.endswith(
        "public <sentence> = <command> <colour> <preposition> <letter> <digit> <adverb>;"
    )


def test_silence_and_noise_are_no_sentence() -> None:
    assert recognise(np.zeros(48_000, np.float32)) == []
    assert recognise(np.full(48_000, np.nan, np.float32)) == []
    noise = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    assert recognise(noise) == []


def test_real_sentences_are_heard_each_on_its_own(sentences: list[Any]) -> None:
    pytest.importorskip("jiwer", reason="word errors are counted by jiwer, in the extra eval")
    some = sentences[::4]
    heard = [recognise(s.sound) for s in some]
    # evaluation.md: 9.7 % on 50 clips; 13 clips are 78 words.
    found = word_error_rate([s.words for s in some], heard, draws=100)
    assert found["wer"]["value"] == pytest.approx(0.1, abs=0.08)
    assert all(len(words) == 6 for words in heard)
    assert [recognise(s.sound) for s in some[::-1]][::-1] == heard
    assert [recognise(0.1 * s.sound) for s in some] == heard


@pytest.mark.slow
def test_fifty_sentences_and_their_copies(sentences: list[Any], mel: Mel) -> None:
    """evaluation.md 3.2: real 9.7 %, Griffin-Lim 8.7 to 11.3 %; another sentence about 81 %."""
    pytest.importorskip("jiwer", reason="word errors are counted by jiwer, in the extra eval")
    spoken = [s.words for s in sentences]
    copies = invert_all([s.mel for s in sentences], mel)
    sounds = [s.sound for s in sentences]
    # By lot: neighbours among sorted names begin with the same words.
    others = [sounds[i] for i in other_clips(["s1"] * 50) if i is not None]
    for outputs, wanted in ((sounds, 0.097), (copies, 0.1), (others, 0.81)):
        heard = [recognise(sound) for sound in outputs]
        found = word_error_rate(spoken, heard, draws=100)["wer"]["value"]
        assert found == pytest.approx(wanted, abs=0.045)
