"""`avb demo`: everything there is, from nothing, by the commands a user would type."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

log = logging.getLogger(__name__)
CORPORA = ("lrw", "lrw1000", "grid")
SENTENCES = 96  # of GRID: enough that words not seen in training are read better than by chance
STEPS = {"lip": 300, "l2s": 120}
#: Seconds of each command on two cores, for the time left; all others take about 6.
SECONDS = {"train": 70, "eval": 35, "report": 30}
OTHERS = 6


def demo(out: Path) -> int:
    """Run the demo into `out`; returns the exit code of the first command that fails, or 0."""
    steps = prepare_steps(out) + [step for task in STEPS for step in train_steps(out, task)]
    steps += use_steps(out)
    start = time.perf_counter()
    for number, step in enumerate(steps, 1):
        left = minutes_left(steps, number - 1, time.perf_counter() - start)
        files = (sorted(glob(w, recursive=True)) if "*" in w else [w] for w in step)  # as a shell
        step = [name for names in files for name in names]
        log.info(f"\n[{number}/{len(steps)}, {left:.0f} min left] avb {' '.join(step)}")
        code = subprocess.run([sys.executable, "-m", "avb", *step]).returncode
        if code:
            log.info(f"avb: that ended with {code}")
            return code
    log.info(
        f"\ndone in {time.perf_counter() - start:.0f} s; now open {out}/report.html, look at"
        f" {', '.join(f'{out}/{name}.png' for name in CORPORA)}, and play {out}/unseen.mp4"
    )
    return 0


def minutes_left(steps: list[list[str]], done: int, elapsed_s: float) -> float:
    """What the rest of the commands will take, at the pace of those that are done."""
    expected = [SECONDS.get(step[0], OTHERS) for step in steps]
    pace = elapsed_s / sum(expected[:done]) if done else 1.0
    return pace * sum(expected[done:]) / 60


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
    steps = STEPS[task]
    length = ["--steps", str(steps), "--set", "warmup=10", "--set", f"validate_every={steps // 3}"]
    train = ["train", task, *data, "--recipe", "tiny", *length, "--out", str(run), "--resume"]
    return [train, ["eval", task, *data, "--ckpt", str(run)]]


def use_steps(out: Path) -> list[list[str]]:
    """Words and speech of a film that no shard holds, and the report."""
    film = f"{out}/raw/unseen/**/*.mpg"
    ckpt = {task: ["--ckpt", f"{out}/runs/{task}"] for task in STEPS}
    sound = ["--out", f"{out}/unseen.wav", "--mux", f"{out}/unseen.mp4"]
    return [
        ["synth", "grid", "--clips", "1", "--seed", "7", "--out", f"{out}/raw/unseen"],
        ["infer", "lip", film, *ckpt["lip"], "--track", f"{out}/unseen-box.mp4"],
        ["infer", "l2s", film, *ckpt["l2s"], *sound],
        ["report", *(f"{out}/runs/{task}" for task in STEPS), "--data", f"{out}/shards/grid",
         "--out", f"{out}/report.html"],
    ]  # fmt: skip
