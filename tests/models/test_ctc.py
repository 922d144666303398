"""CTC against all paths of small cases; grammars; edit distance."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch

from avb.models.ctc import NONE, Grammar, best_path, ctc_loss, edit_distance, frame_loss, greedy

K = 3  # tokens; class 3 is blank


def collapsed(path: Iterable[int]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != K)


def drawn(frames: int, rng: np.random.Generator) -> np.ndarray:
    return np.log(rng.dirichlet(np.full(K + 1, 0.5), frames))


def paths(log_probs: np.ndarray) -> Iterable[tuple[tuple[int, ...], float]]:
    """Every path with its log-probability."""
    for path in itertools.product(range(K + 1), repeat=len(log_probs)):
        yield path, float(log_probs[np.arange(len(path)), path].sum())


def sentences(
    slots: Sequence[Sequence[Sequence[int]]], between: int | None, repeated: bool
) -> set[tuple[int, ...]]:
    """Every sequence of tokens of a grammar, of up to five rounds of it."""
    once = [list(words) for words in itertools.product(*slots)]
    rounds: list[list[Sequence[int]]] = once
    if repeated:
        rounds = [[]]
        for count in range(1, 6):
            rounds += [sum(many, []) for many in itertools.product(once, repeat=count)]
    space = [] if between is None else [between]
    return {tuple(sum(([*space, *w] for w in words), []))[len(space) if words else 0 :]
            for words in rounds}  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_the_best_path_of_a_grammar_is_the_best_of_all_that_it_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = drawn(int(rng.integers(1, 6)), rng)
    slots = [[rng.integers(0, K, rng.integers(1, 3)).tolist() for _ in range(rng.integers(1, 3))]
             for _ in range(rng.integers(1, 3))]  # fmt: skip
    between, repeated = (None, 2)[seed % 2], bool(seed // 2 % 2)
    allowed = sentences(slots, between, repeated)
    inside = [(score, path) for path, score in paths(log_probs) if collapsed(path) in allowed]
    grammar = Grammar.of_slots(slots, between, repeated)
    if not inside:
        assert best_path(log_probs, grammar) == []
        return
    found = best_path(log_probs, grammar)
    expected = collapsed(max(inside)[1])
    assert tuple(one.token for one in found) == expected
    by_token = [len(list(group)) for token, group in itertools.groupby(max(inside)[1]) if token < K]
    assert [one.stop - one.first for one in found] == by_token


def test_without_a_grammar_the_path_is_the_greedy_one() -> None:
    rng = np.random.default_rng(0)
    log_probs = np.stack([drawn(7, rng) for _ in range(5)])
    expected = [[one.token for one in best_path(clip[:6])] for clip in log_probs]
    assert greedy(torch.tensor(log_probs), torch.full((5,), 6)) == expected
    assert expected == [list(collapsed(clip[:6].argmax(axis=1))) for clip in log_probs]


def test_times_and_confidence_are_those_of_the_frames() -> None:
    rows = np.full((6, K + 1), 0.1)
    for frame, (token, sure) in enumerate(
        [(K, 0.7), (0, 0.8), (0, 0.2), (K, 0.7), (0, 0.7), (1, 0.7)]
    ):
        rows[frame, token] = sure
    rows[2] = [0.4, 0.2, 0.2, 0.2]
    first, second, third = best_path(np.log(rows))
    assert [(t.token, t.first, t.stop) for t in (first, second, third)] == [
        (0, 1, 3), (0, 4, 5), (1, 5, 6),
    ]  # fmt: skip
    assert first.confidence == pytest.approx(np.sqrt(0.8 * 0.4))


def test_the_loss_is_that_of_all_paths_and_padding_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    clips, tokens = [drawn(4, rng), drawn(3, rng)], [[0, 0], [2]]
    nats = [-np.logaddexp.reduce([s for path, s in paths(clip) if list(collapsed(path)) == said])
            for clip, said in zip(clips, tokens, strict=True)]  # fmt: skip
    expected = np.mean([nats[0] / 2, nats[1]])
    for filler in (0.0, 50.0):
        logits = torch.full((2, 6, K + 1), filler, dtype=torch.float64)
        logits[:, :, 1] -= 7  # padding is not even
        for i, clip in enumerate(clips):
            logits[i, : len(clip)] = torch.tensor(clip)
        padded = torch.tensor([[0, 0], [2, NONE]])
        assert float(ctc_loss(logits, padded, torch.tensor([4, 3]))) == pytest.approx(expected)


def test_frames_without_a_known_token_cost_nothing() -> None:
    logits = torch.zeros(2, 3, K + 1)
    logits[0, 0, 1] = 100.0
    frames = torch.tensor([[1, 2, NONE], [NONE, NONE, NONE]])
    # One frame is certain, one is any of four; the second clip says nothing.
    apart = [float(frame_loss(logits[i : i + 1], frames[i : i + 1])) for i in (0, 1)]
    assert apart == [pytest.approx(np.log(4) / 2), 0.0]
    # A batch costs what its parts do (`accumulate`, several processes).
    assert float(frame_loss(logits, frames)) == pytest.approx(np.mean(apart))


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0),
     ("flaw", "lawn", 2)],
)  # fmt: skip
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == distance


def test_a_film_too_long_for_its_grammar_is_refused() -> None:
    grammar = Grammar.of_slots([[[i] for i in range(3)]], repeated=True)
    huge = np.lib.stride_tricks.as_strided(np.zeros(4), (1 << 28, 4), (0, 8))
    with pytest.raises(ValueError, match="cut the film"):
        best_path(huge, grammar)
