"""How figures look: one set of colours for the page, in light and dark, and for files."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from avb.train.checks import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: After Okabe and Ito, told apart by all kinds of colour vision; the blue is lighter than theirs,
#: to be seen on white and on near-black.
COLOURS = ("#2B83BA", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#1c1e21"
HEAT = "cividis"  # made to look the same with and without red-green vision
WIDTH = 7.6  # inches, all figures

RC: dict[Any, Any] = {
    "text.parse_math": False,  # names of words and clips may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own type
    "svg.hashsalt": "avb",  # the same figure is the same bytes
    "pdf.fonttype": 42,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """Figures made inside look alike, whatever the user's matplotlibrc says."""
    need("matplotlib")
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new(height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure of the common width and `height` inches, and its axes as `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.subplots(**grid)


def svg(figure: Figure) -> str:
    """The figure as an element of a page: no outside reference, ink in the colour of the text."""
    out = io.StringIO()
    with drawing(), warnings.catch_warnings():
        # Text stays text, so it is the page's reader who needs the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from ")
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata, dpi=100)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Its width and height are in the page's hands; the view box keeps the shape.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|xmlns|xmlns:xlink)="[^"]*"', "", head)
    text = f"{head}>{rest}"
    # matplotlib's rule for everything would be one for the whole page.
    text = re.sub(r"<style type=\"text/css\">\*\{[^<]*</style>", "", text)
    text = re.sub(r"(?<=data:image/png;base64,)[^\"]+", lambda found: _palette(found[0]), text)
    return text.replace(INK, "currentColor")


def _palette(png: str) -> str:
    """A picture in base64 with its colours in a table, unless there are more than 256: shorter."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        pixels = np.ascontiguousarray(picture.convert("RGBA"))
    colours, numbers = np.unique(pixels.view(np.uint32)[..., 0], return_inverse=True)
    if len(colours) > 256:
        return png
    table = Image.fromarray(numbers.reshape(pixels.shape[:2]).astype(np.uint8))
    table.putpalette(colours.view(np.uint8).tobytes(), "RGBA")
    out = io.BytesIO()
    table.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()
