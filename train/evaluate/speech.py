"""Speech measured: the model's beside the ceiling and the floors on the same clips."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index
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
    """
    need("pystoi", "jiwer")
    wavs = None if extras.wavs is None else WavFolder(extras.wavs)
    say = _timed()
    index = evaluation.index
    mel = front_end(index)
    clips = reconstruct(evaluation, extras.windows)
    say(f"{len(clips.facts)} clips reconstructed")
    signals, mean_of = _signals(clips, index, extras, mel)
    say("Griffin-Lim of the model, of the true mel, and the floors")
    unseen = extras.unseen_talkers
    scored = {}
    for name, outputs in signals.items():
        rule = _length_rule(extras) if name == "model" else "min"
        each = [
            fact | speech.score_clip(sound, output, mel, rule, name == "model")
            for fact, sound, output in zip(clips.facts, clips.sounds, outputs, strict=True)
            if output is not None  # a lone clip of its talker has no other sentence
        ]
        scored[name] = speech.summarise(each, unseen_talkers=unseen) | {"clips": each}
    say("STOI, ESTOI, PESQ and mel distance")
    available = recognisers.available(extras.judge, mel)
    heard = recognisers.recognise_all(
        {**signals, "real": clips.sounds}, clips.of("words"), available,
        clips.of("talker") if unseen else None,
    )  # fmt: skip
    say("words heard")
    for name, score in scored.items():
        score["metrics"] |= heard[name]["metrics"]
    model = scored["model"]
    for number, clip in enumerate(model["clips"]):
        by_signal = {name: words_heard["heard"][number] for name, words_heard in heard.items()}
        clip |= {HEARD[judge]: words for judge, words in by_signal.pop("model").items()}
        clip["heard_in"] = by_signal
    files = {} if wavs is None else {"wavs": _write(wavs, clips, signals)}
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


def _signals(
    clips: Clips, index: Index, extras: Extras, mel: Mel
) -> tuple[dict[str, Sequence[Any]], dict[str, Any]]:
    """Sounds [n] at 16 kHz of every signal that is scored, and of which clips the mean is."""
    plain = {"iterations": GL_ITERATIONS, **_griffin_lim(extras)}
    vocoder = extras.vocoder
    options = plain if vocoder is None else plain | {"vocoder": vocoder.network}
    mean, mean_of = None, {"part": "evaluated", "clips": len(clips.facts)}
    heard_rows = extras.known_rows[~index.no_audio[extras.known_rows]]
    if heard_rows.size:
        mean, count = mean_mel(index, heard_rows)
        mean = mean.to(clips.true[0].device)
        mean_of = {"part": "train", "clips": count}
    signals: dict[str, Sequence[Any]] = {
        "model": griffin_lim.invert_all(clips.made, mel, **options),
        **bounds.bounds(clips.sounds, clips.true, clips.of("talker"), mel, mean=mean, **options),
    }
    if vocoder is not None:
        signals["griffin_lim"] = griffin_lim.invert_all(clips.true, mel, **plain)
    return signals, mean_of


def _griffin_lim(extras: Extras) -> dict[str, Any]:
    """What a record says of it too; only what is published needs a power."""
    if extras.griffin_lim == "published":
        return {"momentum": 0.0, "power": GL_POWER}
    return {"momentum": GL_MOMENTUM}


def _length_rule(extras: Extras) -> speech.LengthRule:
    """How the lengths of the model's sounds and the originals are made one."""
    return "70of75" if extras.windows == "cut" else "min"


def _flags(clips: Clips, extras: Extras, mean_of: dict[str, Any], corpus: str) -> dict[str, Any]:
    keys, judge, vocoder = clips.of("key"), None, None
    if extras.judge is not None:
        judge = extras.judge.flags() | {"judge_saw_test": extras.judge.saw(keys, corpus)}
    if extras.vocoder is not None:
        vocoder = extras.vocoder.flags() | {"vocoder_saw_test": extras.vocoder.saw(keys, corpus)}
    return {
        "n": len(clips.facts),
        "pesq_mode": "pesq_nb8 is the headline: narrow band at 8 kHz",
        "gl_iters": GL_ITERATIONS,
        **{f"gl_{name}": value for name, value in _griffin_lim(extras).items()},
        "length_rule": _length_rule(extras),
        "windows": extras.windows,
        "mean_mel": mean_of,
        "wer_judge": judge,
        "vocoder": vocoder,
    }


def _write(wavs: WavFolder, clips: Clips, signals: dict[str, Sequence[Any]]) -> dict[str, Any]:
    """Write what was scored, to be listened to; how many, and what had to be made quieter."""
    written = {"model": signals["model"], "griffin_lim": signals["ceiling"], "real": clips.sounds}
    if "griffin_lim" in signals:
        written |= {"griffin_lim": signals["griffin_lim"], "vocoder": signals["ceiling"]}
    for name, sounds in written.items():
        wavs.write(name, clips.of("key"), sounds)
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
