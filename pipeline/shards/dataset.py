"""A finished dataset as its readers take it: its folders, `dataset.json` and manifest, checked."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avb.pipeline.clip.codec import MOST_BYTES
from avb.pipeline.config import LONGEST_NAME, Crop
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.parse import MOST_JSON, Range, checked, parse_json
from avb.pipeline.shards.metadata import FORMAT
from avb.pipeline.storage.cache import open_file
from avb.pipeline.storage.store import Folder, Store

BATCH_ROWS = 1 << 14
#: Of a manifest: values beside one a byte, bytes of text at once, and of a row in the mean (a
#: table gives one half of that as words).
MOST_SPARSE, MOST_TEXT, MOST_TEXT_ROW = 1 << 20, 1 << 28, 1 << 16


@dataclass(frozen=True)
class _Crop:
    size: int
    margin: int
    stored: int

    def __post_init__(self) -> None:
        if self.stored != Crop(self.size, self.margin).stored:
            raise ValueError(f"{self.stored} stored pixels are not size and margins")


@dataclass(frozen=True)
class _Mel:
    n_mels: Annotated[int, Range(1, 1024)]
    hop: Annotated[int, Range(1)]
    floor: float
    dtype: Literal["float16", "uint8"]
    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.floor + self.scale + self.offset) and self.floor > 0):
            raise ValueError("expected finite floor, scale and offset, and a floor above 0")


@dataclass(frozen=True)
class _Settings:
    fps: Annotated[int, Range(1, 1000)]
    sample_rate: Annotated[int, Range(1, 1_000_000)]
    keep_audio: bool = False

    def __post_init__(self) -> None:
        if self.fps > self.sample_rate:
            raise ValueError(f"{self.fps} pictures and {self.sample_rate} samples a second")


@dataclass(frozen=True)
class _Pixels:
    mean: Annotated[float, Range(0, 255)]
    std: Annotated[float, Range(0, 255)]


@dataclass(frozen=True)
class _Shard:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Counts:
    listed: int
    ok: int
    status: dict[str, int]
    flags: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Dataset:
    corpus: str
    title: str
    settings: _Settings
    crops: dict[str, _Crop]
    mel: _Mel
    pixels: dict[str, _Pixels]
    counts: _Counts
    labels: list[str]
    labels_sha256: str
    fingerprint: str
    shards: list[_Shard]
    schema: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.schema <= FORMAT:
            raise ValueError(f"shards of format {self.schema}; this version reads 1 to {FORMAT}")
        if self.crops.keys() != self.pixels.keys():
            raise ValueError("crops and pixels are not of the same names")
        texts = (self.corpus, self.fingerprint, *self.labels)
        if not all(text.isprintable() and len(text) < LONGEST_NAME for text in texts):
            raise ValueError("a name or label that cannot be printed")
        if any("/" in shard.name or not shard.name.isprintable() for shard in self.shards):
            raise ValueError("a shard whose name is no name of a file")


def dataset_folders(folder: Folder) -> list[Folder]:
    """The folder itself if it holds a dataset, else its children that do, else UsageError."""
    if isinstance(folder, Store):
        names = set(folder.entries())
    elif folder.is_dir():
        patterns = ("dataset.json", "manifest.parquet", "*/dataset.json", ".avb", "*/.avb")
        there = (path for pattern in patterns for path in folder.glob(pattern))
        names = {path.relative_to(folder).as_posix() for path in there}
    else:
        raise UsageError(f"{folder}: no such folder")
    if names & {"dataset.json", "manifest.parquet"}:
        return [folder]
    if inner := sorted(name for name in names if re.fullmatch("[^/]+/dataset.json", name)):
        return [folder / name.split("/")[0] for name in inner]
    if any(re.match(r"([^/]+/)?\.avb(/|$)", name) for name in names):
        raise UsageError(f"{folder}: prep has not finished here; run the same avb prep again")
    raise UsageError(f"{folder}: no dataset.json here or one folder down; give OUT/<corpus>")


def read_dataset(folder: Folder) -> dict[str, Any]:
    """`dataset.json` of a finished folder; UsageError: it is missing or cannot be relied on."""
    path = folder / "dataset.json"
    try:
        with open_file(folder, "dataset.json") as file:
            record = parse_json(file.read(MOST_JSON + 1))
        checked(_Dataset, record, str(path), strict=False)
        return record
    except FileNotFoundError:
        inside = sorted(folder.glob("*/dataset.json")) if not isinstance(folder, Store) else []
        if inside:
            names = ", ".join(path.parent.name for path in inside[:8])
            one = inside[0].parent
            raise UsageError(f"{folder}: holds {names}; give one, such as {one}") from None
        why = "no folder of shards, or one that is not finished; run `avb prep` again"
        raise UsageError(f"{folder}: no dataset.json: {why}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from None


#: Columns of the manifest that readers compare with texts.
_TEXTS = {"key", "source", "group", "split", "speaker", "label", "status", "error", "shard"}
#: And with places in files, or make room for.
_WHOLE = {"offset", "nbytes", "n_frames", "n_mel", "face_misses"}


@contextmanager
def open_manifest(folder: Folder) -> Iterator[pq.ParquetFile]:
    """The rows of `manifest.parquet`, to be read with `manifest_batches`; UsageError if damaged.

    A few bytes of Parquet can stand for billions of equal rows, or for pages of zeros: what its own
    account says of them is held against its size before any of it is read.
    """
    path = folder / "manifest.parquet"
    try:
        with open_file(folder, "manifest.parquet") as source:
            metadata = pq.read_metadata(source)
            texts = _text_columns(metadata, source.seek(0, os.SEEK_END))
            # As dictionaries, so that a long text that stands in every row is in memory once.
            with pq.ParquetFile(source, metadata=metadata, read_dictionary=texts) as file:
                for field in file.schema_arrow:
                    is_dictionary = pa.types.is_dictionary(field.type)
                    kind = field.type.value_type if is_dictionary else field.type
                    if field.name in _TEXTS and kind not in (pa.string(), pa.null()):
                        raise pa.ArrowInvalid(f"column {field.name} is {field.type}, no text")
                    whole = pa.types.is_integer(kind) or kind == pa.null()
                    if field.name in _WHOLE and not whole:
                        raise pa.ArrowInvalid(f"column {field.name} is {field.type}, no integers")
                yield file
    except FileNotFoundError:
        raise UsageError(f"{path}: missing; run `avb prep` on this folder again") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path}: damaged, or no manifest of this version ({one_line(error)}); prepare again"
        ) from None


def _text_columns(metadata: pq.FileMetaData, size: int) -> list[str]:
    """Paths of the columns of text, in a file of `size` bytes that can hold what it announces."""
    texts = []
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.physical_type == "BYTE_ARRAY":
            texts.append(column.path)
        elif column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            raise pa.ArrowInvalid(f"column {column.path} of a type that no manifest has")
        chunks = [metadata.row_group(g).column(number) for g in range(metadata.num_row_groups)]
        values = sum(chunk.num_values for chunk in chunks)
        largest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
        if max(values, metadata.num_rows) > size + MOST_SPARSE or largest > MOST_TEXT:
            raise pa.ArrowInvalid(
                f"{values} values in {largest} bytes unpacked, in a file of {size} bytes"
            )
    return texts


def manifest_batches(
    file: pq.ParquetFile, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """So many rows at a time, of plain columns.

    pyarrow.ArrowException, OSError: a column is missing or damaged, or its texts are too long.
    """
    plain = file.metadata.schema.to_arrow_schema()
    if absent := sorted(set(columns) - set(plain.names)):
        raise pa.ArrowInvalid(f"no column {absent[0]}")
    for group in range(file.metadata.num_row_groups):  # across them Arrow joins no dictionaries
        for batch in file.iter_batches(rows, [group], list(columns), use_threads=False):
            total = sum(_text_bytes(column) for column in batch.columns)
            if total > min(MOST_TEXT, MOST_SPARSE + MOST_TEXT_ROW * len(batch)):
                raise pa.ArrowInvalid(f"{total} bytes of text in {len(batch)} rows")
            kinds = [plain.field(name).type for name in columns]
            whole = [
                batch[name] if batch[name].type == kind else batch[name].cast(kind)
                for name, kind in zip(columns, kinds, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(whole, list(columns))


def _text_bytes(column: pa.Array) -> int:
    """Bytes that the texts of a column would take, each row with its own."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary)
        return pc.sum(lengths.cast(pa.int64()).take(column.indices)).as_py() or 0
    if pa.types.is_list(column.type):
        return _text_bytes(column.flatten())
    if pa.types.is_struct(column.type):
        return sum(_text_bytes(part) for part in column.flatten())
    return 0


