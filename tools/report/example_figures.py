"""Figures of what a network did on single clips: addresses under their frames, mels, features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from avb.tools.report.examples import Clip, Features
from avb.tools.report.format import interval
from avb.tools.report.style import COLOURS, HEAT, INK, WIDTH, new, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_PICTURES = 15
_ROW = 6.5  # inches that a row of pictures is wide
_RANGE_DB = 80
#: Of the paper's Figure 5 (evaluation.md section 4).
_PRINCIPAL, _PERPLEXITY = 50, 30


def addressing(clip: Clip) -> Figure:
    """Addresses over time under the frames and the sound they belong to (Figure 3).

    A row a slot, in their own order, so that clips can be set side by side.

    Raises:
        ValueError: the model has no slots.
    """
    if clip.source is None or clip.target is None:
        raise ValueError("a model with 0 slots has no addresses")
    from matplotlib.figure import Figure

    step = -(-len(clip.frames) // _MOST_PICTURES)
    side = _ROW * step / len(clip.frames)  # inches: pictures stay square
    heights = (side, 0.8, 1.4, 1.4)
    figure = Figure((WIDTH, sum(heights) + 1.2), layout="constrained")
    strip, sound, *maps = figure.subplots(4, 1, sharex=True, height_ratios=heights)
    _strip(strip, clip, step)
    _mel(sound, clip.mel_db, clip.seconds, float(clip.mel_db.max()))
    sound.set(ylabel="mel bin")
    _words(sound, clip)
    top = max(clip.source.max(), clip.target.max())
    titles = ("A_src, from video alone", "A_tgt, from the real audio")
    for axes, weights, title in zip(maps, (clip.source, clip.target), titles, strict=True):
        picture = axes.imshow(
            weights.T, cmap=HEAT, vmin=0, vmax=top, aspect="auto", interpolation="nearest",
            origin="lower", extent=(0, clip.seconds, -0.5, weights.shape[1] - 0.5),
        )  # fmt: skip
        axes.set(title=title, ylabel="slot")
    maps[-1].set_xlabel("time (s)")
    maps[-1].set_xlim(0, clip.seconds)
    bar = figure.colorbar(picture, ax=maps, pad=0.01, aspect=30)
    bar.set_label("weight")
    bar.outline.set_visible(False)
    return figure


def _strip(axes: Axes, clip: Clip, step: int) -> None:
    """The middle picture of every `step` frames, over their time."""
    for first in range(0, len(clip.frames), step):
        last = min(first + step, len(clip.frames))
        picture = clip.frames[(first + last - 1) // 2]
        if last - first < step:  # keeps its shape where the clip ends
            picture = picture[:, : max(1, picture.shape[1] * (last - first) // step)]
        span = (first / clip.fps, last / clip.fps, 0, 1)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=span, aspect="auto")
    axes.set(xlim=(0, clip.seconds), ylim=(0, 1))
    axes.set_title(clip.title)
    axes.set(yticks=[])  # its x ticks are those of all rows
    axes.tick_params(bottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _mel(axes: Axes, mel_db: Any, seconds: float, high: float) -> Any:
    """A log-mel in dB over its seconds, down to 80 dB under `high`, low bins at the bottom."""
    return axes.imshow(
        mel_db, cmap="magma", vmin=high - _RANGE_DB, vmax=high, aspect="auto", origin="lower",
        interpolation="nearest", extent=(0, seconds, 0, mel_db.shape[0]),
    )  # fmt: skip


def _words(axes: Axes, clip: Clip) -> None:
    """Words over the time they are spoken in; those outside of the clip are left out."""
    for word, start, end in clip.words:
        if start is None or end is None or end <= 0 or start >= clip.seconds:
            continue
        left, right = max(start, 0), min(end, clip.seconds)
        axes.axvline(left, color="white", linewidth=0.6)
        axes.axvline(right, color="white", linewidth=0.6)
        if right - left > 0.006 * len(word) * clip.seconds:  # or it would touch the next
            where = ((left + right) / 2, 1.02)
            axes.text(*where, word, ha="center", fontsize=7.5, transform=axes.get_xaxis_transform())


def mels(clip: Clip) -> Figure:
    """The true log-mel above the model's, in one scale.

    Raises:
        ValueError: the model makes no speech.
    """
    if clip.made_db is None:
        raise ValueError("a model that reads words makes no mels")
    figure, axes = new(3.6, nrows=2, sharex=True, sharey=True)
    high = float(clip.mel_db.max())
    for place, mel, title in zip(
        axes, (clip.mel_db, clip.made_db), ("real", "made from video"), strict=True
    ):
        picture = _mel(place, mel, clip.seconds, high)
        place.set(ylabel=f"{title}\nmel bin")
    _words(axes[0], clip)
    axes[0].set_title(clip.title, pad=16)
    axes[1].set(xlabel="time (s)", xlim=(0, clip.seconds))
    bar = figure.colorbar(picture, ax=list(axes), pad=0.01, aspect=30)
    bar.set_label("dB")
    bar.outline.set_visible(False)
    return figure


def tsne(features: Features, probes: dict[str, Any] | None) -> Figure:
    """Visual and audio features, and recalled and real audio, as points (Figure 5).

    A picture and no measure: the probe's accuracy stands above it where a record has it.
    """
    maps = {
        "visual_vs_audio": (features.visual, features.real, ("visual", "audio")),
        "recalled_vs_real": (features.recalled, features.real, ("recalled audio", "real audio")),
    }
    drawn = {name: pair for name, pair in maps.items() if pair[0].shape[1] == pair[1].shape[1]}
    figure, axes = new(WIDTH * 0.52, ncols=len(drawn), squeeze=False)
    for place, (name, (first, second, titles)) in zip(axes[0], drawn.items(), strict=True):
        points = embed(np.concatenate([first, second]))
        for number, (part, title) in enumerate(zip(np.split(points, 2), titles, strict=True)):
            place.scatter(
                *part.T, s=9, color=COLOURS[number], marker="os"[number], alpha=0.6,
                linewidths=0, label=title,
            )  # fmt: skip
        found = (probes or {}).get(name)
        place.set_title(f"linear probe (%): {interval('top1', found)}" if found else " ")
        place.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
        place.set_aspect("equal", "datalim")
        quiet(place)
        for spine in place.spines.values():
            spine.set(visible=True, color=INK, alpha=0.3)
    return figure


def embed(rows: Any, seed: int = 0) -> Any:
    """t-SNE of features [n x C] to [n x 2], after PCA to at most 50 numbers.

    Raises:
        UsageError: scikit-learn is missing.
    """
    from avb.tools.report.style import need

    need("sklearn")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    dim = min(_PRINCIPAL, *rows.shape)
    reduced = PCA(dim, random_state=seed).fit_transform(np.asarray(rows, np.float64))
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
