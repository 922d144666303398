"""Promise: pairs are of different clips, figures are those of plain loops, null models are null."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from avb.pipeline.corpora.grid import VOCABULARY, parse_align
from avb.train.evaluate.metrics.addressing import (
    Discrimination,
    Segments,
    agreement,
    draw_pairs,
    permute_within_places,
    random_addresses,
    segment_vectors,
    similarities,
    slot_usage,
    unit_rows,
)
from avb.train.evaluate.metrics.intervals import resample_counts


def make_segments(clips: int, seed: int = 0, words: int = 4, talkers: int = 3) -> Segments:
    """Sentences of two places with `words` words each."""
    rng = np.random.default_rng(seed)
    place = np.tile([0, 1], clips)
    clip = np.repeat(np.arange(clips), 2)
    return Segments(rng.integers(0, words, 2 * clips) + words * place, place, clip, clip % talkers)


def meaningful(segments: Segments, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(segments.words.max() + 1, 16))
    return prototypes[segments.words] + noise * rng.normal(size=(len(segments), 16))


def test_segments_are_means_of_their_frames() -> None:
    frames = np.array([[1, 0], [0, 1], [0, 1], [0.5, 0.5]])
    found = segment_vectors(frames, np.array([1, 3]))
    assert found.tolist() == [[1, 0], [pytest.approx(1 / 6), pytest.approx(5 / 6)]]


@pytest.mark.parametrize("across", ["clips", "talkers"])
def test_pairs_are_what_they_are_called(across: Any) -> None:
    segments = make_segments(300)
    pairs = draw_pairs(segments, across, per_word=50)
    apart = segments.clips if across == "clips" else segments.talkers
    for kind in ("same", "other", "within"):
        a, b = getattr(pairs, kind).T
        assert (apart[a] != apart[b]).all()
        assert ((segments.words[a] == segments.words[b]) == (kind == "same")).all()
        assert np.bincount(segments.words[a]).tolist() == [50] * 8
        assert len({(i, j) for i, j in zip(a.tolist(), b.tolist(), strict=True)}) == len(a)
    a, b = pairs.within.T
    assert (segments.places[a] == segments.places[b]).all()
    a, b = pairs.other.T
    assert 0.4 < (segments.places[a] != segments.places[b]).mean() < 0.7
    again = draw_pairs(segments, across, per_word=50)
    assert all(np.array_equal(getattr(pairs, k), getattr(again, k)) for k in ("same", "within"))


def test_rare_partners_are_found() -> None:
    """One talker with nearly all clips, as in GRID talker 1 and a few of others."""
    segments = make_segments(400)
    lopsided = dataclasses.replace(segments, talkers=(segments.clips > 391).astype(int))
    pairs = draw_pairs(lopsided, "talkers", per_word=40)
    assert len(pairs.within) == 8 * 40
    # Fewer where there are not as many: all of them then.
    few = Segments(*(column[:24] for column in vars(segments).values()))
    wanted = {(i, j) for i, j in itertools.combinations(range(24), 2)
              if few.words[i] == few.words[j] and few.clips[i] != few.clips[j]}  # fmt: skip
    assert {(i, j) for i, j in draw_pairs(few).same.tolist()} == wanted


def test_pairs_are_limited_and_without_any_there_is_no_figure() -> None:
    pairs = draw_pairs(make_segments(300), per_word=100, most=900)
    assert [len(p) for p in (pairs.same, pairs.other, pairs.within)] == [300] * 3
    lonely = Segments(*(np.array(v) for v in ([0, 1], [0, 0], [0, 1], [0, 0])))
    with pytest.raises(ValueError, match="kind 'same' from different clips"):
        draw_pairs(lonely)


def auc(positive: Any, negative: Any) -> float:
    """Chance that a positive is above a negative; ties count half."""
    return float(mannwhitneyu(positive, negative).statistic / len(positive) / len(negative))


def test_figures_are_those_of_plain_loops() -> None:
    segments = make_segments(60)
    vectors = np.round(meaningful(segments, 1.5), 1)
    pairs = draw_pairs(segments, per_word=20)
    found = Discrimination(vectors, segments, pairs, draws=50)

    def cosine(i: int, j: int) -> float:
        a, b = vectors[i], vectors[j]
        return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))

    same, other, within = (
        [cosine(i, j) for i, j in rows.tolist()] for rows in (pairs.same, pairs.other, pairs.within)
    )
    assert similarities(vectors, pairs.same) == pytest.approx(same)
    assert found.values["same"] == pytest.approx(np.mean(same))
    assert found.values["other"] == pytest.approx(np.mean(other))
    assert found.values["auc"] == pytest.approx(auc(same, other))
    of_place, weights = [], []
    for place in (0, 1):
        ours = segments.places[pairs.same[:, 0]] == place
        theirs = segments.places[pairs.within[:, 0]] == place
        of_place.append(auc(np.array(same)[ours], np.array(within)[theirs]))
        weights.append(ours.sum())
    wanted = np.average(of_place, weights=weights)
    assert found.values["within_slot_auc"] == pytest.approx(wanted)


def test_resampled_figures_are_those_of_repeated_clips() -> None:
    """A draw of clips against the same pairs written out as often as their clips were drawn."""
    segments = make_segments(12, words=2)
    vectors = np.round(meaningful(segments, 1.0), 1)
    pairs = draw_pairs(segments, per_word=15)
    found = Discrimination(vectors, segments, pairs, draws=5, seed=7)
    counts = next(iter(resample_counts(12, draws=5, seed=7))).astype(int)
    for row, drawn in enumerate(counts):

        def repeated(rows: np.ndarray, drawn: np.ndarray = drawn) -> np.ndarray:
            times = drawn[segments.clips[rows]].prod(axis=1)
            return np.repeat(similarities(vectors, rows), times)

        wanted = auc(repeated(pairs.same), repeated(pairs.other))
        assert found.draws["auc"][row] == pytest.approx(wanted, abs=1e-6)


def test_place_alone_is_seen_across_slots_and_not_within() -> None:
    segments = make_segments(200)
    vectors = np.eye(2)[segments.places] + 0.01 * np.random.default_rng(0).normal(size=(400, 2))
    found = Discrimination(vectors, segments, draw_pairs(segments), draws=20).values
    assert found["auc"] > 0.7
    assert found["within_slot_auc"] == pytest.approx(0.5, abs=0.05)


def test_cosines_that_hardly_differ_keep_their_digits() -> None:
    """As those of a new memory: an interval in float32 left its own value out."""
    segments = make_segments(60)
    vectors = 1 + 1e-4 * meaningful(segments, 1.0)
    found = Discrimination(vectors, segments, draw_pairs(segments), draws=200).intervals()
    for kind in ("same", "other", "within"):
        low, value, high = (found[kind][end] for end in ("low", "value", "high"))
        assert low < value < high < 1 - 1e-9  # type: ignore[operator]


def test_without_a_place_of_both_kinds_there_is_no_figure_within() -> None:
    """Two sentences with their first word in common and another second one."""
    segments = Segments(*(np.array(v) for v in ([0, 1, 0, 2], [0, 1, 0, 1], [0, 0, 1, 1], [0] * 4)))
    found = Discrimination(np.eye(3)[[0, 1, 0, 2]], segments, draw_pairs(segments), draws=20)
    assert found.intervals()["within_slot_auc"] == {"value": None, "low": None, "high": None}
    assert found.ahead_of(found) == {"value": None, "low": None, "high": None}
    assert found.values["auc"] == 1


def test_permuted_labels_keep_their_place_and_lose_their_meaning() -> None:
    segments = make_segments(200)
    null = permute_within_places(segments, seed=1)
    for place in (0, 1):
        rows = segments.places == place
        assert sorted(null.words[rows]) == sorted(segments.words[rows])
    assert 0.2 < (null.words != segments.words).mean() < 0.9
    found = Discrimination(meaningful(segments, 0.5), null, draw_pairs(null), draws=10).values
    assert found["within_slot_auc"] == pytest.approx(0.5, abs=0.04)


def test_random_slots_are_addressed_by_equations_1_and_2() -> None:
    features = np.random.default_rng(3).normal(size=(5, 8))
    found = random_addresses(features, 4, radius=2.0, seed=9)
    memory = np.random.default_rng(9).normal(size=(4, 8))
    for row, feature in zip(found, features, strict=True):
        weights = [math.exp(2 * (m @ feature) / math.sqrt(m @ m) / math.sqrt(feature @ feature))
                   for m in memory]  # fmt: skip
        assert row == pytest.approx([w / sum(weights) for w in weights])


def test_agreement_is_a_mean_over_frames() -> None:
    source = [[[0.5, 0.5], [0.9, 0.1]], [[0.25, 0.75]]]
    target = [[[0.5, 0.5], [0.1, 0.9]], [[1.0, 0.0]]]
    found = {k: v["value"] for k, v in agreement(source, target, draws=50).items()}
    second = 0.1 * math.log(0.1 / 0.9) + 0.9 * math.log(0.9 / 0.1)
    assert found["kl"] == pytest.approx((0 + second + math.log(4)) / 3)
    assert found["top1"] == pytest.approx(1 / 3)
    cosines = [1, 0.18 / 0.82, 0.25 / math.hypot(0.25, 0.75)]
    assert found["cosine"] == pytest.approx(sum(cosines) / 3)
    same = agreement(source, source, draws=50)
    assert same["kl"]["value"] == 0 and same["cosine"]["value"] == pytest.approx(1)


def test_usage_sees_dead_and_one_hot_memories() -> None:
    even = slot_usage([np.full((3, 4), 0.25)])
    assert even["entropy"] == pytest.approx(math.log(4)) and even["used"] == 4
    assert even["entropy_share"] == pytest.approx(1) and even["mean_max"] == 0.25
    dead = slot_usage([np.eye(4)[[0, 0]], np.eye(4)[[0]]])
    assert (dead["entropy"], dead["used"], dead["mean_max"]) == (0, 1, 1)
    # 1 / (10 N) = 0.025 in the mean of two frames.
    edge = slot_usage([[[0.951, 0.049, 0, 0], [1, 0, 0, 0]]])
    assert edge["used"] == 1
    assert slot_usage([[[0.949, 0.051, 0, 0], [1, 0, 0, 0]]])["used"] == 2


@pytest.mark.slow
def test_real_mels_give_figures_of_the_reference(talker_one: list[Any], real_grid: Path) -> None:
    """evaluation.md section 4: four columns a frame, 64 principal dimensions, k-means slots."""
    from scipy.cluster.vq import kmeans2

    some = talker_one[::2]
    frames = np.stack([s.mel.numpy() for s in some]).reshape(len(some), 80, 75, 4)
    flat = frames.transpose(0, 2, 1, 3).reshape(-1, 320)
    flat = flat - flat.mean(axis=0)
    axes = np.linalg.eigh(flat.T @ flat)[1][:, -64:]
    features = (flat @ axes).reshape(len(some), 75, 64)
    spans, words = [], []
    for sentence in some:
        text = (real_grid / f"s1/align/{sentence.name}.align").read_text()
        timed = parse_align(text, set())
        spans.append([(round(a * 25), max(round(b * 25), round(a * 25) + 1)) for _, a, b in timed])
        words += [VOCABULARY.index(word) for word, _, _ in timed]
    clips = np.repeat(np.arange(len(some)), 6)
    segments = Segments(np.array(words), np.tile(range(6), len(some)), clips, np.zeros_like(clips))
    slots = kmeans2(features.reshape(-1, 64)[::5], 88, minit="++", seed=0)[0]
    logits = 16 * unit_rows(features) @ unit_rows(slots).T
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    trained = weights / weights.sum(axis=-1, keepdims=True)

    def measure(addresses: np.ndarray, known: Segments) -> dict[str, float]:
        vectors = np.stack([
            clip[first:last].mean(axis=0)
            for clip, words_here in zip(addresses, spans, strict=True)
            for first, last in words_here
        ])  # fmt: skip
        return Discrimination(vectors, known, draw_pairs(known), draws=10).values

    found = measure(trained, segments)
    assert [found[k] for k in ("same", "other")] == pytest.approx([0.745, 0.468], abs=0.05)
    assert found["auc"] == pytest.approx(0.838, abs=0.03)
    assert found["within_slot_auc"] == pytest.approx(0.792, abs=0.03)
    null = measure(trained, permute_within_places(segments))
    assert null["auc"] == pytest.approx(0.599, abs=0.03)
    assert null["within_slot_auc"] == pytest.approx(0.5, abs=0.015)
    blind = measure(random_addresses(features, 88), segments)
    assert blind["within_slot_auc"] == pytest.approx(0.79, abs=0.06)  # .765 there, untrained
