"""`avb prep` between flags and library: settings, progress bar, closing table, exit code."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avb.pipeline.build.plan import Plan, make_plan
from avb.pipeline.config import Corpus, Crop, corpus_root, load_corpora
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.machine import cores
from avb.pipeline.settings import Settings, settings_for
from avb.pipeline.storage.mirror import scratch
from avb.pipeline.storage.store import Folder, place
from avb.tools.cli.console import FAILED, REFUSED, say

if TYPE_CHECKING:
    from avb.pipeline.build.prep import Part

CHOICES = {
    "codec": ("mp4", "h264", "jpeg"),
    "decoder": ("pyav", "ffmpeg"),
    "mel_dtype": ("float16", "uint8"),
    "box": ("fixed", "tracked", "whole"),
    "audio": ("required", "optional"),
    "tracker": ("litert", "mediapipe"),
}


@dataclass(frozen=True)
class Options:
    """The flags of `avb prep` as they were given; None means: as `datasets.yaml` says."""

    corpus: str
    table: Folder | None
    root: Folder | None
    out: Folder
    name: str | None
    jobs: int | None
    engine: str
    address: str | None
    part: str | None
    limit: int | None
    speakers: str | None
    crop: str | None
    box: str | None
    codec: str
    crf: int | None
    decoder: str
    tracker: str
    mel_dtype: str
    keep_audio: bool | None
    face_every: int | None
    shard_clips: int | None
    max_seconds: float | None
    audio: str | None
    retry_failed: bool
    overwrite: bool
    prune: bool
    clip_timeout: float
    max_failures: str | None
    dry_run: bool
    as_json: bool
    datasets: Path | None


def run(options: Options) -> int:
    """Prepare a corpus as the flags say; returns the exit code."""
    corpus, settings, root = resolve(options)
    limit = parse_limit(options.max_failures)
    part = parse_part(options.part)
    if options.address and options.engine != "ray":
        raise UsageError("--address is for --engine ray")
    if options.dry_run:
        return _dry_run(corpus, settings, root, options)
    from avb.pipeline.build.prep import prep
    from avb.pipeline.clip.facemodels import check

    if settings.box == "tracked" and options.engine == "local":
        check(settings.tracker)
    jobs = options.jobs
    if options.engine == "local":
        jobs = jobs or cores()
    with _bar(options.as_json) as progress:
        summary = prep(
            corpus, settings, root, options.out, jobs=jobs, engine=options.engine,
            address=options.address, part=part, retry_failed=options.retry_failed,
            overwrite=options.overwrite, prune=options.prune,
            clip_timeout_s=options.clip_timeout, progress=progress,
        )  # fmt: skip
    for notice in summary.notices:
        say(f"note: {notice}")
    _show(dataclasses.asdict(summary), options.as_json)
    say(f"licence of the data: {corpus.licence.name} ({corpus.licence.apply})")
    refused = summary.listed - summary.ok
    if part is not None:
        say(f"part {options.part} is done; after all parts, run once without --part")
    elif summary.ok == 0:
        why = _reasons(place(summary.out))
        say(f"avb: none of {summary.listed} clips passed; the commonest reasons: {why}")
        return FAILED
    if limit is not None and refused > limit(summary.listed):
        say(f"avb: {refused} clips refused, more than --max-failures {options.max_failures}")
        return FAILED
    return REFUSED if refused else 0


def resolve(options: Options) -> tuple[Corpus, Settings, Folder]:
    """Flags over `datasets.yaml`: the corpus entry, the settings and the root.

    Raises:
        UsageError: a value is none of its choices; the nearest is named.
    """
    corpora = load_corpora(options.datasets)
    if options.corpus not in corpora:
        near = difflib.get_close_matches(options.corpus, list(corpora), 1, 0.0)
        raise UsageError(f"no corpus {options.corpus!r}; did you mean {near[0]}?")
    corpus = corpora[options.corpus]
    for name, choices in CHOICES.items():
        value = getattr(options, name)
        if value is not None and value not in choices:
            raise UsageError(f"--{name.replace('_', '-')} {value}: one of {', '.join(choices)}")
    name = options.corpus
    root = corpus_root(name, corpus, options.root)
    if name == "table":
        if options.table is None or options.name is None:
            raise UsageError("prep table needs the file and --name: prep table FILE --name NAME")
        name, root = _table_name(options.name, corpora), options.table
    elif options.table is not None:
        raise UsageError(f"unexpected {options.table}; the corpus lies at --root")
    given: dict[str, Any] = {
        "box": options.box,
        "crf": options.crf,
        "keep_audio": options.keep_audio,
        "face_every": options.face_every,
        "shard_clips": options.shard_clips,
        "max_seconds": options.max_seconds,
        "audio": options.audio,
        "limit": options.limit,
    }
    if options.crop:
        given["crops"] = {kind: _crop(kind, corpus) for kind in options.crop.split(",")}
    if options.speakers:
        given["speakers"] = [_speaker(s) for s in options.speakers.split(",")]
    settings = settings_for(
        name, corpus, codec=options.codec, decoder=options.decoder, mel_dtype=options.mel_dtype,
        tracker=options.tracker, **{k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    return corpus, settings, root


def _table_name(name: str, corpora: dict[str, Corpus]) -> str:
    if name in corpora or not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"--name {name}: letters, digits, - and _, and none of {', '.join(corpora)}"
        )
    return name


def _crop(kind: str, corpus: Corpus) -> Crop:
    known = {"lips": Crop(112, 4), "face": Crop(96, 4)} | corpus.crops
    if kind not in known:
        raise UsageError(f"--crop {kind}: one of {', '.join(known)}, or both with a comma")
    return known[kind]


def _speaker(text: str) -> str:
    """A talker as in the shards: "1", "s01" and "s1" are all "s1"."""
    text = text.strip()
    digits = text.removeprefix("s")
    return f"s{int(digits)}" if digits.isdigit() else text


def parse_limit(text: str | None) -> Any:
    """`--max-failures` as a function of the clips listed: "20", or "5%" of them."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if value < 0:
        raise UsageError(f"--max-failures {text}: a number of clips, or a percentage such as 5%")
    return (lambda listed: listed * value / 100) if text.endswith("%") else (lambda _: value)


