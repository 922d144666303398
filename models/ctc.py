"""Connectionist temporal classification: its loss, and tokens read from its frames.

A network says for every frame one of K tokens or, as class K, blank. A sequence of tokens is any
path of classes that becomes it when repeats are joined and blanks are left out (Graves et al.
2006).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from avb.models.precision import at_least_float32

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

#: Marks the end of a clip's tokens in a batch, and frames of which the token is not known.
NONE = -1
#: Most numbers that the best path of one film may be traced back through.
MOST_STEPS = 1 << 28


def ctc_loss(logits_BTK: Tensor, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Negative log-likelihood of each clip's tokens, by token, then the mean over clips: scalar.

    The last class is blank; tokens are int64, padded with -1; lengths are real frames.
    """
    if logits_BTK.is_meta:  # where only shapes are counted
        return logits_BTK.mean()
    counts_B = (tokens_BL != NONE).sum(dim=1)
    nats_B = functional.ctc_loss(
        at_least_float32(logits_BTK).log_softmax(dim=-1).transpose(0, 1), tokens_BL.clamp_min(0),
        lengths_B, counts_B, blank=logits_BTK.shape[2] - 1, reduction="none", zero_infinity=True,
    )  # fmt: skip
    return (nats_B / counts_B.clamp_min(1)).mean()


def frame_loss(logits_BTK: Tensor, frames_BT: Tensor) -> Tensor:
    """Cross entropy of the frames whose token is known, mean by clip, then over clips: scalar.

    The last class is blank, that of silence; a frame's is -1 where it is not known, or padding. A
    clip that has none costs 0.
    """
    if logits_BTK.is_meta:
        return logits_BTK.mean()
    nats_BT = functional.cross_entropy(
        at_least_float32(logits_BTK).transpose(1, 2), frames_BT, ignore_index=NONE, reduction="none"
    )
    counts_B = (frames_BT != NONE).sum(dim=1)
    return (nats_BT.sum(dim=1) / counts_B.clamp_min(1)).mean()


@dataclass(frozen=True)
class Token:
    """One token of a path."""

    token: int
    first: int  # frame in which it begins
    stop: int  # frame after its last
    confidence: float  # geometric mean of its probability over those frames


@dataclass(frozen=True)
class Grammar:
    """A finite automaton over tokens: arc i leads from `source[i]` by `token[i]` to `target[i]`.

    It starts in state 0, and may end in the states of `final`.
    """

    source: Ints
    token: Ints
    target: Ints
    final: NDArray[np.bool_]  # of each state

    @staticmethod
    def of_slots(
        slots: Sequence[Iterable[Sequence[int]]], between: int | None = None, repeated: bool = False
    ) -> Grammar:
        """One word of each slot after the other; a word is a sequence of one token or more.

        Args:
            slots: the words of each; one slot that is repeated is a word list.
            between: the token between two words, such as a space; None: there is none.
            repeated: whether such a sequence may follow another, and there may be none.
        """
        arcs: list[tuple[int, int, int]] = []
        states, start = 1, 0
        for number, words in enumerate(slots):
            last = number == len(slots) - 1
            end = states
            states += 1
            if last and repeated and between is None:
                end = 0
            inner: dict[tuple[int, int], int] = {}  # words share their beginnings
            for word in words:
                state = start
                for one in word[:-1]:
                    if (state, one) not in inner:
                        inner[state, one] = states
                        arcs.append((state, one, states))
                        states += 1
                    state = inner[state, one]
                arcs.append((state, word[-1], end))
            start = end
            if between is not None and (not last or repeated):
                start = states
                states += 1
                arcs.append((end, between, start))
        if repeated and between is not None:  # from there on as from state 0, but it is no end
            arcs += [(start, token, target) for source, token, target in arcs if source == 0]
        final = np.isin(np.arange(states), [end, 0] if repeated else [end])
        source, token, target = np.array(arcs, np.int64).reshape(-1, 3).T
        return Grammar(source, token, target, final)


