"""Speech measured: the model's beside the ceiling and the floors on the same clips."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints
from avb.train.checks import need
from avb.train.evaluate.extras import Extras
from avb.train.evaluate.metrics import bounds, griffin_lim, speech
from avb.train.evaluate.stored_mels import front_end, mean_mel
from avb.train.evaluate.wav import WavFolder
from avb.train.evaluate.words import recognisers
from avb.train.evaluate.words.grammar import HEARD
from avb.train.network import finite
from avb.train.tasks.task import Evaluation

GL_ITERATIONS, GL_MOMENTUM = 60, 0.99
GL_POWER = 1.5  # of Lip2Wav, with which the paper's samples agree (paper.md 5.4)
LOST_FRAMES = 6  # the rule 70of75 bears 240 ms

log = logging.getLogger(__name__)


@dataclass
class Clips:
    """The evaluated clips in the order of the pass; log-mels [n_mels x M] lie on the device."""

    facts: list[dict[str, Any]] = field(default_factory=list)  # `key`, `talker` and `words` of each
    sounds: list[speech.Sound] = field(default_factory=list)  # the originals, float32 [n] at 16 kHz
    # true, made: log-mels of the originals and of the model
    true: list[Tensor] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)

    def of(self, fact: str) -> list[Any]:
        """One fact of each clip."""
        return [facts[fact] for facts in self.facts]


def measure(evaluation: Evaluation, extras: Extras) -> dict[str, Any]:
    """Speech: the model's, beside the ceiling (sound of the true mel, alike) and the floors.

    With a vocoder all three are by it, and Griffin-Lim alone of the true mel is one more floor.
    Beside the originals, the sounds of one signal are held at a time.
    """
    need("pystoi", "jiwer")
    wavs = None if extras.wavs is None else WavFolder(extras.wavs)
    say = _timed()
    index = evaluation.index
    mel = front_end(index)
    clips = reconstruct(evaluation, extras.windows)
    say(f"{len(clips.facts)} clips reconstructed")
    mean, mean_of = _mean(clips, index, extras.known_rows)
    unseen = extras.unseen_talkers
    known = recognisers.available(extras.judge, mel), clips.of("talker") if unseen else None
    called = {"model": "model", "griffin_lim": "griffin_lim"}
    called["ceiling"] = "griffin_lim" if extras.vocoder is None else "vocoder"
    scored, heard = {}, {}
    for name, outputs in _signals(clips, extras, mel, mean):
        rule = _length_rule(extras) if name == "model" else "min"
        each = [
            fact | speech.score_clip(sound, output, mel, rule, name == "model")
            for fact, sound, output in zip(clips.facts, clips.sounds, outputs, strict=True)
            if output is not None  # a lone clip of its talker has no other sentence
        ]
        scored[name] = speech.summarise(each, unseen_talkers=unseen) | {"clips": each}
        heard[name] = recognisers.recognise_all(outputs, clips.of("words"), *known)
        scored[name]["metrics"] |= heard[name]["metrics"]
        if wavs is not None and name in called:
            wavs.write(called[name], clips.of("key"), outputs)
        say(f"{name.replace('_', ' ')}: made, scored and heard")
        del outputs  # before the next ones are made
    heard["real"] = recognisers.recognise_all(clips.sounds, clips.of("words"), *known)
    model = scored["model"]
    for number, clip in enumerate(model["clips"]):
        by_signal = {name: words_heard["heard"][number] for name, words_heard in heard.items()}
        clip |= {HEARD[judge]: words for judge, words in by_signal.pop("model").items()}
        clip["heard_in"] = by_signal
    files = {} if wavs is None else {"wavs": _written(wavs, clips)}
    return {
        "task": "l2s",
        "metrics": model["metrics"],
        "ceiling": scored["ceiling"]["metrics"],
        "real": heard["real"]["metrics"],
        "floors": {k: v["metrics"] for k, v in scored.items() if k not in ("model", "ceiling")},
        "per_slot": {name: words_heard["per_slot"] for name, words_heard in heard.items()},
        **{part: model[part] for part in ("plain", "talkers", "failures")},
        "flags": _flags(clips, extras, mean_of, index.dataset["corpus"]),
        **files,
        "clips": model["clips"],
    }


def reconstruct(evaluation: Evaluation, windows: str | None = None) -> Clips:
    """One pass of the model over the rows."""
    model: Any = evaluation.model
    scaling, device, clips = evaluation.scaling, evaluation.device, Clips()
    covered = windows == "covered"
    for batch, inputs in evaluation.batches(audio=True):
        if windows is None:
            output = model(inputs.video_BCTHW, None, inputs.ragged_lengths)
            outputs = list(finite(output.mels.after).float())
        else:
            outputs = [
                finite(model.windowed(video[None, :, :length], cover_tail=covered)[0]).float()
                for video, length in zip(inputs.video_BCTHW, inputs.lengths_B.tolist(), strict=True)
            ]
        mels = [scaling.from_speech_range(mel) for mel in outputs]
        assert batch.audio is not None and batch.audio_lengths is not None and batch.mel is not None
        for i, key in enumerate(batch.keys):
            columns = int(batch.mel_lengths[i])
            if (lost := columns // 4 - mels[i].shape[1] // 4) > LOST_FRAMES:
                raise UsageError(
                    f"--windows cut: would leave {lost} of {columns // 4} frames of {key} out; it"
                    " is for GRID's 75 frames, --windows covered for any"
                )
            clips.sounds.append(batch.audio[i, : int(batch.audio_lengths[i])].numpy())
            clips.true.append(batch.mel[i, :, :columns].to(device))
            clips.made.append(mels[i][:, :columns].clamp(scaling.mel_low, scaling.mel_high))
            words = [w for w, _, _ in batch.words[i]]
            clips.facts.append({"key": key, "talker": batch.speakers[i] or "", "words": words})
    return clips


def _mean(clips: Clips, index: Index, known_rows: Ints) -> tuple[Tensor, dict[str, Any]]:
    """The mean log-mel of training clips, else of these, and of which it is."""
    heard_rows = known_rows[~index.no_audio[known_rows]]
    if not heard_rows.size:
        return bounds.mean_log_mel(clips.true), {"part": "evaluated", "clips": len(clips.facts)}
    mean, count = mean_mel(index, heard_rows)
    return mean.to(clips.true[0].device), {"part": "train", "clips": count}


def _signals(
    clips: Clips, extras: Extras, mel: Mel, mean: Tensor
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Sounds [n] at 16 kHz of every signal that is scored, one after the other."""
    plain = {"iterations": GL_ITERATIONS, **_griffin_lim(extras)}
    vocoder = extras.vocoder
    options = plain if vocoder is None else plain | {"vocoder": vocoder.network}
    yield "model", griffin_lim.invert_all(clips.made, mel, **options)
    yield from bounds.bounds(clips.sounds, clips.true, clips.of("talker"), mel, mean, **options)
    if vocoder is not None:
        yield "griffin_lim", griffin_lim.invert_all(clips.true, mel, **plain)


