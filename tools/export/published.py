"""The authors' published LRW weights as a checkpoint of ours.

Their inputs differ from what our own runs see, and the imported scaling makes up for it: pixels are
theirs (mean 0.4136, deviation 0.1700 of grey from 0 to 1), not those of the shards. They decoded to
RGB, which stretches the limited range of LRW's films (16 to 235) to 0 to 255; shards hold the
luma unstretched. The box is the fixed one of `avb prep lrw`. Their mel (HTK, power, decibels)
and ours differ by a factor that the normalisation of each clip cancels; it matters for the audio
path alone. paper.md 5.3 and model.md 1 say what else is theirs: variant and pooling `released`.
"""

import dataclasses
import hashlib
import logging
import math
import pickle
from pathlib import Path
from typing import Any

from avb.models.published import from_published, published_settings
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.storage.store import Folder
from avb.train.checkpoint import TORN, Hostile, read_tensors, save
from avb.train.checks import check_writable
from avb.train.data import open_shards
from avb.train.recipe_file import load_recipe

log = logging.getLogger(__name__)
SOURCE = "published weights of ms-dot-k/Visual-Audio-Memory, CC BY-NC 4.0"
GREY_MEAN, GREY_STD = 0.4136, 0.1700  # LRW, from the authors' code (paper.md 2.1)
BLACK, WHITE = 16, 235  # of limited-range luma
CLIPS = 32  # in a batch of the evaluation; the 320 of their training take 20 GB


def import_published(file: Path, out: Path, labels: Path | None, data: Folder | None) -> None:
    """Write the checkpoint `out` with the weights in `file`, which may hold nothing else."""
    published = read(file)
    if out.exists() and out.samefile(file):
        raise UsageError(f"--out {out}: is the file to import")
    check_writable(out)
    try:
        settings = published_settings(published)
        weights = from_published(published)
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    words, where = read_words(labels, data)
    if len(words) != settings["classes"]:
        raise UsageError(f"{file}: weights for {settings['classes']} words; {where}: {len(words)}")
    model = {name: value for name, value in settings.items() if name != "classes"}
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    released = load_recipe("lip", "released")
    state = {
        "recipe": dataclasses.replace(released, model=model, batch_size=CLIPS).as_dict(),
        "scaling": scaling(len(words)),
        "model": weights,
        "ema": None,
        "optimizer": None,
        "counters": {"step": 0, "best": 0.0, "waited": 0, "factor": 1.0, "bad": 0},
        "data": {
            "labels": words,
            "fingerprint": "published",
            "split": released.split,
            "split_source": SOURCE,
            "imported": {"file": file.name, "sha256": sha256},
        },
    }
    save(out, state)
    log.info(
        f"{out}: {settings['back_end']}, {settings['slots']} slots, {len(words)} words; {SOURCE}"
    )
    log.info("pixels are taken as limited-range luma in the box of avb prep lrw, as in LRW's films")


def read(file: Path) -> Any:
    """What is in a file of tensors, on the CPU; nothing in it is run."""
    try:
        return read_tensors(file)
    except pickle.UnpicklingError:
        raise UsageError(f"{file}: holds more than tensors (pickled objects); refused") from None
    except (OSError, RuntimeError, Hostile, *TORN) as error:
        raise UsageError(f"{file}: missing, damaged or no checkpoint ({one_line(error)})") from None


def read_words(labels: Path | None, data: Folder | None) -> tuple[list[str], Folder]:
    """The words in the order of the weights, that of sorted folder names, and their file."""
    if labels is not None and data is None:
        try:
            words = labels.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise UsageError(f"--labels {labels}: cannot be read ({error})") from None
        where: Folder = labels
        in_order = sorted(words)
    elif data is not None and labels is None:
        in_order, where = open_shards(data)[0].labels, data
    else:
        raise UsageError(
            "the file does not name its words: give the shards (--data shards/lrw), or a list of"
            " LRW's 500 words (--labels FILE), one of both"
        )
    if in_order != sorted(set(in_order)):
        raise UsageError(f"{where}: words must be different and, in shards, in sorted order")
    return in_order, where


def scaling(classes: int) -> dict[str, Any]:
    """What turns our stored LRW pixels into the network's, as `Scaling` holds it."""
    lrw = load_corpora()["lrw"]
    crop = lrw.crops["lips"]
    return {
        "pixel_mean": BLACK + GREY_MEAN * (WHITE - BLACK),
        "pixel_std": GREY_STD * (WHITE - BLACK),
        "mel_low": math.log(lrw.mel.floor),  # of speech models alone, but part of every scaling
        "mel_high": lrw.mel.uint8_max,
        "margin": crop.margin,
        "size": crop.size,
        "classes": classes,
    }