def read_manifest(folder: Folder, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of `manifest.parquet` in its order, a batch at a time."""
    with open_manifest(folder) as file:
        yield from manifest_batches(file, BATCH_ROWS, columns)


def manifest_lags(folder: Folder) -> Iterator[tuple[str, str | None, float]]:
    """Key, talker and milliseconds of each stored clip whose sound was moved by its lag."""
    for batch in read_manifest(folder, ["key", "speaker", "sync_ms", "flags"]):
        for row in batch.to_pylist():
            if "sync_corrected" in (row["flags"] or ()):
                yield row["key"], row["speaker"], row["sync_ms"]


def can_hold(record: Mapping[str, Any], nbytes: Any, frames: Any, columns: Any) -> Any:
    """Whether samples of `nbytes` in a shard can be as long as their rows say.

    Readers make room for what a row says before they see a byte of the shard. Each picture and
    each mel column takes a byte or more, each bin of a mel one too, and what is unpacked of a
    sample is bounded. A film without sound has no columns. Integers, or arrays of them.
    """
    settings = record["settings"]
    per_frame = sum(crop["stored"] ** 2 for crop in record["crops"].values())
    if settings.get("keep_audio", False):
        per_frame = max(per_frame, 4 * settings["sample_rate"] // settings["fps"])
    most = MOST_BYTES // max(1, per_frame)  # a product of what a row says may overflow
    pictures = (frames > 0) & (frames <= nbytes) & (frames <= most)
    return pictures & (columns >= 0) & (columns <= nbytes // record["mel"]["n_mels"])
