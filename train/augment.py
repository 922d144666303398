"""Augmentation on the device: uint8 pictures as stored in, what the network sees out.

Every draw is a function of (seed, epoch, key), so a clip's augmentation depends neither on the
batch it falls into nor on the number of processes, and a resumed run repeats it. Axis letters: B
clips, T frames, H rows, W columns, F mel bins, M mel columns.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from avb.models.masks import along, frame_mask, keep_real
from avb.pipeline.config import stable_hash
from avb.pipeline.stream.assemble import frames_between
from avb.pipeline.stream.batch import Batch, Word
from avb.train.recipe import Augment

#: Pictures a second of all that networks are given.
FPS = 25


@dataclass(frozen=True)
class Draws:
    """What was drawn for each clip of a batch, as tensors of length B on the device."""

    look_B5: Tensor  # -1 to 1: of turn, zoom, brightness, contrast and gamma
    shift_x: Tensor
    shift_y: Tensor
    flip: Tensor
    erase_x: Tensor
    erase_y: Tensor
    first_bin: Tensor
    num_bins: Tensor
    first_column: Tensor
    num_columns: Tensor
    first_frame: Tensor
    num_frames: Tensor


def draw(batch: Batch, recipe: Augment, size: int, mel_bins: int, seed: int) -> Draws:
    """Draw for every clip of a batch; `size` is the side of the crop in pixels."""
    rngs = (_rng(batch, i, seed) for i in range(len(batch)))
    drawn = (_draw_one(recipe, size, mel_bins, int(frames), rng)
             for rng, frames in zip(rngs, batch.lengths, strict=True))  # fmt: skip
    rows, looks = zip(*drawn, strict=True)
    columns = torch.tensor(rows, dtype=torch.int64).T
    return Draws(torch.tensor(np.stack(looks), dtype=torch.float32), *columns)


def _rng(batch: Batch, clip: int, seed: int, *more: int) -> np.random.Generator:
    return np.random.default_rng(
        [seed, int(batch.epoch[clip]), stable_hash(batch.keys[clip]), *more]
    )


def _draw_one(
    recipe: Augment, size: int, bins: int, frames: int, rng: np.random.Generator
) -> tuple[list[int], Any]:
    def up_to(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    shift_x, shift_y = up_to(-recipe.jitter, recipe.jitter), up_to(-recipe.jitter, recipe.jitter)
    flip = int(rng.random() < recipe.flip)
    # As the released code: the square may stick out of the picture by a third of its side.
    reach = recipe.erase * 20 // 56
    erase_x, erase_y = (up_to(-reach, max(-reach, size - recipe.erase + reach // 2)) for _ in "xy")
    num_bins, num_columns = up_to(0, recipe.mask_bins), up_to(0, recipe.mask_columns)
    num_frames = up_to(0, min(recipe.mask_frames, frames - 1))
    drawn = [
        shift_x, shift_y, flip, erase_x, erase_y,
        up_to(0, max(0, bins - num_bins)), num_bins,
        up_to(0, max(0, 4 * frames - num_columns)), num_columns,
        up_to(0, frames - num_frames), num_frames,
    ]  # fmt: skip
    return drawn, rng.uniform(-1, 1, 5)


def window(batch: Batch, frames: int, seed: int) -> Batch:
    """The same clips, `frames` of each from a drawn one on with their sound, shorter ones whole.

    Of a sentence, those words are left whose middle is inside; frames of others are not known.
    """
    assert batch.mel is not None
    lasts = (batch.lengths - frames).clamp_min(0).tolist()
    starts = [int(_rng(batch, i, seed, 2).integers(0, last + 1)) for i, last in enumerate(lasts)]
    per_frame = batch.mel.shape[2] // int(batch.lengths.max())

    def cut(values: Tensor, axis: int, each: int) -> Tensor:
        pieces = [clip.narrow(axis, each * start, each * size)
                  for clip, start in zip(values, starts, strict=True)]  # fmt: skip
        return torch.stack(pieces)

    size = min(frames, int(batch.lengths.max()))
    sentences: dict[str, Any] = {}
    if batch.frames is not None and batch.tokens is not None:
        spoken = zip(batch.frames, batch.tokens.tolist(), batch.words, starts, strict=True)
        cuts = [words_inside(whole, tokens, words, start, size)
                for whole, tokens, words, start in spoken]  # fmt: skip
        sentences["frames"] = torch.stack([inside for inside, _ in cuts])
        sentences["tokens"] = pad_sequence([said for _, said in cuts], True, -1)
    sounds: dict[str, Any] = {}
    if batch.audio is not None and batch.audio_lengths is not None:
        a_frame = batch.audio.shape[1] // int(batch.lengths.max())
        sounds["audio"] = cut(batch.audio, 0, a_frame)
        sounds["audio_lengths"] = batch.audio_lengths.clamp(max=a_frame * size)
    return dataclasses.replace(
        batch,
        **sentences,
        video={name: cut(video, 0, 1) for name, video in batch.video.items()},
        mel=cut(batch.mel, 1, per_frame),
        **sounds,
        lengths=batch.lengths.clamp(max=size),
        mel_lengths=batch.mel_lengths.clamp(max=per_frame * size),
    )


def words_inside(
    frames_T: Tensor, tokens: list[int], words: list[Word], start: int, size: int
) -> tuple[Tensor, Tensor]:
    """Of `size` frames from `start` on their classes, and the words whose middle is among them.

    Given are classes of a whole clip's frames, padding -1, and its words with class and times;
    without times there is none inside.
    """
    known_T, said = frames_T.clone(), []
    length = int((frames_T >= 0).sum())  # padding is at the end
    for token, (_, start_s, end_s) in zip(tokens, words, strict=False):
        if start_s is None or end_s is None:
            continue
        first, stop = (min(max(at, 0), length) for at in frames_between(start_s, end_s, FPS))
        if first < stop and start <= (first + stop) / 2 < start + size:
            said.append(token)
        else:
            own = known_T[first:stop]
            own[own == token] = -1
    return known_T[start : start + size], frames_T.new_tensor(said)


def mix_weights(batch: Batch, alpha: float, seed: int) -> Tensor:
    """How much each clip keeps of itself when it is mixed with its neighbour, float32 [B].

    Clips are mixed in pairs, 0 with 1 and 2 with 3, so that a pair never straddles two processes;
    both of a pair get the weight that the first one draws from Beta(alpha, alpha). A last clip
    without a neighbour stays whole.
    """
    weights = torch.ones(len(batch))
    for i in range(0, len(batch) - 1, 2):
        weights[i : i + 2] = float(_rng(batch, i, seed, 1).beta(alpha, alpha))
    return weights


def mix(values: Tensor, weights: Tensor, lengths_B: Tensor | None = None, axis: int = 1) -> Tensor:
    """Each row mixed with its neighbour's: weight of its own, the rest of the other.

    With lengths along `axis`, a row stays its own where its neighbour is padding.
    """
    partner = torch.arange(len(values), device=values.device) ^ 1
    partner = partner.clamp_max(len(values) - 1)
    weights = weights.to(values).view(-1, *[1] * (values.ndim - 1))
    mixed = weights * values + (1 - weights) * values[partner]
    if lengths_B is None:
        return mixed
    real = torch.arange(values.shape[axis], device=values.device) < lengths_B[partner][:, None]
    return torch.where(along(real, values, axis), mixed, values)


def mean_picture(video_BTHW: Tensor, lengths_B: Tensor) -> Tensor:
    """The mean of each clip's real frames, [B x 1 x H x W]."""
    real_BTHW = keep_real(video_BTHW, frame_mask(lengths_B, video_BTHW.shape[1]), 1)
    return real_BTHW.sum(dim=1, keepdim=True) / lengths_B[:, None, None, None]


