"""Damaged checkpoints: as bytes, inside the archive with its sums made right, and as values."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from avb.models.published import PARTS, published_shapes
from fuzzing.mutate import ODD, Rng, mutate, mutate_tree

PUBLISHED = {"classes": 2, "slots": 4, "variant": "released", "back_end": "gru"}


def make_published(path: Path) -> Path:
    """A checkpoint of the authors' layout and sizes; one number stands for all of a tensor."""
    checkpoint: dict[str, dict[str, torch.Tensor]] = {part: {} for part in PARTS}
    for place, shape in published_shapes(PUBLISHED).items():
        part, name = place.split("/")
        dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        checkpoint[part][name] = torch.zeros((), dtype=dtype).expand(shape)
    torch.save(checkpoint, path)
    return path


def damaged_checkpoint(rng: Rng, source: Path, path: Path, others: list[Path]) -> str:
    """Write a damaged copy of a checkpoint to `path`; what was done, for people."""
    how = int(rng.integers(10))
    if how == 0:
        path.write_bytes(pickle.dumps({"format": 1, "recipe": _Runs()}, int(rng.integers(1, 5))))
        return "pickled code"
    if how < 3:
        done, data = mutate(rng, source.read_bytes(), [other.read_bytes() for other in others])
        path.write_bytes(data)
        return f"bytes {done}"
    if how < 6:
        return f"archive {_archive(rng, source, path)}"
    state = torch.load(source, weights_only=True)
    odd = [*ODD, *_odd_tensors(rng)]
    done = mutate_tree(rng, state, odd if how < 8 else odd[len(ODD) :])
    if how == 9 and (tensors := _tensors(state)):
        tensor = tensors[rng.integers(len(tensors))]
        if tensor.is_floating_point() and tensor.numel() and tensor.is_contiguous():
            tensor.view(-1)[0] = [float("nan"), float("inf"), 1e30][rng.integers(3)]
            done += ", a number in the weights"
    torch.save(state, path)
    return f"value {done}"


class _Runs:
    def __reduce__(self) -> Any:
        return os.getpid, ()


def _archive(rng: Rng, source: Path, path: Path) -> str:
    """Change the files inside, and write an archive that is whole."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    pickled = next(name for name in names if name.endswith("data.pkl"))
    first = pickled if rng.random() < 0.6 else names[rng.integers(len(names))]
    second = names[rng.integers(len(names))]
    how = int(rng.integers(8))
    if how == 0:
        del members[first]
        done = "deleted"
    elif how == 1:
        members[first], members[second] = members[second], members[first]
        done = f"swapped with {second}"
    elif how == 2:
        members[f"{first}x"] = members.pop(first)
        done = "renamed"
    else:
        done, members[first] = mutate(rng, members[first])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return f"{first} {done}"


def _tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tensor for value in inner for tensor in _tensors(value)]


def _odd_tensors(rng: Rng) -> list[torch.Tensor]:
    """What may stand where another tensor belongs."""
    side = int(rng.integers(1, 9))
    return [
        torch.zeros(0), torch.zeros(side), torch.zeros(side, side), torch.full((side,), torch.nan),
        torch.zeros(1).expand(2**20, 2**20), torch.zeros(side, dtype=torch.int64),
        torch.zeros(side, dtype=torch.bool), torch.zeros(side, dtype=torch.complex64),
        torch.eye(side).to_sparse(), torch.tensor(1e30), torch.zeros(side, side, 1, 5, 7),
    ]  # fmt: skip
