"""One model for each talker, evaluated as one result: the mean over talkers.

The paper's speaker-dependent figures are an average over four talkers with a model each
(evaluation.md 2.2: mean over the clips of a talker, then over talkers).
"""

from typing import Any

import numpy as np

from avb.pipeline.errors import UsageError
from avb.train.evaluate.compare import talker_of
from avb.train.evaluate.metrics import speech
from avb.train.evaluate.metrics.intervals import ratio_interval
from avb.train.evaluate.metrics.lip import HITS
from avb.train.evaluate.sentence import errors
from avb.train.evaluate.words.grammar import HEARD, word_error_rate

PARTS = ("ceiling", "real", "both", "floors", "per_slot")
#: Flags that count clips of a talker.
COUNTS = ("no_audio", "silent", "left_out", "words_left_out")


def join(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Records of `evaluate`, one a talker, as one.

    `metrics` are over all clips, as of one model: speech is the mean per talker and then over
    talkers, right words and word errors are pooled.
    The other `PARTS`: means over talkers, without intervals. `models`: all of these of each talker,
    with theirs, and its addressing.
    """
    clips = [clip for record in records for clip in record["clips"]]
    if len({clip["key"] for clip in clips}) < len(clips):
        raise UsageError("two of these checkpoints are evaluated on the same clips: not per talker")
    # Runs by lists of clips name no talkers.
    names = [", ".join(r["flags"]["speakers"] or sorted({*map(talker_of, r["clips"])}))
             for r in records]  # fmt: skip
    names = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    task = records[0]["task"]
    return {
        "task": task,
        "metrics": {"l2s": _speech, "lip": _words, "sentence": _sentences}[task](clips),
        **{part: mean([r[part] for r in records]) for part in PARTS if part in records[0]},
        "models": {
            name: {part: r[part] for part in ("metrics", *PARTS, "addressing") if part in r}
            for name, r in zip(names, records, strict=True)
        },
        "flags": _summed([r["flags"] for r in records])
        | {
            "n": len(clips),
            "speakers": names,
            "per_talker": True,
            "checkpoint_sha256": [r["flags"]["checkpoint_sha256"] for r in records],
        },
        "clips": clips,
    }


def _summed(flags: list[dict[str, Any]]) -> dict[str, Any]:
    """The flags of the first, which are all talkers', with counts of clips over all of them.

    UsageError: their models are of other settings, which the flags would hide.
    """
    for name in ("unit", "boundary", "split", "model"):
        if any(of.get(name) != flags[0].get(name) for of in flags):
            raise UsageError(f"these checkpoints differ in {name}: not one model for each talker")
    found = flags[0] | {
        name: sum(of.get(name, 0) for of in flags)
        for name in COUNTS
        if any(name in f for f in flags)
    }
    for network, saw in (("wer_judge", "judge_saw_test"), ("vocoder", "vocoder_saw_test")):
        if found.get(network):
            seen = [of[network][saw] for of in flags]
            found[network] = found[network] | {saw: None if None in seen else sum(seen)}
    return found


def mean(figures: list[Any]) -> Any:
    """Mean of figures over talkers, in the mappings they come in; None where one has none."""
    first = figures[0]
    if None in figures:
        return None
    if not isinstance(first, dict):
        return float(np.mean(figures))
    if "value" in first:
        return mean([figure["value"] for figure in figures])
    names = [name for name in first if all(name in figure for figure in figures)]
    return {name: mean([figure[name] for figure in figures]) for name in names}


def _speech(clips: list[dict[str, Any]]) -> dict[str, Any]:
    metrics: dict[str, Any] = speech.summarise(clips)["metrics"]
    for name, heard in HEARD.items():
        if own := [clip for clip in clips if heard in clip]:
            said = [clip[heard] for clip in own]
            wer = word_error_rate([clip["words"] for clip in own], said)["wer"]
            left_out = len(clips) - len(own)
            metrics[f"wer_{name}"] = wer | ({"left_out": left_out} if left_out else {})
    return metrics


def _words(clips: list[dict[str, Any]]) -> dict[str, Any]:
    sentences = [clip["key"].split("#")[0] for clip in clips]  # whose words share light and talker
    hits = {name: [float(clip[hit]) for clip in clips] for name, hit in HITS.items()
            if all(hit in clip for clip in clips)}  # fmt: skip
    return {
        name: ratio_interval(values, np.ones(len(clips)), units=sentences)
        for name, values in hits.items()
    }


def _sentences(clips: list[dict[str, Any]]) -> dict[str, Any]:
    said = [clip["words"] for clip in clips]
    ways = [name.removeprefix("heard_") for name in clips[0] if name.startswith("heard_")]
    return {
        f"{name}_{way}": value
        for way in ways
        for name, value in errors(said, [clip[f"heard_{way}"] for clip in clips], None)[0].items()
    }
