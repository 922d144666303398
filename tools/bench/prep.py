"""`avb bench prep|hours`: what preparing costs beside decoding alone, and for whole corpora.

All in one run on one core.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.build.plan import make_plan, read_plan
from avb.pipeline.build.process import Prepared, encode_sample, prepare_clip, sums
from avb.pipeline.clip.codec import decode_video
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import Clip
from avb.pipeline.corpora.inspect import recognise
from avb.pipeline.errors import UsageError
from avb.pipeline.machine import settle_process
from avb.pipeline.settings import Settings, settings_for
from avb.pipeline.shards.metadata import STAGES
from avb.pipeline.shards.tar import ShardWriter

CORES = (1, 16, 64, 256)


def bench_prep(
    root: Path, corpus: str | None = None, clips: int = 40, rounds: int = 3, codec: str = "mp4",
    mel_dtype: str = "float16", datasets: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Prepare a sample of clips and decode them alone, turn by turn.

    Milliseconds are CPU time of this process on one core, of stages the wall's; each clip counts
    with its fastest round. PSNR is that of the stored crops against the cut ones. All are means
    over clips.
    """
    settle_process()
    corpora = load_corpora(datasets)
    name = corpus or recognise(root, corpora)
    if name not in corpora:
        raise UsageError(f"no corpus {name!r}; one of {', '.join(corpora)}")
    settings = settings_for(
        name, corpora[name], codec=codec, mel_dtype=mel_dtype, limit=clips, shard_clips=clips
    )
    with tempfile.TemporaryDirectory() as folder:
        plan_path = Path(folder) / "plan.arrow"
        make_plan(corpora[name], settings, root, plan_path)
        plan = read_plan(plan_path)
        rows = [row for unit in plan.units for row in plan.rows(unit.number)]
        with ShardWriter(Path(folder) / "bench.tar") as writer:
            at = Path(str(plan.root))
            measured = [_measure(key, clip, at, settings, writer, rounds) for key, clip in rows]
    kept = [m for m in measured if m is not None]
    if not kept:
        raise UsageError(f"{root}: none of {len(rows)} clips can be prepared; see avb prep")
    mean = {name: float(np.mean([m[name] for m in kept])) for name in kept[0]}
    decode, total = mean["decode_alone"], mean["prep"]
    return {
        "corpus": name,
        "codec": codec,
        "clips": len(kept),
        "refused": len(measured) - len(kept),
        "decode_ms": round(decode, 2),
        "prep_ms": round(total, 2),
        "ratio": round(total / decode, 2),
        "clips_per_s": round(1e3 / total, 1),
        "bytes_per_clip": round(mean["bytes"]),
        "psnr_db": round(mean["psnr"], 2),
        "stages_ms": {s: round(mean[s], 2) for s in STAGES},
    }


def _measure(
    key: str, clip: Clip, root: Path, settings: Settings, writer: ShardWriter, rounds: int
) -> dict[str, float] | None:
    """Fastest times (ms) of one clip, its bytes in the tar, the PSNR of its crops."""
    import av

    if clip.status:
        return None
    best: dict[str, float] = {}
    for turn in range(rounds):
        clock = Clock()  # of processor time, asked twice a picture, it would be .5 % of a clip
        try:
            first = time.process_time()
            decode_alone(root, clip, settings)
            start = time.process_time()
            done = prepare_clip(clip, root, settings, clock)
        except (Refused, av.FFmpegError):
            return None
        with clock("encode"):
            members = encode_sample(key, clip, done, settings, None)
            sums(done)
        with clock("shard"):
            _, nbytes = writer.write(f"{key}-{turn}", members)
        times = {s: clock.ms.get(s, 0.0) for s in STAGES} | {
            "decode_alone": (start - first) * 1e3,
            "prep": (time.process_time() - start) * 1e3,
        }
        best = {k: min(v, best.get(k, v)) for k, v in times.items()}
    psnr = float(np.mean([_psnr(members, done, kind) for kind in done.crops]))
    return best | {"bytes": float(nbytes), "psnr": psnr}


def _psnr(members: dict[str, bytes], done: Prepared, kind: str) -> float:
    """Of one stored crop against the cut pictures, in dB."""
    extension = next(e for e in members if e.startswith(f"{kind}."))
    out = np.empty_like(done.crops[kind])
    decode_video(members[extension], extension.split(".")[1], out)
    error = np.mean((out.astype(np.float32) - done.crops[kind]) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def decode_alone(root: Path, clip: Clip, settings: Settings) -> None:
    """Decode picture and sound of a clip and do nothing with them."""
    import av

    path = root / clip.source
    if path.is_dir():
        for _ in adapter(settings.corpus).load(root, clip, settings).pictures():
            pass
        return
    with av.open(str(path)) as container:
        streams: list[Any] = [*container.streams.video[:1], *container.streams.audio[:1]]
        for stream in streams:
            stream.thread_type = "NONE"
        for packet in container.demux(streams):
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    frame.to_ndarray()
                elif isinstance(frame, av.VideoFrame):
                    memoryview(frame.planes[0])  # type: ignore[arg-type]


def bench_hours(roots: list[Path], clips: int = 40, datasets: Path | None = None) -> dict[str, Any]:
    """Hours by cores of `avb prep` for the published number of clips of each corpus.

    A core is as fast as this one, measured by `bench_prep` in processor time, and cores do not get
    into each other's way: reading from a disk that many share comes on top. Ray's driver adds some
    milliseconds a shard, whatever the number of cores (tests/scale/ray_driver.py).
    """
    corpora = load_corpora(datasets)
    hours: dict[str, Any] = {}
    for root in roots:
        measured = bench_prep(root, clips=clips, datasets=datasets)
        corpus = corpora[measured["corpus"]]
        if measured["corpus"] in hours:
            raise UsageError(f"{root}: another folder of {corpus.title}; one of each is measured")
        total = corpus.expected.get("clips")
        if not total:
            raise UsageError(f"{root}: nobody published how many clips {corpus.title} has")
        rate = measured["clips_per_s"]
        hours[measured["corpus"]] = {
            "clips": total,
            "clips_per_s": rate,
            "hours": {cores: round(total / rate / cores / 3600, 2) for cores in CORES},
        }
    return {"corpora": hours}


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a table in Markdown."""
    head = ["corpus", "clips", "clips/s a core", *(f"h on {n}" for n in CORES)]
    rows = [head, ["---"] * len(head)]
    for name, one in record["corpora"].items():
        hours = [f"{value:.2f}" for value in one["hours"].values()]
        rows.append([name, f"{one['clips']:,}", f"{one['clips_per_s']:.1f}", *hours])
    return [f"| {' | '.join(row)} |" for row in rows]
