"""`avb demo`: everything there is, from nothing, by the commands a user would type.

Draws and speaks a small corpus in each of the three raw layouts, prepares shards, verifies them,
draws contact sheets, reads batches, trains both tasks with the tiny recipes on the sentences, and
measures them. No corpus and no network needed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import typer

from avb.tools.console import say

CORPORA = ("lrw", "lrw1000", "grid")
SENTENCES = 96  # of GRID: enough that words not seen in training are read better than by chance
STEPS = {"lip": 150, "l2s": 120}


def demo(out: Path) -> int:
    """Run the demo into `out`; returns the exit code of the first command that fails, or 0."""
    start = time.perf_counter()
    steps = prepare_steps(out) + [step for task in STEPS for step in train_steps(out, task)]
    for number, step in enumerate(steps, 1):
        say(f"\n[{number}/{len(steps) + 1}] avb {' '.join(step)}")
        code = subprocess.run([sys.executable, "-m", "avb", *step]).returncode
        if code:
            say(f"avb: that ended with {code}")
            return code
    say(f"\n[{len(steps) + 1}/{len(steps) + 1}] reading, as in README.md")
    read(out / "shards")
    pictures = ", ".join(f"{out}/{name}.png" for name in CORPORA)
    say(f"\ndone in {time.perf_counter() - start:.0f} s; now look at {pictures}")
    return 0


def prepare_steps(out: Path) -> list[list[str]]:
    """From nothing to verified shards and a picture of each."""
    clips = {"grid": ["--clips", str(SENTENCES)]}
    steps = [
        ["synth", name, "--out", f"{out}/raw/{name}", *clips.get(name, [])] for name in CORPORA
    ]
    for name in CORPORA:
        steps.append(["prep", name, "--root", f"{out}/raw/{name}", "--out", f"{out}/shards"])
    steps.append(["verify", f"{out}/shards"])
    for name in CORPORA:
        steps.append(["preview", f"{out}/shards/{name}", "--out", f"{out}/{name}.png"])
    return steps


def train_steps(out: Path, task: str) -> list[list[str]]:
    """A short training on the drawn sentences, and its measures on those it has not seen."""
    data, run = ["--data", f"{out}/shards/grid"], out / "runs" / task
    length = ["--steps", str(STEPS[task]), "--set", "warmup=10", "--set", "validate_every=50"]
    again = ["--resume"] if (run / "last.pt").exists() else []
    train = ["train", task, *data, "--recipe", "tiny", *length, "--out", str(run), *again]
    measure = ["eval", task, *data, "--ckpt", f"{run}/best.pt", "--out", f"{out}/{task}.json"]
    return [train, measure]


def read(shards: Path) -> None:
    """Read a few batches of words and of sentences and say what is in them."""
    from avb.pipeline.index import load_index
    from avb.pipeline.stream import Stream

    views = [("lrw", "clip", ("lips",)), ("grid", "word", ("lips",)), ("grid", "clip", ("face",))]
    for name, unit, crops in views:
        stream = Stream(load_index(shards / name), batch_size=8, crops=crops, unit=unit, seed=0)
        start = time.perf_counter()
        batches = [batch for batch, _ in zip(stream, range(12), strict=False)]
        rate = 12 * 8 / (time.perf_counter() - start)
        batch = batches[0]
        video = batch.video[crops[0]]
        mel = batch.mel
        assert mel is not None
        typer.echo(
            f"{name} by {unit}: {stream.num_samples} samples an epoch, {rate:.0f} a second;"
            f" {crops[0]} {video.dtype} {list(video.shape)}, mel {list(mel.shape)},"
            f" first key {batch.keys[0]}"
        )
