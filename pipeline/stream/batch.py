"""What the reader hands out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Word = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class Batch:
    """B samples, padded at the end to the longest: T frames, M mel columns.

    Attributes:
        keys: names of the samples; a word of a sentence is `s1/bbaf2n#3` (counted from 0).
        video: per crop uint8 [B, T, H, W], padding 0.
        mel: float32 [B, 80, M], natural log, padding ln(floor); None if not asked for. A film
            without sound (flag `no_audio`) has silence as long as its pictures.
        lengths: int64 [B], frames of each sample.
        mel_lengths: int64 [B], mel columns of each sample.
        label_id: int64 [B] in the class list, -1 where there is no label.
        boundary: float32 [B, 2], start and end of the labelled word in seconds from the first
            frame, NaN where not known.
        epoch: int64 [B], the epoch that each sample belongs to.
        speakers: talker of each sample.
        words: word, start and end in seconds of all words of the sample's clip; in a word sample
            from its first frame too, and so partly outside of it.
        audio: float32 [B, samples], padding 0; None if not asked for.
        audio_lengths: int64 [B].
    """

    keys: list[str]
    video: dict[str, Tensor]
    mel: Tensor | None
    lengths: Tensor
    mel_lengths: Tensor
    label_id: Tensor
    boundary: Tensor
    epoch: Tensor
    speakers: list[str | None]
    words: list[list[Word]]
    audio: Tensor | None = None
    audio_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """One batch of several whose samples are of the same lengths, as those of words."""
        if len(batches) == 1:
            return batches[0]

        def join(parts: list[Any]) -> Any:
            if isinstance(parts[0], dict):
                return {key: join([part[key] for part in parts]) for key in parts[0]}
            if isinstance(parts[0], Tensor):
                return torch.cat(parts)
            return None if parts[0] is None else [x for part in parts for x in part]

        fields = dataclasses.fields(Batch)
        return Batch(**{f.name: join([getattr(b, f.name) for b in batches]) for f in fields})

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`; asynchronous from pinned memory."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch with its tensors in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> Batch:
        changed: dict[str, Any] = {
            field.name: function(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        changed["video"] = {name: function(frames) for name, frames in self.video.items()}
        return dataclasses.replace(self, **changed)
