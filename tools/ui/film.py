"""What is done to one film, in a child process: `avb infer`, with all that there is to show.

Imported once, by the process that children are forked from: whatever takes long to import is
imported here, and nothing is started (a live face mesh does not survive a fork).
"""

import math
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from avb.pipeline.clip import audio, track
from avb.pipeline.errors import UsageError
from avb.tools.infer import bundled, crops, lip, sentence, speech
from avb.tools.infer.crops import Cutter, Piece
from avb.tools.infer.live import hear, leave_a_core
from avb.tools.infer.model import Addresses, Trained, load_trained
from avb.tools.infer.show import draw_boxes
from avb.tools.infer.speech import write_wav
from avb.tools.infer.video import FPS, BadVideo, own_sound, probe
from avb.train import augment, checkpoint
from avb.train.device import choose_device
from avb.train.tasks.task import command_of

with suppress(ImportError):
    import ai_edge_litert.interpreter  # noqa: F401
audio.torchaudio()

TOP = 5
#: Talker and sentence of the drawn clip: "bin blue at f two now".
SAMPLE = (1, "bbaf2n")
#: Titles of the two sounds; the page knows the first.
LIPS, OWN = "From the lips", "Original sound"
_RANGE_DB = 80  # of a mel, as in `avb report`

Event = dict[str, Any]


def describe(
    paths: list[str], device: str | None, datasets: str | None, vocoder: str | None = None
) -> Iterator[Event]:
    """What each checkpoint is, in order; `error` for the first that is no use, or without faces."""
    try:
        device = choose_device(device)
        track.landmarks(np.zeros((64, 64), np.uint8))
        for path in (checkpoint.best_of(Path(path)) for path in paths):
            kind = checkpoint.task_of(checkpoint.load(path))
            if kind not in bundled.TASKS:
                raise UsageError(f"{path}: a checkpoint for {kind}; the page takes lip and l2s")
            kind = command_of(kind)
            told = {
                "ckpt": str(path), "name": f"{path.parent.name}/{path.name}", "task": kind,
                "datasets": datasets, "vocoder": vocoder if kind == "l2s" else None,
            }  # fmt: skip
            trained = _load(told | {"device": "cpu"})
            model: Any = trained.model
            yield told | {
                "device": device, "corpus": trained.recipe.corpus, "words": len(trained.labels),
                "slots": model.memory.slots,
                "known": bundled.known(trained.task.name, trained.labels, trained.talkers, path),
                "sentences": trained.task.makes == "sentence",
                "floor": bundled.floor(bundled.measured(path)),
            }  # fmt: skip
    except UsageError as error:
        yield {"error": str(error)}


def draw(path: str) -> Iterator[Event]:
    """A drawn talker's sentence as a film, to try a model on; what is said comes as `words`."""
    from avb.tools.synth import media, raw

    talker, name = SAMPLE
    clip = raw.grid_clip(talker, name)
    media.write_mpg(Path(path), clip.frames, clip.samples)
    yield {"words": clip.words}


def read(film: str, model: Event, box: str, face: int, max_seconds: float) -> Iterator[Event]:
    """Words or speech of a film, with all that there is to show; files are written beside it.

    What is done now comes as `doing`, at the end `result` or `error`. `model` is what `describe`
    said.
    """
    try:
        yield {"doing": "Loading the model"}
        if box not in crops.BOXES:
            raise UsageError(f"no such box: {box}")
        trained = _load(model)
        video = probe(film)
        check_length(video.duration_s or 0, max_seconds)
        yield {"doing": "Looking for the face"}
        yield from _read(Cutter(video, trained, box, None, face), Path(film), max_seconds)
    except (BadVideo, UsageError, OSError) as error:
        yield {"error": str(error).removeprefix(f"{film}: ")}


def listen(pipe: str, model: Event, face: int, width: int, height: int) -> Iterator[Event]:
    """Words of luma pictures [height, width] as they come through a pipe, until it is closed."""
    try:
        trained = _load(model)
        if trained.task.makes != "sentence":
            raise UsageError("this model reads single words, no sentences")
        leave_a_core()
        with open(pipe, "rb") as file:
            yield {"doing": "Reading"}

            def pictures() -> Iterator[np.ndarray]:
                size = width * height
                while len(data := file.read(size)) == size:
                    yield np.frombuffer(data, np.uint8).reshape(height, width)

            for word in hear(pictures(), trained, face):
                yield sentence.record([word])["words"][0]
    except (UsageError, OSError) as error:
        yield {"error": str(error)}


def _load(model: Event) -> Trained:
    """The model that `describe` has told of."""
    datasets, vocoder = (model[name] and Path(model[name]) for name in ("datasets", "vocoder"))
    return load_trained(model["task"], Path(model["ckpt"]), model["device"], datasets, vocoder)


def check_length(seconds: float, most: float) -> None:
    """Refuse a film of more seconds; BadVideo."""
    if seconds > most:
        raise BadVideo(f"{seconds:.1f} s long; at most {most:g} s are taken (avb ui --max-seconds)")


