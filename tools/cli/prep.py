"""`avb prep`: raw video to shards, a command for each corpus."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from avb.pipeline.errors import UsageError, one_line
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, REFUSED, App, Commands, print_json, refuse_unused, say

if TYPE_CHECKING:
    from avb.pipeline.build.prep import Part, Summary
    from avb.pipeline.config import Corpus
    from avb.pipeline.corpora.lags import Lags
    from avb.pipeline.settings import Settings
    from avb.pipeline.storage.store import Folder


class Corpora(Commands):
    """The commands of the corpora, which may also come after options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the corpus first; of one that there is not, the nearest is named."""
        options: list[Any] = [one for each in self.commands.values() for one in each.params]
        with_value = {
            flag for one in options if not getattr(one, "is_flag", False) for flag in one.opts
        }
        at = 0
        while at < len(args) and args[at].startswith("-"):
            at += 2 if args[at] in with_value else 1
        if at < len(args):
            args = [args[at], *args[:at], *args[at + 1 :]]
            if args[0] not in self.commands and not ctx.resilient_parsing:  # a shell completes
                if "." in args[0]:
                    raise UsageError(f"{args[0]}: a table? avb prep table {args[0]} --name NAME")
                near = difflib.get_close_matches(args[0], list(self.commands), 1, 0.0)
                raise UsageError(
                    f"no corpus {args[0]!r}; did you mean {near[0]}? There are"
                    f" {', '.join(self.commands)}"
                )
        elif args and not ctx.resilient_parsing and not set(args) & {"-h", "--help"}:
            raise UsageError(f"which corpus? avb prep {'|'.join(self.commands)} {args[0]} ...")
        return super().parse_args(ctx, args)


app = App(cls=Corpora, help="Raw video to shards, and an account of every clip.")


def prepare(
    context: typer.Context,
    corpus: str,
    table: o.Table,
    name: o.Name,
    root: o.Root = None,
    out: o.Out = "shards",
    limit: o.Limit = None,
    speakers: o.Speakers = None,
    part: o.Share = None,
    max_seconds: o.MaxSeconds = None,
    audio: o.Audio = None,
    sync: o.Sync = None,
    retry_failed: o.RetryFailed = False,
    crop: o.CropKinds = None,
    box: o.Box = None,
    codec: o.Codec = "mp4",
    crf: o.Crf = None,
    mel_dtype: o.MelDtype = "float16",
    keep_audio: o.KeepAudio = None,
    shard_clips: o.ShardClips = None,
    decoder: o.Decoder = "pyav",
    tracker: o.Tracker = "litert",
    face_every: o.FaceEvery = None,
    jobs: o.PrepJobs = None,
    engine: o.Engine = "local",
    address: o.Address = None,
    clip_timeout: o.ClipTimeout = 300.0,
    max_failures: o.MaxFailures = None,
    overwrite: o.Overwrite = False,
    prune: o.Prune = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> None:
    """Prepare a corpus; the exit code says whether clips were refused."""
    from avb.pipeline.config import corpus_root, load_corpora
    from avb.pipeline.machine import cores
    from avb.pipeline.settings import settings_for

    corpora = load_corpora(context.obj)
    entry = corpora[corpus]
    if name and (name in corpora or not name.replace("-", "").replace("_", "").isalnum()):
        known = ", ".join(corpora)
        raise UsageError(f"--name {name}: letters, digits, - and _, and none of {known}")
    root = table or corpus_root(corpus, entry, root)
    entry, lags = with_own_licence(entry, root), open_lags(sync, entry)
    settings = settings_for(
        name or corpus, entry, crop, speakers, box=box, codec=codec, crf=crf, decoder=decoder,
        tracker=tracker, mel_dtype=mel_dtype, keep_audio=keep_audio, face_every=face_every,
        shard_clips=shard_clips, max_seconds=max_seconds, audio=audio, limit=limit,
        sync=lags and lags.digest,
    )  # fmt: skip
    if settings.box != "tracked":
        refuse_unused(context, f"with --box {settings.box}", "face_every", "tracker")
    parse_limit(max_failures)  # a wrong one is said before the work
    share = parse_part(part)
    if address and engine != "ray":
        raise UsageError("--address is for --engine ray")
    if dry_run:
        show_plan(entry, settings, root, out, as_json, lags)
        return
    jobs = jobs or (cores() if engine == "local" else None)
    summary = run_prep(
        entry, settings, root, out, as_json, jobs=jobs, engine=engine, address=address, part=share,
        retry_failed=retry_failed, overwrite=overwrite, prune=prune, clip_timeout_s=clip_timeout,
        lags=lags,
    )  # fmt: skip
    show_summary(summary, as_json)
    say(f"licence of the data: {entry.licence.name} ({entry.licence.apply})")
    tell_refused(summary, part, max_failures)


def with_own_licence(entry: Corpus, root: Folder) -> Corpus:
    """The entry of a corpus; of one that avb synth made, with the licence that is written there."""
    from avb.pipeline.config import Licence
    from avb.pipeline.corpora.source_files import listing_faults_named

    name = ".avb_synth"
    with listing_faults_named(root):
        try:
            marker = (root / name).read_bytes() if isinstance(root, Path) else root.read(name)
        except (FileNotFoundError, NotADirectoryError):  # the latter: a table
            return entry
    _, _, licence = marker.decode().partition("licence: ")
    return dataclasses.replace(entry, licence=Licence(licence.strip() or "none", "avb synth"))


def open_lags(sync: Path | None, entry: Corpus) -> Lags | None:
    """The table of lags that was asked for; `known` is the one that datasets.yaml names."""
    from avb.pipeline.corpora.lags import read_lags

    if sync == Path("known"):
        if not entry.lags:
            raise UsageError("--sync known: datasets.yaml names no lags of it; avb sync SHARDS")
        sync = Path(entry.lags)
    return None if sync is None else read_lags(sync)


def run_prep(
    entry: Corpus, settings: Settings, root: Folder, out: Folder, quiet: bool, **given: Any
) -> Summary:
    """`prep` under a bar with clips/s, refusals and time left; Ctrl-C says how to go on."""
    from avb.pipeline.build.prep import prep
    from avb.pipeline.clip.facemodels import check
    from avb.tools.progress import progress

    if settings.box == "tracked" and given["engine"] == "local":
        check(settings.tracker)
    bar: Any = None

    def told(done: int, refused: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = progress("clip", total, quiet)
        bar.set_postfix(refused=refused, refresh=False)
        bar.update(done - bar.n)

    try:
        return prep(entry, settings, root, out, progress=told, **given)
    except KeyboardInterrupt:
        rest = " without --overwrite" if given["overwrite"] else ""
        raise KeyboardInterrupt(f"stopped; run the same command again{rest} to go on") from None
    finally:
        if bar is not None:
            bar.close()


def tell_refused(summary: Summary, part: str | None, max_failures: str | None) -> NoReturn:
    """End with the exit code that the refused clips make."""
    tolerable = parse_limit(max_failures)
    refused = summary.listed - summary.ok
    if part is not None:
        say(f"part {part} is done; after all parts, run once without --part")
    elif summary.ok == 0:
        why = commonest_reasons(o.folder(summary.out))
        say(f"avb: none of {summary.listed} clips passed; the commonest reasons: {why}")
        raise typer.Exit(FAILED)
    elif refused:
        from avb.pipeline.shards.stats import refused_clips

        for key, why in itertools.islice(refused_clips(o.folder(summary.out)), 5):
            say(f"refused: {key}: {why}")
        if refused > 5:
            say(f"avb stats {summary.out} --refused names all {refused}")
    if tolerable is not None and refused > tolerable(summary.listed):
        say(f"avb: {refused} clips refused, more than --max-failures {max_failures}")
        raise typer.Exit(FAILED)
    raise typer.Exit(REFUSED if refused else 0)


AGAIN = "\n\nRunning it again completes what is missing."
RAW: dict[str, Any] = {"table": None, "name": None}
app.variant(
    "lrw", prepare,
    "LRW: 500 English words, 29 frames a clip.\n\nLayout:"
    " lipread_mp4/WORD/{train,val,test}/WORD_00001.mp4, each with its .txt. The lips, 112 pixels,"
    " are cut with the fixed box 59,95 to 195,231 of 256 x 256 pixels, as the paper does; tracked"
    " follows the face instead. Sound is kept as mels alone." + AGAIN,
    corpus="lrw", **RAW, speakers=None,
)  # fmt: skip
app.variant(
    "grid", prepare,
    "GRID: sentences of 33 talkers, 75 frames a clip.\n\nLayout: sN/NAME.mpg or one of six others,"
    " the alignments NAME.align anywhere. Lips and face are cut where the face is tracked, and the"
    " sound is kept." + AGAIN, corpus="grid", **RAW,
)  # fmt: skip
app.variant(
    "lrw1000", prepare,
    "LRW-1000: 1,000 Mandarin words as pictures of mouths.\n\nLayout: images, audio and info of the"
    " release. The pictures are crops already and taken whole; the sound of each is cut out of the"
    " long recordings, and kept as mels alone." + AGAIN,
    corpus="lrw1000", **RAW, speakers=None,
)  # fmt: skip
app.variant(
    "table", prepare,
    "Your own clips, a row of a table each.\n\nColumns of FILE: video (relative to it) and, as you"
    " have them, start and end (seconds of a span), label, speaker, split, words (text, or a list"
    " of words or of word, start, end). Lips and face are cut where the face is tracked, and the"
    " sound is kept." + AGAIN, corpus="table", root=None,
)  # fmt: skip


def parse_limit(text: str | None) -> Callable[[int], float] | None:
    """`--max-failures` as a function of the clips listed: "20", or "5%" of them."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not value >= 0:  # nan neither
        raise UsageError(f"--max-failures {text}: a number of clips, or a percentage such as 5%")
    return (lambda listed: listed * value / 100) if text.endswith("%") else (lambda _: value)


