"""What is known of a clip, as it stands beside its pictures: the member `json` of a sample.

Every clip has the same keys with the same types, and no list in it is empty: what reads many of
them (Arrow, and with it Hugging Face `datasets`) takes the types from the first few clips alone,
and a null or an empty list has none. So what is not known is "" or -1, a time -1.0. Shards of
format 1 held nulls, and words as `[word, start, end]`; they are read as well.
"""

import json
from collections.abc import Sequence
from typing import Any

from avb.pipeline.parse import parse_json

#: The format of the shards: 2 since words are objects and nothing is null.
FORMAT = 2
#: Of preparing a clip, each with its milliseconds in the manifest.
STAGES = ("decode", "track", "crop", "mel", "encode", "shard")
_TEXTS = ("split", "speaker", "label")
_NO_TIME = -1.0


def write_facts(facts: dict[str, Any]) -> bytes:
    """The member `json` of a clip; None for what is not known.

    `words` are (word, start, end), `boundary` (start, end) or None, `flags` a list.
    """
    words = [_object(*word) for word in facts["words"]] or [_object("", None, None)]
    stored = facts | {name: facts[name] or "" for name in _TEXTS}
    stored |= {
        "label_id": -1 if facts["label_id"] is None else facts["label_id"],
        "words": words,
        # A word whose place is not known lies somewhere in its clip.
        "boundary": [float(time) for time in facts["boundary"] or (0.0, facts["duration"])],
        "flags": " ".join(facts["flags"]),
    }
    text = json.dumps(stored, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _object(word: str, start: float | None, end: float | None) -> dict[str, Any]:
    times = [_NO_TIME if time is None else float(time) for time in (start, end)]
    return {"word": word, "start": times[0], "end": times[1]}


def read_facts(data: bytes | memoryview) -> dict[str, Any]:
    """The member `json` of a clip of any format, as `write_facts` takes it; else ValueError."""
    try:
        facts = parse_json(bytes(data))
        if not isinstance(facts, dict):
            raise ValueError("json holds no object")
        facts |= {name: facts[name] or None for name in _TEXTS if name in facts}
        if facts.get("label_id") == -1:
            facts["label_id"] = None
        if isinstance(facts.get("flags"), str):
            facts["flags"] = facts["flags"].split()
        if "words" in facts:
            facts["words"] = _words(facts["words"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"json is none of a clip ({type(error).__name__}: {error})") from None
    return facts


def _words(stored: Sequence[Any]) -> list[tuple[str, float | None, float | None]]:
    if stored and not isinstance(stored[0], dict):  # format 1
        return [(word, start, end) for word, start, end in stored]
    return [
        (item["word"], *(None if time < 0 else time for time in (item["start"], item["end"])))
        for item in stored
        if item["word"]
    ]
