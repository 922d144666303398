"""Files of raters of the listening test, as its page writes them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from avb.pipeline.corpora.grid import words_of
from avb.tools.listen import score
from avb.train.evaluate.words.grammar import SLOT_NAMES

TRUE = {"secretmemory": 4, "secretbaseline": 3, "real": 5, "griffin_lim": 4, "floor": 1}


def answer(key: Any, folder: Path, rater: str, seed: int, **oddity: Any) -> Path:
    """The file of a rater who hears one word wrong of the baseline and none of the floor."""
    rng = np.random.default_rng([seed, len(rater)])
    rows, given = [], {}
    clips, repeats = key["orders"][seed]
    kinds = [("practice", c) for c in key["practice"]]
    kinds += [("test", c) for c in clips] + [("repeat", c) for c in repeats]
    off = oddity.get("repeats_off", 0)
    for position, (kind, one) in enumerate(kinds):
        system = key["clips"][one]["system"]
        words = words_of(key["clips"][one]["key"][3:])
        if system == "floor":
            words = [""] * 6
        elif system == "secretbaseline":
            words = [*words[:3], "q" if words[3] != "q" else "z", *words[4:]]
        mean = oddity.get(system, TRUE[system])
        scores = [int(np.clip(mean + rng.integers(-1, 2), 1, 5)) for _ in range(2)]
        if kind == "repeat":
            scores = list(given[one])
            if off:
                scores[off % 2] += 2 if scores[off % 2] < 4 else -2
                off -= 1
        given[one] = scores
        rows.append([rater, seed, position, kind, one, *words, *scores, 1, 2.5, "yes", "no", "t"])
    path = folder / f"{rater}.csv"
    columns = ["rater", "seed", "position", "kind", "clip", *SLOT_NAMES, *score.SCALES, "plays"]
    columns += ["play_to_answer_s", "headphones", "native", "time", "page_hash"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        writer.writerows([*row, key["page_hash"]] for row in rows[: oddity.get("rows")])
    return path
