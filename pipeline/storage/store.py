"""Folders in object storage, `s3://`, `gs://` and whatever else fsspec has a driver for.

A store shows an object when its last byte has come, so an upload that is interrupted is never
seen. Credentials come by the usual means of the driver (environment, `~/.aws`, the machine's role;
AWS_ENDPOINT_URL or FSSPEC_S3_ENDPOINT_URL for another S3) and are in no name, message or file.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.storage.faults import DISK, advice_for, bucket_is_gone, line_of, store_faults

TRIES = 6
FIRST_WAIT_S = 0.5  # doubled each time: 15 s in all, as long as a store takes to fail over
CONNECT_S, SILENCE_S = 10, 60
SLOWEST_BYTES_PER_S = 50_000  # slower uploads are given up

#: Names of objects that no file below a folder has.
OUTSIDE = re.compile(r"/|(.*/)?\.\.(/|$)|.*/$", re.S)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)
_CHUNK = 1 << 25

Result = TypeVar("Result")


class Entry(NamedTuple):
    """What a listing says of an object: its bytes, and what changes when it does."""

    size: int
    version: str


@dataclass(frozen=True)
class Store:
    """A folder in a store; objects have names relative to it. Small, hashable and picklable.

    Whatever fails for a reason that may pass, such as an answer 500 or a cut connection, is tried
    again with growing waits. FileNotFoundError: there is no such object; StorageError: all else.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> Store:
        """The folder that this one lies in."""
        return Store(self.url.rpartition("/")[0])

    def resolve(self) -> Store:
        """Itself: an address has one form."""
        return self

    def get(
        self, name: str, local: Path, sha256: str | None = None, size: int | None = None
    ) -> None:
        """Write an object to the file `local`, all `size` bytes of it (None: the store is asked).

        Its content has to hash to `sha256`, if that is given; after an error there is no file.
        """

        def fetch(files: Any, path: str) -> None:
            files.get_file(path, str(local))
            wanted = files.info(path)["size"] if size is None else size
            if wanted != (came := local.stat().st_size):
                raise OSError(errno.EIO, f"{came} of {wanted} bytes came")
            if sha256 is not None and (here := _hash(local, "sha256")) != sha256:
                raise OSError(errno.EIO, f"sha256 is {here[:12]}..., expected {sha256[:12]}...")

        try:
            self._try(name, fetch)
        except BaseException:
            local.unlink(missing_ok=True)
            raise

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of an object, or of a piece of it."""
        return self._try(name, lambda files, path: files.cat_file(path, start=start, end=end))

    def put(self, local: Path, name: str, new: bool = False) -> None:
        """Upload a file whole and check what arrived by its size and hash.

        `new` never replaces another object, whoever else is writing: FileExistsError.
        """
        options: dict[str, Any] = {"mode": "create"} if new else {}
        patience_s = SILENCE_S + local.stat().st_size / SLOWEST_BYTES_PER_S

        def send(files: Any, path: str) -> None:
            if files.async_impl:  # S3's client waits without end to be told to go on with a body
                options["timeout"] = patience_s
            try:
                files.put_file(str(local), path, **options)
            except FileExistsError:
                if not _same(files, path, local):  # the answer to an earlier try may be lost
                    raise
            if not _same(files, path, local):
                raise OSError(errno.EIO, "what arrived is not what was sent")

        try:
            self._try(name, send)
        except FileNotFoundError as error:
            raise StorageError(f"{self / name}: {line_of(error)}") from None

    def entries(self) -> dict[str, Entry]:
        """Every object that can be a file below this folder, by name; none if there are none."""
        prefix = len(self._path("")) + 1

        def find(files: Any, path: str) -> dict[str, Entry]:
            objects = files.find(path, detail=True)
            found = {key[prefix:]: _entry(info) for key, info in objects.items() if key[prefix:]}
            folders: set[str] = set()  # some tools mark one by an empty object of its name
            for name in found:
                while (name := name.rpartition("/")[0]) and name not in folders:
                    folders.add(name)
            return {
                name: entry
                for name, entry in found.items()
                if not OUTSIDE.match(name) and (entry.size or name not in folders)
            }

        try:
            return self._try("", find)
        except FileNotFoundError as error:  # the bucket
            raise StorageError(str(error)) from None

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return self._try(name, lambda files, path: int(files.info(path)["size"]))

    def version(self, name: str) -> str:
        """What changes when the object does."""
        return self._try(name, lambda files, path: str(files.ukey(path)))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._try(name, lambda files, path: files.rm_file(path))

    def _path(self, name: str) -> str:
        path = _URL.sub("", self.url, count=1)
        return f"{path}/{name}" if name else path

    def _try(self, name: str, action: Callable[[Any, str], Result]) -> Result:
        """The action's result, tried again as long as its fault may pass."""
        where = self / name if name else self
        waits = [FIRST_WAIT_S * 2**number for number in range(TRIES - 1)]
        while True:
            files = _driver(self.url)
            try:
                return action(files, self._path(name))
            except FileNotFoundError as error:
                if bucket_is_gone(error):
                    bucket = urlsplit(self.url).netloc
                    raise StorageError(
                        f"{where}: there is no bucket {bucket}, or no more; see its name and"
                        " AWS_ENDPOINT_URL, and run again when it is there"
                    ) from None
                raise FileNotFoundError(f"{where}: {line_of(error)}") from None
            except FileExistsError:
                raise
            except store_faults() as error:
                if isinstance(error, OSError) and error.errno in DISK:
                    raise
                advice = advice_for(error)
                if advice or not waits:
                    advice = advice or f"tried {TRIES} times; run again when it answers"
                    raise StorageError(f"{where}: {line_of(error)} ({advice})") from None
            # All clients of a store that failed would come back in the same moment.
            time.sleep(waits.pop(0) * random.uniform(0.8, 1.2))