def parse_part(text: str | None) -> Part | None:
    """`--part` "3/8": the third of eight shares."""
    from avb.pipeline.build.prep import Part

    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--part {text}: I/N with I from 1 to N, such as 3/8")
    return Part(int(found[1]), int(found[2]))


@contextmanager
def _bar(quiet: bool) -> Iterator[Any]:
    """A progress bar with clips/s, refusals and time left, on stderr."""
    from tqdm import tqdm

    bar: Any = None

    def progress(done: int, refused: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            # In a log file, a line every half minute.
            pace = 0.25 if sys.stderr.isatty() else 30.0
            bar = tqdm(total=total, unit="clip", disable=quiet, mininterval=pace, file=sys.stderr)
        bar.set_postfix(refused=refused, refresh=False)
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        keep = ("corpus", "listed", "ok", "status", "flags", "seconds", "clips_per_s", "out")
        print(json.dumps({k: summary[k] for k in keep}))  # noqa: T201
        return
    say("")
    for status, count in sorted(summary["status"].items(), key=lambda x: (x[0] != "ok", -x[1])):
        say(f"{count:>9,}  {status}")
    say(f"{summary['listed']:>9,}  clips listed")
    if summary["flags"]:
        kept = ", ".join(f"{flag} {n:,}" for flag, n in summary["flags"].items())
        say(f"kept but odd: {kept}")
    rate = f"{summary['seconds']} s, {summary['clips_per_s']} a second"
    say(f"{summary['made']:,} clips taken in {rate}")
    say(f"shards and their rows in {summary['out']}")


def _reasons(folder: Folder, most: int = 3) -> str:
    """The statuses that most clips have, each with how many and what is said of the first."""
    import pyarrow.compute as pc

    from avb.pipeline.shards.dataset import read_manifest

    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for batch in read_manifest(folder, ["status", "error"]):
        for found in pc.value_counts(batch["status"]).to_pylist():
            status = found["values"]
            counts[status] += found["counts"]
            if status not in first:
                first[status] = batch["error"][pc.index(batch["status"], status).as_py()].as_py()
    return "; ".join(
        f"{count} {status}, such as: {one_line(first[status])}"
        for status, count in counts.most_common(most)
    )


def _dry_run(corpus: Corpus, settings: Settings, root: Folder, options: Options) -> int:
    with scratch("plan") as folder:
        plan = make_plan(corpus, settings, root, Path(folder) / "plan.arrow")
    refused = {k: n for k, n in plan.statuses.items() if k != "ok"}
    record = {
        "corpus": settings.corpus,
        "listed": plan.listed,
        "layout": plan.layout,
        "groups": plan.groups,
        "labels": len(plan.labels),
        "shards": len(plan.units),
        "refused": refused,
        "notices": plan.notices,
        "out": str(options.out / settings.corpus),
    }
    if options.as_json:
        print(json.dumps(record))  # noqa: T201
    else:
        _show_plan(plan, record)
    return 0


def _show_plan(plan: Plan, record: dict[str, Any]) -> None:
    say(f"layout: {plan.layout}")
    for notice in plan.notices:
        say(f"note: {notice}")
    for group, count in plan.groups.items():
        say(f"{count:>9,}  {group}")
    say(f"{plan.listed:>9,}  clips listed, {record['labels']} labels, {record['shards']} shards")
    for status, count in record["refused"].items():
        say(f"{count:>9,}  would be refused by the listing alone: {status}")
    say(f"nothing was decoded or written; shards would go to {record['out']}")
