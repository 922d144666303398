"""`avb export`: a checkpoint as safetensors or ONNX, with what a user of it has to know.

The ONNX graph takes stored pictures as they are, uint8: scaling, and for speech the way back to a
log-mel, are inside. `config.json` repeats both, for those who load the safetensors instead.

Shapes: B clips of T frames, pictures of S x S, K words, F mel bins.
"""

import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avb.pipeline.config import Corpus, load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic, write_json
from avb.pipeline.parse import read_json
from avb.pipeline.shards.dataset import read_dataset
from avb.pipeline.storage.store import Folder
from avb.tools.export import model_card
from avb.train import checkpoint
from avb.train.checks import need, writing
from avb.train.kept import fingerprint
from avb.train.network import Loaded, built
from avb.train.recipe import Recipe
from avb.train.tasks.task import Scaling, find_task
from avb.train.vocoder import file as vocoder_file

FORMATS: dict[str, tuple[str, ...]] = {
    "safetensors": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}
#: Frames that a graph for any number of them is traced with.
_TRACED_FRAMES = 4
_FRAMES = 75
_FLAGS = ("n", "part", "split", "speakers", "intervals")  # of each record, in config.json


def export(
    path: Path,
    to: str,
    out: Path,
    records: Sequence[Path] = (),
    data: Folder | None = None,
    frames: int | None = None,
    datasets: Path | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """Write `model.<to>`, `config.json` (which is returned) and `MODEL_CARD.md` into a folder.

    Args:
        records: evaluations of this checkpoint or of the safetensors made of it, for the card.
        data: the shards it was trained on, for their mel, crop and licence as they are recorded;
            otherwise those of the corpus in `datasets.yaml`, and the card says so.
        frames: of a clip, for speech as ONNX alone, whose graph is for one length [75 of GRID].
        half: the safetensors hold numbers of 16 bits.
    """
    if half and to != "safetensors":
        raise UsageError("--half is for --to safetensors")
    need(*FORMATS[to])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    state = checkpoint.load(path)
    if checkpoint.task_of(state) == vocoder_file.TASK and to == "safetensors":
        return _export_vocoder(path, out, sha256, half)
    loaded = built(state, path)
    if frames and (to != "onnx" or find_task(loaded.recipe.task).any_length):
        raise UsageError("--frames is for speech with --to onnx; leave it out")
    config = _config(loaded, sha256, load_corpora(datasets), data)
    before = _earlier(out, sha256)
    blob = checkpoint.pack(state, torch.float16 if half else torch.float32)
    known = (sha256, hashlib.sha256(blob).hexdigest())
    measured = [model_card.read_record(record, known) for record in records]
    config["measured"] = [
        {name: record["flags"].get(name) for name in _FLAGS}
        | {name: record[name] for name in ("metrics", "floors") if name in record}
        for record in measured
    ]
    if not records:  # what an earlier export was told
        config["measured"] = before.get("measured", [])
        flags = [{name: one.get(name) for name in _FLAGS} for one in config["measured"]]
        measured = [o | {"flags": f} for o, f in zip(config["measured"], flags, strict=True)]
    if to == "onnx":
        frames = frames or config["frames"] or _FRAMES
        blob, config["onnx"] = to_onnx(loaded.model, loaded.recipe, loaded.scaling, frames)
    if "onnx" in before:
        config.setdefault("onnx", before["onnx"])  # what an earlier export found out
    return _write(out, to, blob, config, lambda: model_card.card(config, measured))


def _export_vocoder(path: Path, out: Path, sha256: str, half: bool) -> dict[str, Any]:
    """What `avb train vocoder` made, known by the hash of the weights that are written."""
    _earlier(out, sha256)
    vocoder = vocoder_file.load(path)
    network = vocoder.network.half().float() if half else vocoder.network
    facts = vocoder.facts | {"hash": fingerprint(network)}
    state = facts | {"weights": network.state_dict()}
    blob = checkpoint.pack(state, torch.float16 if half else torch.float32)
    facts["data"] = {k: v for k, v in facts["data"].items() if k not in ("keys", "listed")}
    config = {"checkpoint_sha256": sha256} | {k: v for k, v in facts.items() if k != "ema"}
    return _write(out, "safetensors", blob, config, lambda: model_card.vocoder_card(config))


def _write(
    out: Path, to: str, blob: bytes, config: dict[str, Any], card: Callable[[], str]
) -> dict[str, Any]:
    """The three files of an export; `config` is told of what lies in the folder already."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / f"model.{to}", blob)
        config["files"] = sorted(
            f"model.{kind}" for kind in FORMATS if (out / f"model.{kind}").is_file()
        )
        write_json(out / "config.json", config)
        write_atomic(out / "MODEL_CARD.md", card().encode())
    return config


def _earlier(out: Path, sha256: str) -> dict[str, Any]:
    """The config of an earlier export of this checkpoint, if any; UsageError: of something else."""
    file = out / "config.json"
    if not file.exists():
        return {}
    try:
        before: dict[str, Any] = read_json(file)
        own = before["checkpoint_sha256"] == sha256
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if own:
        return before
    raise UsageError(f"{out}: holds another export or config.json; choose another --out")


def _config(
    loaded: Loaded, sha256: str, corpora: dict[str, Corpus], data: Folder | None
) -> dict[str, Any]:
    """All that it takes to use the weights, and where they come from."""
    recipe, scaling = loaded.recipe, loaded.scaling
    task = find_task(recipe.task)
    facts = {k: v for k, v in loaded.data.items() if k not in ("labels", "listed", "keys")}
    corpus = corpora.get(recipe.corpus)
    dataset: dict[str, Any] | None = None
    if data is not None:
        dataset = read_dataset(data)
        if dataset["fingerprint"] != facts["fingerprint"]:
            raise UsageError(f"{data}: not the shards that the model was trained on (fingerprint)")
    mel = (facts.get("settings") or {}).get("mel")  # checkpoints of before do not say theirs
    licence, title, source = None, None, "not known: give the shards with --data"
    if dataset is not None:
        mel, licence, title = (dataset[key] for key in ("mel", "licence", "title"))
        source = "dataset.json of the shards"
    elif corpus is not None:
        mel, title = mel or dict(vars(corpus.mel)), corpus.title
        licence = dict(vars(corpus.licence))
        source = f"datasets.yaml, entry {recipe.corpus}; the shards' own record was not given"
    return {
        "format": 1,
        "task": recipe.task,
        "checkpoint_sha256": sha256,
        "weights": "averaged (ema)" if loaded.averaged else "as trained",
        "step": loaded.step,
        "fps": 25 if corpus is None else corpus.fps,
        "frames": 29
        if recipe.unit == "word" or recipe.corpus == "lrw"
        else getattr(corpus, "frames", None),
        "video": {
            "crop": recipe.crop,
            "size": scaling.size,
            "margin": scaling.margin,
            "cut": f"the centre {scaling.size} x {scaling.size} of the crop that avb prep stores",
            "pixels": "uint8 luma, full range",
            "normalised": f"{task.pixels}, inside the ONNX graph; by the caller of the safetensors",
            "averaged_over": recipe.shrink,
        },
        "labels": loaded.data["labels"] if task.makes in ("word", "sentence") else None,
        "scaling": dataclasses.asdict(scaling),
        "mel": mel,
        "mel_and_licence_from": source,
        "recipe": recipe.as_dict(),
        "data": facts | {"title": title, "licence": licence},
    }


def to_onnx(
    model: nn.Module, recipe: Recipe, scaling: Scaling, frames: int = _FRAMES
) -> tuple[bytes, dict[str, Any]]:
    """The graph of a model from stored pictures, and what onnxruntime made of it.

    Args:
        model: a `LipReader`, or a `SpeechReconstructor` with the synchronous decoder.
        recipe: how it was trained.
        scaling: of its pictures and mels.
        frames: T of a speech graph; that of a lip reader takes any.

    Raises:
        UsageError: the decoder is Tacotron's, or onnxruntime does not agree with PyTorch.
    """
    task = find_task(recipe.task)
    graph, any_length = task.graph(model, recipe, scaling).eval(), task.any_length
    traced = _TRACED_FRAMES if any_length else frames
    given = _example(recipe, scaling, 2, traced)
    batch, time = torch.export.Dim("batch"), torch.export.Dim("frames")
    axes = {0: batch, 1: time} if any_length else {0: batch}
    names = list(given)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names packages it could use
    # For the capture torch puts in a GRU of any length, but where an earlier export has left the
    # usual one in this cache, that is taken, and the graph is for the traced frames alone (2.13).
    torch.ops.aten.gru.input._dispatch_cache.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, tuple(given.values()), None, input_names=names, output_names=[task.output[0]],
            dynamo=True, verbose=False, dynamic_shapes={name: axes for name in names},
        )  # fmt: skip
    assert program is not None
    blob = program.model_proto.SerializeToString()
    opset = {one.domain or "ai.onnx": one.version for one in program.model_proto.opset_import}
    worst = max(
        _difference(graph, blob, _example(recipe, scaling, clips, count, seed=clips))
        for clips, count in ((1, 29 if any_length else frames), (3, 11 if any_length else frames))
    )
    if not worst <= task.tolerance:
        raise UsageError(
            f"onnxruntime differs from PyTorch by {worst:.2g}, at most {task.tolerance:g}"
            " is accepted; nothing was written"
        )
    shape = ["batch", "frames" if any_length else frames, scaling.size, scaling.size]
    facts = {
        "inputs": {name: shape[: 4 if name == "video" else 2] for name in names},
        "output": task.output[1],
        "opset": opset,
        "largest_difference": worst,
        "tolerance": task.tolerance,
        "torch": str(torch.__version__),
    }
    return blob, facts


def _example(
    recipe: Recipe, scaling: Scaling, clips: int, frames: int, seed: int = 0
) -> dict[str, Tensor]:
    """Noise as pictures, and what else the graph takes."""
    generator = torch.Generator().manual_seed(seed)
    size = (clips, frames, scaling.size, scaling.size)
    video = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    return {"video": video} | find_task(recipe.task).graph_inputs(recipe, clips, frames)


def _difference(graph: nn.Module, blob: bytes, given: dict[str, Tensor]) -> float:
    """Largest absolute difference between onnxruntime and PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        wanted = graph(*given.values())
    return float((torch.from_numpy(output) - wanted).abs().max())
