"""`avb demo`: everything there is, from nothing, by the commands a user would type."""

import logging
import subprocess
import sys
import time
from glob import escape, glob
from pathlib import Path

log = logging.getLogger(__name__)
#: What a user would type after `avb`, with OUT for the folder of all. 96 sentences of GRID are
#: enough that words not seen in training are read better than by chance.
SCRIPT = """\
synth lrw --out OUT/raw/lrw
synth lrw1000 --out OUT/raw/lrw1000
synth grid --out OUT/raw/grid --clips 96
prep lrw --root OUT/raw/lrw --out OUT/shards
prep lrw1000 --root OUT/raw/lrw1000 --out OUT/shards
prep grid --root OUT/raw/grid --out OUT/shards
verify OUT/shards
preview OUT/shards/lrw --out OUT/lrw.png
preview OUT/shards/lrw1000 --out OUT/lrw1000.png
preview OUT/shards/grid --out OUT/grid.png
train lip --data OUT/shards/grid --recipe tiny --steps 300 --set warmup=10 \
    --set validate_every=100 --out OUT/runs/lip --resume
eval lip --data OUT/shards/grid --ckpt OUT/runs/lip
train l2s --data OUT/shards/grid --recipe tiny --steps 120 --set warmup=10 \
    --set validate_every=40 --out OUT/runs/l2s --resume
eval l2s --data OUT/shards/grid --ckpt OUT/runs/l2s
synth grid --clips 1 --seed 7 --out OUT/raw/unseen
infer lip OUT/raw/unseen/**/*.mpg --ckpt OUT/runs/lip --track OUT/unseen-box.mp4
infer l2s OUT/raw/unseen/**/*.mpg --ckpt OUT/runs/l2s --out OUT/unseen.wav --mux OUT/unseen.mp4
report OUT/runs/lip OUT/runs/l2s --data OUT/shards/grid --out OUT/report.html
"""


def demo(out: Path, top: list[str]) -> int:
    """Run the demo into `out`, each command with the options `top` before it.

    Returns the exit code of the first command that fails, or 0.
    """
    steps = [line.split() for line in SCRIPT.splitlines()]
    start = time.perf_counter()
    for number, words in enumerate(steps, 1):
        step = [name for word in words for name in _typed(word, str(out))]
        log.info(f"\n[{number}/{len(steps)}] avb {' '.join(step)}")
        code = subprocess.run([sys.executable, "-m", "avb", *top, *step]).returncode
        if code:
            log.info(f"avb: that ended with {code}")
            return code
    log.info(
        f"\ndone in {time.perf_counter() - start:.0f} s; now open {out}/report.html, look at"
        f" {out}/lrw.png, {out}/lrw1000.png, {out}/grid.png, and play {out}/unseen.mp4"
    )
    return 0


def _typed(word: str, out: str) -> list[str]:
    """A word of the script as a shell gives it to the command."""
    if "*" in word:
        return sorted(glob(word.replace("OUT", escape(out)), recursive=True))
    return [word.replace("OUT", out)]
