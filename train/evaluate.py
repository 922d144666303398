"""`avb eval`: one pass of a checkpoint over a part of its split, as one JSON record.

Unit, crop, mel and split come from the checkpoint. The record holds every flag that a number needs
to be compared, the per-clip values, and the ceiling and floors on the same clips; the means are
derived from the per-clip values.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avb.pipeline.config import Corpus, Mel, UsageError, build
from avb.pipeline.index import Index, Ints
from avb.pipeline.stream import Stream
from avb.train import checkpoint, task
from avb.train.measures import bounds, lip, sentence, speech
from avb.train.recipe import Recipe, make_recipe
from avb.train.split import split_rows

GL_ITERATIONS, GL_MOMENTUM = 60, 0.99


def evaluate(
    kind: str,
    path: Path,
    index: Index,
    corpus: Corpus,
    part: str = "test",
    device: str = "cpu",
    limit: int | None = None,
) -> dict[str, Any]:
    """Evaluate the checkpoint `path` on one part (train, val, test or all) of its split.

    Raises:
        UsageError: a checkpoint of another task or label map, or an empty part.
    """
    state = checkpoint.load(path, kind)
    recipe = make_recipe(kind, state["recipe"], path.name)  # type: ignore[arg-type]
    if state["data"]["labels"] != index.labels:
        raise UsageError(f"{index.folder}: its label map is not the one {path} was trained on")
    scaling = task.Scaling(**state["scaling"])
    model = task.build_model(recipe, scaling)
    model.load_state_dict(state["ema"] or state["model"])
    model.eval().to(device)
    rows = part_rows(index, corpus, state["data"]["split"], part)[:limit]
    torch.manual_seed(0)  # the pre-net's dropout stays on
    run = _lip if recipe.task == "lip" else _speech
    with torch.no_grad():
        record = run(model, recipe, scaling, index, rows, torch.device(device))
    record["flags"] |= {
        "part": part,
        "split": state["data"]["split"],
        "split_source": state["data"]["split_source"],
        "limit": limit,
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "step": state["counters"]["step"],
        "seed": recipe.seed,
        "slots": recipe.model.get("slots", "default"),
        "fingerprint": index.dataset["fingerprint"],
        "trained_on": state["data"]["fingerprint"],
        "device": device,
        "torch": str(torch.__version__),
    }
    return record


def part_rows(index: Index, corpus: Corpus, split: str, part: str) -> Ints:
    """Rows of one part of a split, or all."""
    if part == "all":
        return np.arange(len(index))
    return split_rows(index, corpus, split, need=(part,)).rows[part]


def _batches(index: Index, recipe: Recipe, rows: Ints, audio: bool) -> Stream:
    return Stream(
        index, rows=rows, batch_size=recipe.batch_size, crops=(recipe.crop,), unit=recipe.unit,
        once=True, audio=audio, workers=0,
    )  # fmt: skip


def _lip(
    model: nn.Module, recipe: Recipe, scaling: task.Scaling, index: Index, rows: Ints,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Words: from video alone, with the mirrored clip added, with real audio, with both."""
    found: dict[str, list[Tensor]] = {"video": [], "mirrored": [], "audio": []}
    labels: list[int] = []
    keys: list[str] = []
    for batch in _batches(index, recipe, rows, audio=False):
        inputs = task.prepare(batch, recipe, scaling, device, train=False)
        lengths = inputs.lengths_B if inputs.ragged else None
        output = model(inputs.video_BCTHW, inputs.mel_BFM, lengths, inputs.boundary_BT)
        mirrored = model(inputs.video_BCTHW.flip(-1), None, lengths, inputs.boundary_BT)
        found["video"].append(output.logits.float().cpu())
        found["mirrored"].append((output.logits + mirrored.logits).float().cpu())
        if output.real_logits is not None:
            found["audio"].append(output.real_logits.float().cpu())
        labels += batch.label_id.tolist()
        keys += batch.keys
    logits = {name: torch.cat(parts).numpy() for name, parts in found.items() if parts}
    if "audio" in logits:
        logits["both"] = logits["video"] + logits["audio"]
    words = recipe.unit == "word"
    options: dict[str, Any] = {}
    if words:  # words of one sentence share its light and its talker: intervals draw sentences
        options["talkers"] = [key.split("#")[0] for key in keys]
        options["places"] = [int(key.split("#")[1]) for key in keys]
    scored = {name: lip.score(v, labels, index.labels, **options) for name, v in logits.items()}
    video = scored["video"]
    metrics = dict(video["metrics"])
    for name in ("mirrored", "audio", "both"):
        if name in scored:
            metrics[f"top1_{name}"] = scored[name]["metrics"]["top1"]
    return {
        "task": "lip",
        "metrics": metrics,
        "ceiling": {"top1_audio": metrics.get("top1_audio")},
        "floors": {"chance": 1 / len(index.labels), "most_frequent": _most_frequent(labels)},
        "flags": {
            "n": len(labels),
            "unit": recipe.unit,
            "boundary": bool(recipe.model.get("word_boundary", False)),
            "flip": "top1 without; top1_mirrored adds the mirrored clip's logits",
        },
        **{k: video[k] for k in ("per_class", "per_slot", "confusions") if k in video},
        "clips": [
            {
                "key": k,
                "label": index.labels[t],
                "said": index.labels[int(p)],
                "right": bool(t == p),
            }
            for k, t, p in zip(keys, labels, logits["video"].argmax(1), strict=True)
        ],
    }


