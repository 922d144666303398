"""`avb export`: a checkpoint as safetensors or ONNX, with what a user of it has to know.

The ONNX graph takes stored pictures as they are, uint8: scaling, and for speech the way back to a
log-mel, are inside. `config.json` repeats both, for those who load the safetensors instead.

Shapes: B clips of T frames, pictures of S x S, K words, F mel bins.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.tacotron import TacotronDecoder
from avb.pipeline.config import Corpus, load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.parse import read_json
from avb.pipeline.shards.dataset import read_dataset
from avb.pipeline.shards.tar import write_atomic
from avb.pipeline.storage.store import Folder
from avb.tools.export import model_card
from avb.train import task
from avb.train.network import Loaded, load_network
from avb.train.recipe import Recipe

FORMATS = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
#: Largest difference that is accepted between onnxruntime and PyTorch: logits, natural-log mels.
TOLERANCE = {"lip": 1e-3, "l2s": 5e-3}
#: Frames that the lip reader is traced with; it runs with any number.
_TRACED_FRAMES = 4
_FRAMES = 75


class LipGraph(nn.Module):
    """Pictures of a mouth to the logits of its word, from video and recalled audio."""

    def __init__(self, model: nn.Module, recipe: Recipe, scaling: task.Scaling) -> None:
        super().__init__()
        self.model, self.shrink, self.scaling = model, recipe.shrink, scaling

    def forward(self, video: Tensor, boundary: Tensor | None = None) -> Tensor:
        """Logits [B x K] of uint8 [B x T x S x S]; `boundary` [B x T]: 1 inside the word."""
        pixels = (video.float() - self.scaling.pixel_mean) / self.scaling.pixel_std
        if self.shrink > 1:
            pixels = functional.avg_pool2d(pixels, self.shrink)
        return self.model(pixels[:, None], None, None, boundary).logits


class SpeechGraph(nn.Module):
    """Pictures of a face to the log-mel of its speech."""

    def __init__(self, model: nn.Module, recipe: Recipe, scaling: task.Scaling) -> None:
        super().__init__()
        self.model, self.shrink, self.scaling = model, recipe.shrink, scaling

    def forward(self, video: Tensor) -> Tensor:
        """Natural-log mel [B x F x 4 T] of uint8 [B x T x S x S]."""
        pixels = video.float() / 255
        if self.shrink > 1:
            pixels = functional.avg_pool2d(pixels, self.shrink)
        mel = task.from_speech_range(self.model(pixels[:, None]).mels.after, self.scaling)
        return mel.clamp(self.scaling.mel_low, self.scaling.mel_high)


def export(
    path: Path,
    to: str,
    out: Path,
    records: Sequence[Path] = (),
    data: Folder | None = None,
    frames: int | None = None,
    datasets: Path | None = None,
) -> dict[str, Any]:
    """Write `model.<to>`, `config.json` and `MODEL_CARD.md` into a folder.

    Args:
        path: a checkpoint.
        to: `safetensors` or `onnx`.
        out: the folder; exports of the same checkpoint share it.
        records: evaluations of this checkpoint, for the card.
        data: the shards it was trained on, for their mel, crop and licence as they are recorded;
            otherwise those of the corpus in `datasets.yaml`, and the card says so.
        frames: of a clip, for speech as ONNX alone, whose graph is for one length [75 of GRID].
        datasets: your overrides of `datasets.yaml`.

    Returns:
        The content of `config.json`.

    Raises:
        UsageError: a format, checkpoint, record or folder that does not fit, or a missing extra.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to}: one of {', '.join(FORMATS)}")
    _need(*FORMATS[to])
    loaded = load_network(path)
    recipe, scaling, model = loaded.recipe, loaded.scaling, loaded.model
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    measured = [model_card.read_record(record, sha256) for record in records]
    config = _config(loaded, sha256, load_corpora(datasets), data)
    _check_folder(out, sha256)
    if to == "onnx":
        frames = frames or config["frames"] or _FRAMES
        blob, facts = to_onnx(model, recipe, scaling, frames)
        config["onnx"] = facts
    else:
        blob = _to_safetensors(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / f"model.{to}", blob)
        config["files"] = sorted(f"model.{kind}" for kind in FORMATS if _there(out, kind))
        config = _keep(out, config)
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
        write_atomic(out / "config.json", text.encode())
        write_atomic(out / "MODEL_CARD.md", model_card.card(config, measured).encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from None
    return config


def _need(*modules: str) -> None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(f"{' and '.join(absent)} not installed: pip install {' '.join(absent)}")


def _there(out: Path, kind: str) -> bool:
    return (out / f"model.{kind}").is_file()


def _check_folder(out: Path, sha256: str) -> None:
    """Refuse a folder with files of these names that are not this checkpoint's."""
    file = out / "config.json"
    if not file.exists():
        return
    try:
        own = read_json(file)["checkpoint_sha256"] == sha256
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if not own:
        raise UsageError(f"{out}: holds another export or config.json; choose another --out")


def _keep(out: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The new config, with what an earlier export to ONNX found out."""
    file = out / "config.json"
    before = read_json(file) if file.exists() else {}
    return {key: before[key] for key in ("onnx",) if key in before} | config


def _config(
    loaded: Loaded, sha256: str, corpora: dict[str, Corpus], data: Folder | None
) -> dict[str, Any]:
    """All that it takes to use the weights, and where they come from."""
    recipe, scaling = loaded.recipe, loaded.scaling
    facts = {k: v for k, v in loaded.data.items() if k not in ("labels", "listed")}
    corpus = corpora.get(recipe.corpus)
    dataset: dict[str, Any] | None = None
    if data is not None:
        dataset = read_dataset(data)
        if dataset["fingerprint"] != facts["fingerprint"]:
            raise UsageError(f"{data}: not the shards that the model was trained on (fingerprint)")
    mel, licence, title, source = None, None, None, "not known: give the shards with --data"
    if dataset is not None:
        mel, licence, title = (dataset[key] for key in ("mel", "licence", "title"))
        source = "dataset.json of the shards"
    elif corpus is not None:
        mel, title = dict(vars(corpus.mel)), corpus.title
        licence = dict(vars(corpus.licence))
        source = f"datasets.yaml, entry {recipe.corpus}; the shards' own record was not given"
    return {
        "format": 1,
        "task": recipe.task,
        "checkpoint_sha256": sha256,
        "weights": "averaged (ema)" if loaded.averaged else "as trained",
        "step": loaded.step,
        "fps": 25 if corpus is None else corpus.fps,
        "frames": 29 if recipe.unit == "word" or recipe.corpus == "lrw" else _frames_of(corpus),
        "video": _video(recipe, scaling),
        "labels": loaded.data["labels"] if recipe.task == "lip" else None,
        "scaling": dataclasses.asdict(scaling),
        "mel": mel,
        "mel_and_licence_from": source,
        "recipe": recipe.as_dict(),
        "data": facts | {"title": title, "licence": licence},
    }


def _frames_of(corpus: Corpus | None) -> int | None:
    return None if corpus is None else corpus.frames


def _video(recipe: Recipe, scaling: task.Scaling) -> dict[str, Any]:
    """How pictures have to be given."""
    what = "(x - pixel_mean) / pixel_std" if recipe.task == "lip" else "x / 255"
    return {
        "crop": recipe.crop,
        "size": scaling.size,
        "margin": scaling.margin,
        "cut": f"the centre {scaling.size} x {scaling.size} of the crop that avb prep stores",
        "pixels": "uint8 luma, full range",
        "normalised": f"{what}, inside the ONNX graph; by the caller of the safetensors",
        "averaged_over": recipe.shrink,
    }


def _to_safetensors(model: nn.Module) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def to_onnx(
    model: nn.Module, recipe: Recipe, scaling: task.Scaling, frames: int = _FRAMES
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
    lip = recipe.task == "lip"
    if isinstance(getattr(model, "decoder", None), TacotronDecoder):
        raise UsageError(
            "a Tacotron decoder feeds on its own columns, so it is no single ONNX graph; use"
            " --to safetensors, or train with --set model.decoder=synchronous"
        )
    traced = _TRACED_FRAMES if lip else frames
    graph = (LipGraph if lip else SpeechGraph)(model, recipe, scaling).eval()
    given = _example(recipe, scaling, 2, traced)
    batch, time = torch.export.Dim("batch"), torch.export.Dim("frames")
    # The exporter forgets that an LSTM's frames are any number; a GRU's are averaged at once.
    axes = {0: batch, 1: time} if lip else {0: batch}
    names = ["video", "boundary"][: len(given)]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names packages it could use
    # For the capture torch puts in a GRU of any length, but where an earlier export has left the
    # usual one in this cache, that is taken, and the graph is for the traced frames alone (2.13).
    torch.ops.aten.gru.input._dispatch_cache.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, given, None, input_names=names, output_names=["logits" if lip else "mel"],
            dynamo=True, verbose=False, dynamic_shapes={name: axes for name in names},
        )  # fmt: skip
    assert program is not None
    blob = program.model_proto.SerializeToString()
    opset = {one.domain or "ai.onnx": one.version for one in program.model_proto.opset_import}
    worst = max(
        _difference(graph, blob, _example(recipe, scaling, clips, count, seed=clips))
        for clips, count in ((1, 29 if lip else frames), (3, 11 if lip else frames))
    )
    if not worst <= TOLERANCE[recipe.task]:
        raise UsageError(
            f"onnxruntime differs from PyTorch by {worst:.2g}, at most {TOLERANCE[recipe.task]:g}"
            " is accepted; nothing was written"
        )
    shape = ["batch", "frames" if lip else frames, scaling.size, scaling.size]
    facts = {
        "inputs": {name: shape[: 4 if name == "video" else 2] for name in names},
        "output": "logits [batch x words]" if lip else "mel, natural log [batch x bins x columns]",
        "opset": opset,
        "largest_difference": worst,
        "tolerance": TOLERANCE[recipe.task],
        "torch": str(torch.__version__),
    }
    return blob, facts


def _example(
    recipe: Recipe, scaling: task.Scaling, clips: int, frames: int, seed: int = 0
) -> tuple[Tensor, ...]:
    """Noise as pictures, and for a model with word boundaries, boundaries."""
    generator = torch.Generator().manual_seed(seed)
    size = (clips, frames, scaling.size, scaling.size)
    video = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    if recipe.task == "lip" and recipe.model.get("word_boundary"):
        return video, torch.ones(clips, frames)
    return (video,)


def _difference(graph: nn.Module, blob: bytes, given: tuple[Tensor, ...]) -> float:
    """Largest absolute difference between onnxruntime and PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    fed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    (found,) = session.run(None, fed)
    with torch.no_grad():
        wanted = graph(*given)
    return float((torch.from_numpy(found) - wanted).abs().max())
