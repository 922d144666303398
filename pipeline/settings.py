"""What decides the bytes of shards, next to the corpus itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from avb.pipeline.clip.codec import DEFAULT_CRF
from avb.pipeline.config import Corpus, Crop, Mel, talkers_as_stored
from avb.pipeline.errors import UsageError

#: Settings that came after the first shards, and what they were before.
LATER = {"max_seconds": 60.0, "audio": "required", "sync": None}


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of the shards, next to the corpus itself."""

    corpus: str
    crops: dict[str, Crop]
    box: str
    codec: str
    crf: int
    decoder: str
    mel_dtype: str
    keep_audio: bool
    face_every: int
    shard_clips: int
    fps: int
    sample_rate: int
    mel: Mel
    fixed_box: list[int] | None = None
    picture: list[int] | None = None
    frames: int | None = None
    max_seconds: float = 60.0
    audio: str = "required"
    sync: str | None = None  # the hash of a table of lags
    limit: int | None = None
    speakers: list[str] | None = None
    tracker: str = "mediapipe"  # plans that do not say it are of when there was no other

    def __post_init__(self) -> None:
        rates = 0 < self.fps <= 1000 and self.fps <= self.sample_rate <= 1_000_000
        steps = self.face_every > 0 and self.shard_clips > 0
        box, picture = self.fixed_box or [0, 0, 1, 1], self.picture or [1, 1]
        sides = len(picture) == 2 and 0 < min(picture) and max(picture) <= 1 << 16
        placed = len(box) == 4 and all(0 <= box[i] < box[i + 2] <= 1 << 16 for i in (0, 1))
        if not (rates and steps and sides and placed):
            raise ValueError("rates, steps or boxes that no shards are made with")

    def as_dict(self) -> dict[str, Any]:
        """A plain mapping, as it goes into JSON."""
        return dataclasses.asdict(self)

    def deciding(self) -> dict[str, Any]:
        """Those that decide the bytes: not the tracker where nothing is tracked.

        Nor what could be no other when shards began: units of then stay finished.
        """
        fixed = self.box != "tracked" or self.tracker == "mediapipe"
        idle = {"tracker"} if fixed else set()
        idle |= {name for name, old in LATER.items() if getattr(self, name) == old}
        return {k: v for k, v in self.as_dict().items() if k not in idle}

    def difference(self, other: Settings) -> list[str]:
        """One line for each setting in which `other` differs."""
        mine, theirs = self.deciding(), other.deciding()
        keys = [k for k in self.as_dict() if mine.get(k) != theirs.get(k)]
        there, here = other.as_dict(), self.as_dict()
        return [f"{k}: {there[k]} there, {here[k]} now" for k in keys]


def settings_for(
    name: str, corpus: Corpus, crop: str | None = None, speakers: str | None = None, **given: Any
) -> Settings:
    """What `datasets.yaml` says of a corpus, overridden by what is `given` and not None.

    `crop` and `speakers` are lists with commas; GRID's talkers "1", "s01" and "s1" are one.
    UsageError: the two do not go together, or no shards can be made so.
    """
    same = ("crops", "box", "keep_audio", "face_every", "shard_clips", "fps", "sample_rate")
    values = {key: getattr(corpus, key) for key in (*same, "mel", "picture", "frames", "fixed_box")}
    values |= {"codec": "mp4", "decoder": "pyav", "mel_dtype": "float16", "tracker": "litert"}
    values |= {key: value for key, value in given.items() if value is not None}
    if crop:
        values["crops"] = {kind: _crop(kind, corpus) for kind in crop.split(",")}
    if speakers:
        values["speakers"] = talkers_as_stored(name, speakers.split(","))
    values.setdefault("crf", DEFAULT_CRF[values["codec"]])
    if values["box"] != "fixed":
        values["fixed_box"] = None
    elif corpus.fixed_box is None:
        raise UsageError(f"{name} has no fixed_box in datasets.yaml; use --box tracked or whole")
    if "face" in values["crops"] and values["box"] != "tracked":
        raise UsageError(f"a face crop needs --box tracked (box is {values['box']})")
    sides = [f"{kind} {crop.stored}" for kind, crop in values["crops"].items() if crop.stored % 2]
    if sides and values["codec"] != "jpeg":
        raise UsageError(
            f"{name}: crops of {', '.join(sides)} pixels with their margins; a film has even"
            " sides: another size in datasets.yaml, or --codec jpeg"
        )
    try:
        return Settings(corpus=name, **values)
    except ValueError as error:
        raise UsageError(f"{name}: {error}; look into its entry in datasets.yaml") from None


def _crop(kind: str, corpus: Corpus) -> Crop:
    known = {"lips": Crop(112, 4), "face": Crop(96, 4)} | corpus.crops
    if kind not in known:
        raise UsageError(f"--crop {kind}: one of {', '.join(known)}, or both with a comma")
    return known[kind]
