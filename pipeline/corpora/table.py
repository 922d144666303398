"""Anyone's own corpus: a CSV or Parquet file with a row a clip.

Columns: `video` (a path, relative to the root), and optionally `start` and `end` in seconds of
the video, `label`, `speaker`, `split`, and `words`: plain text, or a list of `[word, start, end]`
or of `{"word", "start", "end"}` in seconds of the clip, in JSON or of Parquet's own. Other frame
rates are brought to 25 fps.

A row whose cells cannot be what their columns say is refused by its number, and the others are
made. What only the film can tell is known when it was decoded, and flagged: a span that ends
behind it (`span_clamped`), words that do (`words_clamped`).
"""

import datetime
import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from avb.pipeline.clip.media import Media
from avb.pipeline.config import LONGEST_NAME, MOST_SECONDS, PARTS, Corpus
from avb.pipeline.corpora import table_file
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.corpora.loading import load_film
from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import parse_json
from avb.pipeline.settings import Settings

#: What other programs write into a column of numbers where there is none.
NO_NUMBER = {"", "NA", "N/A", "n/a", "#N/A", "null", "NULL"}
#: Bytes of a path; systems take 4,096 with the root's.
LONGEST_PATH = 2048
#: Bytes of a name below which a file system takes it with what shards and tars add: `.lips.mp4`,
#: a number, the name of the machine while it is written.
LONGEST_FILE, LONGEST_GROUP, LONGEST_KEY = 255, 150, 200
#: Bytes of all words of a row, half an hour of speech; readers take twice as much in the mean.
LONGEST_WORDS = 1 << 15
#: `[laughter] yes`, `[[unclear]]`, `{cough} no`: text, and no list that somebody wrote wrongly.
TAGGED = re.compile(
    r"""\s*(?:\{(?!\s*['"])|\[(?!\s*['"{])(?![^]]*,\s*[-.\d])[^][]*\]|\[\[(?!\s*['"{])[^][,]*\]\])"""
)


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every row of the table file `root`, which is read twice: the first time for its labels."""
    names = table_file.column_names(root)
    _check_columns(root, names)
    num_rows, labels, cleaned = 0, set[str](), set[str]()
    for row in table_file.rows(root, [name for name in ("video", "label") if name in names]):
        num_rows += 1
        try:
            label = _read("label", row)
        except ValueError:  # that row is refused
            continue
        if label is not None:
            labels.add(label)
            if label != str(row["label"]):
                cleaned.add(label)
    if num_rows == 0:
        raise UsageError(f"{root}: no rows")
    notices = []
    if unused := sorted(set(names) - set(COLUMNS)):
        notices.append(f"columns not used: {', '.join(unused)}")
    if cleaned:
        some = ", ".join(sorted(cleaned)[:3])
        notices.append(f"{len(cleaned)} labels had odd blanks or letters, now: {some}")
    return Listing(
        root=root.parent,
        layout=f"table of {num_rows} rows",
        clips=_clips(table_file.rows(root, [name for name in COLUMNS if name in names])),
        labels=sorted(labels),
        notices=notices,
        twins_kept=True,
    )


def _check_columns(root: Path, names: list[str]) -> None:
    if "video" not in names:
        parted = {";": "semicolons", "\t": "tabs", "|": "bars"}
        how = [word for mark, word in parted.items() if len(names) == 1 and mark in names[0]]
        hint = f" (parted by {how[0]}; a CSV has commas, and points in numbers)" if how else ""
        found = _clean(", ".join(names))[:300]
        raise UsageError(
            f"{root}: the column 'video' is missing; found {found}{hint};"
            f" known columns: {', '.join(COLUMNS)}"
        )
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise UsageError(f"{root}: more than one column {twice[0]!r}")


def _clips(rows: Iterator[dict[str, Any]]) -> Iterator[Clip]:
    for number, row in enumerate(rows, 1):
        clip = Clip(name="", group="", source="")
        for column in COLUMNS:
            try:
                setattr(clip, "source" if column == "video" else column, _read(column, row))
            except ValueError as problem:
                if not clip.status:
                    clip.status = "unreadable" if column == "video" else "bad_name"
                    clip.error = f"row {number}: {problem}"
        start, end = clip.start or 0.0, clip.end
        if not clip.status and end is not None and end <= start:
            clip.status = "zero_length"
            clip.error = f"row {number}: starts at {start or 0} s and ends at {end} s"
        clip.group = _fitting(_safe(clip.split or clip.speaker or "all"), LONGEST_GROUP)
        name = _safe(PurePosixPath(clip.source).stem or f"row{number}")
        if clip.start is not None or end is not None:
            name += f"_{round(start * 1000)}_{'' if end is None else round(end * 1000)}"
        clip.name = _fitting(name, LONGEST_KEY)
        yield clip


def _path(value: Any) -> str:
    """The path of a film; ValueError where there is none, or no file can be called so."""
    if value in (None, ""):
        raise ValueError("no video named")
    if not isinstance(value, str):
        raise ValueError(f"video {shown(value)} is no path")
    size = max(len(os.fsencode(part)) for part in value.split("/"))
    if "\0" in value or size > LONGEST_FILE or len(os.fsencode(value)) > LONGEST_PATH:
        raise ValueError(f"video {shown(value)}, {len(value)} letters, is no path of a file")
    return value


def parse_words(value: Any) -> list[Word]:
    """Words of a cell: None, text, or a list of words, [word, start, end], or objects."""
    if value is None:
        return []
    if isinstance(value, str):
        if not value.lstrip().startswith(("[", "{")):
            return [(word, None, None) for word in _clean(value).split()]
        try:
            value = parse_json(value)
        except ValueError:
            if TAGGED.match(value):
                return [(word, None, None) for word in _clean(value).split()]
            raise ValueError(f"words {shown(value)} are not valid JSON") from None
    if not isinstance(value, list):
        raise ValueError(f"words: {shown(value)} is no text and no list")
    return [_word(item) for item in value]


def _words(value: Any) -> list[Word]:
    """The words of a cell, as many as readers take."""
    words = parse_words(value)
    if (size := len("".join(word for word, *_ in words).encode())) > LONGEST_WORDS:
        raise ValueError(
            f"{len(words)} words of {size} bytes, {LONGEST_WORDS} at most; cut the film with the"
            " columns start and end"
        )
    return words


def _word(item: Any) -> Word:
    """One word of a list, with its times if it has some."""
    if isinstance(item, str):
        item = [item, None, None]
    elif isinstance(item, dict) and "word" in item:  # recognisers add scores
        item = [item["word"], item.get("start"), item.get("end")]
    if not (isinstance(item, list) and len(item) == 3):
        raise ValueError(f"words: {shown(item)} is not [word, start, end]")
    text, start, end = item[0], _seconds(item[1]), _seconds(item[2])
    if type(text) not in (str, int) or not (word := _clean(str(text))):
        raise ValueError(f"words: {shown(text)} is no word")
    if start is not None and end is not None and end < start:
        raise ValueError(f"words: {shown(word)} starts at {start} s and ends at {end} s")
    return word, start, end


def _seconds(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip() in NO_NUMBER):
        return None
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is no number of seconds") from None
    if math.isnan(number):
        return None
    if not 0 <= number <= MOST_SECONDS:
        raise ValueError(f"{shown(value)} is no time in a film, in seconds")
    return number


def _name(value: Any) -> str | None:
    """A label, talker or part as readers take it, cleaned; None where there is none."""
    if value is None:
        return None
    if not isinstance(value, str | int):
        kind = type(value).__name__
        raise ValueError(f"{shown(value)} ({kind}) names nothing; text and whole numbers do")
    text = _clean(str(value))
    if len(text) >= LONGEST_NAME:
        raise ValueError(f"{shown(text)}, {len(text)} letters, is no name; of another column?")
    return text or None


def _part(value: Any) -> str | None:
    """The part of a row; with another name no training would ever take it."""
    name = _name(value)
    if name is not None and (name := name.casefold()) not in PARTS:
        raise ValueError(f"split {shown(value)} is none of {', '.join(PARTS)}")
    return name


def _clean(text: str) -> str:
    """In letters that print, with single spaces for all kinds of blanks: readers refuse others.

    Letters are put together (NFC), as two classes that look the same are one.
    """
    text = unicodedata.normalize("NFC", text)
    seen = "".join(letter for letter in text if letter.isprintable() or letter.isspace())
    return " ".join(seen.split())


def _safe(text: str) -> str:
    """`text` as part of a key: no dot (the archive reader splits there), no slash, no blank."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "clip"


