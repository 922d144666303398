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
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.corpora.lrw import load_film
from avb.pipeline.decode import Media
from avb.pipeline.records import Clip, Listing, Word

if TYPE_CHECKING:
    import pyarrow as pa

    from avb.pipeline.plan import Settings

COLUMNS = ("video", "start", "end", "label", "speaker", "split", "words")
#: What other programs write into a column of numbers where there is none.
NO_NUMBER = {"", "NA", "N/A", "n/a", "#N/A", "null", "NULL"}


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every row of the table file `root`, which is read twice: the first time for its labels.

    Raises:
        UsageError: it is no CSV or Parquet, is empty, or has no column `video`.
    """
    names = _column_names(root)
    if "video" not in names:
        raise UsageError(
            f"{root}: the column 'video' is missing; found {', '.join(names)};"
            f" known columns: {', '.join(COLUMNS)}"
        )
    num_rows, labels = 0, set[str | None]()
    for batch in _batches(root, [name for name in ("video", "label") if name in names]):
        num_rows += len(batch)
        if "label" in batch.schema.names:
            labels.update(map(_text, batch["label"].unique().to_pylist()))
    if num_rows == 0:
        raise UsageError(f"{root}: no rows")
    unused = sorted(set(names) - set(COLUMNS))
    return Listing(
        root=root.parent,
        layout=f"table of {num_rows} rows",
        clips=_clips(_batches(root, [name for name in COLUMNS if name in names])),
        labels=sorted(label for label in labels if label is not None),
        notices=[f"columns not used: {', '.join(unused)}"] if unused else [],
        twins_kept=True,
    )


@contextmanager
def _table_faults_named(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            f"{path}: neither CSV nor Parquet ({str(error).splitlines()[0]})"
        ) from None


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _column_names(path: Path) -> list[str]:
    import pyarrow.csv
    import pyarrow.parquet

    with _table_faults_named(path):
        if _is_parquet(path):
            return pyarrow.parquet.read_schema(path).names
        with pyarrow.csv.open_csv(path) as reader:
            return reader.schema.names


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows, some thousand at a time; of a CSV every cell is text."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    with _table_faults_named(path):
        if _is_parquet(path):
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(8192, columns=columns)
        else:
            # Left to guess, the reader makes 1 of the label 001 and nothing of the word null, and
            # guesses from the first rows alone.
            options = pyarrow.csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            )
            with pyarrow.csv.open_csv(path, convert_options=options) as reader:
                yield from reader


def _clips(batches: Iterator[pa.RecordBatch]) -> Iterator[Clip]:
    rows = (row for batch in batches for row in batch.to_pylist())
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
        name = _safe(PurePosixPath(video).stem or f"row{number}")
        if start is not None or end is not None:
            name += f"_{round((start or 0) * 1000)}_{'' if end is None else round(end * 1000)}"
        yield Clip(
            name=name,
            group=_safe(split or speaker or "all"),
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
    if value is None or str(value) in NO_NUMBER:
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


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """The pictures of the row's span and their sound."""
    return load_film(root / clip.source, settings, clip.start, clip.end)


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The words of the row."""
    return clip.words
