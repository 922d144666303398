"""Stored crops as bytes: grey video (`mp4`, `h264`, `jpeg`).

Axis letters: T frames, H rows, W columns. Frames are uint8 luma in 0..255 (full range) everywhere.

The video encoder is x264 tuned for a clip that is written once and read for hundreds of epochs:
no CABAC and no deblocking (the decoder's two dear steps), one key frame, a fixed frame pattern.
Measured on one core with the default crf on 29 real GRID clips of nine talkers: 29 lips frames of
120 x 120 45.2 dB (worst 44.5), 13.9 KB, 6 ms to encode (2 of them x264 starting up), 1.2 ms to
decode; 75 face frames of 104 x 104 45.6 dB (worst 43.7), 21 KB, 8 ms and 2.2 ms; 75 lips frames
45.6 dB, 31 KB, 11 ms and 2.9 ms. As jpeg: lips 51 dB, 71 KB, 0.8 ms and 1.0 ms for 29 frames,
faces 46.7 dB, 78 KB. Preset `medium` would save a fifth of the bytes for four times the encoding
time.
"""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avb.pipeline.clip.image_folder import grey_picture
from avb.pipeline.clip.media import first_plane
from avb.pipeline.clip.mp4 import START_CODE, check_counts, read_own_mp4

Frames = NDArray[np.uint8]

EXTENSIONS = {"mp4": "mp4", "h264": "h264", "jpeg": "jpg"}
# The crf that gives at least 44.5 dB on average on real lips and face crops. For jpeg, a picture
# without motion compensation, the face crops ask for quality 94 (lips alone would do with 75).
DEFAULT_CRF = {"mp4": 19, "h264": 19, "jpeg": 6}

# ultrafast with the three settings that its speed is not worth (subme, partitions, 8x8dct): 5 %
# faster than superfast for 2 % more bytes. rc-lookahead, b-adapt, weightp, no-chroma-me: nothing
# is looked ahead or searched in the empty chroma planes (a fifth of the encoding time, no loss in
# dB). aq-mode, no-psy: PSNR, not looks; and x264 with aq and mbtree on gave up to ten different
# streams in 30 runs on equal frames.
_X264_PARAMS = ":".join(
    "threads=1 sliced-threads=0 sync-lookahead=0 rc-lookahead=0 keyint=infinite scenecut=0 "
    "bframes=3 b-adapt=0 weightp=0 aq-mode=0 no-psy=1 no-chroma-me=1 no-cabac=1 no-deblock=1 "
    "subme=1 partitions=i4x4,i8x8 8x8dct=1 fullrange=on".split()
)
JPEG_MAX_ROWS = 65_500  # limit of the JPEG library
#: What the pictures of one clip may take once decoded.
MOST_BYTES = 1 << 29
# An earlier one, which another package may bring, reads a crafted JPEG into foreign memory
# (CVE-2025-53644).
_SOUND_OPENCV = (4, 12)
_JPEG_MAX_PIXELS = 1 << 26  # all frames; a decoder takes up to nine bytes for each
_MOST_PIXELS = 1 << 24  # of one picture where nothing else is known of it
_BLOCK = 64  # of pixels in which FFmpeg makes room
_NAL_SEI = 6
# Decoders of this process, by the most pixels of a picture: opening one costs 0.3 ms.
_contexts: dict[int, Any] = {}
_LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "gray")  # 8 bits, luma first


def encode_video(
    frames_THW: Frames, codec: str, crf: int | None = None, fps: int = 25
) -> tuple[str, bytes]:
    """File extension and bytes of grey frames, uint8 [T, H, W]; equal frames give equal bytes.

    `mp4` and `h264` (the same stream without a container) keep the luma as it is in the Y plane,
    neutral chroma beside it, flagged as full range; their sides must be even. `jpeg` is one grey
    picture `[T*H, W]`. `crf`: 0 is best; for `jpeg` it is 100 - quality. ValueError for others.
    """
    if codec not in EXTENSIONS:
        raise ValueError(f"codec {codec!r} is unknown; choose one of {', '.join(EXTENSIONS)}")
    if frames_THW.ndim != 3 or frames_THW.dtype != np.uint8 or not frames_THW.size:
        raise ValueError(
            f"frames to encode are {frames_THW.dtype} {frames_THW.shape}, expected uint8 [T, H, W]"
        )
    crf = DEFAULT_CRF[codec] if crf is None else crf
    if codec == "jpeg":
        return EXTENSIONS[codec], _encode_jpeg(frames_THW, 100 - crf)
    return EXTENSIONS[codec], _encode_x264(frames_THW, codec, crf, fps)


