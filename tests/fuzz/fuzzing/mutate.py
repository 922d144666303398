"""Damage: bytes as disks, networks and attackers leave them, and values where others belong."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

#: Where containers keep their headers and their indexes.
HEAD, TAIL = 2048, 4096


def mutate(rng: Rng, data: bytes, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """One to three damages of `data`, and their names; never the same bytes.

    Args:
        others: files whose ends may be spliced on.
    """
    names, changed = [], data
    while changed == data or rng.random() < 0.35 and len(names) < 3:
        name = str(rng.choice([*_OF_A_RUN, *_DAMAGES, *(["splice"] if others else [])]))
        if name == "splice":
            other = others[rng.integers(len(others))]
            changed = changed[: rng.integers(len(changed) + 1)] + other[_place(rng, len(other)) :]
        elif name in _OF_A_RUN:
            run = _run(rng, len(changed))
            put = _OF_A_RUN[name](rng, changed[run])
            changed = changed[: run.start] + put + changed[run.stop :]
        else:
            changed = _DAMAGES[name](rng, bytearray(changed))
        names.append(name)
    return "+".join(names), changed


def _place(rng: Rng, size: int) -> int:
    """Where damage begins: half the time in the head or the tail."""
    places = [(0, min(size, HEAD)), (max(0, size - TAIL), size), (0, size), (0, size)]
    low, high = places[rng.integers(4)]
    return int(rng.integers(low, max(low + 1, high)))


def _run(rng: Rng, size: int) -> slice:
    """A run of 1 to 4096 bytes, short ones as likely as long ones."""
    start = _place(rng, size)
    return slice(start, min(size, start + int(2 ** rng.uniform(0, 12))))


def _flip(rng: Rng, data: bytearray) -> bytes:
    for _ in range(int(2 ** rng.uniform(0, 8))):
        at = min(_place(rng, len(data)), len(data) - 1)
        if data:
            data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _cut(rng: Rng, data: bytearray) -> bytes:
    return bytes(data[: _place(rng, len(data))])


def _extreme(rng: Rng, data: bytearray) -> bytes:
    """Numbers at the edge of what a field of 1 to 8 bytes holds."""
    for _ in range(int(rng.integers(1, 5))):
        width = int(rng.choice([1, 2, 4, 8]))
        top = (1 << 8 * width) - 1
        edges = [1, top >> 1, top, (top >> 1) + 1]
        value = int(rng.choice([0, 1, 2, 3])) and edges[rng.integers(4)]
        at = _place(rng, len(data))
        if at + width <= len(data):
            order: Any = ["big", "little"][rng.integers(2)]
            data[at : at + width] = value.to_bytes(width, order)
    return bytes(data)


def _swap(rng: Rng, data: bytearray) -> bytes:
    """Two runs that change places."""
    first, second = sorted((_run(rng, len(data)), _run(rng, len(data))), key=lambda s: s.start)
    first = slice(first.start, min(first.stop, second.start))
    between = bytes(data[first.stop : second.start])
    return bytes(data[: first.start]) + data[second] + between + data[first] + data[second.stop :]


#: What stands in the place of a run of bytes.
_OF_A_RUN: dict[str, Callable[[Rng, bytes], bytes]] = {
    "zeros": lambda rng, run: bytes(len(run)),
    "noise": lambda rng, run: rng.bytes(len(run)),
    "repeat": lambda rng, run: run * int(rng.integers(2, 9)),
    "delete": lambda rng, run: b"",
    "insert": lambda rng, run: rng.bytes(len(run)) + run,
}
_DAMAGES = {"flip": _flip, "cut": _cut, "extreme": _extreme, "swap": _swap}

#: What may stand where a plain value belongs.
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 7, 255, 100_000, 2**31, 2**63 - 1, -(2**63), 10**30, 0.5, -0.5,
    1e-300, 1e308, float("nan"), float("inf"), "", "lip", "l2s", "../../etc", "x" * 3000, "\ud800",
    "\0\x1b[2J", [], [[]], [None], {}, {"a": {}}, [1, 2, 3, 4],
)  # fmt: skip


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in nested mappings and lists, the mappings and lists too."""
    inner: Any = tree.items() if isinstance(tree, dict) else ()
    inner = enumerate(tree) if isinstance(tree, list) else inner
    found = [path] if path else []
    for key, value in inner:
        found += leaves(value, (*path, key))
    return found


def mutate_tree(rng: Rng, tree: Any, odd: Sequence[Any] = ODD) -> str:
    """Change one value of nested mappings and lists in place; what was done, for people."""
    places = leaves(tree)
    tops = sorted({path[0] for path in places}, key=str)  # each part of a file as often as others
    top = tops[rng.integers(len(tops))]
    inside = [path for path in places if path[0] == top]
    path = inside[rng.integers(len(inside))]
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    how = int(rng.integers(8))
    if how == 0:
        del parent[path[-1]]
        return f"{path} deleted"
    if how == 1 and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        return f"{path} renamed"
    if how == 2:
        others = list(parent) if isinstance(parent, dict) else range(len(parent))
        other = list(others)[rng.integers(len(others))]
        parent[path[-1]], parent[other] = parent[other], parent[path[-1]]
        return f"{path} and {other} swapped"
    value = odd[rng.integers(len(odd))]
    number = parent[path[-1]]
    if how == 3 and isinstance(number, int | float):
        value = number * [2, -1, 1000, 1e6, 1e12][rng.integers(5)]
        value = int(value) if isinstance(number, int) else value
    parent[path[-1]] = value
    return f"{path} = {str(value)[:40]!r}"
