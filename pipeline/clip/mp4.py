"""The boxes of a stored `.mp4`: its frames without a container reader, or why it is refused."""

import re
import struct
from collections.abc import Iterable, Iterator

START_CODE = b"\0\0\0\1"
_MOVIE_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_COUNTED = re.compile(rb"stsz|stz2|stts|ctts|elst|moof|cmov")
_MOST_EDITS = 8


def read_own_mp4(data: bytes | memoryview) -> list[bytes] | None:
    """One Annex-B packet a frame of an mp4 as `encode_video` writes it (one chunk), else None.

    Reading the few boxes here instead of opening a container takes 0.05 ms instead of 1 ms a clip.
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
        packets.append(START_CODE + data[position + 4 : position + size])
        position += size
    packets[0] = b"".join(START_CODE + unit for unit in headers) + packets[0]
    return packets


def _sample_tables(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes inside the only track's sample table, by name."""
    for kind in _MOVIE_BOXES:
        inside = [payload for name, payload in _boxes(data) if name == kind]
        if len(inside) != 1:
            return
        data = inside[0]
    yield from _boxes(data)


def _boxes(data: memoryview, damaged: bool = False) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each box; where one is damaged, all that is left if it is wanted."""
    position = 0
    while position + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        if size < 8 or position + size > len(data):
            if damaged:
                yield b"", data[position:]
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


def check_counts(data: bytes | memoryview) -> None:
    """Refuse a movie that announces more than it can hold, before a reader makes room for it.

    FFmpeg takes 24 bytes for each sample that a table announces, and a table of 20 bytes can
    announce 2^32 of one size. It looks for tables in boxes of any kind but `mdat`; so does this.
    ValueError: so it is, or it is in fragments or packed, where the counts cannot be seen.
    """
    data, size = memoryview(data), len(data)
    for name, box in _boxes(data, damaged=True):
        for match in _COUNTED.finditer(box) if name != b"mdat" else ():
            kind, rest = match[0], box[match.end() :]
            if kind in (b"moof", b"cmov"):
                raise ValueError("mp4 video in fragments or with a packed index; store a plain one")
            if (count := _announced(kind, rest)) > (_MOST_EDITS if kind == b"elst" else size):
                raise ValueError(f"mp4 video announces {count} of {kind.decode()} in {size} bytes")


def _announced(name: bytes, box: memoryview) -> int:
    """How many samples (or edits) a table announces."""
    try:
        if name in (b"stsz", b"stz2"):
            return struct.unpack_from(">I", box, 8)[0]
        (runs,) = struct.unpack_from(">I", box, 4)
        if name == b"elst":
            return runs
        runs = min(runs, (len(box) - 8) // 8)
        return sum(struct.unpack_from(f">{2 * runs}I", box, 8)[::2])
    except struct.error:  # it is cut, and a reader will say so
        return 0
