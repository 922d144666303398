"""`avb eval` and `avb compare`: figures of checkpoints, as tables or records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, App, fail, print_json, say, show, to_json

app = App()
evaluation = App(help="Measure a checkpoint on a part of its split.")
app.add_typer(evaluation, name="eval")


def evaluate(
    context: typer.Context,
    task: Literal["lip", "l2s"],
    ckpt: o.Checkpoint,
    data: o.Shards,
    part: Annotated[
        Literal["test", "val", "train", "all"], Option(help="Of the checkpoint's split.")
    ] = "test",
    speakers: o.Talkers = None,
    device: o.Device = None,
    limit: Annotated[int | None, Option(min=1, help="Only so many clips; flagged.")] = None,
    judge: Annotated[Path | None, Option(help="A judge of words, from avb train judge.")] = None,
    vocoder: o.VocoderFile = None,
    save_wavs: Annotated[
        Path | None, Option(help="A folder for the sounds: model, Griffin-Lim, real.")
    ] = None,
    windows: Annotated[
        Literal["covered", "cut"] | None,
        Option(help="40 frames at a time; cut: 70 of 75, as the paper's."),
    ] = None,
    boundary: Annotated[
        Literal["told", "guessed", "none"],
        Option(help="Where the word is: by the corpus, in the middle as infer guesses, unsaid."),
    ] = "told",
    griffin_lim: Annotated[
        Literal["fast", "published"],
        Option(help="With momentum; or without, magnitudes to the power of 1.5, as published."),
    ] = "fast",
    grammar: o.GrammarFile = None,
    out: Annotated[
        Path | None,
        Option(help="Write the whole record here.", show_default="PART.json of the run"),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Evaluate and show; the record goes to `out`, by default beside the checkpoint."""
    from avb.train.checks import check_writable
    from avb.train.data import open_shards
    from avb.train.device import choose_device
    from avb.train.evaluate import evaluate, per_talker
    from avb.train.evaluate.words.reading import read_grammar

    checkpoints = checkpoints_in(ckpt)
    index, corpus = open_shards(data, context.obj)
    if out is None and limit is None:
        others = {
            "--speakers": speakers, "--windows": windows, "--boundary": boundary != "told",
            "--vocoder": vocoder, "--griffin-lim": griffin_lim != "fast", "--grammar": grammar,
        }  # fmt: skip
        out = own_record(ckpt, checkpoints[0], part, index.dataset["fingerprint"], others)
    if out is not None:
        check_writable(out)
    device = choose_device(device)
    records = [
        evaluate.evaluate(
            task, path, index, corpus, part, device, limit, judge=judge, wavs=save_wavs,
            windows=windows, boundary=boundary, vocoder=vocoder, griffin_lim=griffin_lim,
            speakers=speakers,
            grammar=None if grammar is None else read_grammar(grammar),
        )
        for path in checkpoints
    ]  # fmt: skip
    record = records[0] if len(records) == 1 else per_talker.join(records)
    try:
        tell(record, as_json)
    finally:  # also where nobody reads on, as behind `| head`
        if out is not None:
            write_record(out, record)


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Write what was told."""
    try:
        write_atomic(out, (to_json(record) + "\n").encode())
    except OSError as error:
        fail(f"{out}: {error.strerror}; the figures above are all there is", FAILED)
    say(f"the record is in {out}")


evaluation.variant(
    "lip", evaluate, "Accuracy, confusions, the audio path and the mirrored test.",
    task="lip", judge=None, vocoder=None, save_wavs=None, windows=None, griffin_lim="fast",
)  # fmt: skip
evaluation.variant(
    "l2s", evaluate, "STOI, ESTOI, PESQ and word error beside ceiling and floors.",
    task="l2s", boundary="told", grammar=None,
)  # fmt: skip


def tell(record: dict[str, Any], as_json: bool) -> None:
    """What was measured, and the figures."""
    if not as_json:
        flags = record["flags"]
        on = f"{flags['n']} samples of {flags['part']}, split {flags['split']}"
        say(f"{on}, step {flags['step']}")
    show(record, as_json, [*table(record), *addresses(record)])


def own_record(ckpt: Path, best: Path, part: str, fingerprint: str, others: dict[str, Any]) -> Path:
    """The record of a run on its own shards; UsageError: one of `others`, or of others is asked."""
    from avb.train.network import load_network

    path = (ckpt if ckpt.is_dir() else ckpt.parent) / f"{part}.json"
    asked = [name for name, given in others.items() if given]
    # Of imported weights none are known.
    if load_network(best).data["fingerprint"] not in ("", "published", fingerprint):
        asked.append("--data of other shards")
    if ckpt.name == "last.pt" and ckpt.with_name("best.pt").exists():
        asked.append("last.pt")
    if asked:
        what = "the record of the run as it was trained"
        raise UsageError(f"{', '.join(asked)}: {path} is {what}; name this one with --out")
    return path


def checkpoints_in(path: Path) -> list[Path]:
    """A checkpoint, the best of a run, or the best of each talker's run in a folder."""
    from avb.train.checkpoint import best_of

    if not path.is_dir():
        return [path]
    if (best := best_of(path)).exists():
        return [best]
    checkpoints = sorted(path.glob("*/best.pt"))
    if not checkpoints:
        raise UsageError(f"{path}: no best.pt here or one folder below; avb train makes one")
    return checkpoints


