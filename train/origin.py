"""Another run's weights that a training begins with, and what its record says of them."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avb.models.frontends import VisualFrontEnd
from avb.pipeline.errors import UsageError, one_line
from avb.train.checkpoint import best_of
from avb.train.network import Loaded, load_network
from avb.train.tasks.task import command_of

log = logging.getLogger(__name__)

#: The first part of a network, by its name in each task's; without it there is nothing to take.
FRONTS = ("visual", "encoder", "audio", "generator")
CLASSIFIER = "back_end.classifier"


@dataclass(frozen=True)
class Origin:
    """A checkpoint that a run begins with, or learns from."""

    path: Path
    loaded: Loaded
    sha256: str  # of the file

    @property
    def task(self) -> str:
        """What it was trained for."""
        return self.loaded.recipe.task

    def facts(self) -> dict[str, Any]:
        """What the run's checkpoints say of it; no path, for files are moved."""
        return {"task": self.task, "sha256": self.sha256, "step": self.loaded.step,
                "fingerprint": self.loaded.data["fingerprint"]}  # fmt: skip

    def __str__(self) -> str:
        return describe(self.facts())


def describe(facts: dict[str, Any] | None) -> str:
    """The facts of an origin for a person, as they stand in a checkpoint."""
    if not facts:
        return "none"
    sha256 = str(facts.get("sha256"))
    return one_line(f"{facts.get('task')} {sha256[:12]} of step {facts.get('step')}")


def open_origin(path: Path, kind: str | None = None) -> Origin:
    """The checkpoint of that path, or the best one of a run, as `load_network` has it."""
    path = best_of(path)
    loaded = load_network(path, kind)
    return Origin(path, loaded, hashlib.sha256(path.read_bytes()).hexdigest())


def take_over(model: nn.Module, origin: Origin, task: str, labels: list[str]) -> None:
    """Give a fresh model the weights of another run, part by part, and say which.

    Of a run of the same task (words and sentences are one) these are all parts with the same names
    and shapes, the classifier only where the words are the same; of another task the visual front
    end alone. A part, such as the memory, is taken whole or not at all. UsageError: there is no
    front end in common, or it has other shapes.
    """
    mine, theirs = _parts(model), _parts(origin.loaded.model)
    if command_of(origin.task) == command_of(task):
        front = next(name for name in FRONTS if name in mine)
        common = [name for name in mine if name in theirs]
    elif all(isinstance(getattr(m, "visual", None), VisualFrontEnd)
             for m in (model, origin.loaded.model)):  # fmt: skip
        front, common = "visual", ["visual"]
    else:
        raise UsageError(
            f"{origin.path}: a checkpoint for {origin.task}, which has no visual front end in"
            f" common with {task}; --init takes one of {task}"
        )
    if found := _difference(mine[front], theirs[front]):
        raise UsageError(
            f"{origin.path}: its front end has other shapes ({found}); give both trainings the"
            " same sizes (model.width, model.blocks)"
        )
    taken = [name for name in common if not _difference(mine[name], theirs[name])]
    other_words = CLASSIFIER in taken and origin.loaded.data["labels"] != labels
    if other_words:
        taken.remove(CLASSIFIER)
    weights = model.state_dict()
    for name in taken:
        weights |= theirs[name]
    model.load_state_dict(weights)
    fresh = ", ".join(name for name in mine if name not in taken) or "nothing"
    why = " (other words)" if other_words else ""
    log.info(f"begins with {', '.join(taken)} of {origin}; fresh: {fresh}{why}")


def _parts(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Weights and statistics of a model by its modules; the classifier is one of its own."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in model.state_dict().items():
        name = CLASSIFIER if key.startswith(CLASSIFIER) else key.partition(".")[0]
        parts.setdefault(name, {})[key] = value
    return parts


def _difference(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    """The first weight that only one of them has, or has in another shape; nothing if none."""
    for key in [*mine, *theirs]:
        shapes = [f"{[*part[key].shape]}" if key in part else "none" for part in (theirs, mine)]
        if shapes[0] != shapes[1]:
            return f"{key}: {shapes[0]} there, {shapes[1]} here"
    return ""
