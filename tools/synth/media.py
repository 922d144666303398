"""The three containers the corpora ship in, written inside the process (no ffmpeg program).

Every encoder runs on one thread with bit-exact flags: equal input gives equal bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from avb.tools.synth.voice import SAMPLE_RATE

FPS = 25
# 114 layer II frames of 1,152: every GRID clip has these 2.978 s for its 3.000 s of video.
GRID_AUDIO_SAMPLES = 131328
_GRID_RATE = 44100
_GRAIN = 2.4  # grey levels, standard deviation
_MP2_DELAY = 481  # samples by which the layer II filter bank delays what goes in


def write_mpg(path: Path, frames: Sequence[np.ndarray], samples: np.ndarray | None) -> None:
    """Writes a clip as GRID does: MPEG-1 program stream, layer II sound at 44.1 kHz stereo.

    A group is one intra picture and eleven predicted ones, as in the corpus. The sound, float32
    `[N]` at 16 kHz (None: no stream), is where `samples` has it: the encoder's delay is taken off
    (GRID itself is 11 ms late). Frames are uint8 BGR `[H, W, 3]` at 25 fps.
    """
    # Without preload=0 all stamps begin at 0.5 s; those of the corpus begin at 0.
    with _create(path, "mpeg", {"preload": "0"}) as container:
        bit_rate = 850_000 * frames[0].shape[0] * frames[0].shape[1] // (360 * 288)
        video = _video_stream(container, "mpeg1video", frames[0], bit_rate)
        if samples is not None:
            audio = container.add_stream("mp2", rate=_GRID_RATE, layout="stereo")
            audio.codec_context.bit_rate = 224_000
        for frame in [*_video_frames(frames), None]:
            for packet in video.encode(frame):
                packet.dts = packet.pts  # else one frame early, and all stamps begin at 40 ms
                container.mux(packet)
        if samples is not None:
            sound = _fit(resample_poly(samples, 441, 160)[_MP2_DELAY:], GRID_AUDIO_SAMPLES)
            _mux_sound(container, audio, np.repeat(_to_int16(sound), 2), "s16", _MP2_DELAY)


def write_mp4(
    path: Path, frames: Sequence[np.ndarray], samples: np.ndarray | None, index_first: bool = False
) -> None:
    """Writes a clip as LRW does: MPEG-4 Part 2 of 0.8 Mbit/s and AAC at 16 kHz mono.

    Key frames stand at 0, 12 and 24, as in four files of the corpus, which have 116 to 140 KB. What
    is drawn, or made larger from GRID, has no grain as broadcast film has: it gets some, or the
    files would be half as large. The sound is cut or padded to 640 samples a frame: 18,560 for 29.
    With `index_first` a truncated file still opens.
    """
    with _create(path, "mp4", {"movflags": "faststart"} if index_first else {}) as container:
        # No key frame at a cut either.
        video = _video_stream(container, "mpeg4", frames[0], 800_000, sc_threshold="1000000000")
        if samples is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            audio.codec_context.bit_rate = 60_000
        for frame in [*_video_frames(_grainy(frames)), None]:
            container.mux(video.encode(frame))
        if samples is not None:
            sound = _fit(samples, len(frames) * SAMPLE_RATE // FPS).astype(np.float32)
            _mux_sound(container, audio, sound, "fltp")


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Writes float32 `[N]` as a 16-bit mono wav at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, SAMPLE_RATE, _to_int16(samples))


def read_wav(path: Path) -> np.ndarray:
    """Reads what `write_wav` wrote, float32 `[N]`."""
    return wavfile.read(path)[1].astype(np.float32) / 32767


def write_jpg(path: Path, frame: np.ndarray) -> None:
    """Writes one picture as the jpg that LRW-1000 ships."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise ValueError(f"{path}: the picture could not be written")


def _create(path: Path, kind: str, options: dict[str, str]) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    container = av.open(str(path), "w", format=kind, options=options)
    container.flags |= 0x400  # AVFMT_FLAG_BITEXACT
    return container


def _video_stream(
    container: Any, codec: str, frame: np.ndarray, bit_rate: int, **options: str
) -> Any:
    stream = container.add_stream(codec, rate=FPS, options={"threads": "1", **options})
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, FPS)
    context.gop_size, context.max_b_frames, context.bit_rate = 12, 0, bit_rate
    return stream


def _video_frames(frames: Iterable[np.ndarray]) -> Any:
    """BGR pictures as yuv420p frames with their times."""
    for index, picture in enumerate(frames):
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        yield frame


def _grainy(frames: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The pictures with grain, always the same for as many of a size."""
    rng = np.random.default_rng(0xF11)
    for picture in frames:
        grain = rng.normal(0, _GRAIN, picture.shape[:2]).astype(np.float32)
        yield np.clip(np.rint(picture + grain[:, :, None]), 0, 255).astype(np.uint8)


def _mux_sound(
    container: Any, stream: Any, samples: np.ndarray, sample_format: str, start: int = 0
) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], sample_format, stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, start, Fraction(1, stream.rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Cuts or zero-pads at the end."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _to_int16(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
