"""Lip to speech: the log-mel of the speech that belongs to a silent face."""

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avb.models.masks import frame_mask, keep_real
from avb.models.memory import Losses
from avb.models.speech import DECODERS, SpeechConfig, SpeechReconstructor, speech_losses
from avb.models.sync import envelope_logits
from avb.models.tacotron import TacotronDecoder
from avb.pipeline.errors import UsageError
from avb.train.recipe import Recipe, check_arguments
from avb.train.tasks.task import Evaluation, Inputs, Scaling, Task


class LipToSpeech(Task):
    """`SpeechReconstructor` on true mels: L1, scored by minus the L1 of the result."""

    name = "l2s"
    makes = "speech"
    title = "Lip to speech"
    summary = "Makes the log-mel of the speech that belongs to silent pictures of a face."
    config = SpeechConfig
    data = Path("shards/grid")
    cpu_batch = 2  # it keeps 0.33 GiB a clip for the backward pass
    pixels = "x / 255"
    tolerance = 5e-3  # natural-log mels
    output = ("mel", "mel, natural log [batch x bins x columns]")
    any_length = False  # the exporter forgets that an LSTM's frames are any number
    loss, score_name = "mel L1, both outputs", "minus mel L1"
    figures = ("stoi",)

    def network(self, recipe: Recipe, scaling: Scaling, side: int) -> nn.Module:
        return SpeechReconstructor(SpeechConfig(**recipe.model), side, channels=1)

    def check_model(self, arguments: dict[str, Any], where: str) -> None:
        super().check_model(arguments, where)
        if sizes := arguments.get("decoder_sizes"):
            config = DECODERS[arguments.get("decoder", "tacotron")][1]
            check_arguments(config, sizes, "model.decoder_sizes", where)

    def scale_pixels(self, video: Tensor, scaling: Scaling) -> Tensor:
        return video.float() / 255

    def scale_mel(self, mel_BFM: Tensor, lengths_B: Tensor, scaling: Scaling) -> Tensor:
        return scaling.to_speech_range(mel_BFM)

    def losses(self, model: nn.Module, inputs: Inputs, recipe: Recipe) -> tuple[Losses, Any]:
        ratio = recipe.teacher_ratio if model.training else None
        output = model(inputs.video_BCTHW, inputs.mel_BFM, inputs.ragged_lengths, ratio)
        return speech_losses(output, inputs.mel_BFM), output

    def score(self, output: Any, inputs: Inputs) -> Tensor:
        """Minus the L1 of the mel."""
        columns_B = 4 * inputs.lengths_B
        error_BFM = (output.mels.after.float() - inputs.mel_BFM).abs()
        error_BFM = keep_real(error_BFM, frame_mask(columns_B, error_BFM.shape[2]), 2)
        return -error_BFM.sum((1, 2)) / (columns_B * error_BFM.shape[1])

    def shift_logits(self, model: nn.Module, inputs: Inputs, scaling: Scaling) -> Tensor:
        """By the speech that it makes of the lips alone."""
        made_BFM = model(inputs.video_BCTHW, None, inputs.ragged_lengths).mels.after
        made_BFM, true_BFM = map(scaling.from_speech_range, (made_BFM, inputs.mel_BFM))
        real_BM = frame_mask(4 * inputs.lengths_B, made_BFM.shape[2])
        return envelope_logits(made_BFM, true_BFM, real_BM)

    def measure(self, evaluation: Evaluation, extras: Any) -> dict[str, Any]:
        from avb.train.evaluate import speech

        return speech.measure(evaluation, extras)

    def graph(self, model: nn.Module, recipe: Recipe, scaling: Scaling) -> nn.Module:
        if isinstance(getattr(model, "decoder", None), TacotronDecoder):
            raise UsageError(
                "a Tacotron decoder feeds on its own columns, so it is no single ONNX graph; use"
                " --to safetensors, or train with --set model.decoder=synchronous"
            )
        return _Graph(model, recipe.shrink, scaling)

    def variants(self, recipe: Recipe) -> dict[str, Recipe]:
        own = recipe.model.get("decoder", "tacotron")
        others = {k: v for k, v in recipe.model.items() if k != "decoder_sizes"}
        return {own: recipe} | {
            name: dataclasses.replace(recipe, model=others | {"decoder": name})
            for name in DECODERS
            if name != own
        }


class _Graph(nn.Module):
    """Pictures of a face to the log-mel of its speech."""

    def __init__(self, model: nn.Module, shrink: int, scaling: Scaling) -> None:
        super().__init__()
        self.model, self.shrink, self.scaling = model, shrink, scaling

    def forward(self, video: Tensor) -> Tensor:
        """Natural-log mel [B x F x 4 T] of uint8 [B x T x S x S]."""
        pixels = TASK.network_pixels(video, self.shrink, self.scaling)
        mel = self.scaling.from_speech_range(self.model(pixels[:, None]).mels.after)
        return mel.clamp(self.scaling.mel_low, self.scaling.mel_high)


TASK = LipToSpeech()
