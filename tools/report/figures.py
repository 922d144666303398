"""Figures of runs, of records, and of what a network did on single clips.

Each function returns a matplotlib figure; make them inside `style.drawing()`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avb.tools.report.runs import Run
from avb.tools.report.style import COLOURS, HEAT, INK, WIDTH, new
from avb.tools.report.tables import NULLS, SIDES, interval
from avb.train.tasks.task import find_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from avb.tools.report.examples import Clip

#: Above, a matrix can no longer be read.
MOST_CLASSES = 60
_SIDE = 5.6  # inches that a matrix is wide at most
_PAIRS_SHOWN = 20
#: Points of a curve that one point of its smooth line is the mean of, as a share of the curve.
_SMOOTH = 0.04
_MOST_PICTURES = 15
_ROW = 6.5  # inches that a row of pictures is wide
_RANGE_DB = 80
#: Of the paper's Figure 5 (evaluation.md section 4).
_PRINCIPAL, _PERPLEXITY = 50, 30


def curves(runs: Sequence[Run]) -> Figure:
    """Loss terms and validation over the steps, of runs of one task."""
    task = find_task(runs[0].task)
    panels = {
        "recalled": ("task loss, recalled audio", task.loss),
        "real": ("task loss, real audio", task.loss),
        "val_score": ("validation", task.score_name),
        "saving": ("saving loss", "squared distance"),
        "bridging": ("bridging loss", "KL (nats)"),
        "lr": ("learning rate", "rate"),
    }
    figure, axes = new(4.4, nrows=2, ncols=3, sharex=True)
    for place, (name, (title, unit)) in zip(axes.flat, panels.items(), strict=True):
        points = 0
        for number, run in enumerate(runs):
            steps, values = run.series(name)
            points += len(steps)
            _curve(place, steps, values, COLOURS[number % len(COLOURS)], name)
        place.set(title=title, ylabel=unit)
        place.locator_params(axis="x", nbins=4)
        if not points:
            place.text(0.5, 0.5, "none", ha="center", transform=place.transAxes, color=INK)
            place.set(yticks=[])
    for place in axes[1]:
        place.set_xlabel("step")
    if len(runs) > 1:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=COLOURS[i % len(COLOURS)]) for i in range(len(runs))]
        figure.legend(lines, [r.name for r in runs], loc="outside upper left", ncols=3)
    return figure


def _curve(axes: Axes, steps: list[int], values: list[float], colour: str, name: str) -> None:
    """One run's line; a long noisy one pale, with its moving mean."""
    marker = "o" if name == "val_score" or len(values) == 1 else None
    width = 1 if name in ("val_score", "lr") else round(len(values) * _SMOOTH)
    if width < 3:
        axes.plot(steps, values, color=colour, marker=marker, markersize=3.5)
        return
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    smooth = np.convolve(values, np.ones(width) / width, "valid")
    first = (width - 1) // 2
    axes.plot(steps[first : first + len(smooth)], smooth, color=colour)


