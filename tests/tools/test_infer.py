"""Promise: any film is read as its corpus would have been: crops(infer) = crops(prep), T = 25 * s.

The films are drawn talkers, re-encoded by the ffmpeg program; the networks are small and random.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from commands import avb
from networks import LABELS, save_model, save_vocoder
from prepared import draw

from avb.pipeline.build.process import prepare_clip
from avb.pipeline.clip import follow
from avb.pipeline.clip.ffmpeg import ffmpeg_program
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.settings import settings_for
from avb.pipeline.stream.batch import Batch
from avb.tools.infer import crops, speech
from avb.tools.infer.crops import Cutter, Piece, slide
from avb.tools.infer.lip import read_words
from avb.tools.infer.model import Trained, load_trained
from avb.tools.infer.video import BadVideo, pictures, probe
from avb.tools.synth import face
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, find_task

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
ffmpeg = pytest.importorskip("ffmpeg")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    wanted = {"lip": ("lip", "lrw"), "sentences": ("lip", "grid"), "l2s": ("l2s", "grid")}
    for name, how in wanted.items():
        save_model(folder / f"{name}.pt", *how)
    return {name: folder / f"{name}.pt" for name in wanted}


@pytest.fixture
def models(checkpoints: dict[str, Path]) -> dict[str, Trained]:
    kinds = {"lip": "lip", "sentences": "lip", "l2s": "l2s"}
    return {name: load_trained(kinds[name], path) for name, path in checkpoints.items()}


# Films


def talker(seed: int, num_frames: int, size: tuple[int, int], unit: float) -> list[np.ndarray]:
    """A drawn talker whose mouth opens and closes twice a second."""
    opening = 0.5 - 0.5 * np.cos(2 * math.pi * 2 * np.arange(num_frames) / 25)
    track = np.stack([opening, np.zeros(num_frames)], axis=1)
    mouth = (size[0] / 2 + 4, size[1] * 0.7)
    return list(face.film(face.Identity.from_seed(seed), track, size, mouth, unit, seed))


def write(path: Path, frames: list[np.ndarray], sound: bool = True) -> Path:
    """BGR pictures at 25 a second as H.264, with a tone."""
    height, width = frames[0].shape[:2]
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="bgr24", s=f"{width}x{height}", r=25)
    streams = [source.video]
    if sound:
        streams.append(ffmpeg.input("sine=frequency=300", f="lavfi", t=len(frames) / 25).audio)
    encode(streams, path, b"".join(f.tobytes() for f in frames))
    return path


def encode(streams: list[Any], path: Path, data: bytes | None = None, **options: Any) -> Path:
    usual = {"vcodec": "libx264", "crf": 12, "preset": "ultrafast", "pix_fmt": "yuv420p"}
    output = ffmpeg.output(*streams, str(path), **(usual | options))
    output.run(cmd=ffmpeg_program(), input=data, quiet=True, overwrite_output=True)
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of one talker, 360 x 288."""
    return write(tmp_path_factory.mktemp("films") / "base.mp4", talker(3, 50, (360, 288), 50))


