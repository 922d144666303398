"""Lags between lips and sound, clip by clip: the table of `avb sync`, which `avb prep` mends by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.files import open_atomic

#: A lag that is less sure is not acted on. Of 480 clips of GRID none was less, of the same clips
#: with the sound of another 62 %, of 97 of talkers that the network had not seen 6.
LEAST_CONFIDENCE = 0.5
#: Later or earlier than this is no lag, but another film's sound.
FARTHEST_MS = 1000.0


@dataclass(frozen=True)
class Lags:
    """A table of lags."""

    path: Path
    digest: str  # SHA-256 of the file
    # By the key of a clip, how much later than the lips its sound is; None: not sure.
    ms: Mapping[str, float | None]


def write_lags(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> None:
    """Write rows of `key lag_ms confidence drift_ms how`, and what is known of all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [(name, pa.float32()) for name in ("lag_ms", "confidence", "drift_ms")]
    schema = pa.schema([("key", pa.string()), *numbers, ("how", pa.string())], facts)
    with open_atomic(path) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema), file, compression="zstd")


def read_lags(path: Path) -> Lags:
    """The lags of a table, in Parquet, of `avb sync` or of anybody; needed are `key lag_ms`.

    UsageError: it cannot be read, or holds something that is no lag.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [n for n in ("key", "lag_ms", "confidence") if n in file.schema_arrow.names]
            columns = file.read(names).to_pydict()
        keys, lags = columns["key"], columns["lag_ms"]
        sure = columns.get("confidence", [1.0] * len(keys))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UsageError(
            f"{path}: no table of lags, as avb sync makes ({one_line(error)})"
        ) from None
    ms: dict[str, float | None] = {}
    for key, lag, confidence in zip(keys, lags, sure, strict=True):
        if key in ms:
            raise UsageError(f"{path}: {one_line(key)} has two rows; a clip has one lag")
        try:
            believed = lag is not None and (confidence is None or confidence >= LEAST_CONFIDENCE)
            ms[key] = round(float(lag), 2) if believed else None
            wrong = believed and not abs(float(lag)) <= FARTHEST_MS
        except (TypeError, ValueError):
            wrong = True
        if wrong:
            raise UsageError(
                f"{path}: the lag of {one_line(key)} is {one_line(lag)}, its confidence"
                f" {one_line(confidence)}; expected milliseconds, {FARTHEST_MS:.0f} at most, and a"
                " number"
            )
    return Lags(path, digest, ms)
