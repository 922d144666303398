"""Promise: pictures and sound of any file come out together, at 25 a second, upright, as they are.

A flash and a click at the same moment of a film stay within 5 ms and one mel column.
"""

import tracemalloc
import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from films import ffmpeg, write_film
from importers import fitted, refusal

from avb.pipeline.clip import audio
from avb.pipeline.clip.container import open_container
from avb.pipeline.clip.decode import read_video, stream_video
from avb.pipeline.clip.ffmpeg import ffmpeg_program
from avb.pipeline.clip.image_folder import numbered_pictures, read_pictures
from avb.pipeline.clip.media import is_blank
from avb.pipeline.clip.pyav import read_sound
from avb.pipeline.config import load_corpora
from avb.tools.synth import media

DECODERS = ("pyav", "ffmpeg")


def flashing(count: int, at: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Luma pictures, dark but for the one at `at`."""
    return [np.full((height, width), 200 if i == at else 40, np.uint8) for i in range(count)]


def brightest(frames: list[np.ndarray]) -> int:
    means = [float(frame.mean()) for frame in frames]
    assert max(means) > 100
    return int(np.argmax(means))


# A click and a flash


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("frame", [3, 25, 60])
@pytest.mark.parametrize("kind", ["mp4 with AAC", "mpg with MP2"])
def test_a_click_stays_with_its_flash(tmp_path: Path, kind: str, frame: int, decoder: str) -> None:
    pictures = [np.repeat(p[..., None], 3, axis=2) for p in flashing(75, frame)]
    sound = np.zeros(48000, np.float32)
    sound[frame * 640] = 0.9
    path = tmp_path / f"clip.{kind[:3]}"
    (media.write_mp4 if kind.startswith("mp4") else media.write_mpg)(path, pictures, sound)
    got = read_video(path, 25, decoder=decoder)
    assert len(got.frames) == 75 and brightest(got.frames) == frame
    heard, _ = fitted(got)
    assert len(heard) == 48000
    assert abs(int(np.abs(heard).argmax()) - frame * 640) <= 80  # 5 ms
    for corpus in ("lrw", "grid"):
        mel = audio.log_mel(heard, load_corpora()[corpus].mel, 16000)
        assert mel.shape == (80, 300)
        assert abs(int(mel.sum(axis=0).argmax()) - 4 * frame) <= 1


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("late_s", [-0.7, -0.2, -0.06, 0.017, 0.2, 0.7])
def test_sound_that_begins_before_or_after_the_pictures_is_cut_or_placed_there(
    tmp_path: Path, late_s: float, decoder: str
) -> None:
    click = np.zeros(32000 if late_s > 0 else 40000, np.float32)
    click[round((1 - late_s) * 16000)] = 0.9  # at 1.0 s of the film
    times = np.arange(50) / 25 + max(0.0, -late_s)
    path = write_film(tmp_path / "film.mkv", flashing(50, 25), times, click,
                      audio_codec="pcm_s16le", sound_at_s=max(0.0, late_s))  # fmt: skip
    got = read_video(path, 25, decoder=decoder)
    heard, _ = fitted(got)
    assert len(got.frames) == 50 and brightest(got.frames) == 25 and len(heard) == 32000
    assert abs(int(np.abs(heard).argmax()) - 16000) <= 24  # Matroska stamps whole milliseconds


# Two readers


@pytest.mark.parametrize("corpus", ["lrw", "grid"])
def test_both_readers_give_equal_pictures_and_sound(
    corpus: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(f"drawn_{corpus}").root
    good = {"lrw": "lipread_mp4/ABOUT/train/ABOUT_00001.mp4", "grid": "s1/video/bbaf2n.mpg"}
    first, second = (read_video(root / good[corpus], 25, decoder=d) for d in DECODERS)
    assert np.array_equal(np.stack(first.frames), np.stack(second.frames))
    one, other = fitted(first)[0], fitted(second)[0]
    assert one.shape == other.shape
    noise = np.square(one - other).mean() / np.square(one).mean()
    assert noise < 1e-4  # 40 dB: two resamplers, two mixers; one sample of shift gives 1e-1
    assert np.square(one[1:] - other[:-1]).mean() / np.square(one).mean() > 1e-3


# Frame rates


def test_a_variable_rate_comes_out_at_25_with_the_right_duration(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = rng.choice([0.02, 0.04, 0.1, 0.16], 44)
    times = np.concatenate([[0], np.cumsum(steps)]).round(3)
    pictures = [np.full((48, 64), 30 + 4 * i, np.uint8) for i in range(45)]
    sound = np.zeros(round(times[-1] * 16000) + 640, np.float32)
    path = write_film(tmp_path / "clip.mp4", pictures, times, sound)
    got = read_video(path, 25)
    wanted = np.arange(len(got.frames)) / 25
    assert len(got.frames) / 25 == pytest.approx(times[-1] + np.median(steps), abs=0.021)
    assert abs(len(got.frames) - 45) > 10  # not the pictures as they come
    shown = times[[(round(float(frame.mean())) - 30) // 4 for frame in got.frames]]
    nearest = np.abs(times[None, :] - wanted[:, None]).min(axis=1)
    assert np.abs(np.abs(shown - wanted) - nearest).max() < 2e-3
    assert got.flags == {"resampled_rate"}


# Pictures


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("tag", "shape", "corner"),
    [
        ("-display_rotation 0", (48, 64), (0, 0)),
        # Clockwise: the upper left corner goes to the upper right.
        ("-display_rotation -90", (64, 48), (0, 1)),
        ("-display_rotation 180", (48, 64), (1, 1)),
        ("-display_rotation 90", (64, 48), (1, 0)),
        ("-display_hflip", (48, 64), (0, 1)),
        ("-display_vflip", (48, 64), (1, 0)),
        # Turned, then mirrored.
        ("-display_rotation -90 -display_hflip", (64, 48), (0, 0)),
        ("-display_rotation 90 -display_hflip", (64, 48), (1, 1)),
    ],
)
def test_a_film_held_sideways_comes_out_upright(
    tmp_path: Path, tag: str, shape: tuple[int, int], corner: tuple[int, int], decoder: str
) -> None:
    picture = np.full((48, 64), 40, np.uint8)
    picture[:16, :16] = 200  # upper left as filmed
    flat = write_film(tmp_path / "flat.mp4", [picture] * 25, np.arange(25) / 25, np.zeros(16000))
    path = tmp_path / "clip.mp4"
    ffmpeg(*tag.split(), "-i", flat, "-c", "copy", path)  # as a telephone does
    got = read_video(path, 25, decoder=decoder).frames[12]
    assert got.shape == shape
    row, column = (slice(-16, None) if side else slice(0, 16) for side in corner)
    assert got[row, column].mean() > 190 and (got > 120).mean() == pytest.approx(1 / 12, abs=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("pix_fmt", "codec"),
    [
        ("yuv420p", "libx264"),
        ("yuvj420p", "libx264"),
        ("yuv422p", "libx264"),
        ("yuv444p", "libx264"),
        ("gray", "libx264"),
        ("yuv420p10le", "libx264"),
        ("yuv420p12le", "ffv1"),
        ("gray10le", "ffv1"),
        ("gray16le", "ffv1"),
    ],
)
def test_luma_is_kept_in_any_format(tmp_path: Path, pix_fmt: str, codec: str, decoder: str) -> None:
    ramp = np.tile(np.linspace(5, 250, 50).astype(np.uint8), (38, 1))  # 50 wide: padded rows
    path = write_film(tmp_path / "clip.mkv", [ramp] * 10, np.arange(10) / 25, np.zeros(6400),
                video_codec=codec, pix_fmt=pix_fmt)  # fmt: skip
    got = read_video(path, 25, decoder=decoder)
    assert got.frames[4].dtype == np.uint8 and got.frames[4].shape == (38, 50)
    away = np.abs(got.frames[4].astype(int) - ramp)
    assert away.max() <= (0 if decoder == "pyav" else 1)  # the program dithers deep pictures


def test_a_picture_without_content_is_told_from_a_dark_face(drawn_grid: Any) -> None:
    real = read_video(drawn_grid.root / "s1/video/bbaf2n.mpg", 25).frames[:3]
    dark = (real[0] // 6).astype(np.uint8)
    grey = np.full_like(dark, 128)
    noisy = grey + np.random.default_rng(0).integers(-1, 2, grey.shape).astype(np.uint8)
    assert [is_blank(p) for p in [*real, dark, grey, noisy]] == [False] * 4 + [True] * 2


# Sound


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("codec", "rate", "channels"),
    [
        ("aac", 16000, 1),  # float, planar
        ("aac", 44100, 2),
        ("pcm_s16le", 44100, 2),  # 16 bits, interleaved
        ("pcm_f32le", 48000, 2),
        ("mp2", 44100, 2),  # 16 bits, planar
    ],
)
def test_sound_of_any_format_is_the_mean_of_its_channels_between_minus_1_and_1(
    tmp_path: Path, codec: str, rate: int, channels: int, decoder: str
) -> None:
    time = np.arange(2 * rate) / rate
    left = 0.6 * np.sin(2 * np.pi * 440 * time)
    sound = np.stack([left, np.zeros_like(left)]) if channels == 2 else left
    path = tmp_path / "clip.mkv"
    write_film(path, flashing(50, 3), np.arange(50) / 25, sound, rate, audio_codec=codec)
    got = read_video(path, 25, decoder=decoder)
    heard = got.sound
    assert got.rate == rate and heard.dtype == np.float32 and heard.ndim == 1
    middle = heard[rate // 2 : rate]
    assert np.abs(middle).max() == pytest.approx(0.6 / channels, rel=0.05)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * rate / len(middle) == pytest.approx(440, abs=4)


def test_eight_bit_sound_is_centred_on_its_middle(tmp_path: Path) -> None:
    left = 0.6 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    with wave.open(str(tmp_path / "u8.wav"), "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", ""))
        out.writeframes(np.rint(127 * left + 128).astype(np.uint8).tobytes())
    heard, rate = read_sound(tmp_path / "u8.wav")
    assert rate == 8000 and np.abs(heard - left).max() < 0.01


@pytest.mark.parametrize("name", ["none.wav", "empty.wav", "text.wav", "pictures.mp4"])
def test_a_sound_file_that_is_none_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("<html>404</html>")
    write_film(tmp_path / "pictures.mp4", flashing(25, 3), np.arange(25) / 25)
    refused = refusal(read_sound, tmp_path / name)
    assert refused.status == "missing_audio" and name in refused.error


def test_pictures_are_ordered_by_number_and_gaps_keep_their_place(tmp_path: Path) -> None:
    for number in (8, 9, 10, 12):
        cv2.imwrite(str(tmp_path / f"a1_{number}.JPG"), np.full((8, 8), 10 * number, np.uint8))
    (tmp_path / "readme.txt").touch()
    paths = numbered_pictures(tmp_path)
    assert [path.is_file() for path in paths] == [True, True, True, False, True]
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    for stamp in (1_612_345_678_940, 1_612_345_678_900):
        (stamps / f"{stamp}.png").touch()
    assert [path.stem[-3:] for path in numbered_pictures(stamps)] == ["900", "940"]
    refused = refusal(numbered_pictures, tmp_path / "none")
    assert refused.status == "missing_frames" and "no such folder" in refused.error


def test_up_to_a_fifth_of_the_pictures_is_filled_with_the_nearest(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((8, 8), 20 * i, np.uint8))
    paths[0].unlink()
    paths[5].write_bytes(b"broken")
    levels = [int(picture[0, 0]) for picture in read_pictures(paths).frames]
    assert levels[0] == 20 and levels[5] in (80, 120)
    assert levels[1:5] + levels[6:] == [20, 40, 60, 80, 120, 140, 160, 180]
    paths[7].unlink()
    refused = refusal(read_pictures(paths).whole)
    assert refused.status == "missing_frames" and "/0.png" in refused.error
    assert "3 of 10 pictures are missing" in refused.error


@pytest.mark.parametrize("decoder", DECODERS)
def test_few_pictures_of_a_film_are_there_at_once(tmp_path: Path, decoder: str) -> None:
    film = tmp_path / "film.mkv"
    drawn = "testsrc=s=1000x1000:r=25:d=4"
    ffmpeg("-f", "lavfi", "-i", drawn, "-c:v", "mjpeg", "-pix_fmt", "yuv420p", film)
    tracemalloc.start()
    media = stream_video(film, 25, decoder=decoder, sound="optional")
    assert sum(picture.shape == (1000, 1000) for picture in media.pictures()) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_a_folder_is_never_there_as_a_whole(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((1000, 1000), 90, np.uint8))
    for i in range(1, 50):
        (tmp_path / f"{i}.png").hardlink_to(tmp_path / "0.png")
    paths = numbered_pictures(tmp_path)
    tracemalloc.start()
    assert sum(int(picture[0, 0]) for picture in read_pictures(paths).pictures()) == 50 * 90
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_picture_that_is_cut_is_missing_and_shows_no_other(tmp_path: Path, ending: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    paths = [tmp_path / f"{i}.{ending}" for i in range(5)]
    for path in paths:
        cv2.imwrite(str(path), cv2.GaussianBlur(picture, (0, 0), 2))
    whole = read_pictures(paths).whole().frames
    data = paths[2].read_bytes()
    for length in (len(data) // 3, len(data) * 9 // 10, len(data) - 12):
        paths[2].write_bytes(data[:length])
        got = read_pictures(paths).whole()
        assert got.flags == {"filled_frames"} and np.array_equal(got.frames, whole)


@pytest.mark.parametrize("version", ["14.2.0", "18.1.0", "19.0.2", "20.1.0"])
def test_every_declared_pyav_is_asked_only_for_what_it_knows(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(av, "__version__", version)
    monkeypatch.setattr(av, "open", lambda name, **options: asked.append(options))
    open_container("film.mpg", timeout=3)
    ends_at_odd_text = int(version.split(".")[0]) < 19
    [options] = asked
    assert options["timeout"] == 3 and ("metadata_errors" in options) == ends_at_odd_text


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_title_that_is_no_utf8_stops_no_reader(tmp_path: Path, decoder: str) -> None:
    path = write_film(tmp_path / "film.mkv", flashing(5, 3), np.arange(5) / 25, np.zeros(3200),
                      audio_codec="flac", title="Q" * 8)  # fmt: skip
    data = path.read_bytes()
    assert b"Q" * 8 in data
    path.write_bytes(data.replace(b"Q" * 8, b"\xe9\xff\xfe" + b"Q" * 5))
    assert len(read_sound(path)[0]) == 3200
    assert len(read_video(path, 25, decoder=decoder).frames) == 5


def test_tests_use_the_ffmpeg_that_comes_with_the_packages() -> None:
    bundled = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    assert Path(ffmpeg_program()).resolve() == Path(bundled).resolve()
