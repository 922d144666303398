"""An independent judge of words: pocketsphinx, its own US English model, GRID's grammar.

It never saw the corpus: about 10 % word errors on real speech, most in letters and prepositions
(evaluation.md 3.2). Strict where the trained judge is forgiving; both are printed.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.evaluate.words.grammar import SLOT_NAMES, SLOT_WORDS

#: Names of letters; the dictionary of the wheel has other readings ("a" as in "a day").
LETTER_NAMES = {
    "a": ["EY"],
    "b": ["B IY"],
    "c": ["S IY"],
    "d": ["D IY"],
    "e": ["IY"],
    "f": ["EH F"],
    "g": ["JH IY"],
    "h": ["EY CH"],
    "i": ["AY"],
    "j": ["JH EY"],
    "k": ["K EY"],
    "l": ["EH L"],
    "m": ["EH M"],
    "n": ["EH N"],
    "o": ["OW"],
    "p": ["P IY"],
    "q": ["K Y UW"],
    "r": ["AA R"],
    "s": ["EH S"],
    "t": ["T IY"],
    "u": ["Y UW"],
    "v": ["V IY"],
    "x": ["EH K S"],
    "y": ["W AY"],
    "z": ["Z EH D", "Z IY"],
}
#: pocketsphinx's defaults, written down so that a later version cannot change them.
BEAMS = {"beam": 1e-48, "wbeam": 7e-29, "pbeam": 1e-48, "maxhmmpf": 30000, "maxwpf": -1}
_PEAK = 16_000  # of the 16-bit scale: the level of the input does not matter


def grammar() -> str:
    """GRID's sentences as a JSGF grammar: one word of each of the six slots."""
    rules = [
        f"<{name}> = {' | '.join(words)};"
        for name, words in zip(SLOT_NAMES, SLOT_WORDS, strict=True)
    ]
    sentence = " ".join(f"<{name}>" for name in SLOT_NAMES)
    return "\n".join(["#JSGF V1.0;", "grammar grid;", *rules, f"public <sentence> = {sentence};"])


def dictionary(bundled: str) -> str:
    """Pronunciations of the 51 words: letters by name, the others from the wheel's dictionary.

    Args:
        bundled: text of `cmudict-en-us.dict`: `word PH ON ES`, further ones as `word(2) ...`.

    Raises:
        ValueError: a word is not in it.
    """
    wanted = {word for words in SLOT_WORDS for word in words} - set(LETTER_NAMES)
    lines = [line for line in bundled.splitlines() if line.split(" ")[0].split("(")[0] in wanted]
    missing = wanted - {line.split(" ")[0] for line in lines}
    if missing:
        raise ValueError(f"no pronunciation of {', '.join(sorted(missing))} in pocketsphinx")
    for letter, names in LETTER_NAMES.items():
        lines += [f"{letter}{f'({i})' if i > 1 else ''} {p}" for i, p in enumerate(names, 1)]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1)
def _decoder() -> Any:
    import pocketsphinx

    model = Path(pocketsphinx.get_model_path()) / "en-us"
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "grid.dict"
        bundled = (model / "cmudict-en-us.dict").read_text(encoding="utf-8")
        words.write_text(dictionary(bundled), encoding="utf-8")
        decoder = pocketsphinx.Decoder(
            hmm=str(model / "en-us"),
            dict=str(words),
            lm=None,
            samprate=RATE,
            # Means of this clip alone: `live` would carry them over from clip to clip.
            cmn="batch",
            loglevel="FATAL",
            **BEAMS,
        )
    decoder.add_jsgf_string("grid", grammar())
    decoder.activate_search("grid")
    return decoder


def transcribe(sound: Sound) -> list[str]:
    """The words heard in float [n] at 16 kHz; none if no sentence of the grammar fits.

    Raises:
        ImportError: pocketsphinx is not installed; it is in the extra `eval`.
    """
    decoder = _decoder()
    peak = float(np.abs(sound).max(initial=0.0))
    if not np.isfinite(peak) or not peak:
        return []
    samples = np.rint(np.asarray(sound) * (_PEAK / peak)).astype("<i2")
    decoder.reinit_feat()  # or one clip in twenty is read differently after another one
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr.split() if heard is not None else []