def _encode_jpeg(frames_THW: Frames, quality: int) -> bytes:
    import cv2

    num_frames, height, width = frames_THW.shape
    if num_frames * height > JPEG_MAX_ROWS:
        raise ValueError(
            f"{num_frames} frames of {height} rows exceed the {JPEG_MAX_ROWS} rows of a JPEG "
            "picture; use codec mp4"
        )
    picture = np.ascontiguousarray(frames_THW).reshape(-1, width)
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"OpenCV could not write a {picture.shape} JPEG at quality {quality}")
    return data.tobytes()


def _encode_x264(frames_THW: Frames, codec: str, crf: int, fps: int) -> bytes:
    _, height, width = frames_THW.shape
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height} x {width}, but {codec} needs even sides")
    file = io.BytesIO()
    with av.open(file, "w", format=codec, options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.thread_count = 1
        context.color_range = 2  # JPEG, that is full range
        context.options = {"preset": "ultrafast", "crf": str(crf), "x264-params": _X264_PARAMS}
        # Planes Y, U, V one below the other, as yuv420p lies in memory, of which x264 takes a copy:
        # one frame serves all pictures.
        planes = np.full((height * 3 // 2, width), 128, np.uint8)
        frame = av.VideoFrame.from_numpy_buffer(planes, "yuv420p")
        frame.time_base = Fraction(1, fps)
        for i, picture in enumerate(frames_THW):
            planes[:height], frame.pts = picture, i
            container.mux([_without_sei(packet) for packet in stream.encode(frame)])
        container.mux([_without_sei(packet) for packet in stream.encode(None)])
    return file.getvalue()


def _without_sei(packet: av.Packet) -> av.Packet:
    """The packet without x264's 700-byte note of its version and settings (first packet only)."""
    if not packet.is_keyframe:
        return packet
    # Without start codes of three or four bytes.
    units = [unit.rstrip(b"\0") for unit in bytes(packet).split(b"\0\0\1")[1:]]
    kept = av.Packet(START_CODE + START_CODE.join(u for u in units if u[0] & 31 != _NAL_SEI))
    kept.stream, kept.time_base, kept.is_keyframe = packet.stream, packet.time_base, True
    kept.pts, kept.dts, kept.duration = packet.pts, packet.dts, packet.duration
    return kept


def decode_video(data: bytes | memoryview, extension: str, out: Frames | None = None) -> Frames:
    """Frames uint8 [T, H, W] of a stored `mp4`, `h264` or `jpg`, in `out` if it is given.

    The clip must have exactly its shape; without it a `jpg` is taken as square frames. ValueError
    where the bytes are no such video, or are damaged.
    """
    if extension not in EXTENSIONS.values():
        raise ValueError(f"video of type .{extension} is unknown; expected mp4, h264 or jpg")
    if extension == "jpg":
        return _decode_jpeg(data, out)
    try:
        return _fill(_decoded(data, extension, _most_pixels(out)), out)
    except av.FFmpegError as error:
        wanted = "" if out is None else f", expected {_size(out.shape)}"
        raise ValueError(
            f"{len(data)} bytes are not a whole .{extension} video ({error.strerror}{wanted})"
        ) from None


def _decoded(data: bytes | memoryview, extension: str, most_pixels: int) -> Iterator[Frames]:
    """The frames of an mp4 or h264, each to be used before the next is asked for."""
    if extension == "mp4":
        units = read_own_mp4(data)
        if units is None:
            yield from _container_frames(data, most_pixels)
            return
        packets = [av.Packet(unit) for unit in units]
    # It may hold half a picture of a broken clip: put back after a good one alone.
    context = _contexts.pop(most_pixels, None) or _new_context(most_pixels)
    if extension == "h264":
        packets = context.parse(bytes(data)) + context.parse(None)
    count = 0
    for packet in (*packets, None):
        for frame in context.decode(packet):
            count += 1
            yield _luma(frame)
    context.flush_buffers()
    if extension == "mp4" and count != len(packets):
        raise ValueError(f"mp4 video holds {len(packets)} frames, {count} decode")
    _contexts[most_pixels] = context


def _container_frames(data: bytes | memoryview, most_pixels: int) -> Iterator[Frames]:
    """Any mp4: what another encoder wrote."""
    check_counts(data)
    limit = {"max_pixels": str(most_pixels)}
    with av.open(io.BytesIO(data), "r", format="mp4", options=limit) as container:
        if not container.streams.video:
            raise ValueError(f"{len(data)} bytes of mp4 hold no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            yield _luma(frame)


def _new_context(most_pixels: int) -> Any:
    context: Any = av.CodecContext.create("h264", "r")
    context.thread_type, context.thread_count = "NONE", 1
    # A damaged clip must be an error here, not a picture patched up by guesses; and a stream of a
    # few bytes may ask for room for sixteen pictures of any size.
    context.options = {"err_detect": "explode", "max_pixels": str(most_pixels)}
    return context


def _luma(frame: av.VideoFrame) -> Frames:
    """Plane 0 as it is; a conversion to grey would stretch its levels."""
    if frame.format.name not in _LUMA_FORMATS:
        raise ValueError(f"video is {frame.format.name}, expected 8-bit yuv420p or gray")
    return first_plane(frame)


def _most_pixels(out: Frames | None) -> int:
    """The most that a picture may have, in whole blocks."""
    if out is None:
        return _MOST_PIXELS
    height, width = (-(-side // _BLOCK) * _BLOCK for side in out.shape[1:])
    return height * width


def _fill(frames: Iterator[Frames], out: Frames | None) -> Frames:
    """All frames in one array, `out` if it is given and has their shape."""
    kept: list[Frames] = []
    count, room, side = 0, 0, None  # room: frames that `out` takes, if they have its sides
    for frame in frames:
        if frame.shape != side:
            if side is not None:
                raise ValueError(f"video changes from {_size((count, *side))} to {frame.shape}")
            side = frame.shape
            room = 0 if out is None or side != out.shape[1:] else len(out)
        if count < room:
            out[count] = frame  # type: ignore[index]
        elif out is None:
            if (count + 1) * frame.size > MOST_BYTES:
                raise ValueError(f"video takes more than {MOST_BYTES >> 20} MB")
            kept.append(frame.copy())
        count += 1
    if side is None:
        raise ValueError("video holds no frame")
    if out is not None and out.shape != (count, *side):
        raise ValueError(f"video is {_size((count, *side))}, expected {_size(out.shape)}")
    return np.stack(kept) if out is None else out


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} frames of {shape[1]} x {shape[2]}"


def _decode_jpeg(data: bytes | memoryview, out: Frames | None) -> Frames:
    """A picture `[T*H, W]` as frames, by OpenCV where it is sound: FFmpeg takes a fifth longer."""
    import cv2

    rows, width = _jpeg_size(data)
    height = width if out is None else out.shape[1]
    if rows % max(1, height) or rows * width > _JPEG_MAX_PIXELS:
        raise ValueError(f"JPEG of {rows} x {width} is not made of frames {height} rows high")
    shape = (rows // height, height, width)
    if out is not None and out.shape != shape:
        raise ValueError(f"video is {_size(shape)}, expected {_size(out.shape)}")
    picture: Any
    if tuple(map(int, cv2.__version__.split(".")[:2])) < _SOUND_OPENCV:
        picture = grey_picture(bytes(data))
    else:
        grey = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), grey)
    if picture is None or picture.shape != (rows, width):
        raise ValueError(f"{len(data)} bytes are not a JPEG picture")
    frames_THW = np.asarray(picture, np.uint8).reshape(shape)
    if out is None:
        return frames_THW
    out[:] = frames_THW
    return out


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """Rows and columns by the header: a KB may stand for gigabytes. ValueError: cut, or no JPEG."""
    at = 2
    if bytes(data[:2]) == b"\xff\xd8" and bytes(data[-2:]) == b"\xff\xd9":
        while at + 9 <= len(data) and data[at] == 0xFF:
            kind, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if kind in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
                rows, width = struct.unpack_from(">HH", data, at + 5)
                if rows and width:
                    return rows, width
            at += 2 + max(2, size)
    raise ValueError(f"{len(data)} bytes are not a JPEG picture")
