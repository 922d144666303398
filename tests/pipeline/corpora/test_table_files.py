"""Files of tables: what is no table in UTF-8 is called what it is."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fault
from importers import importer

TEXT = "video,label\na.mp4,Müller\nb.mp4,Jürgen\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TEXT.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "UTF-16 text"),
        (TEXT.encode("utf-16-be"), "UTF-16 text"),
        (TEXT.encode("utf-32"), "UTF-32 text"),
        (TEXT.encode("cp1252"), "not UTF-8 (byte 0xfc), but of Windows-1252"),
        (("x" * 100_000 + "\n" + TEXT).encode("cp1252"), "Windows-1252"),
        (TEXT.replace(",", ";").encode(), "parted by semicolons"),
        (TEXT.replace(",", "\t").encode(), "parted by tabs"),
        (TEXT.encode() + b"c.mp4\n", "a CSV whose row 3 has 1 cells and its header 2"),
        (TEXT.encode() + b'c.mp4,"never closed\n' + b"d.mp4,x\n" * 9, "is a quote not closed?"),
        (TEXT.encode() + b'c.mp4,"closed" here\n', "up to line 4"),
        (TEXT.encode() + b"x" * (2 << 20), "a line of more than"),
        (TEXT.encode() + b'c.mp4,"' + b"x\n" * (1 << 20), "is a quote not closed?"),
        (b"PK\x03\x04" + bytes(100), "a spreadsheet (xlsx)"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip data"),
        (b"video,video\na,b\n", "more than one column 'video'"),
        (b"\xef\xbb\xbf", "'video' is missing"),
        (b"\n\n", "it is empty"),
        (b"PAR1" + bytes(100), "neither CSV nor Parquet"),
        (b"path,start\na.mp4,0\n", "'video' is missing; found path, start"),
        (b"video,start\n", "no rows"),
        (b"", "neither CSV nor Parquet"),
        (b"video,start\na.mp4,0,9,9\n", "a CSV whose row 1 has 4 cells and its header 2"),
    ],
    ids=range(23),
)
def test_what_is_no_table_in_utf_8_is_called_what_it_is(
    tmp_path: Path, data: bytes, says: str
) -> None:
    (tmp_path / "mine.csv").write_bytes(data)
    line = fault(importer("table", tmp_path / "mine.csv").clips)
    assert says in line and line.startswith(f"{tmp_path}/mine.csv: ")


def test_other_systems_marks_and_a_wrong_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    for end in ("\r\n", "\r", "\n"):
        path.write_bytes(("\ufeff" + TEXT).replace("\n", end).encode())
        assert importer("table", path).listing().labels == ["Jürgen", "Müller"]
    pq.write_table(pa.table({"video": ["a.mp4"]}), path)
    assert [clip.source for clip in importer("table", path).clips()] == ["a.mp4"]
    path.rename(tmp_path / "csv.parquet").write_text(TEXT)
    for name, says in (
        (".", "cannot be read (Is a directory)"),
        ("none.csv", "none.csv: no such file"),
        ("csv.parquet", "neither CSV nor Parquet"),
    ):
        assert says in fault(importer("table", tmp_path / name).listing)
