"""`avb train judge` between the flags and the training: shards, split, device, the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avb.pipeline.errors import UsageError
from avb.pipeline.machine import revision
from avb.pipeline.storage.store import Folder
from avb.tools.cli.console import say
from avb.train.data import open_shards
from avb.train.device import choose_device


@dataclass(frozen=True)
class Options:
    """The flags of `avb train judge` as they were given."""

    data: Folder
    split: str | None
    speakers: str | None
    split_file: Path | None
    epochs: int | None
    seed: int
    device: str | None
    out: Path
    datasets: Path | None


def run(options: Options) -> None:
    """Train a judge as the flags say, and write it.

    Raises:
        UsageError: the shards or the split will not do, or `out` cannot be written.
    """
    import torch

    from avb.train import checkpoint
    from avb.train.evaluate.words import training as judge
    from avb.train.evaluate.words.trained import Training
    from avb.train.recipe import Recipe
    from avb.train.sounds import check_writable
    from avb.train.split import default_split, split_rows, teachable

    if options.out.exists():
        raise UsageError(f"{options.out}: is there already; choose another --out, or delete it")
    check_writable(options.out)
    index, corpus = open_shards(options.data, options.datasets)
    split = options.split or default_split(index, corpus)
    speakers = options.speakers.split(",") if options.speakers else None
    parts = split_rows(index, corpus, split, speakers, options.split_file)
    parts = teachable(index, parts, Recipe("l2s"), say)
    device = choose_device(options.device)
    counts = {part: len(rows) for part, rows in parts.rows.items()}
    say(f"split {parts.name} ({parts.source}): {counts} clips; test is not looked at")
    training = Training(epochs=options.epochs or judge.EPOCHS, seed=options.seed)
    try:
        state = judge.train(index, parts, training, torch.device(device))
        facts = {"revision": revision(), "torch": str(torch.__version__), "device": device}
        checkpoint.save(options.out, state | facts)
    except OSError as error:
        raise UsageError(f"{options.out}: cannot be written ({error.strerror})") from None
    for name in ("real", "griffin_lim", "other_sentence"):
        rate = state["val"][name]["wer"]
        if rate["value"] is not None:
            say(
                f"word error on {name} of {counts['val']} validation clips: {rate['value']:.2%}"
                f" [{rate['low']:.2%}, {rate['high']:.2%}]"
            )
    say(f"{options.out}: hash {state['hash'][:12]}")
