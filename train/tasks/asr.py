"""Words read from sound: a recogniser that can teach a lip reader."""

from typing import Any

from torch import Tensor, nn

from avb.models.asr import AudioReader, AudioReaderConfig
from avb.models.lip import word_loss
from avb.models.memory import Losses
from avb.pipeline.errors import UsageError
from avb.train.recipe import Recipe
from avb.train.tasks.lip import LipReading
from avb.train.tasks.task import Inputs, Scaling


class SpeechRecognition(LipReading):
    """`AudioReader` on the lip reader's words and mels; pictures are not looked at."""

    name = "asr"
    title = "Words from sound"
    summary = "Reads one word from its sound; it can teach a lip reader."
    config = AudioReaderConfig
    sees = False
    needs_target_sound = True

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return AudioReader(scaling.classes, AudioReaderConfig(**recipe.model))

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        logits = model(inputs.mel_BFM, inputs.ragged_lengths, inputs.boundary_BT)
        return Losses(recalled=word_loss(logits, inputs.labels, recipe.label_smoothing)), logits

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        return (output.argmax(dim=1) == inputs.labels).float()

    def needs_sound(self, recipe: Recipe) -> bool:
        return True

    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        raise UsageError("a reader of sound takes no pictures, and is not exported")


TASK = SpeechRecognition()
