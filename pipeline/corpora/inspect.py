"""`avb inspect`: which layout a raw corpus has and how far it is from the published counts.

Lists, and decodes nothing; its lines are what a licensee can report back in one paste.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from avb.pipeline.config import Corpus
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.source_files import listing_faults_named
from avb.pipeline.errors import UsageError


def inspect(name: str, corpus: Corpus, root: Path) -> dict[str, Any]:
    """Counts of a raw corpus by its listing; `distance` is found minus published."""
    groups: Counter[str] = Counter()
    per_label: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    speakers: set[str] = set()
    clips = 0
    with listing_faults_named(root):
        listing = adapter(name).discover(root, corpus)
        for clip in listing.clips:
            clips += 1
            groups[clip.group] += 1
            if clip.label is not None:
                per_label[clip.label] += 1
            if clip.speaker is not None:
                speakers.add(clip.speaker)
            if clip.status:
                refused[clip.status] += 1
    counts = {"clips": clips, "classes": len(listing.labels), "speakers": len(speakers), **groups}
    distance = {key: counts.get(key, 0) - wanted for key, wanted in corpus.expected.items()}
    return {
        "corpus": name, "root": str(root), "layout": listing.layout, "clips": clips,
        "groups": dict(sorted(groups.items())), "labels": len(listing.labels),
        "speakers": len(speakers), "per_label": dict(sorted(per_label.items())),
        "refused": dict(refused), "distance": distance,
        "notices": listing.notices + [corpus.known] * bool(corpus.known),
    }  # fmt: skip


def recognise(root: Path, corpora: dict[str, Corpus]) -> str:
    """The name of the corpus that lies at `root`, by its layout; UsageError if none does."""
    if root.is_file():
        return "table"
    tried = []
    for name, corpus in corpora.items():
        if name == "table":
            continue
        try:
            with listing_faults_named(root):
                adapter(name).discover(root, corpus)
            return name
        except UsageError as error:
            tried.append(str(error))
    tried.append("films of your own: list them in a table, avb prep table FILE")
    raise UsageError(f"{root}: no corpus recognised; {'; '.join(tried)}")
