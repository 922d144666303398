"""`avb listen`: sounds of several systems as one page to rate them on, and its key."""

import base64
import hashlib
import json
import logging
import wave
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.corpora.grid import words_of
from avb.pipeline.errors import UsageError
from avb.pipeline.files import write_atomic
from avb.tools.listen.level import to_level
from avb.tools.listen.order import rating_order
from avb.train.checks import check_writable, writing
from avb.train.evaluate.metrics.bounds import fit_length, speech_shaped_noise
from avb.train.evaluate.metrics.speech import RATE, Sound
from avb.train.evaluate.wav import wav_bytes
from avb.train.evaluate.words.grammar import SLOT_NAMES, SLOT_WORDS
from avb.train.vocoder.file import Vocoder

log = logging.getLogger(__name__)
#: What every test has beside the systems it is about.
REAL, CEILING, FLOOR = "real", "griffin_lim", "floor"
VOCODER = "vocoder"
PRACTICE = 3
#: Orders in a page; a rater's seed is the number of one.
ORDERS = 200
_FULL_SCALE = 32768


def parse(texts: Sequence[str], taken: Sequence[str]) -> dict[str, Path]:
    """Folders by system, from `name=FOLDER` or a folder called as the system; no name `taken`.

    They hold `KEY.model.wav`, as `avb eval l2s --save-wavs` writes them.
    """
    pairs = []
    for text in texts:
        name, sign, folder = text.partition("=")
        path = Path(folder if sign else text)
        pairs.append((name if sign else path.resolve().name, path))
        if not path.is_dir():
            raise UsageError(f"{path}: no such folder (avb eval l2s --save-wavs makes one)")
    names = [name for name, _ in pairs]
    for name in names:
        if not name or name in taken or names.count(name) > 1:
            raise UsageError(f"system {name!r}: give each its own name, name=FOLDER")
    return dict(pairs)


def build(
    systems: dict[str, Path], out: Path, clips: int, seed: int,
    vocoder: Vocoder | None = None,
) -> Path:  # fmt: skip
    """Write the page to `out` and its key beside it, where none is; returns the key's path.

    Each of `clips` sentences is said by each system, by the real talker, by Griffin-Lim of the true
    mel and by noise of the talker's spectrum; with a `vocoder`, by the true mel through it too. All
    clips have an active level of -26 dBov, one
    length and 16 kHz. Sentences are drawn from all talkers alike; those of the practice are not in
    the test. `seed` decides what is drawn, and the ids.
    """
    key_file = out.with_suffix(".key.json")
    if key_file.exists():
        raise UsageError(f"{key_file}: the key of another test; choose another --out, or delete it")
    check_writable(out)
    keys = choose(common_keys([*systems.values()]), clips + PRACTICE, seed)
    practice, tested = keys[:PRACTICE], keys[PRACTICE:]
    names = [*systems, REAL, CEILING, FLOOR, *([VOCODER] if vocoder else [])]
    try:
        orders = [rating_order(len(names), len(tested), s) for s in range(ORDERS)]
    except ValueError as error:
        raise UsageError(f"{error} (--clips)") from None
    sounds = load(systems, keys, vocoder)
    rng = np.random.default_rng([seed, len(keys)])
    heard = [(name, key) for key in tested for name in names]
    # The best, a model and the worst: raters hear the range before they rate.
    heard += list(zip((REAL, names[0], FLOOR), practice, strict=True))
    # A click may stand so high above the rest that 16 bits do not hold it.
    if quiet := [f"{key} of {name}" for name, key in heard if np.abs(sounds[name, key]).max() > 1]:
        log.info(f"note: with peaks too high for their level, {len(quiet)} clips are quieter than"
                 f" the others: {', '.join(quiet[:5])}")  # fmt: skip
    # Names that say nothing: eight hexadecimal digits each.
    numbers = rng.choice(2**32, len(heard), replace=False)
    ids = {clip: f"{number:08x}" for clip, number in zip(heard, numbers, strict=True)}
    test = {
        "clips": {
            one: {
                "words": spoken(key),
                "wav": base64.b64encode(wav_bytes(sounds[name, key])).decode(),
            }
            for (name, key), one in sorted(ids.items(), key=lambda item: item[1])
        },
        "slots": dict(zip(SLOT_NAMES, SLOT_WORDS, strict=True)),
        "practice": [ids[clip] for clip in heard[-PRACTICE:]],
        "orders": [
            [[ids[names[i], tested[j]] for i, j in part] for part in (order, again)]
            for order, again in orders
        ],
    }
    page, page_hash = render(test)
    key = {
        "page_hash": page_hash,
        "systems": names,
        "folders": {name: str(folder) for name, folder in systems.items()},
        "clips": {one: {"system": name, "key": key} for (name, key), one in ids.items()},
        "practice": test["practice"],
        "orders": test["orders"],
        "seed": seed,
    }
    with writing(out):  # the key first: ratings of a page without it are lost
        write_atomic(key_file, (json.dumps(key) + "\n").encode())
        write_atomic(out, page.encode())
    return key_file