def crop_center(video_BTHW: Tensor, margin: int) -> Tensor:
    """The box without its margin, for evaluation."""
    side = video_BTHW.shape[-1] - margin
    return video_BTHW[..., margin:side, margin:side]


def crop_drawn(video_BTHW: Tensor, draws: Draws, margin: int) -> Tensor:
    """Shifted and mirrored boxes, uint8 as they came."""
    size = video_BTHW.shape[-1] - 2 * margin
    drawn = zip(video_BTHW, draws.shift_x.tolist(), draws.shift_y.tolist(), draws.flip.tolist(),
                strict=True)  # fmt: skip
    boxes = []
    for clip_THW, x, y, flip in drawn:
        box_THW = clip_THW[:, margin + y :, margin + x :][:, :size, :size]
        boxes.append(box_THW.flip(-1) if flip else box_THW)
    return torch.stack(boxes)


def appearance(video_BTHW: Tensor, lengths_B: Tensor, draws: Draws, how: Augment) -> Tensor:
    """The same mouth before another camera: turned, nearer or farther, in another light.

    Grey levels of 0 to 255, as they came where the recipe asks for none of it.
    """
    turn, zoom, light, contrast, gamma = draws.look_B5.to(video_BTHW.device).unbind(1)
    if how.turn or how.zoom:
        angle, size = torch.deg2rad(how.turn * turn), 1 + how.zoom * zoom
        sin, cos, none = angle.sin() / size, angle.cos() / size, torch.zeros_like(size)
        theta_B23 = torch.stack([cos, -sin, none, sin, cos, none], 1).view(-1, 2, 3)
        grid = functional.affine_grid(theta_B23, list(video_BTHW.shape), align_corners=False)
        video_BTHW = functional.grid_sample(
            video_BTHW.float(), grid, padding_mode="border", align_corners=False
        )
    if how.tone:
        light, contrast, gamma = (
            how.tone * drawn[:, None, None, None] for drawn in (light, contrast, gamma)
        )
        bright_BTHW = (video_BTHW.float() / 255) ** (1 + gamma)
        mean_B = mean_picture(bright_BTHW, lengths_B).mean((2, 3), keepdim=True)
        changed_BTHW = (bright_BTHW - mean_B) * (1 + contrast) + mean_B * (1 + light)
        video_BTHW = 255 * changed_BTHW.clamp(0, 1)
    return video_BTHW


