"""Folders of picture files as films: in order, gaps filled, few of them large in memory."""

import functools
import re
from collections.abc import Iterator, Sequence
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

    They are read as they are used. Refused, also then, as `missing_frames`.
    """
    _check([path for path in paths if not path.is_file()], paths)
    media = Media([])
    media.frames = _filled(paths, media.flags)
    return media


def _filled(paths: Sequence[Path], flags: set[str]) -> Iterator[np.ndarray]:
    """The pictures in turn, for one that cannot be read the nearest, of two the one before."""
    before: np.ndarray | None = None
    lost: list[Path] = []
    waiting = 0
    for path in paths:
        try:
            picture = grey_picture(path.read_bytes())
        except FileNotFoundError:
            picture = None
        if picture is None:
            lost.append(path)
            waiting += 1
            continue
        picture = fitted(picture, None if before is None else before.shape)
        for i in range(waiting):
            yield picture if before is None or i >= (waiting + 1) // 2 else before
        yield picture
        before, waiting = picture, 0
    _check(lost, paths)
    if before is not None:
        yield from [before] * waiting
    if lost:
        flags.add("filled_frames")


def _check(lost: Sequence[Path], paths: Sequence[Path]) -> None:
    """Refused where more than a fifth of the pictures is lost."""
    if len(lost) * 5 > len(paths) or not paths:
        first = f", the first is {lost[0].parent.name}/{lost[0].name}" if lost else ""
        found = f"{len(lost)} of {len(paths)} pictures are missing or unreadable"
        raise Refused("missing_frames", found + first)


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
