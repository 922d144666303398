"""Networks that LiteRT runs on one core, and 32-bit floats as mediapipe counts with them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from avb.pipeline.clip.facemodels import NO_LITERT, model
from avb.pipeline.errors import UsageError

F = np.float32


@cache
def pixel_values(span: tuple[float, float]) -> np.ndarray:
    """What a network sees for each value of a pixel: float32 [256]."""
    low, high = map(F, span)
    return (np.arange(256) * float((high - low) / F(255)) + float(low)).astype(F)


def score_of(logit: np.ndarray) -> np.ndarray:
    """0 to 1; the exponential is rounded from 64 bits, as the C library's is."""
    return F(1) / (F(1) + np.exp(-np.clip(logit, -80, 80).astype(np.float64)).astype(F))


def _float_of(name: str, otherwise: Callable[..., float]) -> Callable[..., np.floating[Any]]:
    """A function of the C library in 32-bit floats, as mediapipe calls it.

    Rounded from 64 bits, as where there is none of that name, it is another float now and then.
    """
    function: Any = getattr(ctypes.CDLL(None), f"{name}f", otherwise)
    if function is not otherwise:
        count = 2 if name == "atan2" else 1
        function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float] * count
    return lambda *values: F(function(*map(float, values)))


cos32, sin32 = _float_of("cos", math.cos), _float_of("sin", math.sin)
atan2_32 = _float_of("atan2", math.atan2)


class Network:
    """A model that LiteRT runs on one core."""

    def __init__(self, name: str):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UsageError(f"{NO_LITERT} ({error})") from None
        self._runtime = Interpreter(model_content=model(name), num_threads=1)
        self._runtime.allocate_tensors()
        (source,) = self._runtime.get_input_details()
        self._source = self._runtime.tensor(source["index"])
        # The larger one is what it says, the smaller how certain it is.
        outputs = self._runtime.get_output_details()
        self._outputs = [o["index"] for o in sorted(outputs, key=lambda o: -np.prod(o["shape"]))]

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        """What it makes of a picture [side, side(, 3)] of float32, in its range."""
        self._source()[0] = picture if picture.ndim == 3 else picture[:, :, None]
        self._runtime.invoke()
        return [self._runtime.get_tensor(index) for index in self._outputs]


@cache
def network(name: str) -> Network:
    """A model of this process, loaded once: all that use it share it."""
    return Network(name)
