"""Sound moved in shards that are there: mel, FLAC and facts made anew, pictures copied."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avb.pipeline.build.manifest import fingerprint, gathered_schema, mean_and_std
from avb.pipeline.build.process import PICTURE_S, boundary_of, encode_sound, moved_words, sync_flags
from avb.pipeline.build.unit import word_rows
from avb.pipeline.clip import audio
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.corpora.lags import Lags
from avb.pipeline.errors import UsageError
from avb.pipeline.files import open_atomic, write_json
from avb.pipeline.parse import checked
from avb.pipeline.settings import Settings
from avb.pipeline.shards.dataset import open_manifest, read_dataset
from avb.pipeline.shards.metadata import FORMAT, read_facts, write_facts
from avb.pipeline.shards.tar import ShardWriter, sample_members


def apply_lags(
    folder: Path, lags: Lags, out: Path, progress: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """Write the shards of `folder` to `out` with each clip's sound moved by its lag.

    As `avb prep --sync` makes them, but for the ends: there is no sound beyond what is stored, so
    silence comes in. `dataset.json`, which is returned, is written last; a call that was stopped
    begins anew. UsageError: the shards hold no sound, are of other clips, or were moved already;
    `out` is no folder.
    """
    record = read_dataset(folder)
    settings: Settings = checked(Settings, record["settings"], f"{folder}: settings")
    if settings.sync or not settings.keep_audio:
        why = "their sound was moved already" if settings.sync else "they store no sound (FLAC)"
        raise UsageError(f"{folder}: {why}; give avb prep --sync the raw clips instead")
    if (out / "dataset.json").exists() or out.resolve() == folder.resolve():
        raise UsageError(f"{out}: holds shards; choose another --out")
    with open_manifest(folder) as file:
        rows = file.read().to_pylist()
    if not any(row["key"] in lags.ms for row in rows):
        raise UsageError(f"{lags.path}: has the lag of no clip in {folder}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{out}: is, or lies in, a file; give --out another folder") from None
    by_shard: dict[str, list[dict[str, Any]]] = {shard["name"]: [] for shard in record["shards"]}
    for row in rows:
        if row["status"] == "ok":
            by_shard[row["shard"]].append(row)
    moments, shards = np.zeros(3), []
    for name, own in by_shard.items():
        own.sort(key=lambda row: row["offset"])
        with (folder / f"{name}.tar").open("rb") as tar, ShardWriter(out / f"{name}.tar") as shard:
            for row in own:
                tar.seek(row["offset"])
                block = tar.read(row["nbytes"])
                members = {n: bytes(m) for n, m in sample_members(block, row["key"]).items()}
                moments += _moved(row, members, lags.ms.get(row["key"]), settings)
                row["offset"], row["nbytes"] = shard.write(row["key"], members)
                if progress is not None:
                    progress(1)
        made = {"name": name, "samples": len(own), "bytes": shard.nbytes, "sha256": shard.sha256}
        shards.append(made)
    with open_atomic(out / "manifest.parquet") as file:
        pq.write_table(pa.Table.from_pylist(rows, gathered_schema()), file, compression="zstd")
    plain = settings.as_dict() | {"sync": lags.digest}
    flags = Counter(flag for row in rows for flag in row["flags"] or ())
    record |= {
        "schema": FORMAT,
        "settings": plain,
        "shards": shards,
        "mel": record["mel"] | mean_and_std(*moments.tolist()),
        "counts": record["counts"] | {"flags": dict(sorted(flags.items()))},
        "fingerprint": fingerprint(plain, record["labels"], shards),
    }
    write_json(out / "dataset.json", record)
    return record


def _moved(
    row: dict[str, Any], members: dict[str, bytes], lag_ms: float | None, settings: Settings
) -> Any:
    """Move the sound of one sample in its row and members; count, sum and squares of its mel."""
    facts = read_facts(members["json"])
    if "flac" not in members:  # a film without sound
        return np.zeros(3)
    rate, fps, frames = settings.sample_rate, settings.fps, row["n_frames"]
    lag_s = (lag_ms or 0.0) / 1000
    sound, pad = audio.fit(decode_flac(members["flac"]), rate, -lag_s, frames, fps, rate)
    log_mels = audio.log_mel(sound, settings.mel, rate)
    members |= encode_sound(sound, log_mels, settings)
    pad = max(0, facts["audio_pad"]) + max(0, pad)
    short = {"audio_short"} if pad > PICTURE_S * rate else set()
    words, clamped = moved_words(facts["words"], -lag_s, frames / fps)
    flags = sorted({*(row["flags"] or ())} | sync_flags(lag_ms) | short | clamped)
    row |= {"flags": flags, "sync_ms": lag_ms or 0.0, "words": word_rows(words)}
    boundary = boundary_of(facts["label"], words)
    changes = {"words": words, "flags": flags, "boundary": boundary, "audio_pad": pad}
    members["json"] = write_facts(facts | changes | {"sync_ms": lag_ms or 0.0})
    return np.array(
        [log_mels.size, log_mels.sum(dtype=np.float64), np.square(log_mels).sum(dtype=np.float64)]
    )