def heard(record: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Said, understood and place in the sentence, of every word that can be set beside another.

    Of speech, the words that a judge heard in the model's sound, the trained one if there is one;
    sentences of another length than was spoken are left out.
    """
    words_at = []
    for clip in record["clips"]:
        if "label" in clip and "said" in clip:
            place = clip["key"].partition("#")[2]
            words_at.append((clip["label"], clip["said"], int(place or 0)))
        fields = ("heard_judge", "heard", "heard_grammar", "heard_free")
        words: list[str] = next((clip[field] for field in fields if field in clip), [])
        said = clip.get("words", [])
        if len(words) == len(said):
            pairs = zip(said, words, strict=True)
            words_at += [(one, word, place) for place, (one, word) in enumerate(pairs)]
    return words_at


def confusion(record: dict[str, Any]) -> Figure:
    """Which words are taken for which: a matrix up to 60 words, else the most frequent mistakes."""
    words = heard(record)
    if not words:
        raise ValueError("no words were read or heard in these clips")
    said_at: dict[str, list[int]] = {}
    understood_at: dict[str, list[int]] = {}
    for said, word, place in words:
        said_at.setdefault(said, []).append(place)
        understood_at.setdefault(word, []).append(place)
    places = understood_at | said_at
    if len(places) > MOST_CLASSES:
        return _mistakes(mistakes(words))
    columns = sorted(places, key=lambda word: (np.mean(places[word]), word))
    rows = [word for word in columns if word in said_at]
    counts = np.zeros((len(rows), len(columns)))
    for said, word, _ in words:
        counts[rows.index(said), columns.index(word)] += 1
    return _matrix(counts, rows, columns)


def _matrix(counts: NDArray[np.float64], rows: list[str], columns: list[str]) -> Figure:
    side = min(_SIDE, 0.5 * len(columns)) * len(rows) / len(columns)
    figure, axes = new(1.1 + side)
    total = counts.sum(axis=1, keepdims=True)
    picture = axes.imshow(100 * counts / total, cmap=HEAT, vmin=0, vmax=100)
    size = 8 if len(columns) < 30 else 6
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
    labels = [f"{word}  {int(n)}" for word, n in zip(rows, total[:, 0], strict=True)]
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="understood", ylabel="said, and how often")
    _colour_bar(figure, picture, ax=axes, shrink=0.6, pad=0.02, label="% of the times it was said")
    return figure


def _colour_bar(figure: Figure, picture: Any, **options: Any) -> None:
    bar = figure.colorbar(picture, **{"pad": 0.01} | options)
    bar.outline.set_visible(False)


def mistakes(words: list[tuple[str, str, int]]) -> list[tuple[tuple[str, str], int]]:
    """The most frequent pairs of a word said and another understood, with their counts."""
    pairs = Counter((said, word) for said, word, _ in words if said != word)
    return pairs.most_common(_PAIRS_SHOWN)


def _mistakes(top: list[tuple[tuple[str, str], int]]) -> Figure:
    figure, axes = new(0.8 + 0.2 * max(len(top), 3))
    names = [f"{said} taken for {word}" for (said, word), _ in top]
    bars = axes.barh(range(len(top)), [n for _, n in top], color=COLOURS[0], height=0.7)
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(top)), names)
    axes.invert_yaxis()
    axes.set(xlabel="clips")
    axes.tick_params(axis="y", length=0)
    return figure


def can_compare(addressing: dict[str, Any]) -> bool:
    """Whether some words stand at the same place, so that their addresses tell something."""
    return any(addressing[side]["within_slot_auc"]["value"] is not None for side in SIDES)


def similarity(addressing: dict[str, Any]) -> Figure:
    """How well addresses tell words apart, beside their null models (after the paper's Figure 4).

    Left: the area under the curve of same against other words at one place of the sentence. Right:
    the mean cosines behind it. Bars are the intervals of the record.
    """
    if not can_compare(addressing):
        raise ValueError("too few words that stand at one place to compare their addresses")
    figure, axes = new(4.2, nrows=2, ncols=2, sharex="col", width_ratios=(3, 2))
    for row, (side, title) in zip(axes, SIDES.items(), strict=True):
        measured = {"trained": addressing[side], **addressing[side]["nulls"]}
        names = [name for name in NULLS if name in measured]
        left, right = row
        for y, name in enumerate(names):
            own = COLOURS[1] if name == "trained" else COLOURS[0]
            _bar(left, measured[name]["within_slot_auc"], y, own, "o")
            _bar(right, measured[name]["same"], y - 0.14, COLOURS[2], "o")
            _bar(right, measured[name]["within"], y + 0.14, COLOURS[3], "s")
        left.axvline(0.5, color=INK, linewidth=0.7, linestyle=":")
        left.set_yticks(range(len(names)), [NULLS[name] for name in names])
        right.set_yticks(range(len(names)), [""] * len(names))
        for place in row:
            place.set_ylim(len(names) - 0.5, -0.5)
            place.tick_params(axis="y", length=0)
        left.set_title(title)
    left.set_xlabel("AUC of same against other words\nat the same place (dotted: chance)")
    right.set_xlabel("mean cosine of two addresses")
    handles = axes[0][1].get_lines()[:2]
    axes[0][1].set_title(" ")  # room for the legend
    names = ["same word", "other word, same place"]
    figure.legend(handles, names, loc="outside upper right", ncols=2)
    return figure


def _bar(axes: Axes, entry: dict[str, Any], y: float, colour: str, marker: str) -> None:
    """A point with its interval, if it could be measured."""
    if entry["value"] is None:
        return
    axes.plot(entry["value"], y, marker, color=colour, markersize=5)
    axes.hlines(y, entry["low"], entry["high"], color=colour, linewidth=1.6)


def addressing(clip: Clip) -> Figure:
    """Addresses over time under the frames and sound they belong to, a row a slot (Figure 3)."""
    if clip.source is None or clip.target is None:
        raise ValueError("a model with 0 slots has no addresses")
    figure, maps = _over_time(clip, 1.2, 1.4, 1.4)
    titles = ("A_src, from video alone", "A_tgt, from the real audio")
    for axes, weights, title in zip(maps, (clip.source, clip.target), titles, strict=True):
        picture = axes.imshow(
            weights.T, cmap=HEAT, vmin=0, aspect="auto", interpolation="none",
            origin="lower", extent=(0, clip.seconds, -0.5, weights.shape[1] - 0.5),
        )  # fmt: skip
        axes.set(title=title, ylabel="slot")
        # Of its own: video's weights are spread over more slots.
        _colour_bar(figure, picture, ax=axes, aspect=15, label="weight")
    return figure


def seen(clip: Clip) -> Figure:
    """The frames over the log-mel of their sound, with the words."""
    return _over_time(clip, 0.8)[0]


def _over_time(clip: Clip, room: float, *below: float) -> tuple[Figure, Any]:
    """Frames over the log-mel of their sound, with the words, and rows so high `below` (inches)."""
    step = -(-len(clip.frames) // _MOST_PICTURES)
    heights = (_ROW * step / len(clip.frames), 0.8, *below)  # pictures stay square
    figure, axes = new(sum(heights) + room, nrows=len(heights), sharex=True, height_ratios=heights)
    _strip(axes[0], clip, step)
    _mel(axes[1], clip.mel_db, clip.seconds, float(clip.mel_db.max()))
    axes[1].set(ylabel="mel bin")
    _words(axes[1], clip)
    axes[-1].set(xlabel="time (s)", xlim=(0, clip.seconds))
    return figure, axes[2:]


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
        interpolation="none", extent=(0, seconds, 0, mel_db.shape[0]),
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
    """The true log-mel above the model's, in one scale."""
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
    _colour_bar(figure, picture, ax=list(axes), aspect=30, label="dB")
    return figure


def tsne(features: dict[str, Any], probes: dict[str, Any] | None) -> Figure:
    """Visual and audio features, and recalled and real audio, as points (Figure 5): no measure."""
    maps = {
        "visual_vs_audio": ("source_features", ("visual", "audio")),
        "recalled_vs_real": ("recalled", ("recalled audio", "real audio")),
    }
    figure, axes = new(WIDTH * 0.52, ncols=len(maps), squeeze=False)
    for place, (name, (first, titles)) in zip(axes[0], maps.items(), strict=True):
        points = embed(_of_one_width(features[first], features["target_features"]))
        for number, (part, title) in enumerate(zip(np.split(points, 2), titles, strict=True)):
            place.scatter(
                *part.T, s=9, color=COLOURS[number], marker="os"[number], alpha=0.6,
                linewidths=0, label=title,
            )  # fmt: skip
        accuracy = (probes or {}).get(name)
        place.set_title(f"linear probe (%): {interval('top1', accuracy)}" if accuracy else " ")
        place.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
        place.set_aspect("equal", "datalim")
        place.set(xticks=[], yticks=[])
        for spine in place.spines.values():
            spine.set(visible=True, color=INK, alpha=0.3)
    return figure


def _of_one_width(first: Any, second: Any) -> Any:
    """Both one under the other; of other widths, each by its own principal components.

    Where a point of one lies to the points of the other then says nothing but whether they mix.
    """
    if first.shape[1] != second.shape[1]:
        from sklearn.decomposition import PCA

        dim = min(_PRINCIPAL, *first.shape, *second.shape)
        first, second = (PCA(dim, random_state=0).fit_transform(x) for x in (first, second))
    return np.concatenate([first, second])


def embed(rows: Any) -> Any:
    """t-SNE of features [n x C] to [n x 2], after PCA to at most 50 numbers."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    dim = min(_PRINCIPAL, *rows.shape)
    reduced = PCA(dim, random_state=0).fit_transform(np.asarray(rows, np.float64))
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
