"""The model card beside exported weights: what is known of them, and what is not."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.parse import read_json
from avb.train.evaluate.record import check_figures
from avb.train.tasks.task import find_task

LIMITS = """\
- Trained and measured on the corpus above: other light, talkers, languages and cameras will do
  worse, by how much is not known.
- Lip reading can take words from people who did not agree to it, and made speech can be taken for
  real. Say that it was made by a model, and use it on people who agreed.
"""


def read_record(path: Path, known: Collection[str]) -> dict[str, Any]:
    """A record of `avb eval` on a checkpoint with one of these hashes."""
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(record, dict) or not {"metrics", "flags"} <= set(record):
        raise UsageError(f"{path}: no record of avb eval (--out FILE writes one)")
    check_figures(record, path)
    if record["flags"].get("checkpoint_sha256") not in known:
        raise UsageError(f"{path}: measured on another checkpoint (checkpoint_sha256 differs)")
    return record


def card(config: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Markdown of one export, from its `config.json` and evaluations (see `read_record`)."""
    recipe, data = config["recipe"], config["data"]
    model = recipe["model"]
    slots = model.get("slots", "default number of")
    task = find_task(config["task"])
    parts = [
        f"# {task.title} on {data.get('title') or recipe['corpus']}: {slots} memory slots",
        f"{task.summary} Made by avb, `avb export`; checkpoint sha256"
        f" `{config['checkpoint_sha256']}`, step {config['step']}, weights: {config['weights']}.",
        "## Files\n\n" + _files(config),
        "## Input\n\n" + _table(config["video"] | {"frames a second": config["fps"]}),
        "Scaling constants: " + _inline(config["scaling"]) + ".",
        "## Data\n\n" + _data(recipe, data, config["mel_and_licence_from"]),
        "## Training\n\n```yaml\n" + yaml.safe_dump(recipe, sort_keys=False) + "```",
        "## Measured\n\n" + ("\n\n".join(map(_measured, records)) or "Not measured: no record."),
        "## Not known\n\n" + "".join(f"- {line}\n" for line in unknown(config, records)),
        "## Limits\n\n" + LIMITS,
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def vocoder_card(config: dict[str, Any]) -> str:
    """Markdown of a vocoder's export, from its `config.json`."""
    val, data = config["val"], config["data"]
    figures = {name: val[name] for name in ("griffin_lim", "refined")}
    parts = [
        f"# A refiner of log-mels before Griffin-Lim, on {data['corpus']}",
        "Made by avb, `avb train vocoder` and `avb export`; hash of its weights"
        f" `{config['hash']}`, step {val['step']}.",
        "## Data\n\n" + _table(data | {"clips": config["clips"]}),
        "## Training\n\n" + _inline(config["training"]),
        f"## Measured\n\nTrue mels of {val['clips']} validation clips, which chose the step:\n\n"
        + _table(_flat(figures), "figure", "value [95 % interval]"),
        "## Limits\n\n" + LIMITS,
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def unknown(config: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """What a reader may look for and this export cannot say."""
    data, gaps = config["data"], []
    if not records:
        gaps.append("How well it does: no record of `avb eval` was given (`--record FILE`).")
    if data.get("licence") is None:
        gaps.append("The licence of the data: the corpus has no entry in datasets.yaml.")
    elif "datasets.yaml" in config["mel_and_licence_from"]:
        gaps.append("Whether the shards' own mel and licence are those above (`--data SHARDS`).")
    if "counts" not in data:
        gaps.append("How many clips it was trained on.")
    if data.get("split") and not data.get("speakers") and find_task(config["task"]).makes != "word":
        gaps.append("Which talkers were in the shards, beyond what the split says.")
    gaps.append("Age, sex, origin and language background of the talkers; avb does not record it.")
    gaps.append("Whether the licence of the data lets these weights be passed on: ask its owner.")
    return gaps


def _files(config: dict[str, Any]) -> str:
    lines = [f"- `{name}`" for name in config["files"]]
    if "onnx" in config:
        facts = config["onnx"]
        inputs = ", ".join(f"`{name}` {shape}" for name, shape in facts["inputs"].items())
        lines.append(
            f"- ONNX: {inputs} in, {facts['output']} out; opset {_inline(facts['opset'])};"
            f" onnxruntime and PyTorch differ by at most {facts['largest_difference']:.2g} on noise"
            f" ({facts['tolerance']:g} is accepted)"
        )
    return "\n".join([*lines, "- `config.json`: recipe, scaling, labels, front end of the mel"])


def _data(recipe: dict[str, Any], data: dict[str, Any], source: str) -> str:
    licence = data.get("licence")
    talkers = data.get("speakers")
    rows = {
        "corpus": f"{data.get('title') or 'not known'} ({recipe['corpus']})",
        "licence of the data": "not known"
        if licence is None
        else f"{licence['name']}; {licence['apply']}",
        "licence and mel from": source,
        "split": f"{data['split']}: {data['split_source']}",
        "talkers": ", ".join(talkers) if talkers else "all of the split",
        "clips": _inline(data["counts"]) if "counts" in data else "not known",
        "fingerprint of the shards": data["fingerprint"],
        "code revision": data.get("revision") or "not known",
    }
    if "imported" in data:
        rows["imported from"] = _inline(data["imported"])
    return _table(rows)


def _measured(record: dict[str, Any]) -> str:
    """The figures of one record, each with its interval, its bounds, and then every flag."""
    flags = record["flags"]
    head = f"{flags.get('n', '?')} samples of {flags.get('part', '?')}, split {flags.get('split')}:"
    rows: dict[str, str] = {}
    for title in ("metrics", "ceiling", "real", "both", "floors"):
        own = "" if title == "metrics" else f"{title}: "
        rows |= {own + k: v for k, v in _flat(record.get(title) or {}).items()}
    figures = _table(rows, "figure", "value [95 % interval]")
    return f"{head}\n\n{figures}\n\nFlags: {_inline(flags)}."


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            told = isinstance(value, str)  # why there is none
            rows[prefix + name] = "-" if value is None else value if told else f"{value:.4f}"
        elif "value" not in value:
            rows |= _flat(value, f"{prefix}{name}.")
        elif value["value"] is None:
            rows[prefix + name] = f"- ({value.get('reason', 'could not be scored')})"
        else:
            low, high = value["low"], value["high"]
            rows[prefix + name] = f"{value['value']:.4f} [{low:.4f}, {high:.4f}]"
    return rows


def _table(rows: dict[str, Any], left: str = "", right: str = "") -> str:
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {k} | {_cell(v)} |" for k, v in rows.items()])


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _inline(values: dict[str, Any]) -> str:
    return "; ".join(f"{k} {_cell(v)}" for k, v in values.items())
