"""Rows of a CSV or Parquet file, in bounded memory; what is no such file is called what it is."""

import codecs
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet

from avb.pipeline.errors import UsageError, one_line

#: Letters of a cell, and of a line: more is a quote that nobody closed, or no text at all.
LONGEST_CELL = 1 << 20
_BATCH_ROWS = 8192
_PARTS_OF_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: What Arrow says of a cell that no Python value stands for.
_NO_VALUE = (ValueError, LookupError, OverflowError, pa.ArrowException)
_FILES = {b"PK\x03\x04": "a spreadsheet (xlsx) or another zip archive", b"\x1f\x8b": "gzip data"}


def column_names(path: Path) -> list[str]:
    """The columns of a table; UsageError says what else it is."""
    with _faults_named(path):
        if _is_parquet(path):
            return pyarrow.parquet.read_schema(path).names
        return next(_records(path), [])


def rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of every row, in the file's order; UsageError says where it is damaged.

    Of a CSV every cell is text: left to guess, a reader makes 1 of the label 001. Of Parquet,
    durations and times of day are seconds, and a cell that cannot be read is a ValueError.
    """
    with _faults_named(path):
        for record in (_of_parquet if _is_parquet(path) else _of_csv)(path, columns):
            yield dict(zip(columns, record, strict=True))


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise UsageError(
            f"{path}: text that is not UTF-8 ({byte}), but of Windows-1252, Latin-1 or another"
            " code page; save it as UTF-8"
        ) from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        raise UsageError(f"{path}: neither CSV nor Parquet ({one_line(error)})") from None


def _check_text(path: Path) -> None:
    """Refuse what is no text in bytes of ASCII, by what it is."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip():
        raise UsageError(f"{path}: neither CSV nor Parquet (it is empty)")
    for start, kind in _FILES.items():
        if head.startswith(start):
            raise UsageError(f"{path}: {kind}, neither CSV nor Parquet; save it as CSV in UTF-8")
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        kind = "UTF-32"
    elif (
        head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or head.count(0) > len(head) // 3  # every second byte, without a mark
    ):
        kind = "UTF-16"
    else:
        return
    raise UsageError(f"{path}: {kind} text; save it as UTF-8 (in Excel: CSV UTF-8)")


def _of_csv(path: Path, columns: list[str]) -> Iterator[list[str]]:
    records = _records(path)
    header = next(records, [])
    places = [header.index(name) for name in columns]
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise UsageError(
                f"{path}: a CSV whose row {number} has {len(record)} cells and its header"
                f" {len(header)}; a comma or a quote too many or too few?"
            )
        yield [record[place] for place in places]


def _records(path: Path) -> Iterator[list[str]]:
    """The header, then every row; empty lines are none."""
    _check_text(path)
    csv.field_size_limit(LONGEST_CELL)
    # Line ends in quotes stay as they are.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file), strict=True)
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise UsageError(
                f"{path}: no valid CSV up to line {reader.line_num} ({error}); is a quote not"
                " closed?"
            ) from None


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(LONGEST_CELL):
        if len(line) == LONGEST_CELL and line[-1] not in "\r\n":
            raise csv.Error(f"a line of more than {LONGEST_CELL} letters")
        yield line


def _of_parquet(path: Path, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield from zip(*(_cells(batch[name]) for name in columns), strict=True)


def _cells(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).to_pylist()
        parts = _PARTS_OF_A_SECOND[kind.unit]
        return [None if count is None else count / parts for count in whole]
    try:
        cells = column.to_pylist()
    except _NO_VALUE:
        cells = [_cell(value) for value in column]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [_decoded(cell) for cell in cells]
    return cells


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except _NO_VALUE as error:
        return ValueError(f"a cell of {value.type} that cannot be read ({one_line(error)})")


def _decoded(cell: Any) -> Any:
    """Text that its writer stored as bytes."""
    try:
        return cell if cell is None else cell.decode()
    except UnicodeDecodeError:
        return ValueError("bytes that are no UTF-8 text")