Folder = Path | Store


def place(text: str | Path | Store) -> Path | Store:
    """A folder as it was typed: a store for an address, a path for all else and for `file://`."""
    if isinstance(text, Path | Store):
        return text
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    if not _URL.match(text):
        return Path(text)
    parts = urlsplit(text)
    if "@" in parts.netloc or parts.query:
        raise UsageError(
            f"{parts.scheme}://...: an address without user, password or query; credentials come"
            " from the environment or ~/.aws"
        )
    if parts.scheme in ("http", "https"):
        raise UsageError(f"{text}: no store but a page; copy it here, or give its s3:// or gs://")
    if not parts.netloc:
        raise UsageError(f"{text}: no bucket; {parts.scheme}://BUCKET/FOLDER")
    return Store(text.rstrip("/"))


def read_piece(folder: Folder, name: str, start: int, nbytes: int) -> bytes:
    """Some bytes of a file, and no more than these of one in a store."""
    if isinstance(folder, Store):
        return folder.read(name, start, start + nbytes)
    with (folder / name).open("rb") as file:
        file.seek(start)
        return file.read(min(nbytes, os.fstat(file.fileno()).st_size))  # room is made for all


@contextlib.contextmanager
def local_copy(file: Folder, pieces: Iterable[tuple[int, int]] | None = None) -> Iterator[Path]:
    """A file of this machine, or for this long a fresh copy of one in a store.

    Of the copy, `pieces` (offset and length) are fetched, None: the whole; it has the file's size.
    """
    if isinstance(file, Path):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="avb-copy-") as folder:
        copy = Path(folder) / file.name
        if pieces is None:
            file.parent.get(file.name, copy)
        else:
            with copy.open("wb") as target:
                target.truncate(file.parent.size(file.name))
                for start, nbytes in pieces:
                    target.seek(start)
                    target.write(file.parent.read(file.name, start, start + nbytes))
        yield copy


def _driver(url: str) -> Any:
    """The file system of an address: one for each process and thread, which fsspec sees to."""
    protocol = url.partition("://")[0].lower()
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False}
        if protocol in ("s3", "s3a"):
            # One place tries again, not three; what the user set for the driver stays.
            config = {"connect_timeout": CONNECT_S, "read_timeout": SILENCE_S}
            config |= fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
            options["config_kwargs"] = config | {"retries": {"total_max_attempts": 1}}
        files = fsspec.filesystem(protocol, **options)
        files.retries = 1
        return files
    except ImportError as error:
        raise UsageError(f"{url}: pip install s3fs gcsfs for it ({error})") from None
    except ValueError as error:
        raise UsageError(f"{url}: {line_of(error)}") from None


def _forget_loop() -> None:
    """In a forked process: do not wait for fsspec's thread, which stayed in the first one."""
    if "fsspec.asyn" in sys.modules:
        sys.modules["fsspec.asyn"].reset_lock()


os.register_at_fork(after_in_child=_forget_loop)  # as newer ones than fsspec 2025.2 do


def _entry(info: dict[str, Any]) -> Entry:
    stamps = ("ETag", "md5Hash", "LastModified", "mtime", "created")
    return Entry(info["size"], next((str(info[name]) for name in stamps if info.get(name)), ""))


def _hash(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def _same(files: Any, path: str, local: Path) -> bool:
    """Whether an object has the content of a file: by the MD5 that the store states, or all of it.

    S3 states it as ETag, but for parts and for some encryption; Google as md5Hash.
    """
    info = files.info(path)
    if info["size"] != local.stat().st_size:
        return False
    stated = str(info.get("ETag") or "").strip('"')
    if "md5Hash" in info:
        stated = base64.b64decode(info["md5Hash"]).hex()
    if stated == _hash(local, "md5"):
        return True
    stored = hashlib.sha256()
    for start in range(0, info["size"], _CHUNK):
        end = min(start + _CHUNK, info["size"])
        stored.update(files.cat_file(path, start=start, end=end))
    return stored.hexdigest() == _hash(local, "sha256")
