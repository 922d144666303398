"""Whether what a model recalls is bound to words: its addresses beside four null models.

Segments are the words of the evaluated clips, frames whose middle lies inside the word; in GRID
all six of a sentence, in a corpus of single words the spoken one. Everything here looks at these
frames alone: silence is easily alike. What is measured, and why nothing counts without the nulls,
stands in `metrics/addressing.py` and `metrics/probes.py` (evaluation.md section 4).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avb.models.layout import channels_last
from avb.pipeline.stream.assemble import frames_between
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.train.evaluate.metrics import addressing
from avb.train.evaluate.metrics.addressing import Across, Discrimination, Pairs, Segments
from avb.train.evaluate.metrics.intervals import NO_FIGURE
from avb.train.evaluate.metrics.probes import CANDIDATES, probe, retrieval
from avb.train.tasks.task import Evaluation, Inputs

Floats = NDArray[np.float32]

CLIPS = 400
SENTENCES = 100  # where samples are words: 600 windows
CLIPS_PER_WORD = 10  # of a corpus of single words, where most words would else come once
TALKER_CLIPS = 10  # of each of two talkers, or pairs are drawn across clips
DRAWS = 1000
PROBE_FRAMES = 4000
SIDES = ("source", "target")


@dataclass(frozen=True)
class Collected:
    """Frames inside words, F in all, those of a segment side by side."""

    # Float32 [F x width] by name: the addresses `source` and `target` (A_src, A_tgt), the features
    # `source_features` and `target_features` (f_src, f_tgt), `recalled` (v_tgt), and the addresses
    # of the same network at initialisation, `initial_source` and `initial_target`.
    frames: dict[str, Floats]
    lengths: Ints  # frames of each of S segments
    segments: Segments  # their words, places, clips and talkers (-1: not known)

    @property
    def clip_of_frame(self) -> Ints:
        """Clip of each of the F frames."""
        return np.repeat(self.segments.clips, self.lengths)

    def by_clip(self, name: str) -> list[Floats]:
        """The frames of each clip."""
        clips = self.clip_of_frame
        order = np.argsort(clips, kind="stable")
        return np.split(self.frames[name][order], np.flatnonzero(np.diff(clips[order])) + 1)


@torch.no_grad()
def measure(evaluation: Evaluation, most: int | None = None, draws: int = DRAWS) -> dict[str, Any]:
    """The addressing part of an evaluation record.

    At most `most` of the clips are looked at, a seeded choice: by default 400, or 100 sentences if
    samples are words. Two networks then take a minute of one core.

    Returns:
        `source` and `target`, each with the figures of `Discrimination`, those of the `nulls` on
        the same pairs, and how far the within-slot AUC is `ahead_of` each, paired; `agreement`,
        `usage`, `probes`, `flags`. Without slots or without pairs: `value` None and the `reason`.
    """
    memory: Any = evaluation.model.memory
    recipe, rows = evaluation.recipe, evaluation.rows
    if not memory.slots:
        return {"value": None, "reason": "a model with 0 slots has no addresses"}
    most = most or (SENTENCES if recipe.unit == "word" else CLIPS)
    chosen = choose(evaluation.index, recipe.unit, rows, most)
    if not len(chosen):
        return {"value": None, "reason": "no clip has sound"}
    looked_at = dataclasses.replace(evaluation, rows=chosen)
    collected = collect(looked_at, {"": evaluation.model, "initial_": initial_model(evaluation)})
    if collected is None:
        return {"value": None, "reason": "no word of these clips has its times"}
    across: Across = "talkers" if _talkers(collected.segments) > 1 else "clips"
    permuted = addressing.permute_within_places(collected.segments)
    try:
        pairs, others = (addressing.draw_pairs(s, across) for s in (collected.segments, permuted))
    except ValueError as error:
        return {"value": None, "reason": str(error)}
    null = (permuted, others)
    measured = {side: _side(side, collected, memory, pairs, null, draws) for side in SIDES}
    by_clip = {side: collected.by_clip(side) for side in SIDES}
    return measured | {
        "agreement": addressing.agreement(by_clip["source"], by_clip["target"], draws),
        "usage": {side: addressing.slot_usage(frames) for side, frames in by_clip.items()},
        "probes": _probes(collected, draws),
        "flags": {
            "clips": len(chosen),
            "of": len(rows),
            "most": most,
            "segments": len(collected.segments),
            "words": len(np.unique(collected.segments.words)),
            "frames": len(collected.clip_of_frame),
            "talkers": len(np.unique(collected.segments.talkers)),
            "pairs": f"across {across}",
            "places": bool(collected.segments.places.any()),
            "radius": memory.radius,
            "draws": draws,
        },
    }


def choose(index: Index, unit: str, rows: Ints, most: int) -> Ints:
    """At most `most` of the rows, by lot; of single words, of fewer words 10 clips each."""
    rows = rows[~index.no_audio[rows]]
    if unit == "word" and len(rows):
        rows = index.timed_sentences(rows)
    if len(rows) <= most:
        return rows
    mixed = np.random.default_rng(0).permutation(rows)
    labels = index.label_id[mixed]
    if (labels >= 0).all():
        words = list(dict.fromkeys(labels.tolist()))
        mixed = np.concatenate([mixed[labels == word][:CLIPS_PER_WORD] for word in words])
    return np.sort(mixed[:most])


def initial_model(evaluation: Evaluation) -> nn.Module:
    """The network as its training began, evaluated the same way: weights of the recipe's seed."""
    recipe, scaling = evaluation.recipe, evaluation.scaling
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = channels_last(evaluation.task.build(recipe, scaling).to(evaluation.device))
    return model.eval()


