"""`avb eval`: one pass of a checkpoint over a part of its split, as one JSON record.

It holds every flag that a number needs to be compared, the per-clip values that the means are
derived from, and the ceiling and floors on the same clips.
"""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from avb.models.masks import Boundary
from avb.pipeline.clip.facemodels import version_of
from avb.pipeline.config import Corpus, name_hash, talkers_as_stored
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, Ints
from avb.train.evaluate import addressing
from avb.train.evaluate.extras import Extras
from avb.train.evaluate.stored_mels import front_end
from avb.train.evaluate.words import trained
from avb.train.evaluate.words.reading import Slots, own_grammar
from avb.train.kept import sample_rate
from avb.train.network import Loaded, check_shards, load_network
from avb.train.recipe import Recipe
from avb.train.split import split_rows
from avb.train.tasks.task import Evaluation, find_task
from avb.train.vocoder.file import load as load_vocoder

log = logging.getLogger(__name__)
METERS = ("pystoi", "pesq", "jiwer", "pocketsphinx")


def evaluate(
    kind: str, path: Path, index: Index, corpus: Corpus, part: str = "test", device: str = "cpu",
    limit: int | None = None, *, judge: Path | None = None, wavs: Path | None = None,
    windows: str | None = None, boundary: Boundary = "told", vocoder: Path | None = None,
    grammar: Slots | None = None, griffin_lim: Literal["fast", "published"] = "fast",
    speakers: list[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate the checkpoint `path` of a task on one part (train, val, test or all) of its split.

    The clips are those of the checkpoint's own split, talkers (or `speakers`) or list, at most
    `limit`; `all` of another corpus is all that it has. Of speech: `judge`, a file of `avb train
    judge`, for the word error; `wavs`, a folder for the sounds that are scored; `windows` of 40
    frames, see `Extras`; `vocoder`, a file of `avb train vocoder`; `griffin_lim` as it is
    published. Of words: `boundary`, see `boundary_as`. Of sentences: `grammar`, else the corpus's.
    """
    speakers = speakers and talkers_as_stored(index.dataset["corpus"], speakers)
    evaluation, loaded = open_part(kind, path, index, corpus, part, device, speakers)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()  # before a training replaces the file
    recipe, data, task = loaded.recipe, loaded.data, evaluation.task
    index, rows = evaluation.index, evaluation.rows
    mute, silent = int(index.no_audio[rows].sum()), int(index.silent[rows].sum())
    if task.needs_target_sound:
        rows = rows[~index.no_audio[rows]]
    if mute or silent:
        left = "left out" if task.needs_target_sound else "seen, not heard"
        log.info(f"{mute} of these clips have no sound track ({left}), {silent} are silent")
    if not rows.size:
        raise UsageError(f"{index.folder}: no clip of {part} is left to be measured")
    rows = sample(index, rows, limit)
    evaluation = dataclasses.replace(evaluation, rows=rows)
    away = elsewhere(loaded, index, part)
    known_rows = np.arange(0) if away else part_rows(index, corpus, data, "train", need=False)
    asked = speakers or (None if away else data.get("speakers"))
    strangers = unseen_talkers(index, rows, known_rows, data.get("speakers"), away)
    torch.manual_seed(0)  # the pre-net's dropout stays on
    # float32 as on a CPU: by default a GPU's convolutions round to TF32.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.no_grad(), exact:
        heard_by = None if judge is None else trained.load(judge, index, device)
        heard = front_end(index), sample_rate(index), index.folder, device
        made_by = None if vocoder is None else load_vocoder(vocoder, *heard)
        extras = Extras(
            heard_by, wavs, strangers, known_rows, told(boundary, recipe, path), windows,
            sayable(grammar, corpus, index, recipe, path), made_by, griffin_lim
        )  # fmt: skip
        record = task.measure(evaluation, extras)
        record["addressing"] = addressing.measure(evaluation)
    record["flags"] |= {
        "part": part,
        "split": data["split"],
        "split_source": data["split_source"],
        **clip_flags(index, rows, known_rows, asked, limit),
        **({"left_out": evaluation.left_out} if evaluation.left_out else {}),
        "no_audio": mute,
        "silent": silent,
        "sync": index.dataset["settings"].get("sync"),  # the table that its sound was moved by
        "intervals": "of talkers drawn, then clips" if strangers else "of clips drawn",
        "checkpoint_sha256": sha256,
        "step": loaded.step,
        "seed": recipe.seed,
        "slots": recipe.model.get("slots", "default"),
        "model": recipe.model,
        "init": (data.get("init") or {}).get("task"),  # whose weights it began with
        "fingerprint": index.dataset["fingerprint"],
        "trained_on": data["fingerprint"],
        "device": device,
        "torch": str(torch.__version__),
        "versions": {name: number for name in METERS if (number := version_of(name))},
    }
    return record


def sample(index: Index, rows: Ints, limit: int | None) -> Ints:
    """At most so many, of all talkers, and the same each time: those of the lowest hashes."""
    if limit is None:
        return rows
    by_hash = sorted(rows, key=lambda row: (name_hash(index.key(row)), index.key(row)))
    return np.sort(np.array(by_hash[:limit], int))


def clip_flags(
    index: Index, rows: Ints, known_rows: Ints, asked: list[str] | None, limit: int | None
) -> dict[str, Any]:
    """Whose clips are measured, where talkers were asked for; how many of all taught it too."""
    talkers = {index.speaker[row] for row in rows} - {None}
    taught = talkers & {index.speaker[row] for row in known_rows}
    return {
        "speakers": asked and [name for name in asked if name in talkers],
        "talkers_taught": len(taught),
        "limit": limit,
    }


def told(boundary: Boundary, recipe: Recipe, path: Path) -> Boundary:
    """What a reader is told of where a word lies; UsageError: it never is."""
    if boundary != "told" and not recipe.model.get("word_boundary"):
        raise UsageError(f"--boundary: {path} is never told where a word lies; leave it out")
    return boundary


def sayable(
    grammar: Slots | None, corpus: Corpus, index: Index, recipe: Recipe, path: Path
) -> Slots | None:
    """What a reader of sentences may say: `grammar`, else the corpus's own."""
    if grammar is not None and find_task(recipe.task).makes != "sentence":
        raise UsageError(f"--grammar: {path} reads single words; a grammar is of sentences")
    return grammar or own_grammar(corpus.grammar, index.labels, recipe.unit)


def open_part(
    kind: str, path: Path, index: Index, corpus: Corpus, part: str, device: str,
    speakers: list[str] | None = None,
) -> tuple[Evaluation, Loaded]:  # fmt: skip
    """The network of a checkpoint with the clips of one part that it can be shown, whole ones.

    `speakers`, if given, are the talkers, not those of its training. UsageError: words, crops
    or log-mels of these shards are not those that it reads, takes or makes.
    """
    loaded = load_network(path, kind)
    index = index.of_unit(loaded.recipe.unit)
    task = find_task(loaded.recipe.task)
    if task.makes in ("word", "sentence") and loaded.data["labels"] != index.labels:
        raise UsageError(f"{index.folder}: its label map is not the one {path} was trained on")
    check_shards(path, loaded, index)
    data = loaded.data | ({"speakers": speakers} if speakers else {})
    if elsewhere(loaded, index, part):
        every = range(len(index))
        rows = np.array([i for i in every if not speakers or index.speaker[i] in speakers], int)
    else:
        rows = part_rows(index, corpus, data, part)
    there = {index.speaker[row] for row in rows}
    if absent := [name for name in speakers or () if name not in there]:
        log.info(f"talkers without a clip of {part} here: {', '.join(absent)}")
    usable = task.usable_rows(index, rows, dataclasses.replace(loaded.recipe, window=0))
    if left_out := len(rows) - len(usable):
        unit = loaded.recipe.unit
        log.info(f"{left_out} of {len(rows)} clips cannot be measured by {unit} (left out)")
    model, where = loaded.model.to(device), torch.device(device)
    measured = Evaluation(model, loaded.recipe, loaded.scaling, index, usable, where, left_out)
    return measured, loaded


def elsewhere(loaded: Loaded, index: Index, part: str) -> bool:
    """Whether all of another corpus is wanted, where the run's split and talkers say nothing."""
    return part == "all" and loaded.recipe.corpus != index.dataset["corpus"]


def unseen_talkers(
    index: Index, rows: Ints, known_rows: Ints, trained_on: list[str] | None = None,
    away: bool = False,
) -> bool:  # fmt: skip
    """Whether clips are of several talkers, none of training: then intervals draw talkers.

    Those of training are the talkers of `known_rows`, or `trained_on` where none of its clips is
    stored; `away`, in another corpus, is none of them, though a name may be the same.
    """
    talkers = {index.speaker[row] for row in rows}
    known = {index.speaker[row] for row in known_rows} or set(trained_on or ())
    strange = away or (bool(known) and not talkers & known)
    return strange and None not in talkers and len(talkers) > 1


def part_rows(
    index: Index, corpus: Corpus, data: dict[str, Any], part: str, need: bool = True
) -> Ints:
    """Rows of one part of the split that a checkpoint with this `data` was trained on, or all.

    `all` is every stored clip, or all of its talkers or its list (`{key: part}`, in place of a
    named split). An empty part is a UsageError if there is `need` of it.
    """
    speakers, listed = data.get("speakers"), data.get("listed")
    if part == "all" and speakers is None and listed is None:
        return np.arange(len(index))
    parts = split_rows(index, corpus, data["split"], speakers, need=(), listed=listed)
    if listed is None and data.get("rule") not in (None, parts.rule):
        raise UsageError(
            f"split {data['split']} has other parts now than when the network was trained, so that"
            " what it learnt might be tested; give the datasets.yaml of then (avb --datasets FILE)"
        )
    rows = parts.rows
    selected = np.sort(np.concatenate(list(rows.values()))) if part == "all" else rows[part]
    if need and not selected.size:
        whose = f", talkers {', '.join(speakers)}" if speakers else ""
        raise UsageError(
            f"{index.folder}: holds no clip of the run's split {data['split']}{whose}, part {part};"
            " give the shards that it was trained on, others of its corpus, or another --part"
        )
    return selected
