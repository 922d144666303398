"""`prep` between stores: a folder of this machine stands for the one that lies in a store.

In it lie the small files of the store, whole, and for each tar an empty file of its size. A unit
is made there by the code that makes it anywhere, then its shard is uploaded, then its rows.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from avb.pipeline.files import waited_for
from avb.pipeline.storage.store import Entry, Folder, Store

DATASET = "dataset.json"
OURS = ".tar", ".parquet", ".arrow", ".json"  # other files are somebody's own, of any size
AT_ONCE = 8  # objects on their way


def scratch(kind: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that says whose it is."""
    return tempfile.TemporaryDirectory(prefix=f"avb-{kind}-{os.uname().nodename}.{os.getpid()}-")


def sweep_scratch() -> None:
    """Remove the temporary folders of processes of this machine that were killed."""
    mine = re.compile(rf"avb-[a-z]+-{re.escape(os.uname().nodename)}\.(\d+)-\w+")
    for path in Path(tempfile.gettempdir()).glob("avb-*"):
        if owner := mine.fullmatch(path.name):
            try:
                os.kill(int(owner[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except PermissionError:  # another user's, and alive
                continue


class Mirror:
    """A local folder that stands for one in a store (see above); without a store for itself."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.folder = folder
        self.store = store
        self._there: dict[str, Entry] = {}
        self._here: dict[str, tuple[int, int]] = {}

    def __str__(self) -> str:
        return str(self.store or self.folder)

    def pull(self) -> None:
        """Make the folder as the store is."""
        store = self.store
        if store is None:
            return
        there = {name: e for name, e in store.entries().items() if name.endswith(OURS)}
        changed = [name for name, entry in there.items() if self._there.get(name) != entry]

        def bring(name: str) -> None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".tar"):
                _stand_in(path, there[name].size)
            else:
                store.get(name, path, size=there[name].size)

        for name in self._there.keys() - there.keys():
            (self.folder / name).unlink(missing_ok=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(bring, changed))
        self._there = there
        self._here = self._snapshot()

    def push_plan(self, plan: Path) -> None:
        """Upload the plan if it is the first one; FileExistsError where another run was faster."""
        name = plan.relative_to(self.folder).as_posix()
        if self.store is not None and name not in self._there:
            self.store.put(plan, name, new=True)

    def push(self) -> None:
        """Make the store as the folder is, in an order in which it may be interrupted.

        `dataset.json` says that all is complete: it goes first and comes last.
        """
        if self.store is None:
            return
        here = self._snapshot()
        gone = self._here.keys() - here.keys()
        for name in sorted(gone, key=lambda name: name != DATASET):
            self.store.remove(name)
        changed = [name for name, stat in here.items() if self._here.get(name) != stat]
        for name in sorted(changed, key=lambda name: name == DATASET):
            if not name.endswith(".tar"):
                self.store.put(self.folder / name, name)
        self._here = here

    def _snapshot(self) -> dict[str, tuple[int, int]]:
        """Time and size of the files that the store has or is to have."""
        stats = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name.endswith(OURS):
                stat = path.stat()
                stats[path.relative_to(self.folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
        return stats


@contextlib.contextmanager
def mirrored(place: Folder) -> Iterator[Mirror]:
    """What stands for a folder as long as `prep` works on it; for one of this machine, itself."""
    if isinstance(place, Path):
        yield Mirror(place)
        return
    with scratch("out") as temporary:
        mirror = Mirror(Path(temporary) / place.name, place)
        mirror.folder.mkdir()
        mirror.pull()
        yield mirror


def _stand_in(path: Path, size: int) -> None:
    """Put an empty file of this size in the place of a shard."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def fetch_plan(store: Store, plan: Path) -> None:
    """Bring the plan to a machine that has not got it, once for all its processes."""
    if plan.is_file():
        return
    with waited_for(plan.with_name("plan.lock")):
        if not plan.is_file():
            part = plan.with_suffix(f".{os.getpid()}.tmp")
            store.get(f".avb/{plan.name}", part)
            os.rename(part, plan)


def fetch_unit(store: Store, folder: Path, rows: Path, tar: Path) -> None:
    """Bring what an earlier run made of a unit, if it did: what passed there is not made again."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not rows.is_file():
            store.get(rows.relative_to(folder).as_posix(), rows)
        store.get(tar.name, tar)
    except FileNotFoundError:  # not made, or nothing of it passed
        tar.unlink(missing_ok=True)


def send_unit(store: Store, folder: Path, rows: Path, tar: Path) -> None:
    """Upload a shard and then its rows, which say that it is there, and keep a stand-in."""
    if tar.is_file():
        store.put(tar, tar.name)
    else:
        store.remove(tar.name)
    store.put(rows, rows.relative_to(folder).as_posix())
    if tar.is_file():
        _stand_in(tar, tar.stat().st_size)
