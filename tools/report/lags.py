"""The part of a report on sound that was moved: how far, of whose clips, and the farthest ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from avb.pipeline.shards.dataset import manifest_lags
from avb.tools.report import figures
from avb.tools.report.examples import Clip, stored_clip
from avb.tools.report.page import Section, Sounds, data_uri
from avb.tools.report.style import COLOURS, new
from avb.train.batches import open_stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avb.pipeline.stream.index import Index

_FARTHEST = 10
_MOST_TALKERS = 8  # that have a colour of their own


def section(index: Index) -> Section | None:
    """Lags of prepared clips, by talker; None where no sound was moved (`avb prep --sync`)."""
    if not index.dataset["settings"].get("sync"):
        return None
    moved: dict[str, float] = {}  # lag in ms by key
    by_talker: dict[str, list[float]] = {}
    for key, talker, lag in manifest_lags(index.folder):
        moved[key] = lag
        by_talker.setdefault(talker or "unknown", []).append(lag)
    out = Section("Sound and lips")
    unsure = len(index) - len(moved)
    table = f"table {index.dataset['settings']['sync'][:12]}"
    out.blocks.append(
        f"The sound of {len(moved)} clips was moved by their lags ({table}); of {unsure} the lag"
        " is not sure, and they are as recorded."
    )
    if not moved:
        return out
    out.draw(histogram, "Lags that were taken out, by talker", by_talker)
    farthest = sorted(moved, key=lambda key: -abs(moved[key]))[:_FARTHEST]
    row_of = {index.key(row): row for row in range(len(index))}
    for clip in _clips(index, np.array([row_of[key] for key in farthest], np.int64)):
        caption = f"{clip.key}: moved by {moved[clip.key]:+.0f} ms; words where they are heard now"
        out.draw(figures.seen, caption, clip)
        if clip.sounds:
            out.blocks.append(Sounds([("sound, moved", data_uri(clip.sounds["real"]))]))
    return out


def histogram(by_talker: dict[str, list[float]]) -> Figure:
    """How many clips of which talker lag by how much; the talkers with most clips first."""
    talkers = sorted(by_talker, key=lambda name: (-len(by_talker[name]), name))
    shown, rest = talkers[:_MOST_TALKERS], talkers[_MOST_TALKERS:]
    values = [by_talker[name] for name in shown]
    if rest:
        shown.append(f"{len(rest)} more")
        values.append([lag for name in rest for lag in by_talker[name]])
    figure, axes = new(2.8)
    reach = max(50.0, *(max(map(abs, lags)) for lags in values))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(values))]
    names = [f"{name} ({len(own)})" for name, own in zip(shown, values, strict=True)]
    bins = np.arange(-reach - 5, reach + 10, 5)
    axes.hist(values, bins, stacked=True, color=colours, label=names)
    axes.set(xlabel="sound later than the lips by (ms)", ylabel="clips")
    axes.legend(fontsize=8)
    return figure


def _clips(index: Index, rows: Any) -> Iterator[Clip]:
    """Stored clips with their sound, if it is stored."""
    crop, spec = next(iter(index.dataset["crops"].items()))
    keeps = index.dataset["settings"]["keep_audio"]
    stream = open_stream(
        index, rows=rows, batch_size=1, once=True, workers=0, crops=(crop,), audio=keeps
    )
    for batch in stream:
        title = " ".join([batch.keys[0], *(word for word, _, _ in batch.words[0])])
        sounds = {} if batch.audio is None else {"real": batch.audio[0].numpy()}
        yield stored_clip(index, batch, 0, crop, spec["margin"], title, sounds=sounds)
