"""What a film says of itself before anything is decoded, and what it may not open."""

import functools
import io
import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import av
from av.stream import Disposition

from avb.pipeline.clip.media import MAX_PIXELS
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.timeline import CODED_ORDER

#: Containers without an index: a seek lands near the wanted time, but at no picture that stands
#: alone. Broadcast and disc streams have one at least every half second.
UNINDEXED = {"mpeg", "mpegts"}
PREROLL_S = 2.0
#: Pixels this close to square are taken as they are; beyond these limits the film says nonsense.
SQUARE, MAX_SAR = 0.02, 5
#: Formats that name other files, which a film from outside has no business to open.
NAMING = set(
    "hls dash concat concatf imf image2 sdp rtsp rtp lavfi webm_dash_manifest avisynth vapoursynth"
    " dvdvideo".split()
)
#: How files begin that name others, in whatever format they are taken for.
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0", b"[playlist]")
#: Whether a film without sound is refused.
Track = Literal["required", "optional"]

#: What a reader gives: kind ("picture", "sound" or "damage"), stamp and duration in seconds, and
#: what makes the picture, or (block [channels, n], rate, channel names).
Event = tuple[str, float | None, float, Any]


@dataclass(frozen=True)
class Head:
    """What a film says of itself, and which of its tracks are read."""

    source: str  # what FFmpeg is given: a path or an address
    name: str  # for messages
    form: str  # the container's name
    video: int | None  # number of the video stream; None if its pictures are not wanted
    audio: int | None  # number of the audio stream; None if there is none, or it is not wanted
    start_s: float  # the first stamp of the pictures
    zero_s: float  # that of the file
    duration_s: float | None  # of its pictures, in seconds; None if it does not say
    codec: str  # of its pictures
    sar: float  # width of a pixel in heights
    channels: tuple[str, ...]  # names of the sound's channels
    remote: bool = False  # whether it is an address

    @property
    def seekable(self) -> bool:
        """Whether a seek lands where it should."""
        return self.form not in UNINDEXED | CODED_ORDER

    @property
    def kinds(self) -> set[str]:
        """The kinds of events that are wanted."""
        streams = {"picture": self.video, "sound": self.audio}
        return {kind for kind, number in streams.items() if number is not None}


def text_options() -> dict[str, Any]:
    """Of `av.open`: text that is no UTF-8 is replaced. Before PyAV 19 it ended the reading."""
    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(source: str, remote: bool = False, **options: Any) -> Any:
    """An opened film, which opens no other file; OSError where FFmpeg does not know or get it."""
    return av.open(source, options=limits(remote), **text_options(), **options)


@functools.cache
def limits(remote: bool = False) -> dict[str, str]:
    """Options of FFmpeg: all formats but those that name other files, and no address but its own.

    Not to be changed: it is made once.
    """
    formats = {"format_whitelist": ",".join(sorted(av.formats_available - NAMING))}
    return formats if remote else formats | {"protocol_whitelist": "file"}


def read_head(
    source: str, name: str, *, sound: Track = "required", remote: bool = False, **options: Any
) -> Head:
    """What a film says of itself: of several tracks those that a player takes."""
    container, head = open_head(source, name, sound, remote, **options)
    container.close()
    return head


def open_head(
    source: str, name: str, sound: Track, remote: bool = False, **options: Any
) -> tuple[Any, Head]:
    """As `read_head`, and the opened film: opening one takes a tenth of the time of a clip."""
    try:
        container = open_container(source, remote, **options)
        if not remote and (at := second_recording(source, container.format.name)):
            raise Refused(
                "bad_decode",
                f"{name}: another recording begins at byte {at}, and only the first would be read;"
                " cut the file there, or join the two by ffmpeg -f concat",
            )
        return container, _head_of(container, source, name, sound, remote)
    except (av.FFmpegError, ValueError) as error:  # ValueError: metadata that is no text
        if not remote:
            check_readable(source)
            _refuse_playlist(source, name)
        reason = getattr(error, "strerror", None) or error
        raise Refused("bad_decode", f"{name}: not a video ({reason})") from None


def _head_of(container: Any, source: str, name: str, sound: Track, remote: bool) -> Head:
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        cover = " but a cover picture" if container.streams.video else ""
        raise Refused("bad_decode", f"{name}: no video stream{cover}")
    video = _chosen(films)
    if video.codec_context is None:
        raise Refused("bad_decode", f"{name}: video that no decoder here knows")
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > MAX_PIXELS:
        raise Refused(
            "bad_decode",
            f"{name}: pictures of {width} x {height}; at most 8192 x 4320 are decoded, shrink it",
        )
    audio = _chosen(container.streams.audio) if container.streams.audio else None
    if sound == "required" and (audio is None or audio.codec_context is None):
        lacks = "no sound track" if audio is None else "audio that no decoder here knows"
        raise Refused("no_audio", f"{name}: {lacks}")
    if audio is not None and audio.codec_context is None:
        audio = None
    sar = float(video.sample_aspect_ratio or 1)
    nearly = abs(sar - 1) < SQUARE
    duration_s = container.duration / 1e6 if container.duration else None
    if video.duration and video.time_base:
        duration_s = float(video.duration * video.time_base)
    return Head(
        source=source,
        name=name,
        form=container.format.name,
        video=video.index,
        audio=None if audio is None else audio.index,
        start_s=float(video.start_time * video.time_base) if video.start_time else 0.0,
        zero_s=(container.start_time or 0) / 1e6,
        duration_s=duration_s,
        codec=video.codec_context.name,
        sar=1.0 if nearly or not 1 / MAX_SAR <= sar <= MAX_SAR else sar,
        channels=tuple(c.name for c in audio.codec_context.layout.channels) if audio else (),
        remote=remote,
    )


def _chosen(streams: Any) -> Any:
    """The stream that a player takes: the default one, else the first."""
    known = [stream for stream in streams if stream.codec_context is not None] or list(streams)
    return next((s for s in known if s.disposition & Disposition.default), known[0])


def check_readable(source: str) -> None:
    """Raise the disk's OSError if the fault is its own and not the film's: read all of it."""
    with suppress(FileNotFoundError), open(source.removeprefix("file:"), "rb") as file:
        while file.read(1 << 20):
            pass


def second_recording(source: str, form: str) -> int:
    """Where files laid end to end meet, in bytes, in a container that ends with the first; or 0."""
    with open(source.removeprefix("file:"), "rb", buffering=0) as file:  # few bytes are read
        if "mp4" in form:
            return _second_index(file)
        if form not in ("ogg", "flv", "asf"):
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if form == "ogg":  # all tracks of a recording begin before the first goes on
                return max(0, data.find(b"OggS\0\2", max(0, data.find(b"OggS\0\0"))))
            return max(0, data.find(data[:13], 1))


def _second_index(file: io.FileIO) -> int:
    """Where an mp4 has a kind of box again that it has once."""
    seen, at, end = set(), 0, os.fstat(file.fileno()).st_size
    while len(head := file.read(16)) >= 8:
        size, kind = struct.unpack_from(">I4s", head)
        if kind in seen:
            return at
        seen |= {kind} & {b"ftyp", b"moov"}
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        if not 8 <= size <= end - at:  # to the end, or damage
            break
        at = file.seek(at + size)
    return 0


def _refuse_playlist(source: str, name: str) -> None:
    with open(source.removeprefix("file:"), "rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(PLAYLISTS):
        raise Refused("bad_decode", f"{name}: a list of other files and no video; name the video")
