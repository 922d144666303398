"""Checkpoints: whole or not at all, and loaded without running anything of theirs."""

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.files import open_atomic
from avb.pipeline.parse import check_tree, parse_json

FORMAT = 1
#: What the tensors of a file may take in memory, in bytes, if the file itself is smaller.
ROOM = 1 << 29
#: What torch's reader of pickles trips over in a file that is none.
TORN = (
    EOFError, LookupError, ValueError, TypeError, AttributeError, MemoryError, RecursionError,
    OverflowError, struct.error, AssertionError,
)  # fmt: skip
#: The parts of a checkpoint that hold tensors; all others hold plain values.
TENSORS = ("model", "ema", "optimizer", "weights")
#: What files of safetensors are called, and where in their head everything else stands, as JSON.
PACKED, HEAD = ".safetensors", "avb"


class Hostile(Exception):
    """A file that would take more memory than it can be meant to."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or, with an OSError of the disk, not at all: the last one stays."""
    try:
        with open_atomic(path) as file:
            torch.save({"format": FORMAT} | state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch hides what the disk said
            raise error.__context__ from None
        raise


def best_of(path: Path) -> Path:
    """The best checkpoint of a run, or the weights of an export, where `path` is its folder."""
    if not path.is_dir():
        return path
    exported = path / f"model{PACKED}"
    return path / "best.pt" if (path / "best.pt").exists() or not exported.exists() else exported


def load(path: Path, *tasks: str) -> dict[str, Any]:
    """Read a checkpoint on the CPU; only tensors and plain values are accepted.

    `tasks` are `lip`, `l2s`, `judge` and so on, whichever are wanted; none: any. A file that is
    missing, damaged, pickled code, or another task's is a `UsageError`, which says which.
    """
    try:
        state = read_packed(path) if path.suffix == PACKED else read_tensors(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise UsageError(f"{path}: holds more than weights and plain values; refused") from None
    except (OSError, RuntimeError, SafetensorError, Hostile) as error:
        raise UsageError(f"{path}: damaged or no checkpoint ({one_line(error)})") from None
    except TORN:
        raise UsageError(f"{path}: damaged or no checkpoint (not a file of torch)") from None
    found = task_of(state)
    if found is None:
        raise UsageError(f"{path}: not a checkpoint of avb (import others: avb import-checkpoint)")
    if not _is_plain(state):
        raise UsageError(f"{path}: damaged (weights or half letters where plain values belong)")
    if tasks and found not in tasks:
        hint = f"; make one with avb train {tasks[0]}" if tasks[0] in ("judge", "vocoder") else ""
        raise UsageError(f"{path}: a checkpoint for {found}, not for {tasks[0]}{hint}")
    return dict(state)


def pack(state: dict[str, Any], dtype: torch.dtype) -> bytes:
    """A checkpoint as a file of safetensors, its weights of this type and nothing to go on from.

    UsageError: one of them is too large for the type.
    """
    name = "model" if "model" in state else "weights"
    weights = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for key, value in (state.get("ema") or state[name]).items()
    }
    if large := [key for key, value in weights.items() if value.isinf().any()]:
        raise UsageError(f"{large[0]}: too large for numbers of 16 bits; leave out --half")
    facts = {key: value for key, value in state.items() if key not in TENSORS}
    facts |= {"format": FORMAT, "ema": None, name: {}}
    return to_safetensors(weights, {HEAD: json.dumps(facts)})


def read_packed(path: Path) -> Any:
    """What `pack` made of a checkpoint, its weights as float32.

    OSError, SafetensorError, and what is in `TORN`: it cannot be read.
    """
    with safe_open(path, "pt") as file:
        state = parse_json((file.metadata() or {}).get(HEAD, "null"))
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not isinstance(state, dict):
        return None
    name = "model" if "model" in state else "weights"
    return state | {
        name: {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    }


def read_tensors(path: Path) -> Any:
    """What is in a file of tensors, on the CPU; nothing in it is run.

    A file of a few KB may be packed, or hold one number that stands for a tensor of billions.

    Raises:
        Hostile: it takes more room than `ROOM`, or than it has itself, or is nested too deeply.
        pickle.UnpicklingError: it holds more than tensors and plain values.
        OSError, RuntimeError, and what is in `TORN`: it cannot be read.
    """
    room = max(path.stat().st_size, ROOM)
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"
    if packed:
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise RuntimeError(f"no whole archive: {error}") from None
        if sum(entry.file_size for entry in entries) > room:
            raise Hostile("packed: unpacked it takes more than there is")
    with warnings.catch_warnings():  # a plain pickle makes torch warn before it is refused
        warnings.simplefilter("ignore")
        state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        check_tree(state)
    except ValueError as error:
        raise Hostile(str(error)) from None
    tensors = [leaf for leaf in _leaves(state) if isinstance(leaf, torch.Tensor)]
    if (wanted := sum(each.numel() * each.element_size() for each in tensors)) > room:
        raise Hostile(f"{path.stat().st_size >> 10} KB for tensors of {wanted >> 20} MB")
    return state


def _leaves(tree: Any) -> Iterator[Any]:
    """All keys and values in nested mappings and lists that are neither."""
    rest = [tree]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            rest += value
        else:
            yield value


def _is_plain(state: dict[Any, Any]) -> bool:
    """Whether tensors are only where they belong, and the rest can be written again as text."""
    leaves = list(_leaves([*state, *(v for key, v in state.items() if key not in TENSORS)]))
    try:
        "".join(leaf for leaf in leaves if isinstance(leaf, str)).encode()
    except UnicodeEncodeError:  # half a letter
        return False
    return all(isinstance(leaf, str | int | float | None) for leaf in leaves)


def task_of(state: Any) -> str | None:
    """What a loaded file is for: a run has it in its recipe, a judge has none; None: not ours."""
    form = state.get("format") if isinstance(state, dict) else None
    if type(form) is not int or form != FORMAT:  # a tensor would compare number by number
        return None
    recipe = state.get("recipe")
    task = recipe.get("task") if isinstance(recipe, dict) else state.get("task")
    return task if isinstance(task, str) else None
