"""Speech measured: the model's beside the ceiling and the floors on the same clips."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avb.pipeline.config import Mel, build
from avb.pipeline.index import Index, Ints
from avb.train import task
from avb.train.measures import bounds, sentence, speech
from avb.train.recipe import Recipe

GL_ITERATIONS, GL_MOMENTUM = 60, 0.99


def measure(
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
    for batch in task.one_pass(index, recipe, rows, audio=True):
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
