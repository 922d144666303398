"""An importer with its settings, and clips as their adapter reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avb.pipeline.build.plan import Plan, make_plan
from avb.pipeline.build.prep import Summary, prep
from avb.pipeline.clip import audio
from avb.pipeline.clip.media import Media
from avb.pipeline.clip.status import Refused
from avb.pipeline.config import Corpus, corpus_root, load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.settings import Settings, settings_for


def touch(root: Path, *names: str) -> Path:
    """A folder with empty files of these names: discovery opens no clip."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def fitted(media: Media) -> tuple[np.ndarray, int]:
    """The sound under the pictures, and what was padded."""
    return audio.fit(media.sound, media.rate, media.sound_start_s, len(media.frames), 25, 16000)


def refusal(call: Callable[..., object], *given: Any, **more: Any) -> Refused:
    """Why a call refuses a clip."""
    with pytest.raises(Refused) as refused:
        call(*given, **more)
    return refused.value


@dataclass
class Loaded:
    """One clip as its adapter reads it."""

    clip: Clip
    media: Media
    words: list[Word]
    settings: Settings

    @property
    def flags(self) -> set[str]:
        return {*self.media.flags, *self.clip.flags}

    def fitted(self) -> tuple[np.ndarray, int]:
        return fitted(self.media)

    def log_mel(self) -> np.ndarray:
        return audio.log_mel(self.fitted()[0], self.settings.mel, 16000)


@dataclass
class Importer:
    """A corpus at a place: what it lists, and any clip of it read."""

    corpus: Corpus
    settings: Settings
    root: Path

    def plan(self, path: Path) -> Plan:
        return make_plan(self.corpus, self.settings, self.root, path)

    def planned(self, path: Path) -> dict[str, Clip]:
        """The clips of a plan by their keys."""
        plan = self.plan(path)
        return dict(row for unit in plan.units for row in plan.rows(unit.number))

    def prep(self, out: Path, **more: Any) -> Summary:
        return prep(self.corpus, self.settings, self.root, out, **more)

    def listing(self) -> Listing:
        return adapter(self.settings.corpus).discover(self.root, self.corpus)

    def clips(self) -> list[Clip]:
        return list(self.listing().clips)

    def load(self, match: str = "") -> Loaded:
        """The one clip whose source or name holds `match`."""
        listing = self.listing()
        found = [c for c in listing.clips if match in c.source or match in c.name]
        assert len(found) == 1, f"{match!r} matches {[c.source for c in found]}"
        return self.read(found[0], listing.root)

    def refusal(self, match: str = "") -> Refused:
        """Why that clip is refused."""
        return refusal(self.load, match)

    def read(self, clip: Clip, root: Path | None = None) -> Loaded:
        """A listed clip as its adapter reads it."""
        corpus, root = adapter(self.settings.corpus), root or self.root
        media = corpus.load(root, clip, self.settings).whole()
        words = corpus.words(root, clip, len(media.frames), self.settings, media.flags)
        return Loaded(clip, media, words, self.settings)


def importer(corpus: str, root: str | Path | None, **flags: Any) -> Importer:
    """What `avb prep CORPUS --root ROOT` with these flags would work with."""
    entry = load_corpora()[corpus]
    if corpus == "table":
        return Importer(entry, settings_for("mine", entry, **flags), Path(root or ""))
    where = corpus_root(corpus, entry, root and Path(root))
    return Importer(entry, settings_for(corpus, entry, **flags), where)
