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
    """B samples, padded at the end to the longest: T frames, M mel columns."""

    keys: list[str]  # names of the samples; a word of a sentence is `s1/bbaf2n#3` (counted from 0)
    video: dict[str, Tensor]  # per crop uint8 [B, T, H, W], padding 0
    # Float32 [B, 80, M], natural log, padding ln(floor); None if not asked for. A film without
    # sound (flag `no_audio`) has silence as long as its pictures.
    mel: Tensor | None
    lengths: Tensor  # int64 [B], frames of each sample
    mel_lengths: Tensor  # int64 [B], mel columns of each sample
    label_id: Tensor  # int64 [B] in the class list, -1 where there is no label
    # Float32 [B, 2], start and end of the labelled word in seconds from the first frame, NaN where
    # not known.
    boundary: Tensor
    epoch: Tensor  # int64 [B], the epoch that each sample belongs to
    speakers: list[str | None]  # talker of each sample
    # Word, start and end in seconds of all words of the sample's clip; in a word sample from its
    # first frame too, and so partly outside of it.
    words: list[list[Word]]
    # Int64 [B, L], classes of a sentence's words or characters, padding -1; None of other units
    tokens: Tensor | None = None
    # Int64 [B, T], class of the word in each frame, silence being the number of classes; -1 in
    # padding, and throughout a clip with a word without times. None of other units than `sentence`.
    frames: Tensor | None = None
    audio: Tensor | None = None  # float32 [B, samples], padding 0; None if not asked for
    audio_lengths: Tensor | None = None  # int64 [B]

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
