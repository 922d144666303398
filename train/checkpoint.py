"""Checkpoints: whole or not at all, and loaded without running anything of theirs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from avb.pipeline.config import UsageError
from avb.pipeline.shard import open_atomic

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint under a temporary name, sync, rename; the previous one stays until then.

    Raises:
        OSError: the disk refused; the previous checkpoint is untouched.
    """
    with open_atomic(path) as file:
        torch.save({"format": FORMAT} | state, file)


def load(path: Path, task: str | None = None) -> dict[str, Any]:
    """Read a checkpoint on the CPU; only tensors and plain values are accepted.

    Raises:
        UsageError: it is missing, damaged, pickled code, or another task's; one line says which.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise UsageError(f"{path}: holds more than weights and plain values; refused") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise UsageError(f"{path}: damaged or no checkpoint ({reason[:120]})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path}: not a checkpoint of avb (import others: avb import-checkpoint)")
    if task is not None and state["recipe"]["task"] != task:
        raise UsageError(f"{path}: a checkpoint for {state['recipe']['task']}, not for {task}")
    return dict(state)
