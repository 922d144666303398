"""JSON and YAML from outside: bounded in size and depth, then checked against dataclasses."""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from avb.pipeline.errors import UsageError, one_line, shown

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
    """Nested mappings and lists as they are; ValueError where whoever walks them finds no end."""
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


def _written(tree: Any, text: str | bytes) -> Any:
    """What was read, where all of it can be written again: half a letter can be nowhere."""
    halves: Any = ("\\ud", "\\u0000d") if isinstance(text, str) else (b"\\ud",)
    if any(half in text.lower() for half in halves):
        json.dumps(tree, ensure_ascii=False, default=str).encode()
    return tree


def parse_json(text: str | bytes) -> Any:
    """The content of JSON text; `ValueError` where it is none, or is too much of it."""
    if len(text) > MOST_JSON:
        raise ValueError(f"{len(text)} bytes of JSON, more than {MOST_JSON >> 20} MB")
    try:
        tree = json.loads(text, parse_constant=_number, parse_float=_number)
        return _written(check_tree([tree])[0], text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(text: str) -> float:
    """Python reads Infinity, NaN and 1e999, which others could not read where it wrote them."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is no number of JSON")
    return value


def read_json(path: Path) -> Any:
    """The content of one JSON file; OSError or ValueError where it is none, or too much of it."""
    with path.open("rb") as file:
        return parse_json(file.read(MOST_JSON + 1))


def parse_yaml(text: str) -> Any:
    """The content of YAML text; `yaml.YAMLError` where it is none, or is too much of it."""
    try:
        if len(text) > MOST_YAML:
            raise ValueError(f"{len(text)} letters of YAML, more than {MOST_YAML >> 20} million")
        return _written(check_tree([yaml.load(text, _Loader)])[0], text)
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


@dataclass(frozen=True)
class Range:
    """Of `Annotated[float, Range(0, 1)]`: the least and the most that `checked` lets pass."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low} or more" if self.high == math.inf else f"{self.low} to {self.high}"


def checked(kind: Any, value: Any, where: str, strict: bool = True) -> Any:
    """`value`, from YAML, JSON or a checkpoint, as a `kind`: a dataclass, dict, list, union, ...

    UsageError, with the place (`where`) and the nearest right key, for a wrong type or range, or a
    key that is missing or, if `strict`, unknown. pydantic was measured against this: its messages
    would all be written anew, in no fewer lines, and it costs 0.35 s and 8 MB in every process of a
    command.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _checked_fields(kind, value, where, strict)
    if kind is Any:
        return value
    if origin is Annotated:
        value, limits = checked(args[0], value, where, strict), args[1]
        expect(limits.low <= value <= limits.high, where, str(limits), value)  # NaN is neither
        return value
    if origin is Literal:
        if value not in args:
            choices = list(map(str, args))
            near = difflib.get_close_matches(str(value), choices, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{where}: {shown(value)} is none of {', '.join(choices)}{hint}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in args:
            return None
        rest = [a for a in args if a is not types.NoneType]
        plain = [a for a in rest if isinstance(a, type) and isinstance(value, a)]
        return checked((plain or rest)[0], value, where, strict)
    if origin in (dict, Mapping):
        expect(isinstance(value, Mapping), where, "a mapping", value)
        short = {k for k in value if isinstance(k, str) and k.isprintable() and len(k) < 80}
        places = {k: f"{where}.{k if k in short else shown(k)}" for k in value}
        return {str(k): checked(args[1], v, places[k], strict) for k, v in value.items()}
    if origin is list:
        expect(isinstance(value, list), where, "a list", value)
        return [checked(args[0], v, f"{where}[{i}]", strict) for i, v in enumerate(value)]
    if kind is float and type(value) is int:
        expect(abs(value) < 1 << 1000, where, "a smaller number", value)
        return float(value)
    ok = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    expect(ok, where, kind.__name__, value)
    return value


def _checked_fields(kind: type, value: Any, where: str, strict: bool) -> Any:
    expect(isinstance(value, Mapping), where, "a mapping", value)
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if strict:
        expect_keys(value, fields, where)
    given = {}
    for name, f in fields.items():
        if name in value:
            given[name] = checked(hints[name], value[name], f"{where}.{name}", strict)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}: the key {name!r} is missing")
    try:
        return kind(**given)
    except ValueError as error:  # the values do not go together
        raise UsageError(f"{where}: {error}") from None


def expect(ok: bool, where: str, wanted: str, value: Any) -> None:
    """A `UsageError` that says what was wanted and what was found, unless `ok`."""
    if not ok:
        kind = type(value).__name__
        raise UsageError(f"{where}: expected {wanted}, found {shown(value)} ({kind})")


def expect_keys(keys: Iterable[Any], known: Iterable[str], where: str) -> None:
    """A `UsageError` that names the nearest right key, unless all are known."""
    known = list(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.0)[0]
            raise UsageError(
                f"{where}: unknown key {shown(key)}; the nearest right one is {near!r}"
            )
