"""What can go wrong, by who has to act, and how a fault is said in one line."""

import reprlib
from typing import Any


class UsageError(Exception):
    """The user asked for something that cannot be; one line says what, and what to do (exit 2)."""


class RunError(Exception):
    """The run could not go on; finished shards are kept, and the line says what to do (exit 1)."""


class StorageError(Exception):
    """A store or bucket did not do what was asked; the line says which, and what to do (exit 1)."""


def one_line(error: object) -> str:
    """What an error says, in one line that is not long and can be read."""
    text = " ".join(str(error).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shown(value: Any) -> str:
    """A value as it is written in Python, in one line that can be read."""
    try:
        text = " ".join(reprlib.repr(value).split())
        return text if len(text) <= 200 else f"{text[:200]}..."
    except ValueError:  # Python does not write a number of more than 4300 digits
        return "a number of thousands of digits"
