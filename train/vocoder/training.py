"""`avb train vocoder`: the refiner out of the stored sound of the training part of shards.

It learns magnitudes, as loud as they are heard, from excerpts of true mels. The best on validation
is kept, with what Griffin-Lim makes of true mels of the validation part without it and with it.
"""

import copy
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avb.models.refiner import FLOOR, Refiner
from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.index import Index, Ints
from avb.train.batches import open_stream
from avb.train.checks import need
from avb.train.evaluate import stored_mels
from avb.train.evaluate.metrics.griffin_lim import invert_all, linear_magnitude
from avb.train.evaluate.metrics.speech import Sound, score_clip, summarise
from avb.train.kept import sample_rate, to_keep
from avb.train.split import Parts
from avb.train.vocoder.file import TASK, Training, new_refiner

#: Most clips that a step's network is validated by, and that the figures of the file are of.
VALIDATED, MEASURED = 64, 50
#: A magnitude to this power is about how loud it is heard.
LOUDNESS = 0.3
#: What is printed of these figures.
SHOWN = ("stoi", "estoi", "mel_distance")

Pair = tuple[Tensor, Tensor]  # log-mels, and the magnitudes that they were made of

log = logging.getLogger(__name__)


def train(index: Index, parts: Parts, training: Training, device: torch.device) -> dict[str, Any]:
    """Train on the sound of `train`, choose on that of `val`; what `checkpoint.save` takes."""
    need("pystoi")  # before the minutes of training
    if not index.dataset["settings"].get("keep_audio", True):
        raise UsageError(f"{index.folder}: holds no sound to learn from (avb prep --keep-audio)")
    mel, rows = stored_mels.front_end(index), parts.rows
    stream = open_stream(
        index, rows=rows["train"], batch_size=min(training.batch_size, len(rows["train"])),
        crops=(), audio=True, seed=training.seed,
    )  # fmt: skip
    taught = (list(pairs_of(batch, mel)) for batch in stream)
    held = [pair for batch in stored_sounds(index, rows["val"], VALIDATED)
            for pair in pairs_of(batch, mel)]  # fmt: skip
    network, step = fit(taught, held, mel, sample_rate(index), training, device)
    log.info("measuring true mels of the validation part, without it and with it")
    val = figures(network, index, rows["val"], mel, device) | {"step": step}
    return to_keep(TASK, network, index, parts, rows["train"], training, val)


def fit(
    taught: Iterable[Sequence[Pair]], held: Sequence[Pair], mel: Mel, rate: int,
    training: Training, device: torch.device,
) -> tuple[Refiner, int]:  # fmt: skip
    """The network of the step that was best on `held`, frozen, and that step.

    `taught` are batches of clips, one a step; the seed decides weights and excerpts.
    """
    draws = torch.Generator().manual_seed(training.seed)
    best, chosen, at = float("inf"), {}, 0
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        network = new_refiner(dataclasses.asdict(mel)).to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=training.steps
    )
    for step, clips in zip(range(1, training.steps + 1), taught, strict=False):
        loss = distance(network, excerpts(clips, training.columns, draws), mel, rate)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % training.validate_every and step < training.steps:
            continue
        with torch.no_grad():
            each = [distance(network, (a[None], b[None]), mel, rate) for a, b in held]
        found = float(torch.stack(each).mean())
        if found < best:
            best, chosen, at = found, copy.deepcopy(network.state_dict()), step
        left = (time.perf_counter() - start) / step * (training.steps - step)
        log.info(
            f"step {step}/{training.steps} loss {loss.item():.4f}, validation {found:.4f}, best"
            f" {best:.4f} | {left / 60:.1f} min left"
        )
    if not chosen:
        raise UsageError("no loss on validation was a number; the training diverged")
    network.load_state_dict(chosen)
    return network.eval().requires_grad_(False), at


def distance(network: Refiner, pair: Pair, mel: Mel, rate: int) -> Tensor:
    """Mean difference of refined and true magnitudes, compressed, of [B x N x M], [B x F x M]."""
    log_mel_BNM, true_BFM = (x.to(network.last.weight.device) for x in pair)
    refined_BFM = network(log_mel_BNM, linear_magnitude(log_mel_BNM, mel, rate))
    return functional.l1_loss(refined_BFM**LOUDNESS, true_BFM.clamp_min(FLOOR) ** LOUDNESS)


def stored_sounds(index: Index, rows: Ints, most: int) -> Iterator[Batch]:
    """Stored mels and sounds of up to so many of the rows, from first to last."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)
    return open_stream(
        index, rows=rows[places], batch_size=stored_mels.BATCH, crops=(), audio=True, once=True,
        workers=0,
    )  # fmt: skip


def pairs_of(batch: Batch, mel: Mel) -> Iterator[Pair]:
    """Log-mel [N x M] and magnitudes [F x M] of each clip."""
    assert batch.mel is not None
    lengths = batch.mel_lengths.tolist()
    for one, columns, sound in zip(batch.mel, lengths, sounds_of(batch), strict=True):
        yield one[:, :columns].float(), magnitude(sound, mel)


def excerpts(pairs: Sequence[Pair], columns: int, draws: torch.Generator) -> Pair:
    """A place in each clip: [B x N x M] and [B x F x M], as many columns as all clips have."""
    width = min(columns, *(one.shape[1] for one, _ in pairs))
    cut = []
    for pair in pairs:
        first = int(torch.randint(pair[0].shape[1] - width + 1, (), generator=draws))
        cut.append([x[:, first : first + width] for x in pair])
    mels, magnitudes = map(torch.stack, zip(*cut, strict=True))
    return mels, magnitudes


def sounds_of(batch: Batch) -> list[Sound]:
    """The sound of each clip, float32 [n]."""
    assert batch.audio is not None and batch.audio_lengths is not None
    lengths = batch.audio_lengths.tolist()
    return [one[:n].numpy() for one, n in zip(batch.audio, lengths, strict=True)]


def magnitude(sound: Sound, mel: Mel) -> Tensor:
    """Linear magnitudes [F x n / hop] that `log_mel` sums up: its columns before the filters."""
    columns, half = len(sound) // mel.hop, mel.n_fft // 2
    if mel.preemphasis:
        sound = np.append(sound[:1], sound[1:] - np.float32(mel.preemphasis) * sound[:-1])
    around = np.pad(sound, (0, max(0, half + 1 - len(sound))))
    window = torch.hann_window(mel.window)
    spectrum = torch.stft(
        torch.from_numpy(around), mel.n_fft, mel.hop, mel.window, window, return_complex=True
    )
    return spectrum.abs()[:, :columns]


def figures(
    network: Refiner, index: Index, rows: Ints, mel: Mel, device: torch.device
) -> dict[str, Any]:
    """Every meter of true mels as Griffin-Lim makes sound of them, without and with the network."""
    scored: dict[str, list[dict[str, Any]]] = {"griffin_lim": [], "refined": []}
    for batch in stored_sounds(index, rows, MEASURED):
        sounds = sounds_of(batch)
        mels = [one.to(device) for one, _ in pairs_of(batch, mel)]
        for name, refiner in (("griffin_lim", None), ("refined", network)):
            made = invert_all(mels, mel, vocoder=refiner)
            for i, (sound, output) in enumerate(zip(sounds, made, strict=True)):
                who = {"key": batch.keys[i], "talker": batch.speakers[i] or ""}
                scored[name].append(who | score_clip(sound, output, mel))
    metrics = {name: summarise(clips)["metrics"] for name, clips in scored.items()}
    return metrics | {"clips": len(scored["refined"])}