@pytest.fixture(scope="session")
def wanted(base: Path, checkpoints: dict[str, Path]) -> np.ndarray:
    """The crops of `base`."""
    return cut(base, load_trained("lip", checkpoints["sentences"]), every=5)[1]


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two talkers side by side, the one on the right nearer."""
    left, right = talker(3, 30, (320, 288), 42), talker(5, 30, (320, 288), 56)
    frames = [np.hstack(pair) for pair in zip(left, right, strict=True)]
    return write(tmp_path_factory.mktemp("films") / "two.mp4", frames)


def cut(path: Path | str, trained: Trained, **options: Any) -> tuple[Cutter, np.ndarray]:
    cutter = Cutter(probe(str(path)), trained, **options)
    return cutter, np.concatenate([piece.crops for piece in cutter.pieces()])


VARIABLE = "select='mod(n+1,3)+gt(n,30)*mod(n,2)',settb=1/90000"  # two of three, then most
VERSIONS: dict[str, Callable[[Path, Path], Path]] = {
    "29.97": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", "30000/1001")], p),
    "30": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 30)], p),
    "50": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 50)], p),
    "60": lambda b, p: encode([ffmpeg.input(b).video.filter("fps", 60)], p),
    "variable": lambda b, p: encode([ffmpeg.input(b).video], p, vf=VARIABLE, fps_mode="vfr"),
    "mute": lambda b, p: encode([ffmpeg.input(b).video], p, vcodec="copy"),
    "odd": lambda b, p: encode(
        [ffmpeg.input(b).video.filter("scale", 361, 289)], p, pix_fmt="yuv444p"
    ),
    "turned": lambda b, p: encode([ffmpeg.input(b).video.filter("transpose", 1)], p),
    "upside": lambda b, p: encode([ffmpeg.input(b).video.filter("vflip").filter("hflip")], p),
    "160x120": lambda b, p: encode([ffmpeg.input(b).video.filter("scale", 160, 120)], p),
    "mirrored": lambda b, p: encode([ffmpeg.input(b).video.filter("hflip")], p),
    "late": lambda b, p: encode([ffmpeg.input(b).video], p, output_ts_offset=3.2),
    "far": lambda b, p: encode([ffmpeg.input(b).video.filter("pad", 1280, 720, 800, 400)], p),
    "turned by metadata": lambda b, p: encode(
        [ffmpeg.input(VERSIONS["turned"](b, p.with_name("flat.mp4")), display_rotation=90).video],
        p,
        vcodec="copy",
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_a_film_gives_its_crops(
    base: Path, wanted: np.ndarray, tmp_path: Path, models: dict[str, Trained], version: str
) -> None:
    path = VERSIONS[version](base, tmp_path / "film.mp4")
    cutter, found = cut(path, models["sentences"], every=5)
    assert len(found) / 25 == pytest.approx(cutter.video.duration_s, abs=0.04)
    assert len(found) == 50 or (version == "variable" and len(found) == 49)
    wanted = wanted[: len(found)]
    assert cutter.seen.all() and cutter.faces == 1
    assert cutter.turns == {"turned": 1, "upside": 2}.get(version, 0)
    assert version != "turned by metadata" or cutter.size == (288, 360)
    if version == "mirrored":
        found, mirrored = found[..., ::-1], found
        assert off(found, wanted) < 0.7 * off(mirrored, wanted)
    assert same_crops(found, wanted)
    assert not same_crops(np.roll(found, 3, axis=2), wanted)
    assert not same_crops(np.roll(found, 3, axis=0), wanted)


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found.mean(axis=0) - wanted.mean(axis=0)).mean())


def same_crops(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether crops show the same place to 2 pixels, and the mouth opens at the same times."""
    means = [np.ascontiguousarray(c.mean(axis=0), np.float32) for c in (found, wanted)]
    window = cv2.createHanningWindow((120, 120), cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(means[0], means[1], window)
    mouths = [c[:, 55:90, 40:80].mean(axis=(1, 2)) for c in (found, wanted)]
    return bool(np.hypot(*shift) < 2 and np.corrcoef(mouths)[0, 1] > 0.8)


def test_of_two_faces_the_larger_or_another(two: Path, models: dict[str, Trained]) -> None:
    centres = []
    for which in (1, 2):
        cutter, _ = cut(two, models["sentences"], which=which)
        assert cutter.faces == 2
        centres.append(cutter.boxes[:, [0, 2]].mean())
    assert centres[0] == pytest.approx(484, abs=12) and centres[1] == pytest.approx(164, abs=12)
    with pytest.raises(BadVideo, match="no face number 3; 2 found"):
        cut(two, models["sentences"], which=3)


def test_a_face_that_leaves_is_noticed_and_one_that_comes_is_taken(
    tmp_path: Path, models: dict[str, Trained]
) -> None:
    here = talker(3, 50, (360, 288), 50)
    empty = [face.backdrop(face.Identity.from_seed(3), (360, 288))] * 75
    path = write(tmp_path / "leaves.mp4", here + empty + talker(5, 50, (360, 288), 44))
    cutter, _ = cut(path, models["sentences"], every=5)
    [(start, end)] = crops.absent_spans(cutter.seen)
    assert start == pytest.approx(2.0, abs=0.6) and end == pytest.approx(5.0, abs=0.6)
    sides = cutter.boxes[:, 2] - cutter.boxes[:, 0]
    assert sides[:50].mean() / sides[150:].mean() == pytest.approx(50 / 44, rel=0.05)


# One seam with preparation


@pytest.mark.parametrize("corpus", ["lrw", "grid"])
def test_a_clip_of_the_corpus_gets_the_crops_of_prep_to_the_last_bit(
    corpus: str, tmp_path: Path, models: dict[str, Trained]
) -> None:
    trained = models["lip" if corpus == "lrw" else "sentences"]
    compare_with_prep(corpus, draw(corpus, tmp_path / corpus, 1), trained, 1)


def compare_with_prep(corpus: str, root: Path, trained: Trained, most: int) -> None:
    entry = load_corpora()[corpus]
    settings = settings_for(corpus, entry)
    kind = trained.recipe.crop
    compared = 0
    for clip in adapter(corpus).discover(root, entry).clips:
        try:
            assert not clip.status
            done = prepare_clip(clip, root, settings, Clock())
        except (Refused, AssertionError):
            continue
        cutter, found = cut(root / clip.source, trained)
        assert np.array_equal(found, done.crops[kind]), clip.source
        assert cutter.box == settings.box
        compared += 1
        if compared == most:
            break
    assert compared


def test_a_fixed_box_keeps_its_scale_elsewhere(tmp_path: Path, models: dict[str, Trained]) -> None:
    """LRW's box shows as much of a face in any film as it does in LRW's own pictures."""
    frames = talker(3, 29, (256, 256), 60)
    own = write(tmp_path / "own.mp4", frames)
    cutter, wanted = cut(own, models["lip"])
    assert cutter.box == "fixed" and cutter.boxes[0].tolist() == [59, 95, 195, 231]
    near, _ = cut(own, models["lip"], box="tracked")
    moved = ffmpeg.input(own).video.filter("scale", 512, 512).filter("pad", 900, 700, 300, 100)
    far, found = cut(encode([moved], tmp_path / "far.mp4"), models["lip"])
    assert far.box == "tracked"
    there = (far.boxes - [300, 100, 300, 100]) / 2
    assert np.abs(there - near.boxes).max() < 2.5
    # The drawn face is about as large as LRW's mean face, so the box is about LRW's.
    assert near.boxes[0, 2] - near.boxes[0, 0] == pytest.approx(136, rel=0.15)
    with pytest.raises(BadVideo):
        cut(encode([ffmpeg.input("testsrc2=s=64x64:d=1", f="lavfi")], tmp_path / "no.mp4"),
            models["lip"])  # fmt: skip


def test_pictures_reach_the_network_as_in_evaluation() -> None:
    entry = load_corpora()["grid"].crops["lips"]
    scaling = Scaling(130.0, 30.0, -11.5, 3.5, entry.margin, entry.size, 4)
    stored = torch.randint(0, 256, (2, 5, 120, 120), dtype=torch.uint8)
    none = torch.zeros(2)
    batch = Batch(["a", "b"], {"lips": stored}, torch.zeros(2, 80, 20), torch.tensor([5, 5]),
                  torch.tensor([20, 20]), none.long(), torch.zeros(2, 2), none.long(),
                  [None] * 2, [[], []])  # fmt: skip
    for kind in ("lip", "l2s"):
        recipe = make_recipe(kind, {"shrink": 2}, "test")  # type: ignore[arg-type]
        task, cpu = find_task(recipe.task), torch.device("cpu")
        inputs = task.prepare(batch, recipe, scaling, cpu, train=False)
        assert torch.equal(task.network_video(stored, recipe, scaling), inputs.video_BCTHW)


# Long films in little memory


def test_a_long_film_is_followed_in_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: dict[str, Trained]
) -> None:
    path = write(tmp_path / "long.mp4", talker(3, 200, (180, 144), 26))
    whole, _ = cut(path, models["sentences"], every=5)
    monkeypatch.setattr(follow, "MOST_HELD", 50)
    inside, most = 0, 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal inside, most
        for picture in pictures(probe(str(path))):
            inside += 1
            most = max(most, inside)
            yield picture

    boxes = []
    follower = follow.Follower(5, {"lips": follow.Frame.of("lips")})
    for number, block in enumerate(follower.follow(counted())):
        boxes.append(block.boxes["lips"])
        inside -= len(block.frames)
        assert number or len(block.frames) == follow.BLOCK
    assert most <= 50 + follow.BLOCK + 1
    assert np.abs(np.concatenate(boxes) - whole.boxes).max() < 1.5


