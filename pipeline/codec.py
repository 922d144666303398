"""Stored crops and sound as bytes: grey video (`mp4`, `h264`, `jpg`) and 16-bit FLAC.

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

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av

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
_JPEG_MAX_ROWS = 65_500  # limit of the JPEG library
_START_CODE = b"\0\0\0\1"
_NAL_SEI = 6
_LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "gray")  # 8 bits, luma first
_MOVIE_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def encode_video(
    frames_THW: Frames, codec: str, crf: int | None = None, fps: int = 25
) -> tuple[str, bytes]:
    """Encode grey frames; equal frames and settings give equal bytes.

    `mp4` and `h264` keep the luma as it is in the Y plane, neutral chroma beside it, flagged as
    full range, so that any player shows the right grey. `jpeg` is one grey picture `[T*H, W]`.

    Args:
        frames_THW: uint8 [T, H, W] with T >= 1; H and W even for `mp4` and `h264`.
        codec: `mp4`, `h264` (the same stream without a container) or `jpeg`.
        crf: 0 is best; x264's constant rate factor, for `jpeg` 100 - quality. None: `DEFAULT_CRF`.
        fps: frames per second, for players.

    Returns:
        The file extension without a dot and the bytes.

    Raises:
        ValueError: unknown codec, or frames of another shape or type.
    """
    if codec not in EXTENSIONS:
        raise ValueError(f"codec {codec!r} is unknown; choose one of {', '.join(EXTENSIONS)}")
    if frames_THW.ndim != 3 or frames_THW.dtype != np.uint8 or not frames_THW.size:
        raise ValueError(
            f"frames to encode are {frames_THW.dtype} {frames_THW.shape}, expected uint8 [T, H, W]"
        )
    crf = DEFAULT_CRF[codec] if crf is None else crf
    encode = _encode_jpeg if codec == "jpeg" else _encode_x264
    return EXTENSIONS[codec], encode(frames_THW, codec, crf, fps)


def _encode_jpeg(frames_THW: Frames, codec: str, crf: int, fps: int) -> bytes:
    import cv2

    num_frames, height, width = frames_THW.shape
    if num_frames * height > _JPEG_MAX_ROWS:
        raise ValueError(
            f"{num_frames} frames of {height} rows exceed the {_JPEG_MAX_ROWS} rows of a JPEG "
            "picture; use codec mp4"
        )
    picture = np.ascontiguousarray(frames_THW).reshape(-1, width)
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100 - crf])
    if not ok:
        raise ValueError(f"OpenCV could not write a {picture.shape} JPEG at quality {100 - crf}")
    return data.tobytes()


def _encode_x264(frames_THW: Frames, codec: str, crf: int, fps: int) -> bytes:
    import av

    num_frames, height, width = frames_THW.shape
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height} x {width}, but {codec} needs even sides")
    # Planes Y, U, V one below the other, as yuv420p lies in memory. x264 reads them in place:
    # copying into PyAV's own frames would cost 0.5 ms a clip.
    planes = np.full((num_frames, height * 3 // 2, width), 128, np.uint8)
    planes[:, :height] = frames_THW

    file = io.BytesIO()
    with av.open(file, "w", format=codec, options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.thread_count = 1
        context.color_range = 2  # JPEG, that is full range
        context.options = {
            "preset": "ultrafast",
            "crf": str(crf),
            "x264-params": _X264_PARAMS,
        }
        for i in range(num_frames):
            frame = av.VideoFrame.from_numpy_buffer(planes[i], "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux([_without_sei(packet) for packet in stream.encode(frame)])
        container.mux([_without_sei(packet) for packet in stream.encode(None)])
    return file.getvalue()


def _without_sei(packet: av.Packet) -> av.Packet:
    """The packet without x264's 700-byte note of its version and settings (first packet only)."""
    if not packet.is_keyframe:
        return packet
    import av

    units = _split_annex_b(bytes(packet))
    kept = av.Packet(_START_CODE + _START_CODE.join(u for u in units if u[0] & 31 != _NAL_SEI))
    kept.stream, kept.time_base, kept.is_keyframe = packet.stream, packet.time_base, True
    kept.pts, kept.dts, kept.duration = packet.pts, packet.dts, packet.duration
    return kept