def _griffin_lim(extras: Extras) -> dict[str, Any]:
    """What a record says of it too; only what is published needs a power."""
    if extras.griffin_lim == "published":
        return {"momentum": 0.0, "power": GL_POWER}
    return {"momentum": GL_MOMENTUM}


def _length_rule(extras: Extras) -> speech.LengthRule:
    """How the lengths of the model's sounds and the originals are made one."""
    return "70of75" if extras.windows == "cut" else "min"


def _flags(clips: Clips, extras: Extras, mean_of: dict[str, Any], corpus: str) -> dict[str, Any]:
    keys, networks = clips.of("key"), {"judge": extras.judge, "vocoder": extras.vocoder}
    kept: dict[str, dict[str, Any] | None] = dict.fromkeys(networks)
    for name, network in networks.items():
        if network is not None:
            saw = network.saw(keys, corpus)
            kept[name] = network.flags() | {f"{name}_saw_test": saw}
            if saw:
                log.info(f"the {name} has learnt from {saw} of these {len(keys)} clips: by it, this"
                         " is no measure of clips that nobody knows")  # fmt: skip
    return {
        "n": len(clips.facts),
        "pesq_mode": "pesq_nb8 is the headline: narrow band at 8 kHz",
        "gl_iters": GL_ITERATIONS,
        **{f"gl_{name}": value for name, value in _griffin_lim(extras).items()},
        "length_rule": _length_rule(extras),
        "windows": extras.windows,
        "mean_mel": mean_of,
        "wer_judge": kept["judge"],
        "vocoder": kept["vocoder"],
    }


def _written(wavs: WavFolder, clips: Clips) -> dict[str, Any]:
    """How many files there are, the originals too, and what had to be made quieter."""
    wavs.write("real", clips.of("key"), clips.sounds)
    quieter = f", {len(wavs.scaled)} of them scaled down so as not to clip" if wavs.scaled else ""
    log.info(f"{wavs.written} files in {wavs.folder}{quieter}")
    return {"files": wavs.written, "scaled_down": wavs.scaled}


def _timed() -> Callable[[str], None]:
    """Tells what was done, with the seconds since the last line."""
    last = [time.perf_counter()]

    def spoken(text: str) -> None:
        now = time.perf_counter()
        log.info(f"{text} ({now - last[0]:.0f} s)")
        last[0] = now

    return spoken
