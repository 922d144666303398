"""A run as it lies in its folder: recipe, log, and the records of `avb eval` that belong to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avb.pipeline.errors import UsageError
from avb.pipeline.parse import checked, parse_json, read_json, read_yaml
from avb.train.evaluate.record import check_record, is_number, is_record
from avb.train.network import Data
from avb.train.recipe import Recipe

CHECKPOINTS = ("best.pt", "last.pt")


@dataclass(frozen=True)
class Result:
    """One record of `avb eval`.

    Attributes:
        path: its file.
        title: run and part, unique on a page.
        record: as it was written.
    """

    path: Path
    title: str
    record: dict[str, Any]


@dataclass(frozen=True)
class _Saved:
    """What `recipe.yaml` must hold."""

    recipe: Recipe
    data: Data


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: where it lies.
        name: unique on a page.
        recipe: every setting.
        data: shards, split, talkers, counts, revision.
        log: lines of `metrics.jsonl`: training has `loss`, validation `val_score`.
        results: its evaluations, those of the test part first.
    """

    folder: Path
    name: str
    recipe: dict[str, Any]
    data: dict[str, Any]
    log: list[dict[str, Any]]
    results: list[Result]

    @property
    def task(self) -> str:
        """`lip` or `l2s`."""
        return str(self.recipe["task"])

    @property
    def slots(self) -> int:
        """Slots of the memory; 0 is the baseline."""
        from avb.tools.report.settings import model_defaults

        return int(self.recipe["model"].get("slots", model_defaults(self.task)["slots"]))

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one figure of the log."""
        found = [(line["step"], line[name]) for line in self.log if line.get(name) is not None]
        return [step for step, _ in found], [value for _, value in found]


def load_runs(folders: list[Path]) -> list[Run]:
    """The runs of these folders, each under a name of its own.

    Raises:
        UsageError: one is no run, comes twice, or holds a record of another run.
    """
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
    """The run of one folder.

    Raises:
        UsageError: it is no run, or holds a record of another run.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        what = "holds no recipe.yaml" if folder.is_dir() else "no such folder"
        raise UsageError(f"{folder}: {what}; a run is what avb train wrote")
    saved = read_yaml(path)
    found: _Saved = checked(_Saved, saved, str(path), strict=False)
    recipe = found.recipe.as_dict() | saved["recipe"]  # with what another version had beside it
    checked(int, recipe["model"].get("slots", 0), f"{path}: recipe.model.slots")
    data = {k: v for k, v in saved["data"].items() if v is not None}
    name = name or folder.resolve().name
    run = Run(folder, name, recipe, data, _read_log(folder / "metrics.jsonl"), [])
    run.results.extend(_results(run))
    return run


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of the log; the last may have been cut by a kill."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and is_number(entry.get("step")):
            found.append({k: v for k, v in entry.items() if v is None or is_number(v)})
    return found


def _results(run: Run) -> list[Result]:
    """Every JSON file of the folder that is a record of `avb eval`."""
    found = []
    hashes: dict[str, str] | None = None
    for path in sorted(run.folder.glob("*.json")):
        try:
            record = read_json(path)
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or ["?"])[0]
            raise UsageError(f"{path}: cannot be read as JSON ({reason})") from None
        if not is_record(record):
            continue
        check_record(record, path)
        if hashes is None:
            hashes = _hashes(run.folder)
        _check(run, path, record, hashes)
        found.append(Result(path, f"{run.name}, {path.stem}", record))
    return sorted(found, key=lambda result: result.record["flags"].get("part") != "test")


def _hashes(folder: Path) -> dict[str, str]:
    files = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in files}


def _check(run: Run, path: Path, record: dict[str, Any], hashes: dict[str, str]) -> None:
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
    if hashes and measured and measured not in hashes:
        raise UsageError(
            f"{path}: measured on a checkpoint that is neither {' nor '.join(hashes.values())} of"
            f" {run.folder} (another run, or it was trained on since); run avb eval again"
        )
