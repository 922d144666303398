"""JSON and YAML from outside: bounded in size and depth before anything believes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from avb.pipeline.errors import UsageError, one_line

#: What of a file of JSON or YAML is read: in memory it takes up to 25 (1,000) times as much.
MOST_JSON, MOST_YAML = 1 << 25, 1 << 20
MOST_DEPTH, MOST_NODES = 50, 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number and not a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def check_tree(tree: Any) -> Any:
    """Nested mappings and lists as they are, where whoever walks through them comes to an end.

    Raises:
        ValueError: too deep, or a list in itself, or a few that stand for billions.
    """
    level, count = [tree], 0
    for _ in range(MOST_DEPTH):
        inner = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for values in inner for v in values if isinstance(v, dict | list | tuple)]
        count += len(level)
        if not level or count > MOST_NODES:
            break
    if level:
        raise ValueError("nested too deeply" if count <= MOST_NODES else "too many lists in lists")
    return tree


def parse_json(text: str | bytes) -> Any:
    """The content of JSON text; `ValueError` where it is none, or is too much of it."""
    if len(text) > MOST_JSON:
        raise ValueError(f"{len(text)} bytes of JSON, more than {MOST_JSON >> 20} MB")
    try:
        tree = check_tree([json.loads(text)])[0]
        half: Any = "\\ud" if isinstance(text, str) else b"\\ud"
        if half in text.lower():
            json.dumps(tree, ensure_ascii=False).encode()  # half a letter can be written nowhere
        return tree
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The content of one JSON file.

    Raises:
        OSError, ValueError: it cannot be read, is none, or is too much of it.
    """
    with path.open("rb") as file:
        return parse_json(file.read(MOST_JSON + 1))


def parse_yaml(text: str) -> Any:
    """The content of YAML text; `yaml.YAMLError` where it is none, or is too much of it."""
    try:
        if len(text) > MOST_YAML:
            raise ValueError(f"{len(text)} letters of YAML, more than {MOST_YAML >> 20} million")
        return check_tree([yaml.load(text, _Loader)])[0]
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # such as a day 99
        raise yaml.YAMLError(one_line(error)) from None


def read_yaml(path: Path) -> Any:
    """The content of one YAML file; a missing or broken file is a `UsageError`."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse_yaml(file.read(MOST_YAML + 1))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML ({one_line(error)})") from None
