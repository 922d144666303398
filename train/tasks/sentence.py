"""Lip reading of sentences: what a silent mouth says, without being told where words lie."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avb.models import ctc
from avb.models.lip import LipConfig
from avb.models.memory import Losses
from avb.models.sentence import SentenceReader, sentence_losses
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.train.recipe import Recipe
from avb.train.tasks.lip import LipReading
from avb.train.tasks.task import Evaluation, Inputs, Scaling


class SentenceReading(LipReading):
    """`SentenceReader` on the words or characters of clips: CTC, scored by edit distance."""

    name = "sentence"
    command = "lip"
    data = Path("shards/grid")
    title = "Lip reading of sentences"
    summary = "Reads sentences from silent pictures of a mouth; speech is recalled from its memory."
    makes = "sentence"
    output = ("logits", "logits [batch x frames x tokens + 1], the last is blank")
    loss, score_name = "CTC (nats by token)", "tokens right"
    figures = ("wer_grammar", "wer_free")

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return SentenceReader(scaling.classes, LipConfig(**recipe.model))

    def complete(
        self, inputs: Inputs, batch: Batch, recipe: Recipe, scaling: Scaling, train: bool
    ) -> Inputs:
        """With the tokens of each clip and, where words have times, those of its frames."""
        assert batch.tokens is not None
        frames = batch.frames if recipe.frame_weight else None
        return dataclasses.replace(inputs, labels=batch.tokens, frames_BT=frames)

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        output = model(inputs.video_BCTHW, inputs.mel_BFM, inputs.ragged_lengths)
        tokens, frames = inputs.labels, inputs.frames_BT
        losses = sentence_losses(output, tokens, inputs.lengths_B, frames, recipe.frame_weight)
        return losses, output

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        """1 less the edit distance over the tokens of the clip; it may be negative."""
        heard = ctc.greedy(output.logits, inputs.ragged_lengths)
        said = [[t for t in row if t != ctc.NONE] for row in inputs.labels.tolist()]
        return torch.tensor(
            [1 - ctc.edit_distance(s, h) / len(s) for s, h in zip(said, heard, strict=True)]
        )

    def usable_rows(self, index: Index, rows: Ints, recipe: Recipe) -> Ints:
        """Those whose words are all known, and that have a frame for each token.

        Between two equal tokens there must be a blank. To train on windows, words need times.
        """
        tokens = index.tokens(rows, recipe.unit)
        least = [len(t) + sum(a == b for a, b in zip(t, t[1:], strict=False)) for t in tokens]
        usable = (np.array(least) > 0) & (index.num_frames[rows] >= least)
        if recipe.window:  # which words are in it?
            usable &= [all(None not in word for word in index.words(row)) for row in rows]
        return rows[usable]

    def measure(self, evaluation: Evaluation, extras: Any) -> dict[str, Any]:
        from avb.train.evaluate import sentence

        return sentence.measure(evaluation, extras)


TASK = SentenceReading()
