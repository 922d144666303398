"""One module a corpus: what it is, how it lies on disk, what is wrong with it.

An adapter offers `discover(root, corpus) -> Listing`, which lists without opening a clip, and
`load(root, clip, plan) -> Media`, which reads one clip and checks what is peculiar to its corpus.
"""

import importlib
from types import ModuleType

NAMES = ("lrw", "lrw1000", "grid", "table")


def adapter(corpus: str) -> ModuleType:
    """The adapter module; tables of any name share one."""
    return importlib.import_module(f"avb.pipeline.corpora.{corpus if corpus in NAMES else 'table'}")
