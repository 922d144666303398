"""What was trained on what: rows of facts, and the settings that are not the defaults."""

from __future__ import annotations

from functools import cache
from typing import Any

from avb.tools.report.runs import Run

NOT_RECORDED = "not recorded"


def facts(run: Run) -> dict[str, str]:
    """Plain facts of a run by name, all read from its folder."""
    data, recipe = run.data, run.recipe
    steps = max((line["step"] for line in run.log), default=0)
    counts = ", ".join(f"{name} {n:,}" for name, n in (data.get("counts") or {}).items())
    talkers = data.get("speakers")
    best = max((line["val_score"] for line in run.log if "val_score" in line), default=None)
    return {
        "task": {"lip": "lip reading (words)", "l2s": "lip to speech"}[run.task],
        "corpus": f"{recipe['corpus']}, {len(data.get('labels') or [])} words in its label map",
        "sample": "29 frames round a word" if recipe["unit"] == "word" else "a whole clip",
        "split": f"{data.get('split', NOT_RECORDED)} ({data.get('split_source', NOT_RECORDED)})",
        "talkers": ", ".join(talkers) if talkers else "all of the split",
        "clips": counts or NOT_RECORDED,
        "memory": f"{run.slots} slots" if run.slots else "none (0 slots, the baseline)",
        "steps": f"{steps:,} of {recipe['steps']:,}, batches of {recipe['batch_size']}",
        "best validation": NOT_RECORDED if best is None else f"{best:.4f}",
        "seed": str(recipe["seed"]),
        "device": str(data.get("device", NOT_RECORDED)),
        "revision": f"{data.get('revision') or NOT_RECORDED}, torch {data.get('torch', '?')}",
        "data fingerprint": str(data.get("fingerprint", NOT_RECORDED)),
    }


def differences(run: Run) -> list[tuple[str, str, str]]:
    """Settings that differ from their defaults: dotted name, value, default."""
    from avb.train.recipe import Recipe

    usual = Recipe(run.task).as_dict()  # type: ignore[arg-type]
    usual["model"] = model_defaults(run.task)
    found = []
    for name, value in run.recipe.items():
        if isinstance(value, dict):
            known = usual.get(name, {})
            pairs = [(f"{name}.{k}", v, known.get(k)) for k, v in value.items()]
        else:
            pairs = [(name, value, usual.get(name))]
        found += [(key, str(v), str(default)) for key, v, default in pairs if v != default]
    return found


@cache
def model_defaults(task: str) -> dict[str, Any]:
    """Arguments of the task's model with their defaults."""
    from avb.train.tasks import find_task

    return vars(find_task(task).config())