def table(record: dict[str, Any]) -> list[str]:
    """A row a metric: the model's figure and interval, then the others on the same clips."""
    others: dict[str, dict[str, Any]] = {}
    alone: dict[str, float] = {}
    if "models" in record:  # one for each talker
        others = {name: one["metrics"] for name, one in record["models"].items()}
    elif record["task"] != "lip":  # of other signals, on the same clips
        signals = ("ceiling", "real", "both")
        others = {name: record[name] for name in signals if name in record} | record["floors"]
    else:
        alone = record["floors"]
    lines = [f"{'':>16}  {'model [95 %]':<25}" + "".join(f"  {name:>8}" for name in others)]
    lacking: dict[str, list[str]] = {}  # each reason once
    for name, value in record["metrics"].items():
        row = "".join(
            f"  {_point(metrics.get(name)):>{max(8, len(other))}}"
            for other, metrics in others.items()
        )
        lines.append(f"{name:>16}  {interval(value):<25}{row}".rstrip())
        if isinstance(value, dict) and value["value"] is None:
            lacking.setdefault(value.get("reason", "no clip could be scored"), []).append(name)
    lines += [f"{name:>16}  {interval(value)}" for name, value in alone.items()]
    return lines + [f"{', '.join(names)}: {reason}" for reason, names in lacking.items()]


def addresses(record: dict[str, Any]) -> Iterator[str]:
    """Whether words have addresses of their own, beyond the null models."""
    found = record.get("addressing") or {}
    for side in ("source", "target"):
        if figures := found.get(side):
            yield f"addresses of {side}: within-slot AUC {interval(figures['within_slot_auc'])}"
            for name, value in figures["ahead_of"].items():
                yield f"    ahead of {name}: {interval(value)}"


def _point(value: Any) -> str:
    """A figure without its interval; a dash where there is none."""
    value = value["value"] if isinstance(value, dict) else value
    return "-" if value is None else f"{value:.4f}"


def interval(value: Any, form: str = ".4f", scale: float = 1.0) -> str:
    """A figure with its interval, if it has one."""
    if not isinstance(value, dict) or value["value"] is None:
        return _point(value)
    middle, low, high = (format(scale * value[name], form) for name in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


@app.command()
def compare(
    first: Annotated[
        str, Argument(metavar="A", help="Record of avb eval, or run; seeds: a,b or a folder.")
    ],
    second: Annotated[str, Argument(metavar="B", help="Another, on the same clips.")],
    by_talker: Annotated[
        bool,
        Option("--by-talker", help="Intervals draw talkers, as they do of unseen ones anyway."),
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Two evaluations of the same clips, paired: McNemar, differences with intervals."""
    from avb.train.evaluate.compare import compare

    record = compare(first, second, by_talker=by_talker)
    if as_json:
        print_json(record)
        return
    for name in "ab":
        for one in record[name]:
            facts = f"seed {one['seed']}, slots {one['slots']}, step {one['step']}"
            say(f"{name.upper()}  {one['path']}: {facts}")
    flags = record["flags"]
    drawn = "talkers, then clips" if record["by_talker"] else "clips"
    on = f"{record['clips']} samples of {flags.get('part')}, split {flags.get('split')}"
    say(f"{on}; intervals draw {drawn}")
    for line in differences(record):
        typer.echo(line)
    for note in record["notes"]:
        say(f"note: {note}")


def differences(record: dict[str, Any]) -> list[str]:
    """The table: words in percent and points, speech in the units of each metric."""
    words = "mcnemar" in record
    scale, digits, unit = (100.0, 2, " points") if words else (1.0, 4, "")
    lines = [f"{'':>16} {'A':>9} {'B':>9}  A - B [95 %]"]
    for name, entry in (record["metrics"] | record.get("per_slot", {})).items():
        if entry["a"] is None:
            lines.append(f"{name:>16} {'-':>9} {'-':>9}  {entry['reason']}")
            continue
        a, b = (f"{scale * entry[side]:9.{digits}f}" for side in "ab")
        shown = interval(entry["difference"], f"+.{digits}f", scale)
        lines.append(f"{name:>16} {a} {b}  {shown}{unit}, n {entry['n']}")
        for side in "ab":
            if entry[f"{side}_sd"] is not None and name in record["metrics"]:
                each = " ".join(f"{scale * v:.{digits}f}" for v in entry[f"{side}_each"])
                spread = f"{scale * entry[f'{side}_sd']:.{digits}f}"
                lines.append(f"{'':>16} {side.upper()} by seed: {each} (sd {spread})")
    if words:
        from avb.tools.report.tables import mcnemar_line

        counts = record["counts"].items()
        lines.append(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in counts))
        lines.append(mcnemar_line(record["mcnemar"]))
    return lines
