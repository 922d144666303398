"""Objects of a store on this machine's disk: each fetched once, whoever asks, and not for ever.

A shard has its hash for a name, other objects their address and version. Who reads a file holds a
lock on it, which goes with the process; when another needs their place, files that nobody holds go,
those first that were not read for longest.
"""

import contextlib
import fcntl
import hashlib
import os
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from avb.pipeline.errors import StorageError, UsageError
from avb.pipeline.files import waited_for
from avb.pipeline.machine import cache_folder
from avb.pipeline.storage.store import Folder, Store

DEFAULT_GB = 20.0
_RECENT_NAMES, _MOST_AHEAD = 32, 512

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cache:
    """Copies of objects in `folder`, of at most `max_bytes` unless more are being read."""

    folder: Path
    max_bytes: int

    def open(
        self, store: Store, name: str, sha256: str | None = None, size: int | None = None
    ) -> int:
        """A descriptor of a copy of an object, which stays as long as it is open.

        Its content has to hash to `sha256`; None: whatever is there now. It has `size` bytes, None:
        the store is asked. FileNotFoundError: there is no such object; StorageError: it cannot be
        fetched, or kept here.
        """
        size = store.size(name) if size is None else size
        key = sha256
        if key is None:
            key = hashlib.sha256(f"{store / name} {store.version(name)}".encode()).hexdigest()
        path = self.folder / "objects" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = _hold(path, size)
            if held is None:
                with waited_for(self.folder / "locks" / key[:2]):
                    held = _hold(path, size)  # another process fetched it
                    if held is None:
                        held = self._fetch(store, name, sha256, size, path)
            return held
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.folder}: {error.strerror} while {store / name} was fetched; another"
                " --cache, or a smaller --cache-gb"
            ) from None

    def _fetch(self, store: Store, name: str, sha256: str | None, size: int, path: Path) -> int:
        """Fetch an object and hold it; the caller holds the lock of its name."""
        part = path.with_name(f"{path.name}.{size}.{os.getpid()}.part")
        with waited_for(self.folder / "locks/room"):
            self._make_room(size)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            store.get(name, part, sha256, size)
            os.rename(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        else:
            # The driver may have made the file anew: what was opened is gone then, with its lock.
            held = _hold(path, size)
        finally:
            os.close(descriptor)
        return self._fetch(store, name, sha256, size, path) if held is None else held

    def _make_room(self, size: int) -> None:
        """Remove files that nobody holds, oldest use first, until `size` more bytes have room."""
        files = []
        for entry in os.scandir(self.folder / "objects"):
            with contextlib.suppress(FileNotFoundError):  # a part that got its name meanwhile
                here, stat = Path(entry.path), entry.stat()
                part = here.suffix == ".part"
                nbytes = int(here.name.split(".")[1]) if part else stat.st_size
                files.append((not part, stat.st_mtime_ns, nbytes, here))
        total = sum(nbytes for _, _, nbytes, _ in files)
        for whole, _, nbytes, path in sorted(files):
            if whole and total + size <= self.max_bytes:
                break
            total -= nbytes * _remove_if_free(path)


def _hold(path: Path, size: int) -> int | None:
    """A descriptor of a file with a lock against its removal; None if there is none of this size.

    A machine that loses its power may keep the name of a file and none of its bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    stat = os.fstat(descriptor)
    if stat.st_nlink == 0 or stat.st_size != size:  # the first: removed between the two
        os.close(descriptor)
        return None
    with contextlib.suppress(PermissionError):  # of another user
        os.utime(path)
    return descriptor


def _remove_if_free(path: Path) -> bool:
    """Remove a file unless someone holds it, which a download does too."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def the_cache() -> Cache:
    """The cache of this machine, of AVB_CACHE_GB gigabytes."""
    text = os.environ.get("AVB_CACHE_GB") or str(DEFAULT_GB)
    try:
        size = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"--cache-gb {text}: a size above 0, in gigabytes")
    return Cache(cache_folder(), size)


def open_file(folder: Folder, name: str) -> BinaryIO:
    """A file of a folder to read, of a store its copy in the cache."""
    if isinstance(folder, Store):
        return os.fdopen(the_cache().open(folder, name), "rb")
    return (folder / name).open("rb")


def fetched_ahead(
    items: Iterable[Item],
    wanted: Callable[[Item], Iterable[str]],
    fetch: Callable[[str], object],
    ahead: int = 2,
) -> Iterator[Item]:
    """The items as they come, while what later ones want is fetched in a thread.

    Items are looked at in advance until `ahead` things are on their way that nothing handed out
    wants. What cannot be fetched is left for the reader to meet.
    """
    waiting: deque[tuple[Item, int]] = deque()
    recent: OrderedDict[str, None] = OrderedDict()
    names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    # A daemon: at the end of the program nothing waits for a download that nobody wants.
    threading.Thread(target=_fetch_all, args=(names, fetch), daemon=True).start()
    on_their_way = 0
    source = iter(items)
    try:
        while True:
            while on_their_way < ahead and len(waiting) < _MOST_AHEAD:
                if (item := next(source, None)) is None:
                    break
                names_here = list(dict.fromkeys(wanted(item)))
                fresh = [name for name in names_here if name not in recent]
                for name in fresh:
                    names.put(name)
                for name in names_here:
                    recent[name] = None
                    recent.move_to_end(name)
                while len(recent) > _RECENT_NAMES:
                    recent.popitem(last=False)
                on_their_way += len(fresh)
                waiting.append((item, len(fresh)))
            if not waiting:
                return
            item, count = waiting.popleft()
            on_their_way -= count
            yield item
    finally:
        names.put(None)


def _fetch_all(names: queue.SimpleQueue[str | None], fetch: Callable[[str], object]) -> None:
    while (name := names.get()) is not None:
        with contextlib.suppress(StorageError, OSError):
            fetch(name)
