"""`avb eval` between the flags and the pass: shards, device, what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from avb.pipeline.config import UsageError
from avb.pipeline.shard import write_atomic
from avb.tools.cli import say
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
) -> None:
    """Evaluate and show; the record goes to `out`, or with `--json` to stdout."""
    from avb.train.evaluate import evaluate

    if part not in PARTS:
        raise UsageError(f"--part {part}: one of {', '.join(PARTS)}")
    index, corpus = open_shards(data, datasets)
    record = evaluate(kind, ckpt, index, corpus, part, choose_device(device), limit)
    text = json.dumps(record, ensure_ascii=False, default=float)
    if out is not None:
        write_atomic(out, (text + "\n").encode())
    if as_json:
        typer.echo(text)
        return
    flags = record["flags"]
    say(f"{flags['n']} samples of {flags['part']}, split {flags['split']}, step {flags['step']}")
    for name, value in record["metrics"].items():
        typer.echo(f"{name:>16}  {_shown(value)}")
    for title in ("ceiling", "floors"):
        for name, value in _flat(record[title]).items():
            typer.echo(f"{title:>8} {name}: {_shown(value)}")


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
