"""The figure of an ablation: a model's figure over the values of a setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avb.tools.report.style import COLOURS, new
from avb.tools.report.tables import style, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ablation(found: dict[str, Any]) -> Figure:
    """The test figure of each arm with its interval, over the first key, a line for the others."""
    metric, factor = found["metric"], style(found["metric"]).factor
    first, *others = found["grid"] or {"recipe": []}
    values = found["grid"].get(first, [""])
    numbers = _numbers(values)
    figure, axes = new(3.6)
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in found["arms"]:
        label = ", ".join(f"{key.removeprefix('model.')} {row['values'][key]}" for key in others)
        lines.setdefault(label, []).append(row)
    for number, (label, rows) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        x = [numbers[row["values"].get(first, "")] for row in rows]
        test = [row["test"] for row in rows]
        y = [factor * one["value"] for one in test]
        spread = [[factor * (one["value"] - one["low"]) for one in test],
                  [factor * (one["high"] - one["value"]) for one in test]]  # fmt: skip
        axes.errorbar(x, y, spread, color=colour, marker="o", capsize=3, label=label or None)
        for place, one in zip(x, test, strict=True):
            each = [factor * value for value in one["each"]]
            axes.plot([place] * len(each), each, ".", color=colour, alpha=0.5, markersize=4)
    axes.set_xticks([numbers[value] for value in values], values)
    name = "N, slots of the memory" if first == "model.slots" else first
    axes.set(xlabel=name, ylabel=f"{titled(metric)}, test")
    if others:
        axes.legend()
    return figure


def _numbers(values: list[str]) -> dict[str, float]:
    """Where each value stands: at itself where all are numbers, else in order."""
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return {value: float(place) for place, value in enumerate(values)}
