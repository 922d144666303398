"""Films to look at and listen to: the box over the pictures, the speech beside the true sound."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avb.pipeline.clip.container import Head
from avb.pipeline.clip.ffmpeg import Process, input_options, running
from avb.tools.infer.crops import Cutter
from avb.tools.infer.video import FPS, BadVideo, named, pictures

GREEN, RED = (60, 220, 60), (60, 60, 230)  # BGR
#: Codecs whose pictures go into an MP4 as they are, and play; others are encoded anew.
KEPT = ("h264", "hevc", "av1")
EVEN = "ceil(iw/2)*2"


@contextmanager
def encoder(
    path: Path, streams: Sequence[Any], feed: bool = False, **options: Any
) -> Iterator[Process]:
    """What writes a film that becomes `path` when all went well; BadVideo: it did not."""
    import ffmpeg

    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    output = ffmpeg.output(*streams, f"file:{temporary.resolve()}", **options)
    try:
        with named(), running(output, str(path), feed) as (process, said):
            yield process
            if process.wait():
                raise BadVideo(f"{path}: cannot be written ({said()})")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def draw_boxes(cutter: Cutter, path: Path, captions: Sequence[tuple[int, int, str]] = ()) -> None:
    """Write the film, without sound, with the box that was cut: green, or red if nobody is seen.

    `captions` are texts at its foot, each with its first frame and the one after its last.
    """
    import ffmpeg

    height, width = cutter.size
    boxes, seen = np.rint(cutter.boxes).astype(int).tolist(), cutter.seen
    thick = max(1, min(height, width) // 180)
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="bgr24", s=f"{width}x{height}", r=FPS)
    source = source.filter("pad", EVEN, EVEN.replace("iw", "ih"))
    text_of = {f: text for first, stop, text in captions for f in range(first, stop)}
    films = zip(pictures(cutter.video, colour=True), boxes, seen, strict=False)
    options = {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": 20, "preset": "veryfast"}
    with encoder(path, [source], feed=True, **options) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its exit code says more
            for number, (picture, (x0, y0, x1, y1), there) in enumerate(films):
                upright = np.ascontiguousarray(np.rot90(picture, cutter.turns))
                colour = GREEN if there else RED
                cv2.rectangle(upright, (x0, y0), (x1 - 1, y1 - 1), colour, thick)
                _write(upright, text_of.get(number, "").encode("ascii", "replace").decode())
                process.stdin.write(upright.data)
            process.stdin.close()


def _write(picture: np.ndarray, text: str) -> None:
    """A line of text at the foot of a picture, white on black, as wide as it at most."""
    height, width = picture.shape[:2]
    font, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, height / 500, max(1, height // 300)
    size = cv2.getTextSize(text, font, scale, thick)[0][0]
    scale = min(scale, scale * 0.95 * width / max(size, 1))
    left = (width - cv2.getTextSize(text, font, scale, thick)[0][0]) // 2
    for colour, stroke in (((0, 0, 0), 4 * thick), ((255, 255, 255), thick)):
        cv2.putText(picture, text, (left, height - height // 20), font, scale, colour, stroke,
                    cv2.LINE_AA)  # fmt: skip


def mux(video: Head, speech: Path, path: Path) -> None:
    """Write the film with the speech of the WAV file `speech`, and the true track as a second one.

    Players offer both tracks; two channels of one would play both at a time. The speech begins with
    the first picture, whenever that is.
    """
    import ffmpeg

    source = ffmpeg.input(f"{video.source}", **input_options(video))
    options: dict[str, Any] = {
        "acodec": "aac",
        "metadata:s:a:0": "handler_name=from the lips",
        "disposition:a:0": "default",
    }
    late_s = max(0.0, video.start_s - video.zero_s)
    spoken = ffmpeg.input(f"file:{speech.resolve()}").audio
    tracks = [spoken.filter("adelay", delays=round(late_s * 1000), all=1) if late_s else spoken]
    if video.audio is not None:
        tracks.append(source[str(video.audio)])
        options |= {"metadata:s:a:1": "handler_name=true", "disposition:a:1": "0"}
    if video.codec in KEPT:
        picture, options["vcodec"] = source[str(video.video)], "copy"
    else:
        picture = source[str(video.video)].filter("pad", EVEN, EVEN.replace("iw", "ih"))
        options |= {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": "18"}
    with encoder(path, [picture, *tracks], **options):
        pass
