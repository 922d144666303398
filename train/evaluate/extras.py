"""What an evaluation may be given beside the model and the clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avb.models.masks import Boundary
from avb.pipeline.stream.index import Ints
from avb.train.evaluate.words.reading import Slots
from avb.train.evaluate.words.trained import TrainedRecogniser
from avb.train.vocoder.file import Vocoder


@dataclass(frozen=True)
class Extras:
    """What a pass may be given beside the model."""

    judge: TrainedRecogniser | None  # None: `wer_judge` is null, with the reason
    wavs: Path | None  # where the sounds are written
    unseen_talkers: bool  # whether intervals draw talkers
    known_rows: Ints  # clips of training, for the floors; there may be none
    boundary: Boundary  # what a lip reader with `word_boundary` is told of where the word is
    # The model sees 40 frames at a time, 30 apart, as the paper's samples were made (paper.md 5.4).
    # `cut` leaves out the frames after the last whole window, 5 of 75, as they do; `covered` adds a
    # window that ends with the clip. None: whole clips.
    windows: str | None
    # Words of each place of a sentence, or a list of words: what a reader of sentences may say.
    grammar: Slots | None
    vocoder: Vocoder | None  # makes the sounds; None: plain Griffin-Lim
    # As published rows have it: no momentum, magnitudes to the power of 1.5.
    griffin_lim: Literal["fast", "published"]
