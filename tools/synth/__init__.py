"""Synthetic corpora: drawn talkers whose mouths follow what espeak-ng speaks, in raw layouts.

`make("lrw" | "lrw1000" | "grid", out)` writes a small corpus exactly as the real one is shipped, so
that everything after it can be tried and tested without the licensed data. The same arguments give
the same bytes. With `from_grid` the film is real: GRID clips re-cut into the other two layouts.
"""

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avb.tools.progress import progress

# Whole runs of these take seconds on one core.
DEFAULT_CLIPS = {"lrw": 60, "lrw1000": 36, "grid": 48}
_MARKER = ".avb_synth"  # says that a folder is ours, also when the run that made it was cut off
_MADE = frozenset(
    ("lipread_mp4", "LRW1000_Public", "CAS-VSR-W1k", "__MACOSX", "odd_cases.csv")
    + ("s1", "s2", "s3", "s9", "s21")
)


def make(
    corpus: str, out: str | Path, clips: int | None = None, odd: bool = False,
    from_grid: str | Path | None = None, seed: int = 0, layout: str = "A",
) -> dict[str, Any]:  # fmt: skip
    """Writes a synthetic corpus into `out` and says what was made; ValueError for wrong arguments.

    Args:
        out: folder to write; made if missing. One that an earlier call made is made anew.
        clips: number of good clips (of words for LRW-1000); None for a small default.
        odd: adds one of everything that is wrong in real copies, listed in `out/odd_cases.csv`.
        from_grid: folder of real GRID clips to re-cut instead of drawing (`lrw`, `lrw1000`).
        seed: other seeds give other people, sentences and voices.
        layout: of LRW-1000, `A` (LRW1000_Public) or `B` (CAS-VSR-W1k).
    """
    from avb.tools.synth import odd as odd_cases
    from avb.tools.synth import raw, raw_lrw1000, recut

    if corpus not in DEFAULT_CLIPS:
        raise ValueError(f"corpus {corpus!r}: expected one of {sorted(DEFAULT_CLIPS)}")
    if from_grid is not None and (corpus == "grid" or odd):
        raise ValueError("from_grid re-cuts good clips into lrw or lrw1000; leave out grid and odd")
    if layout != "A" and corpus != "lrw1000":
        raise ValueError(f"layout {layout}: of lrw1000 alone; leave it out for {corpus}")
    wanted = DEFAULT_CLIPS[corpus] if clips is None else clips
    if wanted < 1:
        raise ValueError(f"clips {wanted}: expected 1 or more")
    folder, began = Path(out), time.perf_counter()
    tree = raw_lrw1000.Tree.of(folder, layout)
    _claim(folder, from_grid is not None)

    root = None if from_grid is None else Path(from_grid)
    if corpus == "grid":
        saved: Iterator[Any] = raw.write_grid(folder, wanted, seed)
    elif corpus == "lrw":
        films = recut.lrw_clips(root, wanted, seed) if root else raw.lrw_clips(wanted, seed)
        saved = raw.write_lrw(folder, films)
    else:
        spoken = recut.segments(root, wanted, seed) if root else raw_lrw1000.segments(wanted, seed)
        saved = raw_lrw1000.write_segments(tree, spoken, seed)
    rows = list(progress("clip", wanted, over=saved))
    written, listed = len(rows), []
    if not written:
        raise ValueError(
            f"{from_grid}: no clip with 75 frames, six words and a face; nothing re-cut"
        )
    if odd and corpus == "lrw1000":
        listed = odd_cases.odd_lrw1000(tree, rows, seed)
    elif odd:
        listed = (odd_cases.odd_lrw if corpus == "lrw" else odd_cases.odd_grid)(folder, seed)
    if corpus == "lrw1000":
        raw_lrw1000.write_index(tree, rows, bom_in="val" if odd else "")
    if odd:
        with open(folder / "odd_cases.csv", "w", encoding="utf-8", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows([("what", "case"), *listed])
    seconds = round(time.perf_counter() - began, 2)
    made = {"corpus": corpus, "clips": written, "odd": len(listed)}
    return made | {"out": str(folder), "seconds": seconds}


def _claim(folder: Path, of_grid: bool) -> None:
    """Takes a folder for writing: a new or empty one, or clears what an earlier run made there."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder to write to")
    ours = {_MARKER, *_MADE} if (folder / _MARKER).is_file() else set()
    present = {path.name for path in folder.glob("*")}
    if foreign := sorted(present - ours):
        raise ValueError(
            f"{folder}: holds {foreign[0]!r}, which avb synth did not make; name an empty folder"
        )
    for name in present & _MADE:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    whose = "GRID's, whose films these are" if of_grid else "none: drawn talkers"
    text = f"made by avb synth, which may clear this folder again\nlicence: {whose}\n"
    (folder / _MARKER).write_text(text)
