"""Stored sound as bytes: mono, 16-bit FLAC."""

import io

import av
import numpy as np
from numpy.typing import NDArray

from avb.pipeline.clip.codec import MOST_BYTES

_SMALL_PICTURES = {"max_pixels": "65536"}  # a FLAC file may hold a picture of any size


def encode_flac(samples: NDArray[np.float32], rate: int) -> bytes:
    """Mono sound, float32 [n] in [-1, 1], as 16-bit FLAC; equal samples give equal bytes."""
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"sound to encode has shape {samples.shape}, expected [n] with n >= 1")
    levels = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="flac", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", format="s16")
        stream.codec_context.thread_count = 1
        frame = av.AudioFrame.from_ndarray(levels[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode_flac(data: bytes | memoryview, most: int | None = None) -> NDArray[np.float32]:
    """Mono sound, float32 [n] in [-1, 1), from 16-bit FLAC of at most `most` samples."""
    most = MOST_BYTES // 4 if most is None else most
    samples, count = np.empty(most, np.float32), 0  # room is taken where it is written
    try:
        with av.open(io.BytesIO(data), "r", format="flac", options=_SMALL_PICTURES) as container:
            for frame in container.decode(audio=0):
                part = frame.to_ndarray()
                if part.dtype != np.int16 or part.shape != (1, frame.samples):
                    raise ValueError(f"{len(data)} bytes of FLAC hold no 16-bit sound")
                end = count + part.size
                if end > most:
                    raise ValueError(f"sound has more than {most} samples")
                samples[count:end] = part[0]
                count = end
    except (av.FFmpegError, IndexError) as error:
        what = error.strerror if isinstance(error, av.FFmpegError) else "no sound"
        raise ValueError(f"{len(data)} bytes are not a FLAC file ({what})") from None
    if not count:
        raise ValueError(f"{len(data)} bytes of FLAC hold no 16-bit sound")
    samples[:count] /= np.float32(32768)
    return samples[:count]
