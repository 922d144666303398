"""A finished dataset as its readers take it: found, and what they rely on checked once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from avb.pipeline.cache import open_file
from avb.pipeline.config import LONGEST_NAME, Crop, UsageError, build, one_line
from avb.pipeline.facts import FORMAT
from avb.pipeline.storage import Folder, Store

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 14


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
    n_mels: int
    hop: int
    floor: float
    dtype: Literal["float16", "uint8"]
    scale: float
    offset: float

    def __post_init__(self) -> None:
        finite = math.isfinite(self.floor + self.scale + self.offset)
        if not (finite and 0 < self.n_mels <= 1024 and self.hop > 0 < self.floor):
            raise ValueError("numbers that make no mel")


@dataclass(frozen=True)
class _Settings:
    fps: int
    sample_rate: int
    keep_audio: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.fps <= 1000 and self.fps <= self.sample_rate <= 1_000_000):
            raise ValueError(f"{self.fps} pictures and {self.sample_rate} samples a second")


@dataclass(frozen=True)
class _Pixels:
    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (0 <= self.mean <= 255 and 0 <= self.std <= 255):
            raise ValueError(f"mean {self.mean} and deviation {self.std} of 0 to 255")


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


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    corpus: str
    settings: _Settings
    crops: dict[str, _Crop]
    mel: _Mel
    labels: list[str]
    fingerprint: str
    schema: int = 1
    pixels: dict[str, _Pixels] = field(default_factory=dict)
    shards: list[_Shard] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= self.schema <= FORMAT:
            raise ValueError(f"shards of format {self.schema}; this version reads 1 to {FORMAT}")


@dataclass(frozen=True, kw_only=True)
class _Account(_Dataset):
    title: str
    counts: _Counts
    labels_sha256: str
    shards: list[_Shard]
    pixels: dict[str, _Pixels]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops.keys() != self.pixels.keys():
            raise ValueError("crops and pixels are not of the same names")


def check_dataset(record: Any, where: str, account: bool = False) -> dict[str, Any]:
    """The content of `dataset.json` as it is, when its readers can rely on it.

    Args:
        where: its path, for messages.
        account: whether counts and shards must be there too, which training can do without.

    Raises:
        UsageError: something is missing, or is not what it must be; one line names it.
    """
    found: _Dataset = build(_Account if account else _Dataset, record, where, strict=False)
    texts = (found.corpus, found.fingerprint, *found.labels)
    if not all(text.isprintable() and len(text) < LONGEST_NAME for text in texts):
        raise UsageError(f"{where}: a name or label that cannot be printed")
    if any("/" in shard.name or not shard.name.isprintable() for shard in found.shards):
        raise UsageError(f"{where}: a shard whose name is no name of a file")
    return record


def dataset_folders(folder: Folder) -> list[Folder]:
    """The folder itself if it holds a dataset, else its children that do.

    Raises:
        UsageError: there is none, finished or not.
    """
    if isinstance(folder, Store):
        return _stored_folders(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.parquet").is_file():
        return [folder]
    found: list[Folder] = [*sorted(p.parent for p in folder.glob("*/dataset.json"))]
    if found:
        return found
    raise _no_dataset(folder, (folder / ".avb").is_dir() or any(folder.glob("*/.avb")))


def _stored_folders(store: Store) -> list[Folder]:
    """`dataset_folders` of a store."""
    names = store.entries()
    if "dataset.json" in names or "manifest.parquet" in names:
        return [store]
    found = sorted(name.split("/")[0] for name in names if re.fullmatch("[^/]+/dataset.json", name))
    if not found:
        raise _no_dataset(store, any(re.match(r"([^/]+/)?\.avb/", name) for name in names))
    return [store / name for name in found]


def _no_dataset(folder: Folder, begun: bool) -> UsageError:
    if begun:
        return UsageError(f"{folder}: prep has not finished here; run the same avb prep again")
    return UsageError(f"{folder}: no dataset.json here or one folder down; give OUT/<corpus>")


def read_dataset(folder: Folder) -> dict[str, Any]:
    """`dataset.json` of a finished folder.

    Raises:
        UsageError: it is missing or is no JSON object.
    """
    path = folder / "dataset.json"
    try:
        with open_file(folder, "dataset.json") as file:
            return check_dataset(json.load(file), str(path), account=True)
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: no dataset.json; prep has not finished, run it again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from None


def read_manifest(folder: Folder, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of `manifest.parquet` in its order, a batch at a time.

    Raises:
        UsageError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "manifest.parquet"
    try:
        with open_file(folder, "manifest.parquet") as source, pq.ParquetFile(source) as file:
            absent = sorted(set(columns) - set(file.schema_arrow.names))
            if absent:
                raise pa.ArrowInvalid(f"no column {absent[0]}")
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: no manifest.parquet; prep has not finished, run it again"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: damaged ({one_line(error)}); run avb prep again") from None
