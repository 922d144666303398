"""Stored mels: the `.npy` files in a shard, read without a copy and without believing them."""

import math
import re
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A header is a piece of Python. numpy evaluates it, which a hostile one makes run out of memory;
# it is always written in this form.
_SIZE = rb"(?:0|[1-9]\d{0,14})"
_HEADER = re.compile(
    rb"\{'descr': ('[^']{1,20}'|\[.{1,200}\]), 'fortran_order': (True|False), "
    rb"'shape': \((|%b,|(?:%b, ){1,7}%b)\), \} *\n?" % (_SIZE, _SIZE, _SIZE)
)
_DTYPES: dict[bytes, np.dtype[Any]] = {b"'<f2'": np.dtype(np.float16), b"'|u1'": np.dtype(np.uint8)}


def parse_npy(data: memoryview) -> NDArray[np.float16] | NDArray[np.uint8]:
    """A float16 or uint8 array of a `.npy` file, not copied; ValueError for anything else."""
    if bytes(data[:8]) != b"\x93NUMPY\x01\x00" or len(data) < 10:
        raise ValueError(f"{len(data)} bytes are not a .npy array of format 1.0")
    start = 10 + struct.unpack_from("<H", data, 8)[0]
    shape, fortran, dtype = _parse_header(bytes(data[10:start]))
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f".npy array of shape {shape} in {len(data) - start} bytes")
    return np.frombuffer(data[start:], dtype).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=256)  # one for each length of clip
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError(".npy header is damaged, or not as numpy writes it")
    kind, order, numbers = match.groups()
    if kind not in _DTYPES:
        raise ValueError(
            f".npy array is {kind.decode(errors='replace')}, expected float16 or uint8"
        )
    shape = tuple(map(int, re.findall(rb"\d+", numbers)))
    return shape, bool(order == b"True"), _DTYPES[kind]