def render(test: dict[str, Any]) -> tuple[str, str]:
    """The page with a test in it, and the hash of the page without its hash."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    page = template.replace("@TEST@", json.dumps(test).replace("</", "<\\/"))
    digest = hashlib.sha256(page.encode()).hexdigest()
    return page.replace("@HASH@", digest), digest


def common_keys(folders: Sequence[Path]) -> list[str]:
    """Keys whose sound each system has, with the real one and the ceiling in the first folder."""

    def keys(folder: Path, signal: str) -> set[str]:
        ending = f".{signal}.wav"
        paths = folder.rglob(f"*{ending}")
        return {path.relative_to(folder).as_posix().removesuffix(ending) for path in paths}

    common = keys(folders[0], "real") & keys(folders[0], "griffin_lim")
    return sorted(common.intersection(*(keys(folder, "model") for folder in folders)))


def choose(keys: Sequence[str], count: int, seed: int) -> list[str]:
    """So many keys, talkers in turn."""
    if len(keys) < count:
        raise UsageError(
            f"{len(keys)} sentences are in all folders, and {count} are needed with the"
            f" {PRACTICE} of the practice; evaluate more clips"
        )
    rng = np.random.default_rng(seed)
    talkers: dict[str, list[str]] = {}
    for key in (keys[i] for i in rng.permutation(len(keys))):
        talkers.setdefault(key.rpartition("/")[0], []).append(key)
    turns = [(place, key) for own in talkers.values() for place, key in enumerate(own)]
    return [key for _, key in sorted(turns, key=lambda turn: turn[0])][:count]


def spoken(key: str) -> list[str]:
    """The six words of a clip; KeyError or ValueError: it is no sentence of GRID."""
    return words_of(key.rpartition("/")[2])


def load(
    systems: dict[str, Path], keys: Sequence[str], vocoder: Vocoder | None
) -> dict[tuple[str, str], Sound]:
    """Sounds by (system, key), at one level and of one length."""
    sounds: dict[tuple[str, str], Sound] = {}
    first = next(iter(systems.values()))
    for key in keys:
        try:
            spoken(key)
        except (KeyError, ValueError):
            raise UsageError(f"{key}: no GRID sentence; the six drop-downs need one") from None
        real = [read_wav(folder / f"{key}.real.wav") for folder in systems.values()]
        if any(not np.array_equal(real[0], other) for other in real[1:]):
            raise UsageError(f"{key}: the folders differ in the real sound; are they of one test?")
        sounds[REAL, key] = real[0]
        sounds[CEILING, key] = read_wav(first / f"{key}.griffin_lim.wav")
        for name, folder in systems.items():
            sounds[name, key] = read_wav(folder / f"{key}.model.wav")
    if vocoder is not None:
        made = vocoder.copies([sounds[REAL, key] for key in keys])
        sounds |= {(VOCODER, key): sound for key, sound in zip(keys, made, strict=True)}
    talkers = [key.rpartition("/")[0] for key in keys]
    noises = speech_shaped_noise([sounds[REAL, key] for key in keys], talkers)
    sounds |= {(FLOOR, key): noise for key, noise in zip(keys, noises, strict=True)}
    shortest = {k: min(len(s) for (_, key), s in sounds.items() if key == k) for k in keys}
    longest = max(shortest.values())
    levelled = {}
    for (name, key), sound in sounds.items():
        try:
            # Cut alike first, so that no system is known by where it ends.
            levelled[name, key] = fit_length(to_level(sound[: shortest[key]]), longest)
        except ValueError as error:
            raise UsageError(f"{key} of {name}: {error}") from None
    return levelled


def read_wav(path: Path) -> Sound:
    """A 16-bit mono file at 16 kHz, float32 [n]."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    if kind != (1, 2, RATE):
        raise UsageError(f"{path}: expected mono, 16 bit, {RATE} Hz; found {kind}")
    return np.asarray(np.frombuffer(data, "<i2") / _FULL_SCALE, np.float32)
