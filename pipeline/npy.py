"""Stored mels: the `.npy` files in a shard, read without a copy and without believing them."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray


def parse_npy(data: memoryview) -> NDArray[np.float16] | NDArray[np.uint8]:
    """A float16 or uint8 array from the bytes of a `.npy` file, not copied; never unpickles.

    Raises:
        ValueError: something else.
    """
    if bytes(data[:8]) != b"\x93NUMPY\x01\x00" or len(data) < 10:
        raise ValueError(f"{len(data)} bytes are not a .npy array of format 1.0")
    start = 10 + struct.unpack_from("<H", data, 8)[0]
    shape, fortran, dtype = _parse_header(bytes(data[8:start]))
    if dtype not in (np.float16, np.uint8):
        raise ValueError(f".npy array is {dtype}, expected float16 or uint8")
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f".npy array of shape {shape} in {len(data) - start} bytes")
    return np.frombuffer(data[start:], dtype).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=256)  # one for each length of clip; parsing takes as long as a lips frame
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(header))
    except (TokenError, SyntaxError, TypeError) as error:  # the header is a piece of Python
        raise ValueError(f".npy header is damaged ({error})") from None
