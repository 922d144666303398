"""A corpus in a store: its tree to list, and the files of a clip to read, on this machine."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from avb.pipeline.corpora import grid, lrw1000
from avb.pipeline.corpora.clip import Clip
from avb.pipeline.corpora.leftover import VIDEOS
from avb.pipeline.storage.mirror import AT_ONCE, scratch
from avb.pipeline.storage.store import OUTSIDE, Entry, Folder, Store

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


@contextlib.contextmanager
def listed_tree(root: Folder) -> Iterator[Path]:
    """A local tree to list in place of a corpus in a store: its names, without the content.

    A corpus of this machine is listed itself; a table lies in its tree. Sizes are those of the
    store, times stand for its versions. Only files that an importer opens while it lists have their
    content: tables, and two videos of one GRID sentence, of which it takes the one with fewer
    pixels.
    """
    if isinstance(root, Path):
        yield root
        return
    with scratch("list") as temporary:
        top = Path(temporary) / root.name
        is_table = PurePosixPath(root.name).suffix.lower() in TABLES
        store, tree = (root.parent, top.parent) if is_table else (root, top)
        names = store.entries()
        if names:
            tree.mkdir(exist_ok=True)
        opened = {*lrw1000.INDEX.values(), lrw1000.JOIN}
        twins = Counter(map(_sentence, names))
        for name in names:
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sentence = _sentence(name)
            twin = sentence is not None and twins[sentence] > 1
            wanted = path == top if is_table else path.name in opened or twin
            if wanted:
                store.get(name, path)
            else:
                path.touch()
            _stamp(path, names[name])
        for folder, _, _ in os.walk(tree, topdown=False):
            os.utime(folder, ns=(0, 0))
        yield top


def _stamp(path: Path, entry: Entry) -> None:
    """Give a file the size that its object has, and a time that changes when the object does."""
    os.truncate(path, entry.size)
    second = int.from_bytes(hashlib.sha256(entry.version.encode()).digest()[:4]) >> 2
    os.utime(path, (second, second))


def _sentence(name: str) -> str | None:
    """The GRID sentence that a video's name spells."""
    path = PurePosixPath(name)
    match = grid.NAME.match(path.stem) if path.suffix.lower() in VIDEOS else None
    return match[2].lower() if match else None


@contextlib.contextmanager
def clip_files(root: Folder, clip: Clip) -> Iterator[Path]:
    """A folder in which the files of one clip, as far as there are any, lie as below the root."""
    if isinstance(root, Path):
        yield root
        return
    with scratch("clip") as folder:
        # An importer may take the talker from the name of the root.
        top = Path(folder) / root.name
        top.mkdir()
        for name in filter(None, (clip.source, clip.audio, clip.text)):
            if not OUTSIDE.match(name):
                _bring(root, name, top)
        yield top


def _bring(root: Store, name: str, top: Path) -> None:
    """A file, or a folder with all that is in it."""
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        root.get(name, path)
    except FileNotFoundError:
        entries = (root / name).entries()
        members = [member for member in entries if "/" not in member]
        if members:
            path.mkdir()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda m: (root / name).get(m, path / m, size=entries[m].size), members))