def _most_frequent(labels: list[int]) -> float:
    """Accuracy of always saying the word that is most frequent in these clips."""
    return float(np.bincount(labels).max() / len(labels))


def _speech(
    model: nn.Module, recipe: Recipe, scaling: task.Scaling, index: Index, rows: Ints,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Speech: the model's, beside the ceiling (Griffin-Lim of the true mel) and the floors."""
    plain = index.dataset["mel"]
    mel = build(Mel, {k: plain[k] for k in Mel.__dataclass_fields__}, "dataset.json: mel")
    sounds: list[Any] = []
    true: list[Tensor] = []
    made: list[Tensor] = []
    facts: list[dict[str, Any]] = []
    for batch in _batches(index, recipe, rows, audio=True):
        inputs = task.prepare(batch, recipe, scaling, device, train=False)
        lengths = inputs.lengths_B if inputs.ragged else None
        output = model(inputs.video_BCTHW, None, lengths)
        mels = task.from_speech_range(output.mels.after.float(), scaling)
        assert batch.audio is not None and batch.audio_lengths is not None and batch.mel is not None
        for i, key in enumerate(batch.keys):
            columns = int(batch.mel_lengths[i])
            sounds.append(batch.audio[i, : int(batch.audio_lengths[i])].numpy())
            true.append(batch.mel[i, :, :columns].to(device))
            made.append(mels[i, :, :columns].clamp(scaling.mel_low, scaling.mel_high))
            words = [w for w, _, _ in batch.words[i]]
            facts.append({"key": key, "talker": batch.speakers[i] or "", "words": words})
    options: dict[str, Any] = {"iterations": GL_ITERATIONS, "momentum": GL_MOMENTUM}
    signals: dict[str, list[Any]] = {"model": list(bounds.invert_all(made, mel, **options))}
    talkers = [f["talker"] for f in facts]
    signals |= bounds.bounds(sounds, true, talkers, mel, **options)
    scored = {name: _score(name, sounds, out, facts, mel) for name, out in signals.items()}
    return {
        "task": "l2s",
        "metrics": scored["model"]["metrics"],
        "ceiling": scored["ceiling"]["metrics"],
        "floors": {k: v["metrics"] for k, v in scored.items() if k not in ("model", "ceiling")},
        "plain": scored["model"]["plain"],
        "talkers": scored["model"]["talkers"],
        "failures": scored["model"]["failures"],
        "flags": {
            "n": len(facts),
            "pesq_mode": "pesq_nb8 is the headline: narrow band at 8 kHz",
            "gl_iters": GL_ITERATIONS,
            "gl_momentum": GL_MOMENTUM,
            "length_rule": "min",
            "wer_judge": "avb train judge is not there yet",
        },
        "clips": scored["model"]["clips"],
    }


def _score(
    name: str, sounds: list[Any], outputs: list[Any], facts: list[dict[str, Any]], mel: Mel
) -> dict[str, Any]:
    """Per-clip scores of one signal and what they sum up to, with the word error if it can be."""
    clips = []
    for sound, output, fact in zip(sounds, outputs, facts, strict=True):
        if output is not None:  # a lone clip of its talker has no other sentence
            clips.append(fact | speech.score_clip(sound, output[: len(sound)], mel))
    summary = speech.summarise(clips)
    spoken = [(o, f["words"]) for o, f in zip(outputs, facts, strict=True) if o is not None]
    if spoken and all(len(words) == len(sentence.SLOT_WORDS) for _, words in spoken):
        try:
            from avb.train.measures import sphinx

            heard = [sphinx.transcribe(output) for output, _ in spoken]
        except ImportError:
            summary["metrics"]["wer_pocketsphinx"] = {
                "value": None, "low": None, "high": None, "reason": "pip install 'avb[eval]'",
            }  # fmt: skip
        else:
            rate = sentence.word_error_rate([words for _, words in spoken], heard)
            summary["metrics"]["wer_pocketsphinx"] = rate["wer"]
            for clip, words in zip(clips, heard, strict=True):
                clip["heard"] = words
    return summary | {"clips": clips}
