"""A GRID sentence as six slots, each with its own words, and its word errors by slot.

No word occurs in two slots, so of two sentences of six slots the edit distance is the number of
slots that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from avb.pipeline.corpora.grid import SLOTS
from avb.train.evaluate.metrics.intervals import DRAWS, ratio_interval

SLOT_NAMES = ("command", "colour", "preposition", "letter", "digit", "adverb")
#: The words of each slot: 4, 4, 4, 25, 10 and 4.
SLOT_WORDS: tuple[tuple[str, ...], ...] = tuple(tuple(slot.values()) for slot in SLOTS)


def slot_targets(words: Sequence[str]) -> list[int]:
    """Number of each of six words in its slot.

    Raises:
        ValueError: not six words, or one of them does not belong to its slot.
    """
    if len(words) != len(SLOT_WORDS):
        raise ValueError(f"{' '.join(words)!r}: {len(words)} words; a GRID sentence has six")
    for word, name, known in zip(words, SLOT_NAMES, SLOT_WORDS, strict=True):
        if word not in known:
            raise ValueError(f"{' '.join(words)!r}: {word!r} is no {name} of GRID")
    return [known.index(word) for word, known in zip(words, SLOT_WORDS, strict=True)]


def slot_words(targets: Sequence[int]) -> list[str]:
    """The six words that `slot_targets` numbered."""
    return [words[i] for words, i in zip(SLOT_WORDS, targets, strict=True)]


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> dict[str, Any]:
    """Substitutions, deletions and insertions of one sentence, aligned by jiwer.

    Returns:
        `substitutions`, `deletions`, `insertions`, `words` (of the reference), and `wrong`: for
        each reference word whether it was substituted or deleted.
    """
    import jiwer

    wrong = [False] * len(reference)
    if not hypothesis:  # jiwer would take "" for a word where the reference is empty too
        return {
            "substitutions": 0,
            "deletions": len(reference),
            "insertions": 0,
            "words": len(reference),
            "wrong": [True] * len(reference),
        }
    found = jiwer.process_words(
        " ".join(reference).lower(),
        " ".join(hypothesis).lower(),
    )
    for chunk in found.alignments[0]:
        if chunk.type in ("substitute", "delete"):
            wrong[chunk.ref_start_idx : chunk.ref_end_idx] = [True] * (
                chunk.ref_end_idx - chunk.ref_start_idx
            )
    return {
        "substitutions": found.substitutions,
        "deletions": found.deletions,
        "insertions": found.insertions,
        "words": len(reference),
        "wrong": wrong,
    }


def word_error_rate(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[str]],
    talkers: Sequence[Any] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """(S + D + I) / reference words, pooled over the clips, with intervals.

    Args:
        references: words of each clip.
        hypotheses: what was recognised, any number of words each.
        talkers: if given, intervals draw talkers, then clips.
        draws: resamplings.
        seed: decides them.

    Returns:
        `wer` {"value", "low", "high"}; `per_slot`, the share of wrong or missing words at each
        place of six-word references (insertions belong to no place); `clips`: see `word_errors`.
    """
    clips = [word_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
    errors = [c["substitutions"] + c["deletions"] + c["insertions"] for c in clips]
    per_slot = {}
    if all(c["words"] == len(SLOT_NAMES) for c in clips):
        wrong = np.array([c["wrong"] for c in clips], np.float64)
        per_slot = {
            name: ratio_interval(wrong[:, i], np.ones(len(clips)), talkers, draws, seed)
            for i, name in enumerate(SLOT_NAMES)
        }
    wer = ratio_interval(errors, [c["words"] for c in clips], talkers, draws, seed)
    return {"wer": wer, "per_slot": per_slot, "clips": clips}
