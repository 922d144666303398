"""Speech with known word and phoneme times, from the espeak-ng library inside `espeakng-loader`.

No program is started and nothing has to be installed as root: the wheel holds the shared library
and its voices, this is the small part of its C interface (speak_lib.h) that is needed here.
"""

import ctypes
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import resample_poly

SAMPLE_RATE = 16000

# speak_lib.h
_OUTPUT_SYNCHRONOUS = 2
_INIT_PHONEME_EVENTS = 0x0001
_INIT_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PHONEMES_IN_BRACKETS = 0x100
_POS_CHARACTER = 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_EVENT_WORD, _EVENT_PHONEME = 1, 7


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)

Span = tuple[str, float, float]  # what, start and end in seconds
_Start = tuple[int, int, int, float, str]  # event type, position and length in the text, s, phoneme


@dataclass(frozen=True)
class Speech:
    """What was said and when."""

    samples: np.ndarray  # float32 `[N]` in -1..1 at 16 kHz
    # (word as written, start_s, end_s), in order; a word ends where its sound does
    words: list[Span]
    phonemes: list[Span]  # (espeak mnemonic, start_s, end_s) without gaps; pauses begin with `_`

    @property
    def duration_s(self) -> float:
        """Length of the sound in seconds."""
        return len(self.samples) / SAMPLE_RATE


def speak(text: str, voice: str = "en", pitch: int = 50, rate: int = 160) -> Speech:
    """Speaks one text; the same arguments always give the same samples.

    A part in double square brackets is read as espeak phonemes. `voice` may have a variant,
    `en-us+f3`; `cmn` is Mandarin. `pitch` is 0 to 100, `rate` words a minute.
    """
    settings = {_PARAMETER_RATE: rate, _PARAMETER_PITCH: pitch, _PARAMETER_RANGE: 50}
    chunks, events, rate_hz = _synthesise(text, voice, settings)
    if not chunks:
        raise ValueError(f"text {text!r}: voice {voice!r} gave no sound")
    wave = np.concatenate(chunks).astype(np.float32) / 32768
    divisor = math.gcd(SAMPLE_RATE, rate_hz)
    wave = resample_poly(wave, SAMPLE_RATE // divisor, rate_hz // divisor).astype(np.float32)
    return _timed(text, wave, events)


def _synthesise(
    text: str, voice: str, settings: dict[int, int]
) -> tuple[list[np.ndarray], list[_Start], int]:
    """Runs espeak-ng once: pieces of int16 sound, where things start, and the sampling rate."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "avb synth speaks with espeak-ng, which is not installed: pip install espeakng-loader"
        ) from error
    data_path = espeakng_loader.get_data_path()
    chunks: list[np.ndarray] = []
    events: list[_Start] = []

    def collect(wave: ctypes._Pointer, count: int, event: Any) -> int:
        if wave and count:
            chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        for e in itertools.takewhile(lambda e: e.type, event):  # the list ends with type 0
            name = e.id.string.decode("utf-8", "replace") if e.type == _EVENT_PHONEME else ""
            events.append((e.type, e.text_position, e.length, e.audio_position / 1000, name))
        return 0

    # Two things make a second call sound different, even in length. The oscillators' phases live in
    # static variables that neither espeak_Initialize nor espeak_Terminate resets: loading the
    # library anew for each text (1 ms) does. And the breath of some voices is random, seeded by
    # espeak_Initialize with the second of the day.
    libc = ctypes.CDLL(None)
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    callback = _Callback(collect)
    try:
        options = _INIT_PHONEME_EVENTS | _INIT_DONT_EXIT
        rate_hz = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data_path.encode(), options)
        if rate_hz <= 0:
            raise ValueError(f"{data_path}: espeak-ng did not start; reinstall espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"voice {voice!r}: espeak-ng has no such voice")
        library.espeak_SetSynthCallback(callback)
        for parameter, value in settings.items():
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        flags = _CHARS_UTF8 | _PHONEMES_IN_BRACKETS
        library.espeak_Synth(data, len(data) + 1, 0, _POS_CHARACTER, 0, flags, None, None)
        library.espeak_Terminate()
    finally:
        libc.dlclose(ctypes.c_void_p(library._handle))
    return chunks, events, rate_hz


def _timed(text: str, samples: np.ndarray, events: list[_Start]) -> Speech:
    """Turns start events into spans."""
    end_s = len(samples) / SAMPLE_RATE
    heard = [(name, at) for kind, _, _, at, name in events if kind == _EVENT_PHONEME and name]
    ends = [at for _, at in heard[1:]] + [end_s]
    phonemes = [(name, at, end) for (name, at), end in zip(heard, ends, strict=True)]

    started = [
        (text[position - 1 : position - 1 + length], at)
        for kind, position, length, at, _ in events
        if kind == _EVENT_WORD
    ]
    words = []
    for index, (word, start) in enumerate(started):
        limit = started[index + 1][1] if index + 1 < len(started) else end_s
        voiced = [e for p, s, e in phonemes if start - 0.02 <= s < limit and not p.startswith("_")]
        words.append((word, start, min(max(voiced), limit) if voiced else limit))
    return Speech(samples, words, phonemes)
