"""`avb export` between the flags and the files: what is said."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from avb.pipeline.storage.store import Folder
from avb.tools.cli.console import say


def run(
    ckpt: Path, to: str, out: Path, records: list[Path], data: Folder | None,
    frames: int | None, as_json: bool, datasets: Path | None,
) -> None:  # fmt: skip
    """Export, and say what was written; with `--json` the config goes to stdout."""
    from avb.tools.export.export import export
    from avb.train.checkpoint import best_of

    config = export(best_of(ckpt), to, out, records, data, frames, datasets)
    if as_json:
        typer.echo(json.dumps(config, ensure_ascii=False))
        return
    say(f"{out}: model.{to}, config.json, MODEL_CARD.md; {config['task']}, step {config['step']}")
    if to == "onnx":
        facts = config["onnx"]
        say(
            f"onnxruntime and PyTorch differ by at most {facts['largest_difference']:.2g}"
            f" ({facts['tolerance']:g} is accepted); inputs {facts['inputs']}"
        )