def _split_annex_b(data: bytes) -> list[bytes]:
    """The units of a bare stream, without their start codes of three or four bytes."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]


class VideoDecoder:
    """Decodes clip after clip with one reused H.264 context (opening one costs 0.3 ms).

    Where PyAV cannot be imported OpenCV reads the clips: slower by far, and a grey level may
    differ by one. Not for several threads at a time.
    """

    def __init__(self) -> None:
        try:
            import av
        except ImportError:
            self._av: Any = None
        else:
            self._av = av
        self._context: Any = None

    def decode(self, data: bytes | memoryview, extension: str, out: Frames | None = None) -> Frames:
        """Decode one clip; see `decode_video`."""
        if extension == "jpg":
            return _decode_jpeg(data, out)
        if extension not in ("mp4", "h264"):
            raise ValueError(f"video of type .{extension} is unknown; expected mp4, h264 or jpg")
        if self._av is None:
            return _decode_opencv(data, extension, out)
        try:
            return _stack(self._decode_frames(data, extension), out)
        except self._av.FFmpegError as error:
            self._context = None  # it may hold half a picture of the broken clip
            raise ValueError(
                f"{len(data)} bytes are not a whole .{extension} video ({error.strerror})"
            ) from None

    def _decode_frames(self, data: bytes | memoryview, extension: str) -> list[Frames]:
        if extension == "mp4":
            units = _read_own_mp4(data)
            if units is None:
                return self._decode_container(data)
            packets = [self._av.Packet(unit) for unit in units]
        context = self._open_context()
        if extension == "h264":
            packets = context.parse(bytes(data)) + context.parse(None)
        frames = [frame for packet in packets for frame in context.decode(packet)]
        frames += context.decode(None)
        context.flush_buffers()
        if extension == "mp4" and len(frames) != len(packets):
            raise ValueError(f"mp4 video holds {len(packets)} frames, {len(frames)} decode")
        return [_luma(frame) for frame in frames]

    def _decode_container(self, data: bytes | memoryview) -> list[Frames]:
        """Any mp4: what another encoder wrote."""
        with self._av.open(io.BytesIO(data), format="mp4") as container:
            if not container.streams.video:
                raise ValueError(f"{len(data)} bytes of mp4 hold no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            return [_luma(frame) for frame in container.decode(stream)]

    def _open_context(self) -> Any:
        if self._context is None:
            context = self._av.CodecContext.create("h264", "r")
            context.thread_type, context.thread_count = "NONE", 1
            # A damaged clip must be an error here, not a picture patched up by guesses.
            context.options = {"err_detect": "explode"}
            self._context = context
        return self._context


_decoder: VideoDecoder | None = None


def decode_video(data: bytes | memoryview, extension: str, out: Frames | None = None) -> Frames:
    """Decode a stored clip with this process's decoder.

    Args:
        data: the member's bytes.
        extension: `mp4`, `h264` or `jpg`.
        out: uint8 [T, H, W] to fill; the clip must have exactly this shape. Without it a `jpg`
            is taken as square frames (H = W).

    Returns:
        uint8 [T, H, W], `out` if it was given.

    Raises:
        ValueError: the bytes are no such video, are damaged, or have another shape than `out`.
    """
    global _decoder
    if _decoder is None:
        _decoder = VideoDecoder()
    return _decoder.decode(data, extension, out)


def _luma(frame: av.VideoFrame) -> Frames:
    """Plane 0 as it is; a conversion to grey would stretch its levels."""
    if frame.format.name not in _LUMA_FORMATS:
        raise ValueError(f"video is {frame.format.name}, expected 8-bit yuv420p or gray")
    plane = frame.planes[0]
    rows: Frames = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
    return rows.reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _stack(frames: list[Frames], out: Frames | None) -> Frames:
    if not frames:
        raise ValueError("video holds no frame")
    shape = (len(frames), *frames[0].shape)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape:
        raise ValueError(f"video is {_size(shape)}, expected {_size(out.shape)}")
    for i, frame in enumerate(frames):
        out[i] = frame
    return out


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} frames of {shape[1]} x {shape[2]}"


def _decode_jpeg(data: bytes | memoryview, out: Frames | None) -> Frames:
    import cv2

    picture = None
    if len(data):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"{len(data)} bytes are not a JPEG picture")
    rows, width = picture.shape
    height = width if out is None else out.shape[1]
    if rows % height:
        raise ValueError(f"JPEG of {rows} x {width} is not made of frames {height} rows high")
    frames_THW = np.asarray(picture, np.uint8).reshape(-1, height, width)
    return frames_THW if out is None else _stack(list(frames_THW), out)


def _decode_opencv(data: bytes | memoryview, extension: str, out: Frames | None) -> Frames:
    """The stand-in without PyAV; OpenCV reads video from files only."""
    import cv2

    with tempfile.NamedTemporaryFile(suffix=f".{extension}") as file:
        file.write(data)
        file.flush()
        capture = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG)
        frames = []
        while (read := capture.read())[0]:
            frames.append(np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY), np.uint8))
        capture.release()
    if not frames:
        raise ValueError(f"{len(data)} bytes are not a .{extension} video that OpenCV can read")
    return _stack(frames, out)


def _read_own_mp4(data: bytes | memoryview) -> list[bytes] | None:
    """One Annex-B packet a frame of an mp4 as `encode_video` writes it, else None.

    Reading the few boxes here instead of opening a container takes 0.05 ms instead of 1 ms a clip.
    "As we write it": one track whose frames lie back to back in a single chunk.
    """
    data = memoryview(data)
    try:
        tables = dict(_sample_tables(data))
        if struct.unpack_from(">I", tables[b"stco"], 4)[0] != 1:
            return None
        (position,) = struct.unpack_from(">I", tables[b"stco"], 8)
        fixed_size, num_frames = struct.unpack_from(">II", tables[b"stsz"], 4)
        sizes = struct.unpack_from(f">{num_frames}I", tables[b"stsz"], 12)
        headers = _parameter_sets(tables[b"stsd"])
    except (KeyError, struct.error):
        return None
    if fixed_size or not sizes or position + sum(sizes) > len(data):
        return None
    packets = []
    for size in sizes:
        (length,) = struct.unpack_from(">I", data, position)
        if length != size - 4:  # more than one unit in a frame
            return None
        packets.append(_START_CODE + data[position + 4 : position + size])
        position += size
    packets[0] = b"".join(_START_CODE + unit for unit in headers) + packets[0]
    return packets


def _sample_tables(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes inside the only track's sample table, by name."""
    for kind in _MOVIE_BOXES:
        inside = [payload for name, payload in _boxes(data) if name == kind]
        if len(inside) != 1:
            return
        data = inside[0]
    yield from _boxes(data)


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        if size < 8 or position + size > len(data):
            return
        yield name, data[position + 8 : position + size]
        position += size


