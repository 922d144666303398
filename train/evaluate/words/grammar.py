"""A GRID sentence as six slots, each with its own words, and its word errors by slot."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avb.pipeline.corpora.grid import SLOTS
from avb.train.evaluate.metrics.intervals import DRAWS, ratio_interval

#: Of each recogniser, the field of a record's clips with the words that it heard of the model.
HEARD = {"judge": "heard_judge", "pocketsphinx": "heard"}
#: Of each way to decode a reader of sentences, the field with the words that it read.
READ = {"free": "heard_free", "grammar": "heard_grammar"}
SLOT_NAMES = ("command", "colour", "preposition", "letter", "digit", "adverb")
#: The words of each slot: 4, 4, 4, 25, 10 and 4; no word is in two slots.
SLOT_WORDS: tuple[tuple[str, ...], ...] = tuple(tuple(slot.values()) for slot in SLOTS)


def slot_targets(words: Sequence[str]) -> list[int]:
    """Number of each of six words in its slot; ValueError: a word does not belong to its slot."""
    if len(words) != len(SLOT_WORDS):
        raise ValueError(f"{' '.join(words)!r}: {len(words)} words; a GRID sentence has six")
    for word, name, known in zip(words, SLOT_NAMES, SLOT_WORDS, strict=True):
        if word not in known:
            raise ValueError(f"{' '.join(words)!r}: {word!r} is no {name} of GRID")
    return [known.index(word) for word, known in zip(words, SLOT_WORDS, strict=True)]


def is_sentence(words: Sequence[str]) -> bool:
    """Whether these are the six words of a GRID sentence."""
    try:
        return bool(slot_targets(words))
    except ValueError:
        return False


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, list[bool]]:
    """Substitutions + deletions + insertions, and which reference words are wrong or missing."""
    import jiwer

    if not hypothesis:  # jiwer would take "" for a word where the reference is empty too
        return len(reference), [True] * len(reference)
    alignment = jiwer.process_words(" ".join(reference).lower(), " ".join(hypothesis).lower())
    wrong = [False] * len(alignment.references[0])
    for chunk in alignment.alignments[0]:
        if chunk.type in ("substitute", "delete"):
            for i in range(chunk.ref_start_idx, chunk.ref_end_idx):
                wrong[i] = True
    return alignment.substitutions + alignment.deletions + alignment.insertions, wrong


def word_error_rate(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]],
    talkers: Sequence[Any] | None = None, draws: int = DRAWS,
) -> dict[str, Any]:  # fmt: skip
    """Word errors over reference words, pooled over the clips, and at each of six places."""
    clips = [word_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
    lengths = [len(reference) for reference in references]
    per_slot = {}
    if all(length == len(SLOT_NAMES) for length in lengths):
        wrong = np.array([wrong for _, wrong in clips], np.float64)
        per_slot = {
            name: ratio_interval(wrong[:, i], np.ones(len(clips)), talkers, draws)
            for i, name in enumerate(SLOT_NAMES)
        }
    wer = ratio_interval([errors for errors, _ in clips], lengths, talkers, draws)
    return {"wer": wer, "per_slot": per_slot}
