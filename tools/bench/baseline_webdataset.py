"""The baseline that `avb bench read` measures against: what one writes without avb.

Ordinary mp4 files (x264, preset medium, crf 18) and mels in a WebDataset tar, read with plain
`webdataset` and PyAV's `to_ndarray(format="gray")` to float32. Nothing here uses the package, so
that the two readers share no code.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Sample = dict[str, Any]


def encode_mp4(frames_THW: NDArray[np.uint8], fps: int = 25) -> bytes:
    """Grey frames as most tools would write them: swscale to yuv420p, x264 medium, crf 18."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames_THW.shape[1:]
        stream.pix_fmt = "yuv420p"
        for frame in frames_THW:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    return file.getvalue()


def write_tar(
    path: Path, samples: Iterable[tuple[str, dict[str, NDArray[np.uint8]], bytes]]
) -> None:
    """Write key, frames by crop and the bytes of the mel's `.npy` of each sample."""
    from webdataset import TarWriter

    with path.open("wb") as file, TarWriter(file, encoder=False) as tar:
        for key, crops, mel in samples:
            videos = {f"{crop}.mp4": encode_mp4(frames) for crop, frames in crops.items()}
            tar.write({"__key__": key, "mel.npy": mel, **videos})


def decode_sample(sample: Sample) -> dict[str, NDArray[np.float32]]:
    """Every video as float32 [T, H, W], the mel as float32 [80, 4T]."""
    decoded = {"mel": np.load(io.BytesIO(sample["mel.npy"])).astype(np.float32)}
    for name in sample:
        if name.endswith(".mp4"):
            with av.open(io.BytesIO(sample[name]), "r") as container:
                frames = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
            decoded[name] = np.stack(frames).astype(np.float32)
    return decoded


def read_tar(path: Path) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Sample after sample through webdataset."""
    import webdataset

    return iter(webdataset.WebDataset(str(path), shardshuffle=False).map(decode_sample))