def pieces(num_frames: int, lengths: int) -> Iterator[Piece]:
    """Pictures whose grey level is their number."""
    for start in range(0, num_frames, lengths):
        at = np.arange(start, min(start + lengths, num_frames))
        crops_THW = np.broadcast_to(at[:, None, None] % 256, (len(at), 8, 8)).astype(np.uint8)
        yield Piece(crops_THW, np.zeros((len(at), 4)), np.ones(len(at), bool))


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
def test_mels_of_windows_join_without_a_seam(
    models: dict[str, Trained], monkeypatch: pytest.MonkeyPatch, num_frames: int
) -> None:
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
    code, _, text = avb("infer", "l2s", clip, "--ckpt", checkpoints["l2s"], "--vocoder", lrw)
    assert code == 1 and "lrw.pt: hears other log-mels" in text and len(text.splitlines()) == 1


# The commands as they are typed


def test_a_clip_of_29_pictures_is_one_window_of_ranked_words(
    tmp_path: Path, checkpoints: dict[str, Path], models: dict[str, Trained]
) -> None:
    clip = write(tmp_path / "clip.mp4", talker(3, 29, (256, 256), 60))
    words = ["infer", "lip", clip, "--ckpt", checkpoints["lip"], "--device", "cpu"]
    code, out, text = avb(*words, "--json", "--top", 3, "--track", tmp_path / "track.mp4")
    [record] = json.loads(out)["videos"]
    assert code == 0, text
    [window] = record["windows"]
    assert (window["start"], window["end"], record["duration"]) == (0.0, 1.16, 1.16)
    chances = [w["probability"] for w in window["words"]]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    assert record["words"] == window["words"]
    assert set(record["seconds"]) == {"decode", "track", "crop", "network", "vocoder"}
    _, stored = cut(clip, models["lip"])
    video = models["lip"].network_video(torch.from_numpy(stored)[None])
    with torch.no_grad():
        chance = models["lip"].model(video).logits.softmax(1)[0]
    assert chances[0] == pytest.approx(float(chance.max()), abs=1e-4)
    assert window["words"][0]["word"] == LABELS[int(chance.argmax())]
    boxed = list(pictures(probe(str(tmp_path / "track.mp4"))))
    assert len(boxed) == 29 and boxed[0].shape == (256, 256)
    code, out, _ = avb(*words)
    assert code == 0 and out.split()[2:4] == [window["words"][0]["word"], f"{chances[0]:.2f}"]


