"""Promise: films longer than a model's window are read in parts that join without a seam."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import refused
from networks import save_vocoder
from talkers import talker, write

from avb.pipeline.clip.stopwatch import Clock
from avb.tools.infer import speech
from avb.tools.infer.crops import Piece, slide
from avb.tools.infer.lip import read_words
from avb.tools.infer.model import Trained, load_trained

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")


def pieces(num_frames: int, lengths: int) -> Iterator[Piece]:
    """Pictures whose grey level is their number."""
    for start in range(0, num_frames, lengths):
        at = np.arange(start, min(start + lengths, num_frames))
        crops_THW = np.broadcast_to(at[:, None, None] % 256, (len(at), 8, 8)).astype(np.uint8)
        yield Piece(crops_THW, np.ones(len(at), bool))


@pytest.mark.parametrize("lengths", [1, 7, 25, 400])
@pytest.mark.parametrize(
    ("num_frames", "starts"),
    [(29, [0]), (30, [0, 1]), (34, [0, 5]), (36, [0, 5, 7]), (12, [0]), (1, [0]),
     (75, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 46])],
)  # fmt: skip
def test_windows_of_29_every_5_and_at_the_end(
    num_frames: int, starts: list[int], lengths: int
) -> None:
    windows = list(slide(pieces(num_frames, lengths), 29, 5))
    assert [w.start for w in windows] == starts
    for window in windows:
        count = min(29, num_frames)
        assert window.crops[:, 0, 0].tolist() == list(range(window.start, window.start + count))


def test_a_model_told_where_the_word_lies_reads_the_middle(models: dict[str, Trained]) -> None:
    told: list[torch.Tensor] = []

    def network(video: torch.Tensor, mel: None, lengths: None, boundary: torch.Tensor) -> Any:
        told.extend(boundary)
        return SimpleNamespace(logits=torch.zeros(len(video), 3))

    recipe = dataclasses.replace(models["lip"].recipe, shrink=1, model={"word_boundary": True})
    scaling = dataclasses.replace(models["lip"].scaling, margin=0)
    trained = dataclasses.replace(
        models["lip"], model=network, recipe=recipe, scaling=scaling  # type: ignore[arg-type]
    )  # fmt: skip
    assert len(list(read_words(pieces(34, 25), trained, Clock()))) == len(told) == 2
    marked = [row.nonzero().flatten().tolist() for row in told]
    assert marked == [list(range(11, 18))] * 2  # as many before as after


@dataclasses.dataclass
class Echo:
    """A network that says the number of each picture, four columns of it."""

    calls: list[int] = dataclasses.field(default_factory=list)

    def __call__(self, video: torch.Tensor) -> Any:
        self.calls.append(video.shape[2])
        level = video[:, 0, :, 0, 0].repeat_interleave(4, dim=1)[:, None].expand(-1, 80, -1)
        return SimpleNamespace(mels=SimpleNamespace(after=level))


@pytest.mark.parametrize("num_frames", [10, 75, 76, 125, 130, 251])
def test_mels_of_windows_join_without_a_seam(models: dict[str, Trained], num_frames: int) -> None:
    echo = Echo()
    trained = dataclasses.replace(models["l2s"], model=echo)  # type: ignore[arg-type]
    plain = dataclasses.replace(trained.recipe, shrink=1)
    scaling = dataclasses.replace(trained.scaling, margin=0)
    trained = dataclasses.replace(trained, recipe=plain, scaling=scaling)
    found = np.concatenate(list(speech.make_mels(pieces(num_frames, 25), trained, Clock())), axis=1)
    levels = torch.arange(num_frames).repeat_interleave(4)[None] % 256 / 255
    wanted = scaling.from_speech_range(levels).clamp(-11.5, 3.5).numpy()
    assert found.shape == (80, 4 * num_frames)
    assert np.abs(found - wanted).max() < 1e-4
    assert max(echo.calls) <= 75


def test_sound_is_made_in_spans_that_change_over_where_it_is_quiet(
    models: dict[str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "SPAN", 300)
    monkeypatch.setattr(speech, "SHARED", 60)
    made: list[int] = []

    def invert(mel: np.ndarray, trained: Trained, clock: Clock) -> np.ndarray:
        made.append(mel.shape[1])
        tone = np.sin(np.arange(mel.shape[1] * 160) * 0.3 + len(made))  # its own phase
        return (tone * np.repeat(mel[0], 160)).astype(np.float32)

    monkeypatch.setattr(speech, "_invert", invert)
    loud = np.ones((80, 1000), np.float32)
    loud[:, 270:280] = loud[:, 510:520] = loud[:, 745:755] = 0  # a pause in each shared part
    sound = np.concatenate(list(speech.make_sound(iter(np.split(loud, 10, 1)), models["l2s"],
                                                  Clock())))  # fmt: skip
    assert len(sound) == 1000 * 160 and max(made) <= 360
    level = np.repeat(loud[0], 160)
    assert np.abs(sound).max() <= 1 and (sound[level == 0] == 0).all()
    steps = np.abs(np.diff(sound))[(level[1:] == 1) & (level[:-1] == 1)]
    assert steps.max() < 0.31  # a jump of phase would be a step of up to 2


def test_a_vocoder_makes_the_sound_and_one_of_other_mels_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    sounds = []
    mel = np.linspace(-8, 0, 80 * 40, dtype=np.float32).reshape(80, 40)
    for louder in (1.0, 0.5):
        file = save_vocoder(tmp_path / "vocoder.pt", louder)
        trained = load_trained("l2s", checkpoints["l2s"], vocoder=file)
        sounds.append(np.concatenate(list(speech.make_sound(iter([mel]), trained, Clock()))))
    np.testing.assert_allclose(sounds[1], sounds[0] / 2, atol=1e-4)
    assert np.abs(sounds[0]).max() > 0.01
    clip = write(tmp_path / "clip.mp4", talker(3, 29, (256, 256), 60))
    lrw = save_vocoder(tmp_path / "lrw.pt", corpus="lrw")
    line = refused("infer", "l2s", clip, "--ckpt", checkpoints["l2s"], "--vocoder", lrw)
    assert "lrw.pt: hears other log-mels" in line


def test_where_nobody_is_seen_speech_is_silent(models: dict[str, Trained]) -> None:
    seen = np.arange(60) < 30
    piece = Piece(np.full((60, 120, 120), 128, np.uint8), seen)
    [mel] = speech.make_mels(iter([piece]), models["l2s"], Clock())
    silence = models["l2s"].scaling.mel_low
    assert np.allclose(mel[:, 120:], silence) and not np.allclose(mel[:, :120], silence)