def _fitting(name: str, most: int) -> str:
    """The name, or its beginning and a hash of it, in at most so many bytes."""
    data = name.encode()
    if len(data) <= most:
        return name
    return f"{data[: most - 9].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


#: How the cell of each column is read; a ValueError refuses the row.
READERS: dict[str, Callable[[Any], Any]] = {
    "video": _path, "split": _part, "speaker": _name, "label": _name,
    "start": _seconds, "end": _seconds, "words": _words,
}  # fmt: skip
COLUMNS = tuple(READERS)


def _read(column: str, row: dict[str, Any]) -> Any:
    """What a cell of a row says; ValueError: it cannot be, or could not be read."""
    cell = row.get(column)
    if isinstance(cell, ValueError):
        raise cell
    return READERS[column](cell)


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """The pictures of the row's span and their sound; with a lag, what belongs to them of both."""
    span = clip.start is not None or clip.end is not None
    lag_s = (clip.lag_ms or 0.0) / 1000 if span else 0.0
    return load_film(root / clip.source, settings, clip.start, clip.end, lag_s)


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The words of the row; what lies behind the film is flagged."""
    picture_s = 1 / settings.fps
    lasts_s = num_frames * picture_s
    late_s = lasts_s + picture_s + 1e-6  # one picture is rounding
    if clip.end is not None and clip.end - (clip.start or 0.0) > late_s:
        flags.add("span_clamped")
    inside = [_within(word, lasts_s, late_s) for word in clip.words]
    if inside != clip.words:
        flags.add("words_clamped")
    return inside


def _within(word: Word, lasts_s: float, late_s: float) -> Word:
    """A word of a clip that lasts so long: cut at its end, or without times if all behind it."""
    text, start, end = word
    if max(start or 0.0, end or 0.0) <= late_s:
        return word
    if start is not None and start >= lasts_s:
        return text, None, None
    return text, start, lasts_s