@pytest.mark.parametrize("num_frames", [20, 75, 110])
def test_speech_is_as_long_as_the_film(
    tmp_path: Path, checkpoints: dict[str, Path], num_frames: int
) -> None:
    film = write(tmp_path / "film.mp4", talker(3, num_frames, (180, 144), 26))
    code, out, text = avb("infer", "l2s", film, "--ckpt", checkpoints["l2s"], "--device", "cpu",
                          "--out", tmp_path / "s.wav", "--mux", tmp_path / "both.mp4",
                          "--json")  # fmt: skip
    assert code == 0, text
    with wave.open(str(tmp_path / "s.wav")) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16000)
        assert sound.getnframes() == num_frames * 640
        assert np.frombuffer(sound.readframes(16000), "<i2").std() > 0
    with av.open(str(tmp_path / "both.mp4")) as container:
        kinds = [stream.type for stream in container.streams]
        length = float(container.duration or 0) / 1e6
    assert kinds == ["video", "audio", "audio"] and length == pytest.approx(
        num_frames / 25, abs=0.1
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.mp4", "film.mp4", "s.wav"]


def test_where_nobody_is_seen_speech_is_silent(tmp_path: Path, models: dict[str, Trained]) -> None:
    seen = np.arange(60) < 30
    piece = Piece(np.full((60, 120, 120), 128, np.uint8), np.zeros((60, 4)), seen)
    [mel] = speech.make_mels(iter([piece]), models["l2s"], Clock())
    silence = models["l2s"].scaling.mel_low
    assert np.allclose(mel[:, 120:], silence) and not np.allclose(mel[:, :120], silence)


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """{name: (what is typed, what is said)}."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no film at all\n" * 50)
    (folder / "huge.y4m").write_bytes(
        b"YUV4MPEG2 W10000 H10000 F25:1 Ip A1:1 C420\nFRAME\n" + b"0" * 99
    )
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with wave.open(str(folder / "sound.wav"), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(32000))
    encode([ffmpeg.input("testsrc2=s=360x288:d=1", f="lavfi")], folder / "nobody.mp4")
    whole = (folder / "nobody.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    return {
        "empty": (str(folder / "empty.mp4"), "0 bytes"),
        "text": (str(folder / "text.mp4"), "not a video"),
        "huge": (str(folder / "huge.y4m"), "10000 x 10000"),
        "playlist": (str(folder / "list.m3u8"), "video"),
        "sound": (str(folder / "sound.wav"), "no video stream"),
        "nobody": (str(folder / "nobody.mp4"), "no face was found"),
        "cut": (str(folder / "cut.mp4"), "not a video"),
        "folder": (str(folder), "a folder"),
        "missing": (str(folder / "nowhere.mp4"), "no such file"),
        "address": ("http://127.0.0.1:9/film.mp4", "--allow-url"),
    }


def test_bad_films_are_one_line_each_and_the_others_are_done(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    cases = bad_files(source)
    out.mkdir()
    words = ["--ckpt", checkpoints["l2s"], "--device", "cpu", "--out", out, "--mux", out]
    code, _, text = avb("infer", "l2s", *(typed for typed, _ in cases.values()), base, *words)
    assert code == 1 and "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("avb: ")]
    assert len(lines) == len(cases), text
    for line, (typed, said) in zip(lines, cases.values(), strict=True):
        assert typed in line and said in line
    assert sorted(p.name for p in out.iterdir()) == ["base.mp4", "base.wav"]


def test_a_checkpoint_of_the_other_task_is_refused(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    (tmp_path / "no.pt").write_bytes(b"nothing")
    for kind, path in (("lip", checkpoints["l2s"]), ("l2s", checkpoints["lip"]),
                       ("lip", tmp_path / "no.pt")):  # fmt: skip
        code, out, text = avb("infer", kind, base, "--ckpt", path, "--device", "cpu")
        assert code == 1 and len(text.strip().splitlines()) == 1 and not out
        assert str(path) in text


def test_no_film_is_written_over(base: Path, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    words = ["infer", "l2s", base, "--ckpt", checkpoints["l2s"], "--device", "cpu"]
    code, _, text = avb(*words, "--out", tmp_path / "s.wav", "--mux", base)
    assert code == 2 and "written over" in text
    code, _, text = avb(*words, base, "--out", tmp_path / "s.wav")
    assert code == 2 and "folder" in text
    assert avb(*words, "--out", tmp_path / "none.wav", "--box", "round")[0] == 2


def test_a_checkpoint_without_settings_takes_those_of_its_corpus(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    state = torch.load(checkpoints["lip"], weights_only=True)
    del state["data"]["settings"]
    torch.save(state, tmp_path / "old.pt")
    old = load_trained("lip", tmp_path / "old.pt")
    said = old.settings
    assert (said.box, said.fixed_box, said.frames) == ("fixed", [59, 95, 195, 231], 29)


# At length


@pytest.mark.slow
def test_ten_minutes_take_no_more_memory_than_one(
    base: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    probe_rss = "import resource,sys; from avb.tools.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # noqa: E501
    most = {}
    for minutes in (2, 10):
        film = tmp_path / f"{minutes}.mp4"
        encode([ffmpeg.input(str(base), stream_loop=30 * minutes - 1).video], film, vcodec="copy")
        done = subprocess.run(
            [sys.executable, "-c", probe_rss, "infer", "l2s", str(film), "--ckpt",
             str(checkpoints["l2s"]), "--out", str(tmp_path / "s.wav"), "--device", "cpu"],
            capture_output=True, text=True,
        )  # fmt: skip
        most[minutes] = int(done.stdout.split()[-1]) >> 10
        with wave.open(str(tmp_path / "s.wav")) as sound:
            assert sound.getnframes() == minutes * 60 * 16000
    assert most[10] < most[2] + 40, most


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lips", "face"])
def test_real_clips_get_the_crops_of_prep_exactly(
    real_grid: Path, tmp_path: Path, kind: str
) -> None:
    save_model(tmp_path / "lip.pt", "lip", "grid", kind)
    compare_with_prep("grid", real_grid, load_trained("lip", tmp_path / "lip.pt"), 12)
