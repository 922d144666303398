"""A stored crop comes back as it went in: levels, frames and quality; damage is an error."""

import io
from pathlib import Path
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest

from avb.pipeline.clip.codec import EXTENSIONS, decode_video, encode_video
from avb.pipeline.clip.flac import decode_flac, encode_flac
from avb.tools.bench.baseline_webdataset import encode_mp4

CODECS = list(EXTENSIONS)


def film(num_frames: int = 29, side: int = 64) -> np.ndarray:
    """Smooth shapes over a full-range ramp, moving by parts of a pixel: [T, side, side]."""
    y, x = np.mgrid[:side, :side] / side
    t = np.arange(num_frames)[:, None, None] / 10
    waves = 40 * np.sin(7 * x + t) * np.cos(6 * y - t)
    return np.clip(255 * x + waves, 0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_keeps_the_picture(codec: str) -> None:
    frames = film()
    extension, data = encode_video(frames, codec)
    assert extension == EXTENSIONS[codec]
    decoded = decode_video(data, extension)
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert psnr(frames, decoded) >= 44


@pytest.mark.parametrize("codec", CODECS)
def test_levels_are_not_squeezed(codec: str) -> None:
    # A conversion to limited range would turn 0 and 255 into 16 and 235.
    levels = np.array([0, 8, 16, 128, 235, 247, 255], np.uint8)
    frames = np.repeat(levels[:, None, None], 64, axis=1).repeat(64, axis=2)
    decoded = decode_video(*reversed(encode_video(frames, codec)))  # type: ignore[arg-type]
    assert np.abs(decoded.astype(int) - frames).max() <= 1


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_are_deterministic_and_name_no_version(codec: str) -> None:
    first = encode_video(film(), codec)
    for _ in range(10):
        encode_video(film(12, 32), codec)
        assert encode_video(film(), codec) == first
    for mark in (b"x264", b"Lav", b"core "):
        assert mark not in first[1]


@pytest.mark.parametrize("codec", CODECS)
def test_smaller_crf_is_better_and_larger(codec: str) -> None:
    frames = film() + np.random.default_rng(0).integers(0, 4, (29, 64, 64), np.uint8) // 2
    sizes, levels = [], []
    for crf in (10, 30):
        extension, data = encode_video(frames, codec, crf)
        sizes.append(len(data))
        levels.append(psnr(frames, decode_video(data, extension)))
    assert sizes[0] > sizes[1] and levels[0] > levels[1]


def test_mp4_opens_in_ordinary_tools(tmp_path: Path) -> None:
    frames = film()
    _, data = encode_video(frames, "mp4")
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (29, 25)
        pictures = list(container.decode(stream))
    assert len(pictures) == 29 and [p.key_frame for p in pictures].count(True) == 1
    assert pictures[0].color_range == 2 and pictures[0].format.name in ("yuv420p", "yuvj420p")
    assert [float(p.time) for p in pictures] == pytest.approx(list(np.arange(29) / 25))
    assert set(pictures[5].to_ndarray()[64:].ravel()) == {128}  # neutral chroma

    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    capture = cv2.VideoCapture(str(path))
    seen = [capture.read()[1] for _ in range(29)]
    assert not capture.read()[0]
    assert psnr(frames, np.stack([cv2.cvtColor(s, cv2.COLOR_BGR2GRAY) for s in seen])) > 43


def test_mp4_of_another_encoder_is_read_too() -> None:
    data = encode_mp4(film())
    with av.open(io.BytesIO(data), "r") as container:
        luma = [frame.to_ndarray()[:64] for frame in container.decode(video=0)]
    assert np.array_equal(decode_video(data, "mp4"), np.stack(luma))


@pytest.mark.parametrize("extension", ["mp4", "h264", "jpg"])
@pytest.mark.parametrize("data", [b"", b"some text", bytes(4000), bytes(range(256)) * 20])
def test_no_video_is_an_error(extension: str, data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_video(data, extension)


def test_decoder_is_not_spoilt_by_a_broken_clip() -> None:
    for codec in ("mp4", "h264"):
        extension, data = encode_video(film(), codec)
        expected = decode_video(data, extension)
        for broken in (data[: len(data) // 2], data[:200], data[100:]):
            try:
                decoded = decode_video(broken, extension)
            except ValueError:
                pass
            else:  # a bare stream that ends between two frames is a shorter clip
                assert extension == "h264" and len(decoded) < 29
        assert np.array_equal(decode_video(data, extension), expected)


def test_out_is_filled_and_its_shape_is_checked() -> None:
    for codec in CODECS:
        extension, data = encode_video(film(), codec)
        out = np.zeros((29, 64, 64), np.uint8)
        assert decode_video(data, extension, out) is out
        assert np.array_equal(out, decode_video(data, extension))
        with pytest.raises(ValueError, match="29 frames of 64 x 64, expected 28"):
            decode_video(data, extension, out[:28])
        extension, data = encode_video(film(1), codec)
        assert decode_video(data, extension).shape == (1, 64, 64)


def test_frames_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="av1"):
        encode_video(film(), "av1")
    with pytest.raises(ValueError, match="uint8"):
        encode_video(film().astype(np.float32), "mp4")
    with pytest.raises(ValueError, match="even"):
        encode_video(film(5, 33), "mp4")
    with pytest.raises(ValueError, match="JPEG"):
        encode_video(np.zeros((1100, 64, 64), np.uint8), "jpeg")


def test_a_cut_picture_is_not_filled_up_with_grey() -> None:
    extension, data = encode_video(film(), "jpeg")
    for broken in (data[:-1], data[: len(data) // 2], data[:30], data[1:]):
        with pytest.raises(ValueError, match="not a JPEG picture"):
            decode_video(broken, extension)


def test_no_opencv_with_a_known_fault_reads_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fault is CVE-2025-53644; 4.11 comes with mediapipe, over the one that avb asks for."""
    data = encode_video(film(), "jpeg")[1]
    expected = decode_video(data, "jpg").astype(int)
    monkeypatch.setattr(cv2, "imdecode", Mock(side_effect=AssertionError("OpenCV read it")))
    with pytest.raises(AssertionError):  # the one that is installed may
        decode_video(data, "jpg")
    for version in ("4.10.0", "4.11.0.86"):
        monkeypatch.setattr(cv2, "__version__", version)
        assert np.abs(decode_video(data, "jpg") - expected).max() <= 1
        with pytest.raises(ValueError, match="not a JPEG picture"):
            decode_video(data[: len(data) // 2], "jpg")


def test_sound_comes_back_within_half_a_level() -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, 18_560).astype(np.float32)
    sound[:2] = -1.5, 1.5
    data = encode_flac(sound, 16_000)
    assert encode_flac(sound, 16_000) == data and b"Lav" not in data
    back = decode_flac(data)
    assert back.dtype == np.float32 and back.shape == sound.shape
    clipped = np.clip(sound, -1, 32767 / 32768)
    assert np.abs(back - clipped).max() <= 0.5 / 32768 + 1e-7
    with av.open(io.BytesIO(data), "r") as container:
        assert container.streams.audio[0].rate == 16_000
    for broken in (b"", b"fLaC", data[:500]):
        with pytest.raises(ValueError):
            decode_flac(broken)
