"""`avb eval` between the flags and the pass: shards, device, what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.pipeline.storage.store import Folder
from avb.tools.cli.console import FAILED, fail, say
from avb.train.data import open_shards
from avb.train.device import choose_device

PARTS = ("test", "val", "train", "all")
WINDOWS = (None, "covered", "cut")


def run(
    kind: str,
    ckpt: Path,
    data: Folder,
    part: str,
    device: str | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
    datasets: Path | None,
    judge: Path | None = None,
    save_wavs: Path | None = None,
    windows: str | None = None,
) -> None:
    """Evaluate and show; the record goes to `out`, by default beside the checkpoint.

    Raises:
        UsageError: something does not fit, or cannot be written.
    """
    from avb.train.evaluate import per_talker
    from avb.train.evaluate.evaluate import evaluate
    from avb.train.sounds import check_writable

    if part not in PARTS:
        raise UsageError(f"--part {part}: one of {', '.join(PARTS)}")
    if windows not in WINDOWS:
        raise UsageError(f"--windows {windows}: covered or cut")
    checkpoints = checkpoints_in(ckpt)
    if out is None and limit is None:
        out = (ckpt if ckpt.is_dir() else ckpt.parent) / f"{part}.json"
    if out is not None:
        check_writable(out)
    index, corpus = open_shards(data, datasets)
    where = choose_device(device)
    records = [
        evaluate(
            kind,
            path,
            index,
            corpus,
            part,
            where,
            limit,
            judge=judge,
            wavs=save_wavs,
            windows=windows,
        )  # fmt: skip
        for path in checkpoints
    ]
    record = records[0] if len(records) == 1 else per_talker.join(records)
    text = json.dumps(record, ensure_ascii=False, default=float)
    text = text.encode("utf-8", "replace").decode()  # a name of a file may be no text
    _show(record, text if as_json else None)
    if out is not None:
        try:
            write_atomic(out, (text + "\n").encode())
        except OSError as error:
            fail(f"{out}: {error.strerror}; the figures above are all there is", FAILED)
        say(f"the record is in {out}")


def _show(record: dict[str, Any], text: str | None) -> None:
    """The figures for a person, or the record as `text`."""
    if text is not None:
        typer.echo(text)
        return
    flags = record["flags"]
    say(f"{flags['n']} samples of {flags['part']}, split {flags['split']}, step {flags['step']}")
    for line in table(record):
        typer.echo(line)
    _show_addressing(record.get("addressing") or {})


def _show_addressing(found: dict[str, Any]) -> None:
    """Whether words have their own addresses, and whether that beats the null models."""
    for side in ("source", "target"):
        if side in found:
            typer.echo(
                f"addresses of {side}: within-slot AUC {_shown(found[side]['within_slot_auc'])}"
            )
            for name, value in found[side]["ahead_of"].items():
                typer.echo(f"    ahead of {name}: {_shown(value)}")


def checkpoints_in(path: Path) -> list[Path]:
    """A checkpoint, the best of a run, or the best of each talker's run in a folder.

    Raises:
        UsageError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    if (path / "best.pt").exists():
        return [path / "best.pt"]
    found = sorted(path.glob("*/best.pt"))
    if not found:
        raise UsageError(f"{path}: no best.pt here or one folder below; avb train makes one")
    return found


def table(record: dict[str, Any]) -> list[str]:
    """A row a metric: the model's figure and interval, then the others on the same clips."""
    others: dict[str, dict[str, Any]] = {}
    alone: dict[str, float] = {}
    if "models" in record:  # one for each talker
        others = {name: one["metrics"] for name, one in record["models"].items()}
    elif record["task"] == "l2s":
        others = {"ceiling": record["ceiling"], "real": record["real"], **record["floors"]}
    else:
        alone = record["floors"]
    lines = [f"{'':>16}  {'model [95 %]':<25}" + "".join(f"  {name:>8}" for name in others)]
    lacking: dict[str, str] = {}
    for name, value in record["metrics"].items():
        row = "".join(
            f"  {_point(metrics.get(name)):>{max(8, len(other))}}"
            for other, metrics in others.items()
        )
        lines.append(f"{name:>16}  {_shown(value):<25}{row}".rstrip())
        if isinstance(value, dict) and value["value"] is None:
            lacking[name] = value.get("reason", "no clip could be scored")
    lines += [f"{name:>16}  {_shown(value)}" for name, value in alone.items()]
    return lines + [f"{name}: {reason}" for name, reason in lacking.items()]


def _point(value: Any) -> str:
    """A figure without its interval; a dash where there is none."""
    value = value["value"] if isinstance(value, dict) else value
    return "-" if value is None else f"{value:.4f}"


def _shown(value: Any) -> str:
    if not isinstance(value, dict) or value["value"] is None:
        return _point(value)
    return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