def _read(cutter: Cutter, film: Path, max_seconds: float) -> Iterator[Event]:
    """Everything, in the order in which it becomes known."""
    trained = cutter.trained
    stored: list[np.ndarray] = []
    pieces, addresses = _kept(cutter.pieces(), stored, max_seconds), Addresses()
    result: Event = {}
    mels: dict[str, np.ndarray] = {}
    sounds: dict[str, str] = {}
    if trained.task.makes == "sentence":
        yield {"doing": "Reading the sentence"}
        words = sentence.read_sentences(pieces, trained, cutter.clock, addresses)
        result["windows"] = [
            {"start": one["start"], "end": one["end"]}
            | {"words": [{"word": one["word"], "probability": one["confidence"]}]}
            for one in sentence.record(words)["words"]
        ]
    elif trained.task.makes == "word":
        result["windows"] = []
        for reading in lip.read_words(pieces, trained, cutter.clock, addresses):
            result["windows"].append(reading.record(trained.labels, TOP))
            yield {"doing": f"Reading words, {reading.stop / FPS:.1f} s so far"}
    else:
        parts = list(speech.make_mels(pieces, trained, cutter.clock, addresses))
        yield {"doing": "Making the sound"}
        made = speech.make_sound(iter(parts), trained, cutter.clock)
        mels[LIPS] = np.concatenate(parts, axis=1)
        sounds[LIPS] = _wav(film.with_name("speech.wav"), made, trained)
    num_frames = len(cutter.seen)
    if cutter.video.audio is not None:
        own = own_sound(cutter.video, num_frames, trained.settings.sample_rate)
        mels[OWN] = audio.log_mel(own, trained.settings.mel, trained.settings.sample_rate)
        sounds[OWN] = _wav(film.with_name("own.wav"), iter([own]), trained)
    yield {"doing": "Drawing the box"}
    boxed = film.with_name("boxed.mp4")
    draw_boxes(cutter, boxed)
    result |= {
        "seconds": num_frames / FPS,
        "fps": FPS,
        **cutter.facts(),
        "film": b64encode(boxed.read_bytes()).decode(),
        "crops": _mosaic(np.concatenate(stored), trained),
        "sounds": sounds,
        "mels": _mel_pictures(mels, trained.settings.mel.power),
        "slots": _slots(addresses.mean(num_frames)),
    }
    yield {"result": result}


def _kept(pieces: Iterator[Piece], stored: list[np.ndarray], max_seconds: float) -> Iterator[Piece]:
    """The pieces as they pass, their crops kept; a film's own word on its length is not trusted."""
    count = 0
    for piece in pieces:
        count += len(piece.crops)
        if count > max_seconds * FPS + 1:
            check_length(count / FPS, max_seconds)
        stored.append(piece.crops)
        yield piece


def _picture(array: np.ndarray, suffix: str = ".png", *options: int) -> str:
    """A BGR or grey picture as an address that holds it."""
    done, data = cv2.imencode(suffix, array, options)
    assert done
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    return f"data:image/{kind};base64,{b64encode(data.tobytes()).decode()}"


def _wav(path: Path, sound: Iterator[np.ndarray], trained: Trained) -> str:
    write_wav(path, sound, trained.settings.sample_rate)
    return b64encode(path.read_bytes()).decode()


def _mosaic(stored_THW: np.ndarray, trained: Trained) -> Event:
    """The pictures as the network gets them, before grey levels are scaled, in rows of one."""
    video = augment.crop_center(torch.from_numpy(stored_THW)[None], trained.scaling.margin)
    seen = augment.shrink(video.float(), trained.recipe.shrink)[0].round().byte().numpy()
    count, side = len(seen), seen.shape[-1]
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    seen = np.concatenate([seen, np.zeros((rows * columns - count, side, side), np.uint8)])
    tiles = seen.reshape(rows, columns, side, side)
    sheet = tiles.swapaxes(1, 2).reshape(rows * side, columns * side)
    address = _picture(sheet, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 92)
    return {"picture": address, "side": side, "columns": columns}


def _mel_pictures(mels: dict[str, np.ndarray], power: float) -> Event:
    """Log-mels as pictures in one scale, low bins at the bottom, down to 80 dB under the top."""
    levels = {title: mel * (20 / math.log(10) / power) for title, mel in mels.items()}
    top = max((level.max() for level in levels.values()), default=0.0)
    return {
        title: _coloured((level - top) / _RANGE_DB + 1, cv2.COLORMAP_MAGMA)
        for title, level in levels.items()
    }


def _slots(addressing_TN: np.ndarray | None) -> Event | None:
    """A_src as a picture, slot 0 at the bottom, and the slots that weigh most in each frame."""
    if addressing_TN is None:
        return None
    top = float(addressing_TN.max())
    best = np.argsort(-addressing_TN, axis=1, kind="stable")[:, :3]
    return {
        "count": addressing_TN.shape[1],
        "top": top,
        "picture": _coloured(addressing_TN.T / top, cv2.COLORMAP_CIVIDIS),
        "best": [
            [[int(slot), round(float(row[slot]), 3)] for slot in slots]
            for row, slots in zip(addressing_TN, best, strict=True)
        ],
    }


def _coloured(share: np.ndarray, colours: int) -> str:
    """Numbers 0 to 1, [rows x columns] with row 0 at the bottom, as a picture."""
    levels = np.rint(np.clip(share[::-1], 0, 1) * 255).astype(np.uint8)
    return _picture(cv2.applyColorMap(np.ascontiguousarray(levels), colours))
