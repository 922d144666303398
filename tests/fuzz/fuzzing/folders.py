"""Damaged shard folders: the tars, their headers and members, the manifest, `dataset.json`."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.mutate import ODD, Rng, mutate, mutate_tree

_BLOCK = 512


def damaged_folder(rng: Rng, folder: Path) -> str:
    """Damage one file of a copied folder of shards in place; what was done, for people."""
    tars = sorted(folder.glob("*.tar"))
    tar = tars[rng.integers(len(tars))]
    dataset, manifest = folder / "dataset.json", folder / "manifest.parquet"
    how = int(rng.integers(10))
    if how < 3:
        path = (tar, dataset, manifest)[how]
        if rng.random() < 0.05:
            path.unlink()
            return f"{path.name} deleted"
        done, data = mutate(rng, path.read_bytes(), [tars[0].read_bytes(), manifest.read_bytes()])
        path.write_bytes(data)
        return f"{path.name} {done}"
    if how < 5:
        return f"{tar.name} {_member(rng, tar)}"
    if how == 5:
        return f"{tar.name} {_header(rng, tar)}"
    if how < 8:
        record = json.loads(dataset.read_text())
        done = mutate_tree(rng, record)
        dataset.write_text(json.dumps(record))
        return f"{dataset.name} {done}"
    return f"{manifest.name} {_column(rng, manifest)}"


def _members(tar: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(tar) as archive:
        return archive.getmembers()


def _member(rng: Rng, tar: Path) -> str:
    """Damage what one member holds; its place and length stay."""
    members, data = _members(tar), bytearray(tar.read_bytes())
    member = members[rng.integers(len(members))]
    there = slice(member.offset_data, member.offset_data + member.size)
    done, changed = mutate(rng, bytes(data[there]))
    data[there] = changed[: member.size].ljust(member.size, b"\0")
    tar.write_bytes(data)
    return f"{member.name} {done}"


def _header(rng: Rng, tar: Path) -> str:
    """Change a field of a header and make its sum right."""
    members, data = _members(tar), bytearray(tar.read_bytes())
    at = members[rng.integers(len(members))].offset
    header = bytearray(data[at : at + _BLOCK])
    names = [b"../../x", b"/etc/x", b"", b"\xff\xfe", members[0].name.encode(), b"a/b.mel.npy"]
    sizes = [b"77777777777", b"00000000000", b"-0000000001", b"00000000777", b"\x80" + b"\xff" * 10]
    field, value = [
        (slice(0, 100), names[rng.integers(len(names))].ljust(100, b"\0")),
        (slice(124, 136), sizes[rng.integers(len(sizes))] + b"\0"),
        (slice(156, 157), b"0125xgLK\0"[(k := int(rng.integers(9))) : k + 1]),
        (slice(345, 500), b"../".ljust(155, b"\0")),
    ][rng.integers(4)]
    header[field] = value
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    header[148:156] = b"%06o\0 " % total
    data[at : at + _BLOCK] = header
    tar.write_bytes(data)
    return f"header at {at}: {value.rstrip(bytes(1))[:20]!r}"


def _column(rng: Rng, path: Path) -> str:
    """Change a column of the manifest: what it holds, its type, its rows."""
    table = pq.read_table(path)
    name = str(rng.choice(table.column_names))
    at, how = table.column_names.index(name), int(rng.integers(6))
    values = table[name].to_pylist()
    if how == 0:
        table, done = table.drop_columns([name]), "dropped"
    elif how == 1:
        rows = rng.integers(len(table), size=int(rng.integers(0, 2 * len(table))))
        table, done = table.take(pa.array(np.sort(rows))), f"rows {np.sort(rows).tolist()}"[:60]
    elif how == 2:
        table, done = table.set_column(at, name, pa.nulls(len(table), table[name].type)), "null"
    elif how == 3:
        odd: Any = ODD[rng.integers(len(ODD))]
        try:
            column = pa.array([odd] * len(table))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            column = pa.array([str(odd)[:5].encode(errors="replace")] * len(table))
        table, done = table.set_column(at, name, column), f"all {str(odd)[:20]!r}"
    else:
        other = ODD[rng.integers(len(ODD))]
        row = int(rng.integers(len(values)))
        values[row] = other if how == 4 else values[rng.integers(len(values))]
        try:
            column = pa.array(values, table[name].type)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):
            column = pa.array([None] * len(values), table[name].type)
        table, done = table.set_column(at, name, column), f"row {row} = {str(values[row])[:30]!r}"
    try:
        pq.write_table(table, path)
    except pa.ArrowNotImplementedError:  # such as a mapping without a key
        return f"{name} as it was"
    return f"{name} {done}"
