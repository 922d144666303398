"""Anyone's own corpus: a CSV or Parquet file with a row a clip.

Columns: `video` (a path, relative to the root), and optionally `start` and `end` in seconds of
the video, `label`, `speaker`, `split`, and `words` (plain text, or JSON `[[word, start, end],
...]` in seconds of the clip). Other frame rates are brought to 25 fps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.decode import Media, read_video
from avb.pipeline.records import Clip, Listing, Word

if TYPE_CHECKING:
    from avb.pipeline.plan import Settings

COLUMNS = ("video", "start", "end", "label", "speaker", "split", "words")
TEXTS = ("video", "label", "speaker", "split", "words")


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every row of the table file `root`.

    Raises:
        UsageError: it is no CSV or Parquet, is empty, or has no column `video`.
    """
    rows = _read(root)
    labels = sorted({str(row["label"]) for row in rows if row.get("label") not in (None, "")})
    unused = sorted(set(rows[0]) - set(COLUMNS))
    notices = [f"columns not used: {', '.join(unused)}"] if unused else []
    return Listing(root.parent, f"table of {len(rows)} rows", _clips(rows), labels, notices)


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pa.parquet.read_table(path)
        else:
            # Left to guess, the reader makes 1 of the label 001 and nothing of the word null.
            texts = pa.csv.ConvertOptions(column_types={name: pa.string() for name in TEXTS})
            table = pa.csv.read_csv(path, convert_options=texts)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            f"{path}: neither CSV nor Parquet ({str(error).splitlines()[0]})"
        ) from None
    if "video" not in table.column_names:
        raise UsageError(
            f"{path}: the column 'video' is missing; found {', '.join(table.column_names)};"
            f" known columns: {', '.join(COLUMNS)}"
        )
    if table.num_rows == 0:
        raise UsageError(f"{path}: no rows")
    return table.to_pylist()


def _clips(rows: list[dict[str, Any]]) -> Iterator[Clip]:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        video = str(row["video"] or "")
        status = error = ""
        start = end = None
        words: list[Word] = []
        try:
            start, end = _seconds(row.get("start")), _seconds(row.get("end"))
            words = parse_words(row.get("words"))
        except ValueError as problem:
            status, error = "bad_name", f"row {number}: {problem}"
        if not video:
            status, error = "unreadable", f"row {number}: no video named"
        elif end is not None and end <= (start or 0.0):
            status = "zero_length"
            error = f"row {number}: starts at {start or 0} s and ends at {end} s"
        split = _text(row.get("split"))
        speaker = _text(row.get("speaker"))
        group = _safe(split or speaker or "all")
        name = _safe(PurePosixPath(video).stem or f"row{number}")
        if start is not None or end is not None:
            name += f"_{round((start or 0) * 1000)}_{'' if end is None else round(end * 1000)}"
        twin = seen.get(f"{group}/{name}", 0)
        seen[f"{group}/{name}"] = twin + 1
        yield Clip(
            name=f"{name}-{twin + 1}" if twin else name,
            group=group,
            split=split,
            speaker=speaker,
            label=_text(row.get("label")),
            source=video,
            start=start,
            end=end,
            words=words,
            status=status,
            error=error,
        )


def parse_words(value: Any) -> list[Word]:
    """Words of a cell: None, plain text, a JSON list of words, or of [word, start, end]."""
    if value in (None, ""):
        return []
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return [(word, None, None) for word in value.split()]
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"words {value!r} are not valid JSON") from None
    words: list[Word] = []
    for item in value:
        if isinstance(item, str):
            words.append((item, None, None))
        elif isinstance(item, list) and len(item) == 3:
            words.append((str(item[0]), _seconds(item[1]), _seconds(item[2])))
        else:
            raise ValueError(f"words: {item!r} is not [word, start, end]")
    return words


def _seconds(value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number of seconds") from None
    return None if math.isnan(number) else number


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _safe(text: str) -> str:
    """`text` as part of a key: no dot (the archive reader splits there), no slash, no blank."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "clip"


def load(root: Path, clip: Clip, settings: Settings) -> tuple[Media, list[Word]]:
    """The pictures of the row's span and their sound."""
    media = read_video(
        root / clip.source, settings.fps, clip.start, clip.end, decoder=settings.decoder
    )
    return media, clip.words
