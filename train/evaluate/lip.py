"""Lip reading measured: accuracy from video alone, mirrored, with real audio, and with both."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avb.models.masks import Boundary, boundary_as
from avb.pipeline.stream.index import Index, Ints
from avb.train.evaluate.extras import Extras
from avb.train.evaluate.metrics import lip
from avb.train.evaluate.metrics.intervals import ratio_interval
from avb.train.network import finite
from avb.train.tasks.task import Evaluation

log = logging.getLogger(__name__)


def measure(evaluation: Evaluation, extras: Extras) -> dict[str, Any]:
    """Words: from video alone, with the mirrored clip added, with real audio, with both."""
    recipe, index, boundary = evaluation.recipe, evaluation.index, extras.boundary
    logits, labels, keys, speakers = _one_pass(evaluation, boundary)
    sentences = [key.split("#")[0] for key in keys]
    mute = {index.key(row) for row in evaluation.rows if index.no_audio[row]}
    heard = np.array([sentence not in mute for sentence in sentences])
    if not heard.any():
        logits.pop("audio", None)
    if "audio" in logits:
        logits["both"] = logits["video"] + logits["audio"]
    places: list[int] | None = None
    if recipe.unit == "word" and index.dataset["corpus"] == "grid":  # whose slots are the same
        places = [int(key.split("#")[1]) for key in keys]
    # Words of a sentence share light and talker: whole sentences are drawn.
    talkers = speakers if extras.unseen_talkers else None
    drawing: dict[str, Any] = {"units": sentences, "talkers": talkers}
    video = lip.score(logits.pop("video"), labels, index.labels, places=places, **drawing)
    clips = [
        {"key": key, "talker": talker or ""} | clip
        for key, talker, clip in zip(keys, speakers, video["clips"], strict=True)
    ]
    metrics = dict(video["metrics"])
    for name, values in logits.items():
        own = np.flatnonzero(heard | (name == "mirrored")).tolist()
        right = lip.label_ranks(values[own], labels[own]) == 0
        drawn: dict[str, Any] = {how: of and [of[i] for i in own] for how, of in drawing.items()}
        metrics[f"top1_{name}"] = ratio_interval(right, np.ones(len(own)), **drawn)
        for i, hit in zip(own, right.tolist(), strict=True):
            clips[i][lip.HITS[f"top1_{name}"]] = hit
    # Accuracy of always saying the word that is most frequent in these clips.
    most_frequent = float(np.bincount(labels).max() / len(labels))
    floors = {"chance": 1 / len(index.labels), "most_frequent": most_frequent}
    if places is not None and extras.known_rows.size:
        floors |= lip.blind(*_spoken(index, extras.known_rows), *_spoken(index, evaluation.rows))
    flags: dict[str, Any] = {"n": len(labels), "unit": recipe.unit}
    if recipe.unit == "word":
        words = (index.first_word[evaluation.rows + 1] - index.first_word[evaluation.rows]).sum()
        if left_out := int(words) - len(labels):
            log.info(f"{left_out} of {words} words have no times or no class (left out)")
            flags["words_left_out"] = left_out
    return {
        "task": "lip",
        "metrics": metrics,
        "ceiling": {"top1_audio": metrics.get("top1_audio")},
        "floors": floors,
        "flags": flags
        | {
            "boundary": recipe.model.get("word_boundary", False)
            and (boundary == "told" or boundary),
            "flip": "top1 without; top1_mirrored adds the mirrored clip's logits",
        },
        **{k: video[k] for k in ("per_class", "per_slot", "per_length", "confusions")},
        "clips": clips,
    }


def _spoken(index: Index, rows: Ints) -> tuple[Ints, Ints]:
    """Of each timed word of these sentences: its place, its length in frames; and its class."""
    first, places = index.timed_words(rows)
    words = np.repeat(index.first_word[rows], np.diff(first)) + places
    frames = np.rint(np.diff(index.word_s[words])[:, 0] * index.dataset["settings"]["fps"])
    class_of = np.array([index.class_of.get(name, -1) for name in index.word.names])
    return np.stack([places, frames.astype(np.int64)], axis=1), class_of[index.word.codes[words]]


def _one_pass(
    evaluation: Evaluation, boundary: Boundary
) -> tuple[dict[str, Any], Ints, list[str], list[str | None]]:
    """Logits by what was looked at, [clips, classes]; labels, keys and talkers of the clips."""
    model = evaluation.model
    logits: dict[str, list[Tensor]] = {"video": [], "mirrored": [], "audio": []}
    labels: list[int] = []
    keys: list[str] = []
    talkers: list[str | None] = []
    for batch, inputs in evaluation.batches():
        lengths = inputs.ragged_lengths
        told = boundary_as(boundary, inputs.boundary_BT, lengths)
        output = model(inputs.video_BCTHW, inputs.mel_BFM, lengths, told)
        mirrored = model(inputs.video_BCTHW.flip(-1), None, lengths, told)
        logits["video"].append(finite(output.logits).float().cpu())
        logits["mirrored"].append(finite(output.logits + mirrored.logits).float().cpu())
        if output.real_logits is not None:
            logits["audio"].append(finite(output.real_logits).float().cpu())
        labels += batch.label_id.tolist()
        keys += batch.keys
        talkers += batch.speakers
    arrays = {name: torch.cat(parts).numpy() for name, parts in logits.items() if parts}
    return arrays, np.array(labels), keys, talkers
