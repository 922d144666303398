"""Sentences read: word and character errors, freely and within the grammar, beside real audio."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avb.models.ctc import edit_distance
from avb.train.checks import need
from avb.train.evaluate.extras import Extras
from avb.train.evaluate.metrics.intervals import ratio_interval
from avb.train.evaluate.words.grammar import word_error_rate
from avb.train.evaluate.words.reading import Reading, Spoken
from avb.train.network import finite
from avb.train.tasks.task import Evaluation

Sentence = Sequence[str]


def measure(evaluation: Evaluation, extras: Extras) -> dict[str, Any]:
    """Errors of each way to decode: `free`, and `grammar` where there is one.

    Word and character errors are pooled over clips, `sentences` are those without an error; all
    with intervals that draw clips, or talkers where they are unseen.
    """
    need("jiwer")
    index, unit = evaluation.index, evaluation.recipe.unit
    ways = {"free": Reading(index.labels, unit)}
    if extras.grammar is not None:
        ways["grammar"] = ways["free"].within(extras.grammar)
    log_probs, rows = _one_pass(evaluation), evaluation.rows
    spoken = [index.words(row) for row in rows]
    references = [_by_blanks(word for word, _, _ in words) for words in spoken]
    drawn = [index.speaker[row] for row in rows] if extras.unseen_talkers else None
    figures: dict[str, dict[str, Any]] = {signal: {} for signal in log_probs}
    per_slot: dict[str, dict[str, Any]] = {signal: {} for signal in log_probs}
    texts: dict[str, list[list[str]]] = {}
    edges: dict[str, Any] = {}
    for way, reading in ways.items():
        for signal, clips in log_probs.items():
            read = [reading.words(one) for one in clips]
            heard = [_by_blanks(word.word for word in words) for words in read]
            found, slots = errors(references, heard, drawn)
            figures[signal] |= {f"{name}_{way}": value for name, value in found.items()}
            if index.dataset["corpus"] == "grid":  # only its sentences have these places
                per_slot[signal][way] = slots
            if signal == "video":
                texts[way] = heard
                if measured := times(read, spoken, index.dataset["settings"]["fps"]):
                    edges[way] = measured
    said = [_by_blanks(word for word, _, _ in index.words(row)) for row in extras.known_rows]
    return {
        "task": "sentence",
        "metrics": figures["video"],
        "ceiling": figures.get("audio", {}),
        "both": figures.get("both", {}),
        "floors": floors(said, references, extras.grammar, list(ways), drawn),
        "per_slot": {s: slots for s, slots in per_slot.items() if any(slots.values())},
        "times": edges,
        "flags": {"n": len(rows), "unit": unit, "grammar": extras.grammar},
        "clips": [
            {"key": index.key(row), "talker": index.speaker[row] or "", "words": said_here}
            | {f"heard_{w}": texts[w][i] for w in ways}
            | {"values": {f"sentences_{w}": float(texts[w][i] == said_here) for w in ways}}
            for i, (row, said_here) in enumerate(zip(rows, references, strict=True))
        ],
    }


def _by_blanks(words: Iterable[str]) -> list[str]:
    """Words as errors are counted: one with a blank inside, which a table may have, is two."""
    return " ".join(words).split()


def errors(
    references: Sequence[Sentence], heard: Sequence[Sentence], talkers: Sequence[Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`wer`, `cer` and `sentences`, with intervals; and word errors by slot."""
    pairs = list(zip(references, heard, strict=True))
    words = word_error_rate(references, heard, talkers)
    letters = [edit_distance(" ".join(r), " ".join(h)) for r, h in pairs]
    right = [list(r) == list(h) for r, h in pairs]
    return {
        "wer": words["wer"],
        "cer": ratio_interval(letters, [len(" ".join(r)) for r in references], talkers),
        "sentences": ratio_interval(right, np.ones(len(pairs)), talkers),
    }, words["per_slot"]


def floors(
    known: Sequence[Sentence], references: Sequence[Sentence], slots: Any, ways: Sequence[str],
    talkers: Sequence[Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """What is right without a look: always one sentence, and any sentence of the grammar.

    The one sentence has at each place what is most frequent there in training, where all training
    sentences are as long; else it is the most frequent one. Clips without words are none.
    """
    found: dict[str, Any] = {}
    known = [sentence for sentence in known if sentence]
    if known:
        if len({len(sentence) for sentence in known}) == 1:
            constant = [Counter(words).most_common(1)[0][0] for words in zip(*known, strict=True)]
        else:
            constant = list(Counter(map(tuple, known)).most_common(1)[0][0])
        figures, _ = errors(references, [constant] * len(references), talkers)
        found["constant"] = {f"{name}_{way}": v for name, v in figures.items() for way in ways}
    if slots is not None and isinstance(slots[0], list):
        chance = [1 / len(words) for words in slots]
        found["grammar"] = {
            "wer_grammar": 1 - float(np.mean(chance)), "sentences_grammar": float(np.prod(chance))
        }  # fmt: skip
    return found


def times(heard: list[list[Spoken]], spoken: Any, fps: float) -> dict[str, Any]:
    """How far the edges of words lie from their alignment, in frames; empty: none is known.

    Of sentences that were read without an error and whose words have times: median and 90th
    percentile of the distance, of `start` and `end`, and how many words.
    """
    edges = [
        (abs(w.first - start * fps), abs(w.stop - end * fps))
        for words, said in zip(heard, spoken, strict=True)
        if [w.word for w in words] == [word for word, _, _ in said]
        for w, (_, start, end) in zip(words, said, strict=True)
        if start is not None and end is not None
    ]
    if not edges:
        return {}
    middle, most = np.percentile(np.array(edges), [50, 90], axis=0)
    return {
        "start": {"median": float(middle[0]), "p90": float(most[0])},
        "end": {"median": float(middle[1]), "p90": float(most[1])},
        "words": len(edges),
    }


def _one_pass(evaluation: Evaluation) -> dict[str, list[NDArray[np.float32]]]:
    """By signal the log-probabilities of each clip's frames, [T x K + 1].

    With one clip without sound among them, real audio is not looked at.
    """
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    mute = evaluation.index.no_audio[evaluation.rows].any()
    for batch, inputs in evaluation.batches():
        output = evaluation.model(inputs.video_BCTHW, inputs.mel_BFM, inputs.ragged_lengths)
        logits = {"video": finite(output.logits).float()}
        if output.real_logits is not None and not mute:
            logits["audio"] = finite(output.real_logits).float()
            logits["both"] = logits["video"] + logits["audio"]
        for name, values in logits.items():
            rows = values.log_softmax(dim=-1).cpu().numpy()
            found[name] += [row[:n] for row, n in zip(rows, batch.lengths.tolist(), strict=True)]
    return found