def parse_part(text: str | None) -> Part | None:
    """`--part` "3/8": the third of eight shares."""
    from avb.pipeline.build.prep import Part

    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {text}: I/N with I from 1 to N, such as 3/8")
    return Part(int(match[1]), int(match[2]))


def show_summary(summary: Summary, as_json: bool) -> None:
    """What was made and refused."""
    for notice in summary.notices:
        say(f"note: {notice}")
    if as_json:
        keep = ("corpus", "listed", "ok", "status", "flags", "seconds", "clips_per_s", "out")
        print_json({name: getattr(summary, name) for name in keep})
        return
    say("")
    for status, count in sorted(summary.status.items(), key=lambda x: (x[0] != "ok", -x[1])):
        say(f"{count:>9,}  {status}")
    say(f"{summary.listed:>9,}  clips listed")
    if summary.flags:
        say(f"kept but odd: {', '.join(f'{flag} {n:,}' for flag, n in summary.flags.items())}")
    rate = f"{summary.seconds} s, {summary.clips_per_s} a second"
    say(f"{summary.made:,} clips taken in {rate}")
    say(f"shards and their rows in {summary.out}")


def commonest_reasons(folder: Any, most: int = 3) -> str:
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


def show_plan(
    entry: Any, settings: Any, root: Any, out: Any, as_json: bool, lags: Any = None
) -> None:
    """What would be made and refused, by the listing alone."""
    from avb.pipeline.build.plan import make_plan
    from avb.pipeline.storage.mirror import scratch

    with scratch("plan") as place:
        plan = make_plan(entry, settings, root, Path(place) / "plan.arrow", lags)
    refused = {status: n for status, n in plan.statuses.items() if status != "ok"}
    target = str(out / settings.corpus)
    if as_json:
        print_json({
            "corpus": settings.corpus, "listed": plan.listed, "layout": plan.layout,
            "groups": plan.groups, "labels": len(plan.labels), "shards": len(plan.units),
            "refused": refused, "notices": plan.notices, "out": target,
        })  # fmt: skip
        return
    say(f"layout: {plan.layout}")
    for notice in plan.notices:
        say(f"note: {notice}")
    for group, count in plan.groups.items():
        say(f"{count:>9,}  {group}")
    labels, shards = len(plan.labels), len(plan.units)
    say(f"{plan.listed:>9,}  clips listed, {labels} labels, {shards} shards")
    for status, count in refused.items():
        say(f"{count:>9,}  would be refused by the listing alone: {status}")
    say(f"nothing was decoded or written; shards would go to {target}")
