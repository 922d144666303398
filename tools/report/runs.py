"""A run as it lies in its folder: recipe, log, and the records of `avb eval` that belong to it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError
from avb.pipeline.parse import checked, parse_json, read_json, read_yaml
from avb.train.evaluate.record import check_record, is_number, is_record
from avb.train.network import Data
from avb.train.origin import describe
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

CHECKPOINTS = ("best.pt", "last.pt")
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Result:
    """One record of `avb eval`, its file, and a title that is unique on a page."""

    path: Path
    title: str
    record: dict[str, Any]

    @property
    def addressing(self) -> dict[str, Any]:
        """That part of the record; without a `source` it has the `reason` why."""
        return self.record.get("addressing") or {"reason": "the record has no such part"}


@dataclass(frozen=True)
class _Saved:
    """What `recipe.yaml` must hold."""

    recipe: Recipe
    data: Data


@dataclass(frozen=True)
class Run:
    """One training."""

    folder: Path
    name: str  # unique on a page
    recipe: dict[str, Any]  # every setting
    data: dict[str, Any]  # shards, split, talkers, counts, revision
    # Lines of `metrics.jsonl`: training has `loss`, validation `val_score`.
    log: list[dict[str, Any]]
    # Its evaluations, those of the test part first, of these the one that `avb eval` calls so.
    results: list[Result]

    @property
    def task(self) -> str:
        """`lip` or `l2s`."""
        return str(self.recipe["task"])

    @property
    def slots(self) -> int:
        """Slots of the memory; 0 is the baseline."""
        return int(self.recipe["model"].get("slots", model_defaults(self.task)["slots"]))

    @property
    def step(self) -> int:
        """How far its log goes."""
        return max((line["step"] for line in self.log), default=0)

    @property
    def probes(self) -> dict[str, Any] | None:
        """Accuracies of the linear probes, as far as they were measured."""
        return self.results[0].addressing.get("probes") if self.results else None

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one figure of the log."""
        lines = [line for line in self.log if line.get(name) is not None]
        return [line["step"] for line in lines], [line[name] for line in lines]

    def facts(self) -> dict[str, str]:
        """What was trained on what, by name."""
        data, recipe = self.data, self.recipe
        counts = ", ".join(f"{name} {n:,}" for name, n in (data.get("counts") or {}).items())
        talkers = data.get("speakers")
        scores = self.series("val_score")[1]
        return {
            "task": find_task(self.task).title,
            "corpus": f"{recipe['corpus']}, {len(data.get('labels') or [])} words in its label map",
            "sample": SAMPLES[recipe["unit"]],
            "split": f"{data.get('split', NOT_RECORDED)}"
            f" ({data.get('split_source', NOT_RECORDED)})",
            "talkers": ", ".join(talkers) if talkers else "all of the split",
            "clips": counts or NOT_RECORDED,
            "memory": self._memory(),
            "began with": describe(data["init"]) if data.get("init") else "drawn weights",
            "teacher": describe(data.get("teacher")),
            "steps": f"{self.step:,} of {recipe['steps']:,}, batches of {recipe['batch_size']}",
            "best validation": f"{max(scores):.4f}" if scores else NOT_RECORDED,
            "seed": str(recipe["seed"]),
            "device": str(data.get("device", NOT_RECORDED)),
            "revision": f"{data.get('revision') or NOT_RECORDED}, torch {data.get('torch', '?')}",
            "data fingerprint": str(data.get("fingerprint", NOT_RECORDED)),
        }

    def _memory(self) -> str:
        if self.slots:
            return f"{self.slots} slots"
        heard = self.recipe["model"].get("audio_term")
        return f"none (0 slots, {'the control with real audio' if heard else 'the baseline'})"

    def differences(self) -> list[list[str]]:
        """Settings that differ from their defaults: dotted name, value, default."""
        usual = Recipe(self.task).as_dict()  # type: ignore[arg-type]
        usual["model"] = model_defaults(self.task)
        settings = []
        for name, value in self.recipe.items():
            if isinstance(value, dict):
                known = usual.get(name, {})
                settings += [(f"{name}.{k}", v, known.get(k)) for k, v in value.items()]
            else:
                settings.append((name, value, usual.get(name)))
        return [[name, str(value), str(default)] for name, value, default in settings
                if value != default]  # fmt: skip


