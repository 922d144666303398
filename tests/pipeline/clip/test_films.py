"""Promise: what is stored of a film is what a player shows and lets hear, in step to 20 ms.

Pictures carry their own number in eight bars and the sound is noise that is known, so both tell
where they are. Whatever container and codec they came in, and whichever reader read them.
"""

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from films import ffmpeg
from importers import fitted, refusal
from scipy.signal import correlate

from avb.pipeline.clip import decode
from avb.pipeline.clip.decode import read_video
from avb.pipeline.clip.media import Media
from avb.pipeline.clip.status import Refused

SIDE, HZ = 160, 16000
#: Further than this the sound is out of step; lips and sound are noticed apart from 45 on.
STEP_S = 0.020
pytestmark = pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])


def picture(number: int) -> np.ndarray:
    bars = np.array([215 if number >> k & 1 else 40 for k in range(8)], np.uint8)
    return np.tile(np.repeat(bars, SIDE // 8), (SIDE, 1))


def number_of(frame: np.ndarray) -> int:
    """The number a picture carries, at any size."""
    width = frame.shape[1] / 8
    row = frame[len(frame) // 2 - 8 : len(frame) // 2 + 8].mean(axis=0)
    bars = [row[int((k + 0.3) * width) : int((k + 0.7) * width)].mean() for k in range(8)]
    return sum(int(bar > 128) << k for k, bar in enumerate(bars))


def noise(seconds: float) -> np.ndarray:
    """Noise up to 3 kHz, whose level swells: float32 [n] at 16 kHz."""
    count = round(seconds * HZ)
    bands = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    at = np.fft.rfftfreq(count, 1 / HZ)
    bands[(at < 200) | (at > 3000)] = 0
    sound = np.fft.irfft(bands, count)
    swell = 0.3 + 0.7 * np.sin(2 * np.pi * 1.7 * np.arange(count) / HZ) ** 2
    return (0.6 * sound / np.abs(sound).max() * swell).astype(np.float32)


NOISE = noise(30)


def write(path: Path, options: str, rate: float = 25, first: int = 0, count: int = 75) -> Path:
    """A film of numbered pictures with the sound that belongs to them."""
    wav = path.with_suffix(".pcm")
    start, stop = (round(at / rate * HZ) for at in (first, first + count))
    wav.write_bytes(NOISE[start:stop].astype("<f4").tobytes())
    pictures = b"".join(picture(i % 256).tobytes() for i in range(first, first + count))
    ffmpeg(
        *f"-f rawvideo -pix_fmt gray -s {SIDE}x{SIDE} -r {rate} -i -".split(),
        *f"-f f32le -ar {HZ} -ac 1 -i".split(), wav, *options.split(), path, feed=pictures,
    )  # fmt: skip
    return path


H264 = "-c:v libx264 -preset ultrafast -qp 12 -pix_fmt yuv420p"


def steps(got: Media, rate: float = 25) -> list[float]:
    """How far the sound is from the pictures, in seconds, at places a third of a second apart."""
    frames = list(got.frames)
    assert got.sound is not None
    heard, _ = fitted(got)
    found = []
    for at in range(1, len(frames) - 11, 8):
        piece = heard[at * 640 :][:6400]
        if np.abs(piece).max() < 0.02:
            continue
        shown = number_of(frames[at]) / rate
        low = max(0, round((shown - 1) * HZ))
        scores = correlate(NOISE[low : low + 32000 + 6400], piece, "valid", "fft")
        found.append((low + int(scores.argmax())) / HZ - shown)
    assert len(found) > 2
    return found


FORMS = {
    "mp4": f"{H264} -c:a aac",
    "fragments.mp4": f"{H264} -c:a aac -movflags frag_keyframe+delay_moov",
    "hevc10.mkv": "-c:v libx265 -x265-params log-level=none:crf=12 -pix_fmt yuv420p10le -c:a flac",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 20 -b:v 0 -c:a libopus",
    "h264.avi": f"{H264} -bf 3 -preset veryfast -c:a pcm_s16le",
    "mpeg4.avi": "-c:v mpeg4 -bf 2 -q:v 2 -c:a pcm_s16le",
    "mjpeg.avi": "-c:v mjpeg -q:v 2 -c:a pcm_u8 -ar 8000",
    "prores.mov": "-c:v prores_ks -c:a pcm_f32le -ar 44100",
    "mpeg1.mpg": "-c:v mpeg1video -q:v 2 -c:a mp2 -ar 44100",
    "h264.ts": f"{H264} -c:a aac",
    "mpeg2.ts": "-c:v mpeg2video -q:v 2 -c:a mp2 -ar 48000",
    "h264.flv": f"{H264} -c:a aac -ar 44100",
    "mpeg4.3gp": "-c:v mpeg4 -q:v 2 -c:a aac -ar 22050",
    "wmv2.wmv": "-c:v wmv2 -q:v 2 -c:a wmav2 -ar 44100",
    "theora.ogv": "-c:v libtheora -q:v 9 -c:a libvorbis -ar 44100",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_container_keeps_pictures_and_sound_in_step(
    tmp_path: Path, name: str, decoder: str
) -> None:
    got = read_video(write(tmp_path / f"film.{name}", FORMS[name]), 25, decoder=decoder)
    assert [number_of(frame) for frame in got.frames] == list(range(75)) and got.flags == set()
    assert np.abs(steps(got)).max() < STEP_S
    span = read_video(tmp_path / f"film.{name}", 25, 1.0, 2.6, decoder=decoder)
    assert [number_of(frame) for frame in span.frames] == list(range(25, 65))
    assert np.abs(steps(span)).max() < STEP_S
    behind = refusal(read_video, tmp_path / f"film.{name}", 25, 9, 10, decoder=decoder)
    assert re.fullmatch(rf"film.{name}: starts at 9 s, the film ends at 3.0\d s", behind.error)


#: Key pictures in these are coded before pictures that are shown before them, or have no index.
REORDERED = {
    "mpeg1.mpg": "-c:v mpeg1video -bf 2 -g 12 -q:v 2 -c:a mp2 -ar 44100",
    "hevc.mp4": "-c:v libx265 -x265-params log-level=none:crf=12:keyint=40 -pix_fmt yuv420p",
    "fragments.mp4": f"{H264} -bf 3 -preset veryfast -movflags frag_keyframe+empty_moov",
    "mpeg4.mov": "-c:v mpeg4 -bf 2 -g 40 -q:v 2",
    "h264.flv": f"{H264} -bf 3 -g 40 -c:a aac -ar 44100",
}


@pytest.mark.parametrize("name", REORDERED)
def test_a_span_begins_at_its_picture_however_near_a_key_picture(
    tmp_path: Path, name: str, decoder: str
) -> None:
    path = write(tmp_path / f"film.{name}", REORDERED[name])
    for at in range(28, 44) if decoder == "pyav" else (31, 39, 41):
        span = read_video(path, 25, at / 25, (at + 30) / 25, decoder=decoder)
        assert [number_of(frame) for frame in span.frames] == list(range(at, at + 30))
        assert span.flags == set() and np.abs(steps(span)).max() < STEP_S


@pytest.mark.parametrize("rate", [10, 24, 24.8, 25.2, 29.97, 30, 50, 60])
def test_no_rate_lets_the_sound_drift(tmp_path: Path, rate: float, decoder: str) -> None:
    count = min(round(8 * rate), 250)  # so many numbers there are
    path = write(tmp_path / "film.mp4", FORMS["mp4"], rate, count=count)
    got = read_video(path, 25, decoder=decoder)
    assert abs(len(got.frames) - 25 * count / rate) <= 1 and got.flags == {"resampled_rate"}
    shown = np.array([number_of(frame) for frame in got.frames]) / rate
    away = shown - np.arange(len(shown)) / 25
    assert np.abs(away[:-1]).max() <= 0.5 / rate + 1e-4  # the picture nearest to the time
    assert abs(away[-1]) <= max(0.5 / rate, 1 / rate - 0.04) + 1e-4  # the last stands as long
    assert np.abs(steps(got, rate) + away[1:-11:8]).max() <= 0.005


@pytest.mark.parametrize("ending", ["ts", "mpg", "mkv"])
def test_recordings_joined_end_to_end_are_read_to_the_end(
    tmp_path: Path, ending: str, decoder: str
) -> None:
    form = {"mpg": FORMS["mpeg1.mpg"]}.get(ending, f"{H264} -bf 0 -c:a aac")
    parts = [write(tmp_path / f"{i}.{ending}", form, first=60 * i, count=60) for i in (0, 1)]
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    got = read_video(path, 25, decoder=decoder)
    numbers = [number_of(frame) for frame in got.frames]
    assert sorted(set(numbers)) == list(range(120)) and numbers == sorted(numbers)
    assert abs(len(numbers) - 120) <= 2  # one part's sound is a little longer than its pictures
    found = np.array(steps(got))
    seam = len(found) // 2  # what lies across it belongs to both
    assert np.abs([*found[: seam - 1], *found[seam + 1 :]]).max() < STEP_S


def test_a_sound_that_begins_in_the_middle_of_a_broadcast_is_passed_over(
    tmp_path: Path, decoder: str
) -> None:
    first, middle, last = (
        write(tmp_path / f"{i}.ts", FORMS["mpeg2.ts"], first=40 * i, count=40) for i in range(3)
    )
    two = tmp_path / "two.ts"
    ffmpeg("-i", middle, "-map", "0", "-map", "0:a", "-c", "copy", two)
    # Further than FFmpeg looks before it says what there is.
    stuffing = (b"\x47\x1f\xff\x10" + bytes([255]) * 184) * 30_000
    path = tmp_path / "film.ts"
    path.write_bytes(stuffing.join(part.read_bytes() for part in (first, two, last)))
    got = read_video(path, 25, decoder=decoder)
    numbers = [number_of(frame) for frame in got.frames]
    assert sorted(set(numbers)) == list(range(120)) and numbers == sorted(numbers)
    assert got.sound is not None and len(got.sound) / got.rate > 4.5


def test_lost_sound_is_silence_and_the_rest_stays_in_place(tmp_path: Path, decoder: str) -> None:
    whole = write(tmp_path / "whole.mkv", f"{H264} -c:a pcm_s16le")
    path = tmp_path / "gap.mkv"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:a", r"noise=drop=between(pts*tb\,1\,1.5)", path)
    got = read_video(path, 25, decoder=decoder)
    assert np.abs(steps(got)).max() < STEP_S
    heard, _ = fitted(got)
    assert len(heard) == 48000
    assert not heard[round(1.1 * HZ) : round(1.4 * HZ)].any() and np.abs(heard[40000:]).max() > 0.1


def test_a_picture_that_stands_for_long_holds_nothing_up(tmp_path: Path, decoder: str) -> None:
    whole = write(tmp_path / "whole.mp4", FORMS["mp4"], 10, count=200)
    path = tmp_path / "pause.mkv"
    ffmpeg("-i", whole, "-vf", "select='not(between(t,2,14))'", "-fps_mode", "vfr", path)
    got = read_video(path, 25, decoder=decoder)
    assert abs(len(got.frames) - 500) <= 1
    assert [number_of(got.frames[n]) for n in (48, 200, 300, 400)] == [19, 19, 19, 160]
    heard, _ = fitted(got)
    late = np.correlate(NOISE[16 * HZ - 800 :][:8000], heard[16 * HZ :][:6400]).argmax() - 800
    assert abs(late) < STEP_S * HZ


# What a player shows, and lets hear


def test_pixels_are_made_square(tmp_path: Path, decoder: str) -> None:
    squeezed = write(tmp_path / "film.mp4", f"-vf scale=120:160,setsar=4/3 {FORMS['mp4']}")
    got = read_video(squeezed, 25, decoder=decoder)
    assert got.frames[0].shape == (160, 160)
    assert [number_of(frame) for frame in got.frames] == list(range(75))


def test_colours_of_full_range_have_the_levels_of_others(tmp_path: Path, decoder: str) -> None:
    form = "-c:v ffv1 -pix_fmt bgr0 -an -color_range"
    path, raw = write(tmp_path / "film.mkv", f"{form} pc"), tmp_path / "raw"
    ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", raw)
    colours = np.fromfile(raw, np.uint8)
    found = read_video(path, 25, decoder=decoder, sound="optional").frames[0]
    for pick in (np.min, np.max):
        assert abs(pick(found) - (16 + 219 / 255 * pick(colours))) < 1.5


def test_pictures_of_a_kind_that_is_not_converted_refuse_their_film(
    tmp_path: Path, decoder: str
) -> None:
    path = write(tmp_path / "film.nut", "-c:v rawvideo -pix_fmt bgr4 -c:a flac", count=5)
    assert refusal(read_video, path, 25, decoder=decoder).status == "bad_decode"


def test_sound_of_sixteen_planes_is_heard(tmp_path: Path, decoder: str) -> None:
    pan = "pan=16c|" + "|".join(f"c{number}=c0" for number in range(16))
    opus = f"-af {pan} -c:a libopus -mapping_family 255 -ar 48000"
    path = write(tmp_path / "film.mkv", f"{H264} {opus}")
    assert np.abs(steps(read_video(path, 25, decoder=decoder))).max() < STEP_S


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory it took")
def test_pictures_that_wait_for_their_order_are_small(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "film.avi"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=3840x2160:r=25:d=1", "-c:v", "mjpeg",
           "-pix_fmt", "yuvj444p", path)  # fmt: skip
    script = (
        "import pathlib; from avb.pipeline.clip.decode import stream_video\n"
        f"film = stream_video(pathlib.Path({str(path)!r}), 25, decoder={decoder!r},"
        " sound='optional')\n"
        "assert sum(1 for _ in film.frames) > 20\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert int(said.stdout) < 400_000  # kB; with 17 pictures of the decoder's it was 540 MB


def test_a_cover_is_no_film(tmp_path: Path, decoder: str) -> None:
    film = write(tmp_path / "film.mp4", FORMS["mp4"])
    cover = tmp_path / "cover.jpg"
    ffmpeg("-i", film, "-frames:v", "1", cover)
    for name, maps, shown in (("song.m4a", "-map 0:a -map 1:v", None), ("both.mkv", "", 75)):
        path = tmp_path / name
        if shown:
            ffmpeg("-i", film, "-attach", cover, "-metadata:s:t", "mimetype=image/jpeg",
                   "-c", "copy", path)  # fmt: skip
            assert len(read_video(path, 25, decoder=decoder).frames) == shown
            continue
        ffmpeg("-i", film, "-i", cover, *maps.split(), "-c:a", "copy", "-c:v", "mjpeg",
               "-disposition:v", "attached_pic", path)  # fmt: skip
        refused = refusal(read_video, path, 25, decoder=decoder)
        assert refused.status == "bad_decode"
        assert "no video stream but a cover picture" in refused.error


def test_of_two_tracks_the_default_one_is_heard(tmp_path: Path, decoder: str) -> None:
    film = write(tmp_path / "film.mp4", FORMS["mp4"])
    path = tmp_path / "two.mkv"
    ffmpeg("-i", film, "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-map", "0:v",
           "-map", "1:a", "-map", "0:a", "-c:v", "copy", "-c:a", "aac", "-t", "3",
           "-disposition:a:0", "0", "-disposition:a:1", "default", path)  # fmt: skip
    assert np.abs(steps(read_video(path, 25, decoder=decoder))).max() < STEP_S


@pytest.mark.parametrize(
    ("pan", "least"), [("stereo|c0=c0|c1=-1*c0", 0.9), ("5.1|FC=c0", 0.9), ("5.1|FL=c0|FR=c0", 0.9)]
)
def test_no_layout_makes_a_voice_faint(
    tmp_path: Path, pan: str, least: float, decoder: str
) -> None:
    write(tmp_path / "mono.mkv", f"{H264} -c:a pcm_s16le")
    path = write(tmp_path / "film.mkv", f"-af pan={pan} {H264} -c:a pcm_s16le")
    levels = []
    for film in (tmp_path / "mono.mkv", path):
        sound = read_video(film, 25, decoder=decoder).sound
        assert sound is not None
        levels.append(float(np.sqrt(np.square(sound).mean())))
    assert levels[1] > least * levels[0]


def test_a_film_without_sound_is_taken_if_asked_for(tmp_path: Path, decoder: str) -> None:
    path = write(tmp_path / "film.mp4", f"{H264} -an")
    got = read_video(path, 25, decoder=decoder, sound="optional")
    assert got.sound is None and len(got.frames) == 75 and got.flags == {"no_audio"}


# What a film may not do


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfilm.ts\n",
        "ffconcat version 1.0\nfile film.ts\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_list_of_files_opens_none_of_them(tmp_path: Path, text: str, decoder: str) -> None:
    write(tmp_path / "film.ts", FORMS["mpeg2.ts"])
    for name in ("list.m3u8", "list.mp4", "list.sdp"):
        (tmp_path / name).write_text(text)
        refused = refusal(read_video, tmp_path / name, 25, decoder=decoder)
        assert refused.status == "bad_decode" and "a list of other files" in refused.error


def test_a_long_film_is_refused_as_soon_as_it_is_too_long(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "film.mp4", FORMS["mp4"], count=200)
    read = Mock(wraps=decode.fitted)
    monkeypatch.setattr(decode, "fitted", read)
    with pytest.raises(Refused, match="longer than 1 s"):
        read_video(path, 25, decoder=decoder, max_s=1.0)
    assert read.call_count <= 27
