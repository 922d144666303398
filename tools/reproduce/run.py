"""The steps of a table carried out, one process each, and how long those to come will take."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from avb.pipeline.files import write_atomic
from avb.tools.bench.batches import Feed, blank_index
from avb.tools.bench.contenders import as_trained, open_device, take_steps, with_batch
from avb.tools.reproduce.plan import Step
from avb.train.flops import clip_cost, named_peak, usual_frames
from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task, scaling_of

#: Share of its peak at which a card is taken to train: what an H200 reached (the median `mfu` of
#: results/gpu, `paper` and `l2s`).
SHARES = {"l2s": 0.034, "lip": 0.11}


class Stopped(Exception):
    """A step ended with `code`, its own last line says why; the next call goes on there."""

    def __init__(self, step: Step, code: int) -> None:
        super().__init__(f"stopped at: avb {shlex.join(step.words)}")
        self.code = code


def carry_out(step: Step, top: Sequence[str] = ()) -> None:
    """Run one step to its end, else Stopped; `top` are flags before the command."""
    # What was trained before, by other hands or by a call that was killed, nobody has timed.
    begun = step.done.with_name("last.pt").exists()
    timed = step.trained().get("seconds", None if begun else 0.0)
    began = time.monotonic()
    code = call([*top, *step.words])
    done = code in step.accepted
    if step.recipe is not None and step.done.parent.is_dir():
        seconds = None if timed is None else round(timed + time.monotonic() - began, 1)
        record = {"done": done, "seconds": seconds} | step.asked()
        write_atomic(step.done, (json.dumps(record) + "\n").encode())
    if not done:
        raise Stopped(step, code if code > 0 else 128 - code)


def call(words: Sequence[str]) -> int:
    """The exit code of an avb of its own."""
    return wait_for([sys.executable, "-m", "avb", *words])


def wait_for(words: Sequence[str]) -> int:
    """The exit code of a process, which is let end in its own way when this one is told to stop.

    A terminal sends Ctrl-C to both; what a cluster sends may reach this one alone, so it is passed
    on.
    """
    passed_on = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    with subprocess.Popen(words, stdout=2) as child:  # stdout is for what the table came to
        before = {n: signal.signal(n, lambda n, _: child.send_signal(n)) for n in passed_on}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def clips_per_s(recipe: Recipe, card: str | None) -> float:
    """How many clips a second a training takes: measured on this machine, or of a named card.

    Of a card it is the FLOP of a clip at the usual share of the peak of its data sheet; KeyError:
    none is known.
    """
    index: Any = blank_index(recipe)
    if card is not None:
        if (peak := named_peak(card)) is None:
            raise KeyError(card)
        frames = usual_frames(recipe, index.num_frames)
        cost = clip_cost(recipe, scaling_of(index, recipe), frames)
        return SHARES.get(recipe.task, SHARES["lip"]) * peak / cost.step
    where = open_device(None)
    size = recipe.batch_size if where.type == "cuda" else find_task(recipe.task).cpu_batch
    plan = with_batch(recipe, size)
    feed = Feed(plan, index, pin_memory=where.type == "cuda")
    one = as_trained(plan, index, where, False)
    take_steps(one, feed, 1)
    began = time.monotonic()
    take_steps(one, feed, 2)
    return 2 * size / (time.monotonic() - began)
