"""What a clip's training step costs in arithmetic and memory, and what devices do at their best.

Counted as peers count: a multiply-add is 2 FLOP, convolutions and matrix products only, nothing
for optimiser, augmentation or recomputing. MFU is that, per second, over the device's peak.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.assemble import WORD_FRAMES
from avb.pipeline.stream.index import Ints
from avb.train.device import free_bytes
from avb.train.recipe import Recipe
from avb.train.tasks.task import Inputs, Scaling, find_task

# Words of a device's name, and its dense bfloat16 peak in TFLOP/s by NVIDIA's data sheets (float16
# for V100, whose tensor cores know no other). The first line whose words are all there counts.
PEAKS: list[tuple[str, float | None]] = [
    ("mig", None),  # a slice of a device
    ("laptop", None),
    ("b200", 2250),
    ("gh200", 989),
    ("h200 nvl", 835),
    ("h200", 989),
    ("h100 pcie", 756),
    ("h100 nvl", 835),
    ("h100 hbm3", 989),  # SXM
    ("a100", 312),
    ("l40s", 362),
    ("4090 d", None),
    ("4090", 165),
    ("v100 sxm2", 125),
    ("v100 sxm3", 125),
    ("v100 pcie", 112),
]


#: Frames, 12 seconds, that a cost is counted with at most: 10,000 took minutes.
MOST_COUNTED = 300


@dataclass(frozen=True)
class Cost:
    """What one clip asks of a training step."""

    forward: int  # FLOP of the forward pass, audio and both terms of the task loss included
    step: int  # FLOP of forward and backward pass
    saved_bytes: int  # what the forward pass keeps for the backward pass, in float32
    weight_bytes: int  # of the model, whatever the batch


def step_flops(loss: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOP of computing a scalar loss, and of that with its backward pass.

    Recurrent layers must be on the device `meta`: elsewhere they run as single kernels of cuDNN
    or oneDNN, which the counter takes for nothing.
    """
    with FlopCounterMode(display=False) as counter:
        value = loss()
        forward = counter.get_total_flops()
        value.backward()
        return forward, counter.get_total_flops()


def clip_cost(recipe: Recipe, scaling: Scaling, frames: int, count: bool = True) -> Cost:
    """The cost of one clip of `frames` frames under a recipe.

    On a second model that has shapes but no values (device `meta`): nothing is computed, the
    result is the same on every machine, and no random number of the run is used up. Bytes alone,
    with no FLOP counted, take a quarter of the time. A recurrent layer is counted frame by frame,
    so that of longer clips `MOST_COUNTED` frames stand for all.
    """
    counted = min(frames, MOST_COUNTED)
    scale = frames / counted
    kept: dict[int, Tensor] = {}  # by storage; holding the tensors keeps the addresses unique

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def loss() -> Tensor:
        return task.losses(model, inputs, recipe)[0].total()

    task, side = find_task(recipe.task), scaling.size // recipe.shrink
    forward = step = 0
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = task.build(recipe, scaling).train()
        inputs = Inputs(
            video_BCTHW=torch.empty(1, 1, counted, side, side),
            mel_BFM=torch.empty(1, 80, 4 * counted),
            lengths_B=torch.empty(1, dtype=torch.int64),
            labels=torch.empty(1, dtype=torch.int64),
            boundary_BT=torch.empty(1, counted) if recipe.model.get("word_boundary") else None,
            sound_BS=torch.empty(1, 640 * counted),
        )
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if count:
                forward, step = step_flops(loss)
            else:
                loss()
    weights = {p.untyped_storage()._cdata: p for p in model.parameters()}
    saved = [tensor for address, tensor in kept.items() if address not in weights]
    forward, step, kept_bytes = (round(scale * one) for one in (forward, step, _bytes(saved)))
    return Cost(forward, step, kept_bytes, _bytes(weights.values()))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of a device at its best; None on the CPU or if it is not known."""
    return named_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def named_peak(name: str) -> float | None:
    """`peak_flops` of a device by its name; None if it is not in the table."""
    found = set(re.findall(r"[a-z0-9]+", name.lower()))
    peak = next((peak for words, peak in PEAKS if found.issuperset(words.split())), None)
    return None if peak is None else peak * 1e12


def seconds_at_peak(
    recipe: Recipe, scaling: Scaling, frames: int, device: torch.device, world: int = 1
) -> float | None:
    """How long a clip's step would take `world` such devices at their peak; None if not known.

    Times clips/s this is the MFU. Where no peak is known nothing is counted either.
    """
    peak = peak_flops(device)
    return None if peak is None else clip_cost(recipe, scaling, frames).step / (peak * world)


def usual_frames(recipe: Recipe, lengths: Ints) -> int:
    """Frames of a sample: a word's window, or the mean of what a step sees of each clip."""
    if recipe.unit == "word":
        return WORD_FRAMES
    return round(float(np.minimum(lengths, recipe.window or lengths).mean()))


def check_room(
    recipe: Recipe, scaling: Scaling, frames: int, device: torch.device, world: int = 1
) -> None:
    """Refuse a batch that cannot fit, before the kernel or the driver kills the run.

    A lower bound: what the forward pass keeps, half of it under autocast, and the weights with
    their gradients and two moments. The `UsageError` names the `accumulate` that would fit.
    """
    cost, free = clip_cost(recipe, scaling, frames, count=False), free_bytes(device)
    a_clip = cost.saved_bytes // (2 if device.type == "cuda" else 1)
    clips, weights = recipe.batch_size // world, 4 * cost.weight_bytes
    if weights + a_clip * clips // recipe.accumulate <= free:
        return
    fits = [n for n in range(1, clips + 1) if weights + a_clip * -(-clips // n) <= free]
    n = next((n for n in fits if recipe.batch_size % n == 0), None)
    advice = f"--set accumulate={n} works it off in parts" if n else "take a smaller model"
    raise UsageError(
        f"a batch of {clips} clips needs about {(weights + a_clip * clips) / 2**30:.0f} GiB, and"
        f" {free / 2**30:.0f} are free: {advice}"
    )
