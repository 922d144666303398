"""The small networks that come with avb, and how good a network is by what was measured.

Each is a folder of `avb export --to safetensors --half`, below `models/bundled`.
"""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from avb.pipeline.parse import read_json
from avb.train.tasks.task import find_task

FOLDER = Path(str(files("avb.models"))) / "bundled"
TASKS = ("lip", "sentence", "l2s")


def checkpoint(task: str) -> Path:
    """The network of a task that comes with avb."""
    return FOLDER / task / "model.safetensors"


def checkpoints() -> list[Path]:
    """Those that come with avb, of the tasks that a film is given to."""
    return [checkpoint(task) for task in TASKS]


def vocoder(task: str) -> Path | None:
    """What makes the sound of a task's mels, where it has some."""
    return checkpoint("vocoder") if task == "l2s" else None


def measured(path: Path) -> list[dict[str, Any]]:
    """Records of a checkpoint, `speakers metrics floors` and more: an export's, or of its run."""
    try:
        if path.suffix == ".safetensors":
            return list(read_json(path.with_name("config.json"))["measured"])
        record = read_json(path.with_name("test.json"))
        if record["flags"]["checkpoint_sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            return []
        flags = record["flags"]
        return [record | {"speakers": flags["speakers"], "intervals": flags.get("intervals")}]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def floor(records: list[dict[str, Any]]) -> float:
    """What is right without looking, of all records the most: a guess less sure is shown as one."""
    floors = [one.get("floors") or {} for one in records if "top1" in one["metrics"]]
    return max((v for f in floors for v in f.values() if isinstance(v, float)), default=0.0)


def known(task: str, labels: list[str], talkers: list[str] | None, path: Path) -> str:
    """In one line: of whom a network learnt what, and how good it is on them and on strangers."""
    count = "the talkers of its split" if talkers is None else f"{len(talkers)} talkers"
    whose = "one talker" if talkers is not None and len(talkers) == 1 else count
    what = "the speech" if task == "l2s" else f"{len(labels)} words"
    said = [text for one in measured(path) if (text := _figure(task, one, talkers))]
    return f"knows {what} of {whose}; {'; '.join(said) or 'how well was not measured (avb eval)'}"


def _figure(task: str, record: dict[str, Any], talkers: list[str] | None) -> str:
    """The main figure of a record beside its floor; nothing where no clip could be scored."""
    on = "strangers" if _strangers(record, talkers) else "clips held out"
    name = find_task(task).main_figure(record["metrics"])
    value, floors = record["metrics"][name]["value"], record.get("floors") or {}
    if value is None:
        return ""
    if name == "stoi":
        mean = floors.get("mean_mel", {}).get(name, {}).get("value")
        one = "" if mean is None else f"{mean:.2f} one sound for all, "
        return f"on {on} STOI {value:.2f} ({one}1 the real one)"
    what, blind = "% right", floor([record])
    if name != "top1":
        what, blind = "% of the words wrong", floors.get("grammar", {}).get(name)
    beside = "" if blind is None else f" ({100 * blind:.0f} % without looking)"
    return f"on {on} {100 * value:.0f} {what}{beside}"


def _strangers(record: dict[str, Any], talkers: list[str] | None) -> bool:
    """Whether no talker of a record was in training; intervals draw talkers only then."""
    if drawn := record.get("intervals"):
        return str(drawn).startswith("of talkers")
    measured = record["speakers"]  # exports of before do not say how intervals were drawn
    return measured != talkers and not {*(measured or ())} & {*(talkers or ())}