def collect(evaluation: Evaluation, networks: dict[str, nn.Module]) -> Collected | None:
    """One pass of the rows with real audio, by each network; None if no word has its times."""
    index, unit = evaluation.index, evaluation.recipe.unit
    frames: dict[str, list[Floats]] = {}
    words: list[str] = []
    facts: list[tuple[int, int, int, int]] = []  # place, clip, talker and length of each segment
    clips: dict[str, int] = {}
    talkers: dict[str | None, int] = {None: -1}
    for batch, inputs in evaluation.batches():
        looked = {
            prefix + name: value.float().cpu().numpy()
            for prefix, network in networks.items()
            for name, value in addresses(network, inputs, features=not prefix).items()
        }
        for i, key in enumerate(batch.keys):
            for word, place, first, last in spoken(batch, i, index, unit):
                clip = clips.setdefault(key.split("#")[0], len(clips))
                talker = talkers.setdefault(batch.speakers[i], len(talkers) - 1)
                words.append(word)
                facts.append((place, clip, talker, last - first))
                for name, value in looked.items():
                    frames.setdefault(name, []).append(value[i, first:last])
    if not words:
        return None
    *facts_of, lengths = np.array(facts, np.int64).T
    segments = Segments(np.unique(words, return_inverse=True)[1].astype(np.int64), *facts_of)
    every = {name: np.concatenate(parts) for name, parts in frames.items()}
    return Collected(every, lengths, segments)


def addresses(network: Any, inputs: Inputs, features: bool = False) -> dict[str, Tensor]:
    """`source` and `target` of a batch, [B x T x N], and the features that they were found from."""
    lengths = inputs.ragged_lengths
    source_BTC, target_BTD = network.features(inputs.video_BCTHW, inputs.mel_BFM, lengths)
    bridge = network.memory(source_BTC, target_BTD)
    tensors = {"source": bridge.source_addressing, "target": bridge.target_addressing}
    if features:
        tensors |= {"source_features": source_BTC, "target_features": target_BTD}
        tensors["recalled"] = network.memory.recall(source_BTC).value
    return tensors