#: What a network is shown at a time, by unit.
SAMPLES = {
    "clip": "a whole clip", "word": "29 frames round a word",
    "sentence": "a whole clip, for its words", "characters": "a whole clip, for its letters",
}  # fmt: skip


@cache
def model_defaults(task: str) -> dict[str, Any]:
    """Arguments of the task's model with their defaults."""
    return vars(find_task(task).config())


def load_runs(folders: list[Path]) -> list[Run]:
    """The runs of these folders, each under a name of its own."""
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{folder}: given twice")
    names = [place.name for place in places]
    return [
        load_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def load_run(folder: Path, name: str | None = None) -> Run:
    """The run of one folder; UsageError: it is no run, or holds a record of another one."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        there = "holds no recipe.yaml" if folder.is_dir() else "a file"
        what = there if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {what}; give the folder of a run, as avb train wrote it")
    saved = read_yaml(path)
    known: _Saved = checked(_Saved, saved, str(path), strict=False)
    if "slots" not in model_defaults(known.recipe.task):
        raise UsageError(f"{folder}: a run of {known.recipe.task}; reports are of lip and l2s")
    recipe = known.recipe.as_dict() | saved["recipe"]  # with what another version had beside it
    checked(int, recipe["model"].get("slots", 0), f"{path}: recipe.model.slots")
    data = {k: v for k, v in saved["data"].items() if v is not None}
    name = name or folder.resolve().name
    run = Run(folder, name, recipe, data, _read_log(folder / "metrics.jsonl"), [])
    run.results.extend(_results(run))
    return run


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of the log; the last may have been cut by a kill."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and is_number(entry.get("step")):
            lines.append({k: v for k, v in entry.items() if v is None or is_number(v)})
    return lines


def _results(run: Run) -> list[Result]:
    """Every JSON file of the folder that is a record of `avb eval`."""
    results = []
    for path in sorted(run.folder.glob("*.json")):
        try:
            record = read_json(path)
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or ["?"])[0]
            raise UsageError(f"{path}: cannot be read as JSON ({reason})") from None
        if is_record(record):
            check_record(record, path)
            _check_own(run, path, record)
            results.append(Result(path, f"{run.name}, {path.stem}", record))
    parts = {result.path: result.record["flags"].get("part") for result in results}
    return sorted(results, key=lambda r: (parts[r.path] != "test", r.path.stem != parts[r.path]))


def _check_own(run: Run, path: Path, record: dict[str, Any]) -> None:
    """Refuse a record of another model: its numbers would stand under this run's name."""
    flags = record["flags"]
    told = {
        "task": (record["task"], run.task),
        "data fingerprint": (flags.get("trained_on"), run.data.get("fingerprint")),
        "seed": (flags.get("seed"), run.recipe.get("seed")),
    }
    for name, (theirs, ours) in told.items():
        if theirs is not None and theirs != ours:
            raise UsageError(f"{path}: a record of another run ({name} {theirs}, here {ours})")
    measured = flags.get("checkpoint_sha256")
    files = [run.folder / name for name in CHECKPOINTS if (run.folder / name).is_file()]
    if (
        files
        and measured
        and all(hashlib.sha256(file.read_bytes()).hexdigest() != measured for file in files)
    ):
        raise UsageError(
            f"{path}: measured on a checkpoint that is neither"
            f" {' nor '.join(file.name for file in files)} of {run.folder} (another run, or it was"
            " trained on since); run avb eval again"
        )
