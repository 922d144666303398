"""Folders of picture files as films: in order, gaps filled, few of them large in memory."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from avb.pipeline.clip.media import MAX_PIXELS, Media, first_plane, fitted
from avb.pipeline.clip.status import Refused

#: Decoders of FFmpeg, by how a file of theirs begins, and what stands at its end.
KINDS = {b"\xff\xd8": ("mjpeg", b"\xff\xd9"), b"\x89PNG": ("png", b"IEND")}


def numbered_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in the order of the number in their name (1.jpg, mouth_000.png).

    A number missing in between has a path as well, to no file, so that nothing moves up. Refused as
    `missing_frames` without such a folder.
    """
    try:
        matches = [(re.search(r"(\d+)\.(?:jpe?g|png)$", p.name, re.I), p) for p in folder.iterdir()]
    except FileNotFoundError:
        raise Refused("missing_frames", f"{folder.name}: no such folder") from None
    paths = {int(m[1]): path for m, path in sorted(matches, key=lambda f: f[1].name) if m}
    if not paths or max(paths) - min(paths) > 2 * len(paths):  # stamps of time, not numbers
        return [paths[n] for n in sorted(paths)]
    return [paths.get(n, folder / f"picture {n}") for n in range(min(paths), max(paths) + 1)]


def read_pictures(paths: Sequence[Path]) -> Media:
    """Picture files as grey ones of one size, up to a fifth filled and flagged; no sound yet.

    Refused as `missing_frames`.
    """
    have: dict[int, np.ndarray] = {}
    shape: tuple[int, ...] | None = None
    for i, path in enumerate(paths):
        try:
            picture = grey_picture(path.read_bytes())
        except FileNotFoundError:
            continue
        if picture is not None:
            have[i] = fitted(picture, shape)
            shape = have[i].shape
    filled = [i for i in range(len(paths)) if i not in have]
    if len(filled) * 5 > len(paths) or not have:
        first = next((paths[i] for i in filled), None)
        raise Refused(
            "missing_frames",
            f"{len(filled)} of {len(paths)} pictures are missing or unreadable"
            + (f", the first is {first.parent.name}/{first.name}" if first else ""),
        )
    known = np.array(sorted(have))
    between = (known[1:] + known[:-1]) / 2
    nearest = known[np.searchsorted(between, np.arange(len(paths)))]
    return Media([have[i] for i in nearest], flags={"filled_frames"} if filled else set())


def grey_picture(data: bytes) -> np.ndarray | None:
    """The luma of a JPEG or PNG file, uint8 [H, W]; None where it is none, cut, or too large."""
    codec, end = next((kind for start, kind in KINDS.items() if data.startswith(start)), ("", b""))
    if not codec or end not in data:
        return None
    # One decoder of JPEG for the process, as opening one for each picture would cost more than
    # decoding; that of PNG takes the last picture's rows for its own.
    context = _jpeg_decoder() if codec == "mjpeg" else _decoder(codec)
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except (av.FFmpegError, ValueError):
        return None
    finally:
        context.flush_buffers()
    if not frames:
        return None
    frame: Any = frames[0]
    if frame.format.name != "gray" and not frame.format.name.startswith("yuvj"):
        frame = frame.reformat(format="gray", dst_color_range="JPEG")
    return first_plane(frame).copy()


def _decoder(codec: str) -> Any:
    context = av.CodecContext.create(codec, "r")
    context.thread_type, context.thread_count = "NONE", 1
    # Else what a damaged picture lacks would be rows of the one before, maybe of another clip.
    context.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
    return context


@functools.cache
def _jpeg_decoder() -> Any:
    return _decoder("mjpeg")