def best_path(log_probs: Floats, grammar: Grammar | None = None) -> list[Token]:
    """The tokens of the likeliest path; with a grammar, of the likeliest that it allows.

    None where so few frames hold no sequence of the grammar. `log_probs` are [T x K + 1], the last
    class is blank. ValueError: there are too many frames for a grammar of this size.
    """
    path = log_probs.argmax(axis=1) if grammar is None else _search(log_probs, grammar)
    blank = log_probs.shape[1] - 1
    edges = np.flatnonzero(np.diff(path)) + 1
    found = []
    for first, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(path)], strict=True):
        if len(path) and path[first] != blank:
            sure = float(np.exp(log_probs[first:stop, path[first]].mean()))
            found.append(Token(int(path[first]), first, stop, sure))
    return found


def _search(log_probs: Floats, grammar: Grammar) -> Ints:
    """Class of each frame on the likeliest path through the grammar (Viterbi, exact).

    Nodes are the states, in which a path says blank, and the arcs, in which it says their tokens.
    """
    frames, blank = log_probs.shape[0], log_probs.shape[1] - 1
    states, arcs = len(grammar.final), len(grammar.token)
    if frames * (states + arcs) > MOST_STEPS:
        raise ValueError(
            f"{frames} frames are too many for a grammar of {arcs} arcs; cut the film, or give it"
            " fewer words"
        )
    into = _Into(grammar)
    score = np.full(states + arcs, -np.inf)
    score[0] = 0.0
    came = np.empty((frames, states + arcs), np.int32)
    itself = np.arange(states + arcs)
    for t in range(frames):
        silent, said = score[:states], score[states:]
        best, arc, other, other_arc = into.best(said)
        came[t, :states] = np.where(silent >= best, itself[:states], arc + states)
        # An arc is entered from its state's blank, or from an arc into it of another token.
        at = grammar.source
        same = grammar.token[arc[at]] == grammar.token
        direct = np.where(same, other[at], best[at])
        by = np.where(same, other_arc[at], arc[at]) + states
        by = np.where(silent[at] >= direct, at, by)
        entered = np.maximum(direct, silent[at])
        came[t, states:] = np.where(said >= entered, itself[states:], by)
        silent = np.maximum(silent, best) + log_probs[t, blank]
        said = np.maximum(said, entered) + log_probs[t, grammar.token]
        score = np.concatenate([silent, said])
    ends = np.concatenate([grammar.final, grammar.final[grammar.target]])
    node = int(np.where(ends, score, -np.inf).argmax())
    if not np.isfinite(score[node]) or not ends[node]:
        return np.full(frames, blank)
    classes = np.concatenate([np.full(states, blank), grammar.token])
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = classes[node]
        node = came[t, node]
    return path


class _Into:
    """The best arc into each state, and the best of another token than that one's."""

    def __init__(self, grammar: Grammar) -> None:
        self.order = np.argsort(grammar.target, kind="stable")
        sorted_targets = grammar.target[self.order]
        self.states, self.starts = np.unique(sorted_targets, return_index=True)
        self.segment = np.searchsorted(self.states, sorted_targets)
        self.token = grammar.token[self.order]
        self.count = len(grammar.final)

    def best(self, said: Floats) -> tuple[Floats, Ints, Floats, Ints]:
        """Score and arc of both, by state; minus infinity and -1 where there is none."""
        scores = said[self.order]
        top, first = self._top(scores)
        rest = np.where(self.token == self.token[first][self.segment], -np.inf, scores)
        second, next_first = self._top(rest)
        found: list[NDArray] = []
        for values, places in ((top, first), (second, next_first)):
            score, arc = np.full(self.count, -np.inf), np.full(self.count, -1)
            score[self.states], arc[self.states] = values, self.order[places]
            found += [score, arc]
        return found[0], found[1], found[2], found[3]

    def _top(self, scores: Floats) -> tuple[Floats, Ints]:
        """The highest of each segment, and the place of the first such."""
        top = np.maximum.reduceat(scores, self.starts)
        places = np.where(scores == top[self.segment], np.arange(len(scores)), len(scores))
        return top, np.minimum.reduceat(places, self.starts)


def greedy(logits_BTK: Tensor, lengths_B: Tensor | None) -> list[list[int]]:
    """The tokens of each clip's likeliest path."""
    paths = logits_BTK.argmax(dim=-1).cpu()
    blank = logits_BTK.shape[2] - 1
    found = []
    for i, path in enumerate(paths):
        joined = torch.unique_consecutive(path if lengths_B is None else path[: int(lengths_B[i])])
        found.append(joined[joined != blank].tolist())
    return found


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Fewest insertions, deletions and substitutions that make one of the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]