def shrink(video_BTHW: Tensor, factor: int) -> Tensor:
    """Pictures, of any type, averaged over `factor` pixels a side."""
    return functional.avg_pool2d(video_BTHW.float(), factor) if factor > 1 else video_BTHW


def erase(video_BTHW: Tensor, draws: Draws, side: int, shrink: int) -> Tensor:
    """Set one square of every frame to 0: the mean grey as words are scaled, black as speech is.

    The square is `side` pixels of the crop; `video_BTHW` has one pixel for `shrink` of these.
    """
    if side == 0:
        return video_BTHW
    device, size = video_BTHW.device, video_BTHW.shape[-1]
    at = shrink * torch.arange(size, device=device)

    def inside(first: Tensor) -> Tensor:
        first = first.to(device)[:, None]
        return (at >= first) & (at < first + side)

    square = inside(draws.erase_y)[:, None, :, None] & inside(draws.erase_x)[:, None, None, :]
    return video_BTHW.masked_fill(square, 0.0)


def mask_span(
    values: Tensor, first: Tensor, count: Tensor, axis: int, fill: float | Tensor = 0.0
) -> Tensor:
    """Replace `count` places from `first` on along `axis`, each clip its own span."""
    device = values.device
    at = torch.arange(values.shape[axis], device=device)
    first, count = first.to(device)[:, None], count.to(device)[:, None]
    span = (at >= first) & (at < first + count)
    filling = torch.as_tensor(fill, dtype=values.dtype, device=device)
    return torch.where(along(span, values, axis), filling, values)
