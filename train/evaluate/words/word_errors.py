"""Which words two judges hear in each signal: the trained one of a file, and pocketsphinx.

Real sound is heard too: a word error rate means nothing without what its judge makes wrong on the
same clips when nothing was reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import Mel
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.evaluate.words.grammar import slot_targets, word_error_rate
from avb.train.evaluate.words.judge import Stored
from avb.train.evaluate.words.recogniser import transcribe

NO_JUDGE = "no --judge given; make one with avb train judge"
NO_SPHINX = "pocketsphinx is not installed: pip install pocketsphinx"
NO_SENTENCES = "no clip has the six words of a GRID sentence"

Ear = Callable[[Sound], list[str]]


def ears(judge: Stored | None, mel: Mel) -> dict[str, Ear | str]:
    """The judges by name: sound [n] at 16 kHz to words, or why there is none."""
    found: dict[str, Ear | str] = {"judge": NO_JUDGE, "pocketsphinx": NO_SPHINX}
    if judge is not None:
        network = judge.judge

        def hear(sound: Sound) -> list[str]:
            return transcribe(network, [torch.from_numpy(log_mel(sound, mel, RATE))])[0]

        found["judge"] = hear
    try:
        import pocketsphinx  # noqa: F401

        from avb.train.evaluate.words import sphinx
    except ImportError:
        pass
    else:
        found["pocketsphinx"] = sphinx.transcribe
    return found


def listen(
    signals: Mapping[str, Sequence[Sound | None]],
    words: Sequence[Sequence[str]],
    judges: Mapping[str, Ear | str],
    talkers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Word errors of every signal by every judge.

    Args:
        signals: by name, float [n] at 16 kHz of each clip; None counts nowhere.
        words: spoken words of each clip.
        judges: from `ears`.
        talkers: of each clip; if given, intervals draw them, then clips.

    Returns:
        By signal: `metrics` `{"wer_<judge>": {"value", "low", "high"}}`, None with its `reason`
        where there is no figure; `per_slot` by judge; `heard`, for each clip `{judge: words}`.
        A clip without the six words of a sentence counts nowhere; `left_out` says how many.
    """
    sentences = [_is_sentence(spoken) for spoken in words]
    found: dict[str, Any] = {}
    for name, sounds in signals.items():
        metrics: dict[str, Any] = {}
        per_slot: dict[str, Any] = {}
        heard: list[dict[str, list[str]]] = [{} for _ in sounds]
        there = [i for i, sound in enumerate(sounds) if sound is not None and sentences[i]]
        for judge, ear in judges.items():
            reason = ear if isinstance(ear, str) else "" if any(sentences) else NO_SENTENCES
            reason = reason or ("" if there else "no clip has this signal")
            if isinstance(ear, str) or reason:
                metrics[f"wer_{judge}"] = {
                    "value": None, "low": None, "high": None, "reason": reason
                }  # fmt: skip
                continue
            said = _hear(ear, [sounds[i] for i in there])  # type: ignore[misc]
            for i, sentence in zip(there, said, strict=True):
                heard[i][judge] = sentence
            whose = None if talkers is None else [talkers[i] for i in there]
            rate = word_error_rate([words[i] for i in there], said, whose)
            metrics[f"wer_{judge}"] = rate["wer"]
            if not all(sentences):
                metrics[f"wer_{judge}"] = rate["wer"] | {"left_out": sentences.count(False)}
            per_slot[judge] = rate["per_slot"]
        found[name] = {"metrics": metrics, "per_slot": per_slot, "heard": heard}
    return found


def _is_sentence(words: Sequence[str]) -> bool:
    try:
        slot_targets(words)
    except ValueError:
        return False
    return True


def _hear(ear: Ear, sounds: Sequence[Sound]) -> list[list[str]]:
    """Words of each sound; one that stands for many clips, as the mean does, is heard once."""
    known: dict[int, list[str]] = {}
    for sound in sounds:
        if id(sound) not in known:
            known[id(sound)] = ear(sound)
    return [known[id(sound)] for sound in sounds]
