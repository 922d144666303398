"""`avb demo --quick`: one clip read and heard by the networks that come with avb, as one page."""

import logging
import time
from html import escape
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from avb.pipeline.corpora.clip import written_out
from avb.pipeline.errors import RunError
from avb.pipeline.files import write_atomic
from avb.tools.infer import bundled
from avb.tools.ui import film as one_film
from avb.train.checks import make_folder, writing

log = logging.getLogger(__name__)
DRAWN = "This clip is drawn; of real talkers one was seen: it is read badly, and that sounds sure."
STRANGER = "The networks have seen one talker alone: they read a stranger badly, and sound sure."


def quick(out: Path, clip: Path | None, datasets: Path | None = None) -> Path:
    """Write the page into `out`; returns its path.

    RunError: the clip cannot be read; UsageError: `out` cannot be written.
    """
    begun = time.perf_counter()
    make_folder(out)
    words: list[tuple[str, float, float]] = []
    if drawn := clip is None:
        clip = out / "drawn.mpg"
        with writing(clip):
            words = next(one_film.draw(str(clip)))["words"]
        log.info(f"a talker is drawn, who says {' '.join(word for word, *_ in words)}: {clip}")
    own = [None if path is None else str(path) for path in (datasets, bundled.vocoder("l2s"))]
    paths = [str(path) for path in bundled.checkpoints()]
    models = list(one_film.describe(paths, "cpu", *own))
    models = [model for model in models if not model.get("sentences")]  # words, with their chances
    found = {model["task"]: _read(clip, model) for model in models if "task" in model}
    if faults := [one["error"] for one in (*models, *found.values()) if "error" in one]:
        raise RunError(faults[0])
    known = {model["task"]: f"The network {model['known']}." for model in models}
    parts = {task: one["result"] for task, one in found.items()}
    fields = {
        "title": f"{'A drawn talker' if drawn else written_out(clip.name)}, read from the lips",
        "honest": DRAWN if drawn else STRANGER,
        "film": parts["lip"]["film"],
        "sounds": _sounds(parts["l2s"], known["l2s"]),
        "reading": _reading(parts["lip"], known["lip"], words, max(m["floor"] for m in models)),
    }
    raw = ("film", "sounds", "reading")  # are HTML
    fields = {name: text if name in raw else escape(text) for name, text in fields.items()}
    page = Template(Path(__file__).with_name("quick.html").read_text(encoding="utf-8"))
    target = out / "quick.html"
    with writing(target):
        write_atomic(target, page.substitute(fields).encode())
    log.info(f"done in {time.perf_counter() - begun:.0f} s; now open {target}")
    return target


def _read(clip: Path, model: dict[str, Any]) -> dict[str, Any]:
    """What is found in a film; what is made beside it goes."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / f"film{clip.suffix}"
        try:
            copy.write_bytes(clip.read_bytes())
        except OSError as error:
            raise RunError(f"{clip}: {error.strerror}") from None
        log.info(f"{model['task']}: the network {model['known']}")
        *_, last = one_film.read(str(copy), model, "auto", 1, 60.0)
        return last


def _sounds(result: dict[str, Any], known: str) -> str:
    """Each sound with its mel."""
    rows = [f"<h2>Heard</h2><p>{escape(known)}</p>"]
    for number, (title, sound) in enumerate(result["sounds"].items()):
        first = number == 0
        rows.append(
            f'<figure><label><input type="radio" name="sound"{" checked" * first}> {escape(title)}'
            f'</label> <audio controls{" data-on" * first} src="data:audio/wav;base64,{sound}">'
            f'</audio><img class="mel" alt="mel" src="{result["mels"][title]}"></figure>'
        )
    return "\n".join(rows)


def _reading(
    result: dict[str, Any], known: str, said: list[tuple[str, float, float]], floor: float
) -> str:
    """The likeliest words of every window, and for a drawn clip what is said in its middle."""
    rows = []
    for window in result["windows"]:
        middle = (window["start"] + window["end"]) / 2
        true = next((word for word, start, end in said if start <= middle < end), "")
        words = [f"{escape(w['word'])} {100 * w['probability']:.0f} %" for w in window["words"][:3]]
        guess = bool(words) and window["words"][0]["probability"] < floor
        rows.append(
            f'<tr class="{"guess" if guess else ""}"><td>{middle:.2f} s</td>'
            f"{f'<td>{escape(true)}</td>' if said else ''}"
            f"<td>{', '.join(words) or 'nobody is seen'}</td>"
            f"<td>{'a guess' if guess else ''}</td></tr>"
        )
    head = f"<tr><th>Middle</th>{'<th>Said</th>' if said else ''}<th>Read</th><th></th></tr>"
    below = (
        f"<p>A word with less than {100 * floor:.0f} % is a guess: so often one is right who does"
        " not look.</p>"
        if floor
        else ""
    )
    return f"<h2>Read</h2><p>{escape(known)}</p>{below}<table>{head}{''.join(rows)}</table>"
