"""`avb eval` between the flags and the pass: shards, device, what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.config import UsageError
from avb.pipeline.shard import write_atomic
from avb.tools.console import say
from avb.tools.train_command import choose_device, open_shards

PARTS = ("test", "val", "train", "all")


def run(
    kind: str,
    ckpt: Path,
    data: Path,
    part: str,
    device: str | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
    datasets: Path | None,
    judge: Path | None = None,
    save_wavs: Path | None = None,
) -> None:
    """Evaluate and show; the record goes to `out`, by default beside the checkpoint.

    Raises:
        UsageError: something does not fit, or cannot be written.
    """
    from avb.train import per_talker
    from avb.train.evaluate import evaluate
    from avb.train.sounds import make_folder

    if part not in PARTS:
        raise UsageError(f"--part {part}: one of {', '.join(PARTS)}")
    checkpoints = checkpoints_in(ckpt)
    if out is None and limit is None:
        out = (ckpt if ckpt.is_dir() else ckpt.parent) / f"{part}.json"
    if out is not None:
        make_folder(out.parent)  # before the minutes that the record takes
    index, corpus = open_shards(data, datasets)
    where = choose_device(device)
    records = [
        evaluate(
            kind, path, index, corpus, part, where, limit, judge=judge, wavs=save_wavs, say=say
        )
        for path in checkpoints
    ]
    record = records[0] if len(records) == 1 else per_talker.join(records)
    text = json.dumps(record, ensure_ascii=False, default=float)
    if out is not None:
        write_atomic(out, (text + "\n").encode())
        say(f"the record is in {out}")
    if as_json:
        typer.echo(text)
        return
    flags = record["flags"]
    say(f"{flags['n']} samples of {flags['part']}, split {flags['split']}, step {flags['step']}")
    for name, value in record["metrics"].items():
        typer.echo(f"{name:>16}  {_shown(value)}")
    for title in ("ceiling", "real", "floors"):
        for name, value in _flat(record.get(title, {})).items():
            typer.echo(f"{title:>8} {name}: {_shown(value)}")
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


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Figures by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and "value" not in value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return "-" if value is None else f"{value:.4f}"
    if value["value"] is None:
        return f"- ({value.get('reason', 'no clip could be scored')})"
    return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
