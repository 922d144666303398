"""From the frames of a reader of sentences to words with times, freely or within a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.models.ctc import Grammar, Token, best_path
from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import read_yaml

#: Words of each place of a sentence, or a list of words of which any may follow any.
Slots = list[list[str]] | list[str]


@dataclass(frozen=True)
class Spoken:
    """A word of a path: its frames, and how sure the reader is of it, 0 to 1."""

    word: str
    first: int
    stop: int
    confidence: float


@dataclass(frozen=True)
class Reading:
    """What the classes of a reader are, and what it may say."""

    labels: list[str]  # of its classes, without blank
    unit: str  # `sentence`, whose classes are words, or `characters`: letters and the space
    grammar: Grammar | None = None  # None: any words

    def within(self, slots: Slots, repeated: bool = False) -> Reading:
        """The same, within a grammar; `repeated`: sentences of it may follow each other.

        UsageError: it has a word that this reader does not know.
        """
        class_of = {label: i for i, label in enumerate(self.labels)}
        listed = [slot for slot in slots if isinstance(slot, str)]  # any may follow any
        places = [listed] if listed else [slot for slot in slots if not isinstance(slot, str)]

        def classes(word: str) -> list[int]:
            tokens = list(word) if self.unit == "characters" else [word]
            if unknown := [token for token in tokens if token not in class_of]:
                raise UsageError(f"grammar: {word!r}: this reader does not know {unknown[0]!r}")
            return [class_of[token] for token in tokens]

        ways = [[classes(word) for word in place] for place in places]
        between = class_of[" "] if self.unit == "characters" else None
        grammar = Grammar.of_slots(ways, between, repeated or bool(listed))
        return Reading(self.labels, self.unit, grammar)

    def words(self, log_probs: NDArray[np.floating[Any]]) -> list[Spoken]:
        """The words of the best path through [T x K + 1]; none where the grammar fits in no way.

        UsageError: there are too many frames for a grammar of this size.
        """
        try:
            path = best_path(log_probs, self.grammar)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.unit == "sentence":
            return [Spoken(self.labels[t.token], t.first, t.stop, t.confidence) for t in path]
        found, letters = [], []
        for token in [*path, None]:
            if token is not None and self.labels[token.token] != " ":
                letters.append(token)
            elif letters:
                found.append(_joined(letters, self.labels))
                letters = []
        return found


def _joined(letters: list[Token], labels: Sequence[str]) -> Spoken:
    sure = float(np.exp(np.mean(np.log([max(t.confidence, 1e-30) for t in letters]))))
    word = "".join(labels[t.token] for t in letters)
    return Spoken(word, letters[0].first, letters[-1].stop, sure)


def own_grammar(slots: Slots | None, labels: Sequence[str], unit: str) -> Slots | None:
    """A corpus's own grammar, or None where this reader does not know all of its words."""
    places = [[place] if isinstance(place, str) else place for place in slots or ()]
    words = {word for place in places for word in place}
    tokens = {*"".join(words), " "} if unit == "characters" else words
    return slots if tokens <= {*labels} else None


def read_grammar(path: Path) -> Slots:
    """A list of words for each place, or one list of words, from a YAML file, else UsageError."""
    found = read_yaml(path)

    def are_words(values: Any) -> bool:
        return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)

    nested = isinstance(found, list) and bool(found) and all(map(are_words, found))
    if not nested and not are_words(found):
        raise UsageError(
            f"{path}: expected a list of words for each place, or one list of words (yes, no, on"
            f" and off in quotes); found {shown(found)}"
        )
    return found
