"""Recipes as files: read, overridden, checked, by `train/recipes/<task>/<name>.yaml` or a path."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from avb.pipeline.errors import UsageError
from avb.pipeline.parse import checked, parse_yaml, read_yaml
from avb.pipeline.stream.index import SENTENCES
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

FOLDER = Path(__file__).parent / "recipes"


def names(task: str) -> list[str]:
    """Names of the recipes of a task that come with the package."""
    return sorted(path.stem for path in (FOLDER / task).glob("*.yaml"))


def of_unit(name: str, unit: str | None) -> str:
    """The recipe that is meant by a name where whole sentences are to be read."""
    readers = {"paper": "sentence", "tiny": "sentence-tiny"}
    return readers.get(name, name) if unit == "sentence" else name


def load_recipe(task: str, name: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe `name` of a task, or the file of that name, with `key=value` overrides.

    UsageError: no such recipe, or a key or value is wrong; the nearest right one is named.
    """
    path = FOLDER / task / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, names(task), 1, 0.0)
        raise UsageError(
            f"no recipe {name!r} for {task}; did you mean {near[0] if near else '?'}? Recipes:"
            f" {', '.join(names(task))}, or a file"
        )
    raw = read_yaml(path) or {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: expected a mapping, found {type(raw).__name__}")
    for text in overrides or []:
        _override(raw, text)
    try:
        return make_recipe(task, raw, path.name)
    except UsageError as error:
        raise _blamed(task, path, overrides or []) or error from None


def _blamed(task: str, path: Path, overrides: list[str]) -> UsageError | None:
    """What is wrong, said of the first `--set` after which the file is no recipe any more."""
    raw = read_yaml(path) or {}
    try:
        make_recipe(task, raw, path.name)
    except UsageError:
        return None
    for text in overrides:
        _override(raw, text)
        try:
            make_recipe(task, raw, "")
        except UsageError as error:
            return UsageError(f"--set {text}: {str(error).lstrip('.: ')}")
    return None


def make_recipe(task: str, raw: dict[str, Any], where: str) -> Recipe:
    """A recipe of a plain mapping; UsageError: a key or value is wrong, or it is another task's."""
    if task == "lip" and raw.get("unit") in SENTENCES:
        task, raw = "sentence", raw | {"task": "sentence"}
    recipe: Recipe = checked(Recipe, {"task": task} | raw, where)
    if (recipe.task == "sentence") != (recipe.unit in SENTENCES):
        raise UsageError(f"{where}: unit {recipe.unit} is not of the task {recipe.task}")
    if recipe.task != task:
        raise UsageError(f"{where} is a recipe for {recipe.task}, not for {task}")
    if recipe.unit == "word" and find_task(task).makes in ("speech", "sound"):
        raise UsageError(f"{where}: unit word is not of the task {task}")
    whole = find_task(task).makes in ("word", "lag") or recipe.unit == "characters"
    if recipe.window and whole:
        raise UsageError(f"{where}: window is for speech and words of sentences; others are whole")
    find_task(task).check_model(recipe.model, where)
    return recipe


def _override(raw: dict[str, Any], text: str) -> None:
    """Apply one `key=value` or `mapping.key=value`; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--set {text}: expected key=value")
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise UsageError(f"--set {text}: {part} is no mapping")
    try:
        raw[last] = parse_yaml(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: {value!r} is not valid YAML") from None