def _parameter_sets(stsd: memoryview) -> Iterable[bytes]:
    """SPS and PPS from the sample description; KeyError unless it is one each of AVC video."""
    entry = dict(_boxes(stsd[8:]))[b"avc1"]
    config = dict(_boxes(entry[78:]))[b"avcC"]  # 78: the fixed fields of a video sample entry
    if config[4] & 3 != 3 or config[5] & 31 != 1:  # lengths of 4 bytes, one SPS
        raise KeyError("avcC")
    (sps_size,) = struct.unpack_from(">H", config, 6)
    num_pps, pps_size = struct.unpack_from(">BH", config, 8 + sps_size)
    if num_pps != 1:
        raise KeyError("avcC")
    start = 11 + sps_size
    return bytes(config[8 : 8 + sps_size]), bytes(config[start : start + pps_size])


def encode_flac(samples: NDArray[np.float32], rate: int) -> bytes:
    """Mono sound as 16-bit FLAC; equal samples give equal bytes.

    Args:
        samples: float32 [n] in [-1, 1], n >= 1; what lies outside is clipped.
        rate: samples per second.
    """
    import av

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


def decode_flac(data: bytes | memoryview) -> NDArray[np.float32]:
    """Mono sound from 16-bit FLAC: float32 [n] in [-1, 1).

    Raises:
        ValueError: the bytes are not such a file.
    """
    import av

    try:
        with av.open(io.BytesIO(data), "r", format="flac") as container:
            parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise ValueError(f"{len(data)} bytes are not a FLAC file ({error.strerror})") from None
    if not parts or parts[0].dtype != np.int16:
        raise ValueError(f"{len(data)} bytes of FLAC hold no 16-bit sound")
    return np.concatenate(parts).astype(np.float32) / np.float32(32768)
