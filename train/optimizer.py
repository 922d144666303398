"""The optimiser of a recipe, its learning rate, and its state out of a checkpoint."""

import math
from typing import Any

import torch
from torch import nn

from avb.train.recipe import Recipe
from avb.train.tasks.task import find_task

#: What Adam and AdamW keep of each weight.
ADAM_KEEPS = {"step", "exp_avg", "exp_avg_sq"}


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser."""
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), momentum=recipe.momentum, nesterov=recipe.momentum > 0, **common
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    # Against critics the mean of squares is a short one, as Vocos is published (beyond.md 3).
    second = 0.9 if find_task(recipe.task).hears else 0.999
    return kind(model.parameters(), betas=(recipe.momentum, second), **common)


def learning_rate(recipe: Recipe, step: int, factor: float) -> float:
    """The rate of the coming step; `factor` is what validation has made of it."""
    rate = recipe.lr
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))
    elif recipe.schedule == "released" and step >= recipe.released_at:
        rate = 0.01  # whatever it was: paper.md 5.3, row 8
    if recipe.warmup:
        rate *= min(1.0, (step + 1) / recipe.warmup)
    return rate * factor


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """What it keeps of each weight, as saved; its settings are the recipe's, whatever a file says.

    Another optimizer's, or that of other weights, is a ValueError; torch raises what else is in
    `BAD_STATE`.
    """
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state["state"]})
    if not optimizer.state:  # of no step yet, or of none that is kept
        return
    kept = {"momentum_buffer"} if isinstance(optimizer, torch.optim.SGD) else ADAM_KEEPS
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if [set(optimizer.state.get(weight, {})) for weight in weights] != [kept] * len(weights):
        raise ValueError("a state of another optimizer, or not of every weight")
    for weight in weights:
        for name, value in optimizer.state[weight].items():
            shape = () if name == "step" else weight.shape
            if value.shape != shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} for {tuple(weight.shape)}")
