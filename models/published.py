"""The authors' published lip-reading checkpoints for LRW, as weights of `LipReader`.

A published file is a dictionary of four state dicts. It does not name the radius (16), and its
pooling and its memory are those of the authors' code; `published_settings` adds both.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from avb.models.lip import LipConfig, LipReader

Checkpoint = Mapping[str, Mapping[str, Tensor]]

VISUAL, AUDIO = "v_front_state_dict", "a_front_state_dict"
MEMORY, BACK_END = "mem_state_dict", "back_state_dict"
PARTS = (VISUAL, AUDIO, MEMORY, BACK_END)


def published_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Arguments of the `LipReader` that a published checkpoint fits."""
    checkpoint = _unwrapped(checkpoint)
    back_end = checkpoint[BACK_END]
    recurrent = any(name.startswith("gru.") for name in back_end)
    classifier = "fc.weight" if recurrent else "tcn.tcn_output.weight"
    for part, name in ((MEMORY, "key"), (BACK_END, classifier)):
        if name not in checkpoint[part]:
            raise ValueError(f"not a published LRW checkpoint: no {part}/{name}")
        if checkpoint[part][name].ndim != 2:
            raise ValueError(f"not a published LRW checkpoint: {part}/{name} is no matrix")
    return {
        "classes": len(back_end[classifier]),
        "slots": len(checkpoint[MEMORY]["key"]),
        "radius": 16.0,
        "variant": "released",
        "back_end": "gru" if recurrent else "mstcn",
        "pool": "released",
    }


def lip_reader(settings: dict[str, Any]) -> LipReader:
    """The `LipReader` of these settings, with freshly drawn weights."""
    arguments = {name: value for name, value in settings.items() if name != "classes"}
    return LipReader(settings["classes"], LipConfig(**arguments))


def from_published(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """State dict of the `LipReader` of `published_settings(checkpoint)`, or ValueError."""
    settings = published_settings(checkpoint)
    parts = _unwrapped(checkpoint).items()
    given = {f"{part}/{name}": value for part, tensors in parts for name, value in tensors.items()}
    expected = published_shapes(settings)
    _compare({name: tuple(value.shape) for name, value in given.items()}, expected)
    return {_rename(name, _to_ours(settings["back_end"])): given[name] for name in expected}


def published_shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes in the published checkpoint of these settings, by part, a slash and name."""
    to_theirs = {ours: theirs for theirs, ours in _to_ours(settings["back_end"]).items()}
    with torch.device("meta"):  # without memory for its weights
        state = lip_reader(settings).state_dict()
    return {_rename(name, to_theirs): tuple(value.shape) for name, value in state.items()}


def _unwrapped(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """The four parts; without the `module.` that parallel wrappers put before each name."""
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"not a published LRW checkpoint: a {type(checkpoint).__name__}")
    missing = [part for part in PARTS if part not in checkpoint]
    if missing:
        raise ValueError(f"not a published LRW checkpoint: no {', '.join(missing)}")
    for part in PARTS:
        values = checkpoint[part].values() if isinstance(checkpoint[part], Mapping) else [None]
        if not all(isinstance(value, Tensor) for value in values):
            raise ValueError(f"not a published LRW checkpoint: {part} is not tensors by name")
    return {
        part: {name.removeprefix("module."): value for name, value in checkpoint[part].items()}
        for part in PARTS
    }


def _compare(
    given: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], most: int = 8
) -> None:
    """Raise ValueError with the first names of each kind that do not agree."""
    faults = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ],
    }
    shown = [
        f"{len(names)} {kind}: {', '.join(map(_printable, names[:most]))}"
        + (", ..." if len(names) > most else "")
        for kind, names in faults.items()
        if names
    ]
    if shown:
        raise ValueError("weights do not fit the published LRW layout; " + "; ".join(shown))


def _rename(name: str, modules: Mapping[str, str]) -> str:
    """`name` with its module, or the whole of it, replaced; parameters keep their own names."""
    if name in modules:
        return modules[name]
    module, _, leaf = name.rpartition(".")
    return f"{modules[module]}.{leaf}"


def _to_ours(back_end: str) -> dict[str, str]:
    """Published name of each module and bare parameter, after its part and a slash: ours."""
    block = {f"{a}{n}": f"{b}{n}" for a, b in (("conv", "conv"), ("bn", "norm")) for n in (1, 2)}
    residual = block | {"relu1": "act1", "relu2": "act2"}
    residual |= {f"downsample.{n}": f"shortcut.{n}" for n in (0, 1)}
    first = ("conv1", "norm1", "act1", "conv2", "norm2", "act2")
    memory = {"key": "key_memory", "value": "value_memory", "q_embd": "query", "v_embd": "value"}
    names = _below(f"{VISUAL}/frontend.", "visual.", {"0": "stem", "1": "norm", "2": "act"})
    for stage, i in itertools.product(range(4), range(2)):
        theirs, ours = f"{VISUAL}/resnet.layer{stage + 1}.{i}.", f"visual.stages.{stage}.{i}."
        names |= _below(theirs, ours, residual)
    names |= _below(f"{AUDIO}/frontend.", "audio.", {str(i): one for i, one in enumerate(first)})
    names |= _below(f"{AUDIO}/Res_block.0.", "audio.block.", block)
    names |= {f"{AUDIO}/Linear": "audio.linear"}
    names |= _below(f"{MEMORY}/", "memory.", memory | {"fusion": "fusion"})
    if back_end == "gru":
        return names | _below(f"{BACK_END}/", "back_end.", {"gru": "gru", "fc": "classifier"})
    unit = {"conv": "conv", "batchnorm": "norm", "non_lin": "act"}
    for i in range(4):
        theirs, ours = f"{BACK_END}/tcn.mb_ms_tcn.network.{i}.", f"back_end.blocks.{i}."
        names |= _below(theirs, ours, {"downsample": "shortcut", "relu_final": "act"})
        for layer, branch in itertools.product(range(2), range(3)):
            own = f"{ours}{('first', 'second')[layer]}.branches.{branch}."
            names |= _below(f"{theirs}cbcr{layer}_{branch}.", own, unit)
    return names | {f"{BACK_END}/tcn.tcn_output": "back_end.classifier"}


def _below(theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, str]:
    return {theirs + a: ours + b for a, b in names.items()}


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
