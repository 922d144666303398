"""The recognisers that word errors are measured with, and the words they recognise in signals.

The trained one (`trained.py`) is forgiving. pocketsphinx, with its own US English model and GRID's
sentences as a grammar, is strict and never saw the corpus: about 10 % word errors on real speech,
most in letters and prepositions (evaluation.md 3.2). Real sound is among the signals: a word error
rate means nothing without what its recogniser makes wrong where nothing was reconstructed.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.intervals import NO_FIGURE
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.evaluate.words.grammar import SLOT_NAMES, SLOT_WORDS, is_sentence, word_error_rate
from avb.train.evaluate.words.trained import TrainedRecogniser

NO_JUDGE = "no --judge given; make one with avb train judge"
NO_SPHINX = "pocketsphinx is not installed: pip install pocketsphinx (may need a C compiler)"
NO_SENTENCES = "no clip has the six words of a GRID sentence"
#: Names of letters; the dictionary of the wheel has other readings ("a" as in "a day").
LETTER_NAMES = {
    "a": ["EY"], "b": ["B IY"], "c": ["S IY"], "d": ["D IY"], "e": ["IY"], "f": ["EH F"],
    "g": ["JH IY"], "h": ["EY CH"], "i": ["AY"], "j": ["JH EY"], "k": ["K EY"], "l": ["EH L"],
    "m": ["EH M"], "n": ["EH N"], "o": ["OW"], "p": ["P IY"], "q": ["K Y UW"], "r": ["AA R"],
    "s": ["EH S"], "t": ["T IY"], "u": ["Y UW"], "v": ["V IY"], "x": ["EH K S"], "y": ["W AY"],
    "z": ["Z EH D", "Z IY"],
}  # fmt: skip
#: pocketsphinx's defaults, written down so that a later version cannot change them.
BEAMS = {"beam": 1e-48, "wbeam": 7e-29, "pbeam": 1e-48, "maxhmmpf": 30000, "maxwpf": -1}
_PEAK = 16_000  # of the 16-bit scale: the level of the input does not matter

#: Sound, float [n] at 16 kHz, to words.
Recogniser = Callable[[Sound], list[str]]


def available(trained: TrainedRecogniser | None, mel: Mel) -> dict[str, Recogniser | str]:
    """Recognisers by their name in records, or why there is none."""
    recognisers: dict[str, Recogniser | str] = {"judge": NO_JUDGE, "pocketsphinx": NO_SPHINX}
    if trained is not None:
        recognisers["judge"] = lambda sound: trained.recognise(sound, mel)
    try:
        import pocketsphinx  # noqa: F401
    except ImportError:
        return recognisers
    return recognisers | {"pocketsphinx": recognise}


def recognise_all(
    sounds: Sequence[Sound | None], words: Sequence[Sequence[str]],
    recognisers: Mapping[str, Recogniser | str], talkers: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Word errors of a signal by every recogniser; with `talkers`, intervals draw them.

    It is float [n] at 16 kHz of each clip; None counts nowhere.

    Returns:
        `metrics` `{"wer_<name>": {"value", "low", "high"}}`, None with its `reason` where there is
        no figure; `per_slot` by recogniser; `heard`, for each clip `{name: words}`. A clip without
        the six words of a sentence counts nowhere; `left_out` says how many.
    """
    sentences = [is_sentence(spoken) for spoken in words]
    left_out = {} if all(sentences) else {"left_out": sentences.count(False)}
    metrics: dict[str, Any] = {}
    per_slot: dict[str, Any] = {}
    heard: list[dict[str, list[str]]] = [{} for _ in sounds]
    rows = [i for i, sound in enumerate(sounds) if sound is not None and sentences[i]]
    missing = NO_SENTENCES if not any(sentences) else "" if rows else "no clip has this signal"
    for name, recogniser in recognisers.items():
        if isinstance(recogniser, str) or missing:
            reason = recogniser if isinstance(recogniser, str) else missing
            metrics[f"wer_{name}"] = NO_FIGURE | {"reason": reason}
            continue
        # A sound that stands for many clips, as that of the mean does, is recognised once.
        known: dict[int, list[str]] = {}
        for i in rows:
            sound: Any = sounds[i]
            if id(sound) not in known:
                known[id(sound)] = recogniser(sound)
            heard[i][name] = known[id(sound)]
        whose = None if talkers is None else [talkers[i] for i in rows]
        rate = word_error_rate([words[i] for i in rows], [heard[i][name] for i in rows], whose)
        metrics[f"wer_{name}"] = rate["wer"] | left_out
        per_slot[name] = rate["per_slot"]
    return {"metrics": metrics, "per_slot": per_slot, "heard": heard}


def grammar() -> str:
    """GRID's sentences as a JSGF grammar: one word of each of the six slots."""
    rules = [
        f"<{name}> = {' | '.join(words)};"
        for name, words in zip(SLOT_NAMES, SLOT_WORDS, strict=True)
    ]
    sentence = " ".join(f"<{name}>" for name in SLOT_NAMES)
    return "\n".join(["#JSGF V1.0;", "grammar grid;", *rules, f"public <sentence> = {sentence};"])


def dictionary(bundled: str) -> str:
    """Pronunciations of the 51 words: letters by name, the others from `cmudict-en-us.dict`."""
    wanted = {word for words in SLOT_WORDS for word in words} - set(LETTER_NAMES)
    # A line is `word PH ON ES`, further pronunciations `word(2) ...`.
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
        # cmn: means of this clip alone; `live` would carry them over from clip to clip.
        decoder = pocketsphinx.Decoder(
            hmm=str(model / "en-us"), dict=str(words), lm=None, samprate=RATE, cmn="batch",
            loglevel="FATAL", **BEAMS,
        )  # fmt: skip
    decoder.add_jsgf_string("grid", grammar())
    decoder.activate_search("grid")
    return decoder


def recognise(sound: Sound) -> list[str]:
    """Words that pocketsphinx finds in float [n] at 16 kHz; none if no sentence fits."""
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
