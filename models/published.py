"""The authors' published lip-reading checkpoints for LRW, as weights of `LipReader` and back.

A published file is a dictionary of four state dicts. It does not name the radius (16), and its
pooling and its memory are those of the authors' code; `published_settings` adds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    given = _flat(_unwrapped(checkpoint))
    expected = _published_shapes(settings)
    _compare({name: tuple(value.shape) for name, value in given.items()}, expected)
    return {_rename(name, _to_ours(settings["back_end"])): given[name] for name in expected}


def to_published(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A published checkpoint with the weights of a `LipReader` of the released kind and sizes."""
    recurrent = any(name.startswith("back_end.gru.") for name in state)
    for name in ("memory.key_memory", "back_end.classifier.weight"):
        if name not in state:
            raise ValueError(f"not the weights of a lip reader with a memory: no {name}")
    settings: dict[str, Any] = {
        "classes": len(state["back_end.classifier.weight"]),
        "slots": len(state["memory.key_memory"]),
        "variant": "released",
        "back_end": "gru" if recurrent else "mstcn",
    }
    _compare({name: tuple(value.shape) for name, value in state.items()}, _our_shapes(settings))
    to_theirs = {ours: theirs for theirs, ours in _to_ours(settings["back_end"]).items()}
    checkpoint: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in state.items():
        part, theirs = _rename(name, to_theirs).split("/")
        checkpoint[part][theirs] = value
    return checkpoint


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


def _flat(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {f"{part}/{name}": value for part in PARTS for name, value in checkpoint[part].items()}


def _our_shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model with these settings, built without memory for its weights."""
    with torch.device("meta"):
        state = lip_reader(settings).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def _published_shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    to_theirs = {ours: theirs for theirs, ours in _to_ours(settings["back_end"]).items()}
    return {_rename(name, to_theirs): shape for name, shape in _our_shapes(settings).items()}


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
    pairs = [*_visual(), *_audio(), *_memory(), *(_gru() if back_end == "gru" else _mstcn())]
    return dict(pairs)


def _visual() -> Iterator[tuple[str, str]]:
    for theirs, ours in (("0", "stem"), ("1", "norm"), ("2", "act")):
        yield f"{VISUAL}/frontend.{theirs}", f"visual.{ours}"
    for stage in range(4):
        for block in range(2):
            theirs = f"{VISUAL}/resnet.layer{stage + 1}.{block}"
            ours = f"visual.stages.{stage}.{block}"
            yield from _block(theirs, ours)
            for half in (1, 2):
                yield f"{theirs}.relu{half}", f"{ours}.act{half}"
            for half in (0, 1):
                yield f"{theirs}.downsample.{half}", f"{ours}.shortcut.{half}"


def _audio() -> Iterator[tuple[str, str]]:
    names = ("conv1", "norm1", "act1", "conv2", "norm2", "act2")
    for theirs, ours in enumerate(names):
        yield f"{AUDIO}/frontend.{theirs}", f"audio.{ours}"
    yield from _block(f"{AUDIO}/Res_block.0", "audio.block")
    yield f"{AUDIO}/Linear", "audio.linear"


def _block(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for half in (1, 2):
        yield f"{theirs}.conv{half}", f"{ours}.conv{half}"
        yield f"{theirs}.bn{half}", f"{ours}.norm{half}"


def _memory() -> Iterator[tuple[str, str]]:
    names = {
        "key": "key_memory",
        "value": "value_memory",
        "q_embd": "query",
        "v_embd": "value",
        "fusion": "fusion",
    }
    for theirs, ours in names.items():
        yield f"{MEMORY}/{theirs}", f"memory.{ours}"


def _gru() -> Iterator[tuple[str, str]]:
    yield f"{BACK_END}/gru", "back_end.gru"
    yield f"{BACK_END}/fc", "back_end.classifier"


def _mstcn() -> Iterator[tuple[str, str]]:
    leaves = {"conv": "conv", "batchnorm": "norm", "non_lin": "act"}
    for block in range(4):
        theirs = f"{BACK_END}/tcn.mb_ms_tcn.network.{block}"
        ours = f"back_end.blocks.{block}"
        for layer, name in enumerate(("first", "second")):
            for branch in range(3):
                unit = f"{ours}.{name}.branches.{branch}"
                for their_leaf, leaf in leaves.items():
                    yield f"{theirs}.cbcr{layer}_{branch}.{their_leaf}", f"{unit}.{leaf}"
        yield f"{theirs}.downsample", f"{ours}.shortcut"
        yield f"{theirs}.relu_final", f"{ours}.act"
    yield f"{BACK_END}/tcn.tcn_output", "back_end.classifier"


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
