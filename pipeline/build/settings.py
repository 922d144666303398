"""The settings of a preparation: what `datasets.yaml` says of a corpus, and flags over it."""

from __future__ import annotations

from typing import Any

from avb.pipeline.build.plan import Settings
from avb.pipeline.clip.codec import DEFAULT_CRF
from avb.pipeline.config import Corpus
from avb.pipeline.errors import UsageError


def settings_for(name: str, corpus: Corpus, **given: Any) -> Settings:
    """What `datasets.yaml` says of a corpus, overridden by `given`.

    Raises:
        UsageError: the two do not go together.
    """
    same = ("crops", "box", "keep_audio", "face_every", "shard_clips", "fps", "sample_rate")
    values = {key: getattr(corpus, key) for key in (*same, "mel", "picture", "frames", "fixed_box")}
    values |= {
        "codec": "mp4",
        "decoder": "pyav",
        "mel_dtype": "float16",
        "tracker": "litert",
    } | given
    values.setdefault("crf", DEFAULT_CRF[values["codec"]])
    if values["box"] != "fixed":
        values["fixed_box"] = None
    elif corpus.fixed_box is None:
        raise UsageError(f"{name} has no fixed_box in datasets.yaml; use --box tracked or whole")
    if "face" in values["crops"] and values["box"] != "tracked":
        raise UsageError(f"a face crop needs --box tracked (box is {values['box']})")
    return Settings(corpus=name, **values)