def spoken(batch: Batch, i: int, index: Index, unit: str) -> Iterator[tuple[str, int, int, int]]:
    """Word, place, first frame and the one after the last of each word of a sample, cut to it.

    A sentence has all its words; a sample of one word has that, at place 0, or as a sample cut from
    a sentence at its place there. Words without times, and those outside, are left out.
    """
    label = int(batch.label_id[i])
    words = [(word, place, start, end) for place, (word, start, end) in enumerate(batch.words[i])]
    if label >= 0:
        place = int(batch.keys[i].split("#")[1]) if unit == "word" else 0
        start, end = batch.boundary[i].tolist()
        words = [(index.labels[label], place, start, end)]
    fps, length = index.dataset["settings"]["fps"], int(batch.lengths[i])
    for word, place, start_s, end_s in words:
        if start_s is None or end_s is None or not start_s < end_s:  # not known, or NaN
            continue
        first, last = frames_between(start_s, end_s, fps)
        first, last = max(first, 0), min(last, length)
        if first < last:
            yield word, place, first, last


def _talkers(segments: Segments) -> int:
    """Talkers with enough clips to pair with those of others."""
    pairs = set(zip(segments.talkers.tolist(), segments.clips.tolist(), strict=True))
    counts = Counter(talker for talker, _ in pairs if talker >= 0)
    return sum(count >= TALKER_CLIPS for count in counts.values())


def _side(
    side: str, collected: Collected, memory: Any, pairs: Pairs, permuted: tuple[Segments, Pairs],
    draws: int,
) -> dict[str, Any]:  # fmt: skip
    """Figures of one side's addresses and of its null models, and the trained one's lead."""
    features = collected.frames[f"{side}_features"]
    # What the trained memory compares with its slots; only the slots are random.
    project: nn.Module = memory.query if side == "source" else memory.value
    projected = project(torch.from_numpy(features).to(memory.key_memory.device)).cpu().numpy()
    random = addressing.random_addresses(projected, memory.slots, memory.radius)
    values: dict[str, Any] = {
        "trained": collected.frames[side],
        "initial": collected.frames[f"initial_{side}"],
        "random_slots": random,
        "features": features,
    }
    vectors = {n: addressing.segment_vectors(v, collected.lengths) for n, v in values.items()}
    measured = {n: Discrimination(v, collected.segments, pairs, draws) for n, v in vectors.items()}
    trained = measured.pop("trained")
    # Its words are others, and so are its pairs; the resampled clips are the same.
    measured["permuted"] = Discrimination(vectors["trained"], *permuted, draws)
    return trained.intervals() | {
        "nulls": {name: null.intervals() for name, null in measured.items()},
        "ahead_of": {name: trained.ahead_of(null) for name, null in measured.items()},
    }


def _probes(collected: Collected, draws: int) -> dict[str, Any]:
    """What a line can tell apart, and whether the recalled frame finds the real one."""
    clips = collected.clip_of_frame
    picked = np.arange(len(clips))
    if len(clips) > PROBE_FRAMES:
        picked = np.sort(np.random.default_rng(0).choice(len(clips), PROBE_FRAMES, replace=False))
    video, real, recalled = (
        collected.frames[name][picked]
        for name in ("source_features", "target_features", "recalled")
    )

    def attempt(function: Callable[..., Any], first: Floats, second: Floats) -> dict[str, Any]:
        try:
            if first.shape != second.shape:
                raise ValueError(f"features of {first.shape[1]} and {second.shape[1]} numbers")
            return function(first, second, clips[picked], draws=draws)
        except ValueError as error:
            return NO_FIGURE | {"reason": str(error)}

    return {
        "visual_vs_audio": attempt(probe, video, real),
        "recalled_vs_real": attempt(probe, recalled, real),
        "retrieval": attempt(retrieval, recalled, real),
        "chance": {"probe": 0.5, "retrieval": 1 / CANDIDATES},
        "frames": len(picked),
    }
