"""Shards: tar files that appear whole or not at all, and a reader of single samples in them.

A shard is a plain WebDataset tar: the members of a sample, `<key>.<extension>`, lie one after the
other, so that one sample is one block of bytes at a known offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from avb.pipeline.files import publish, sync, temporary_name

Buffer = bytes | bytearray | memoryview

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)


class _HashingFile:
    """Passes writes on and hashes them, so that no shard is read again for its hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file
        self._hash = hashlib.sha256()
        self.nbytes = 0

    def write(self, data: Buffer) -> int:
        if self._file is None:
            return memoryview(data).nbytes
        self._hash.update(data)
        self.nbytes += memoryview(data).nbytes
        return self._file.write(data)

    def detach(self) -> None:
        """Swallow what comes: a tar given up still writes its end when it is collected."""
        self._file = None

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class ShardWriter:
    """Writes one shard under a temporary name and renames it when the `with` block ends well.

    Equal samples in equal order give equal bytes. After an error nothing is left; after no sample
    neither, nor an older shard of this name, and `nbytes` is 0 and `sha256` "".
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.samples = 0
        self.nbytes = 0
        self.sha256 = ""
        self._temporary = temporary_name(self.path)

    def __enter__(self) -> ShardWriter:
        # Kept out of the module: webdataset imports torch, which reading a block does not need.
        from webdataset import TarWriter

        self._file = self._temporary.open("wb")
        self._hashing = _HashingFile(self._file)
        self._tar: Any = TarWriter(
            self._hashing,
            user="avb",
            group="avb",
            mode=0o644,
            mtime=0,
            encoder=False,
            compress=False,
            format="PAX_FORMAT",  # plain ustar but for names above 100 characters
        )
        return self

    def write(self, key: str, members: Mapping[str, Buffer]) -> tuple[int, int]:
        """Append one sample, members by extension; where its block starts, and its bytes.

        ValueError: `key` is no `group/name` without a dot (readers split the extension at the
        first).
        """
        if not key or "." in key or key.startswith("/") or key.endswith("/"):
            raise ValueError(f"sample key {key!r} must be a relative path without a dot")
        stream = self._tar.tarstream  # it buffers: its own offset is ahead of the file's
        offset = stream.offset
        self._tar.write({"__key__": key, **members})
        self.samples += 1
        return offset, stream.offset - offset

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self.samples:
                self._tar.close()
                sync(self._file)
                self._file.close()
                publish(self._temporary, self.path)
                self.nbytes, self.sha256 = self._hashing.nbytes, self._hashing.hexdigest()
            elif kind is None:
                self.path.unlink(missing_ok=True)
        finally:
            self._hashing.detach()
            self._file.close()
            self._temporary.unlink(missing_ok=True)


def read_members(block: Buffer) -> dict[str, memoryview]:
    """The files in whole tar entries, by name; nothing is unpacked, unpickled or copied.

    ValueError: the block is cut or damaged, or an entry is not a plain file with a relative name
    inside the archive.
    """
    data = memoryview(block).cast("B")
    members: dict[str, memoryview] = {}
    long_name = None
    position = 0
    while position < len(data):
        header = bytes(data[position : position + _BLOCK])
        if header == _ZERO_BLOCK:
            break
        name, kind, size = _parse_header(header, position)
        start = position + _BLOCK
        if start + size > len(data):
            raise ValueError(
                f"tar entry {name!r} is cut: {size} bytes announced, {len(data) - start} left"
            )
        content = data[start : start + size]
        position = start + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind == b"x":
            long_name = _pax_path(bytes(content))
            continue
        name, long_name = long_name or name, None
        if kind not in (b"0", b"\0"):
            raise ValueError(f"tar entry {name!r} is no plain file (type {kind!r}); refused")
        parts = set(name.split("/")) - {".", ""}  # PurePosixPath takes .01 ms a sample longer
        if name.startswith("/") or ".." in parts or not parts or "\0" in name:
            raise ValueError(f"tar entry {name!r} has no safe relative name; refused")
        if name in members:
            raise ValueError(f"tar entry {name!r} appears twice in one sample")
        members[name] = content
    return members


def sample_members(block: Buffer, key: str) -> dict[str, memoryview]:
    """The members of the one sample in a block of a shard, by extension.

    ValueError: as `read_members`, or the block holds another sample.
    """
    prefix, members = f"{key}.", read_members(block)
    if foreign := [name for name in members if not name.startswith(prefix)]:
        raise ValueError(f"its place holds {foreign[0]}; shards and manifest do not match")
    return {name.removeprefix(prefix): content for name, content in members.items()}


def _parse_header(header: bytes, position: int) -> tuple[str, bytes, int]:
    """Name, type and size of one entry."""
    try:
        counted = sum(header) - sum(header[148:156]) + 8 * 32
        if counted != int(header[148:156].strip(b" \0"), 8):
            raise ValueError
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        if size < 0 or len(header) < _BLOCK:
            raise ValueError
        name = header[:100].rstrip(b"\0").decode()
        if header[257:262] == b"ustar" and header[345]:
            name = header[345:500].rstrip(b"\0").decode() + "/" + name
    except ValueError:
        raise ValueError(f"no tar entry at byte {position} (cut or damaged shard)") from None
    return name, header[156:157], size


def _pax_path(content: bytes) -> str | None:
    """The long name in a pax header: lines of `<length> <key>=<value>`."""
    while content:
        digits, _, _ = content.partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content):
            break
        record, content = content[len(digits) + 1 : int(digits) - 1], content[int(digits) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            return value.decode()
    return None
