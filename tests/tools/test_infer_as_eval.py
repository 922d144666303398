"""A clip of a corpus, through `prep` and `eval` or straight through `infer`: the same result.

The crops are equal to the last bit before they are stored (`test_infer.py`); `--crf 0` stores them
without loss, so that here nothing is left that may differ. At the default crf the network sees
pictures a little changed; docs/using.md says what that does.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import did
from networks import READER, SPEECH
from prepared import shards

from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.stream.index import Index
from avb.tools.infer.crops import Cutter
from avb.tools.infer.model import load_trained
from avb.tools.infer.speech import make_mels
from avb.tools.infer.video import probe
from avb.train.evaluate.speech import reconstruct
from avb.train.tasks.task import Evaluation


def train(task: str, index: Index, out: Path, **recipe: Any) -> Path:
    """A few steps, so that what the network says depends on what it sees."""
    sets = [f"--set={name}={json.dumps(value)}" for name, value in recipe.items()]
    did("train", task, "--data", index.folder, "--steps", 6, "--device", "cpu", "--out", out, *sets)
    return out / "last.pt"


def test_a_clip_of_29_pictures_is_read_alike(tmp_path: Path) -> None:
    index = shards("lrw", 12, tmp_path, crf=0)
    ckpt = train("lip", index, tmp_path / "run", model=READER, batch_size=4, lr=0.01)
    did("eval", "lip", "--ckpt", ckpt, "--data", index.folder, "--part", "all", "--device", "cpu",
        "--out", tmp_path / "eval.json")  # fmt: skip
    said = {c["key"]: c["said"] for c in json.loads((tmp_path / "eval.json").read_text())["clips"]}
    for part in {Path(key).parts[0] for key in said}:  # their names are unique in one part
        films = sorted((tmp_path / "raw").rglob(f"{part}/*.mp4"))
        out = did("infer", "lip", *films, "--ckpt", ckpt, "--device", "cpu", "--json")
        for film, record in zip(films, json.loads(out.stdout)["videos"], strict=True):
            [window] = record["windows"]
            assert window["words"][0]["word"] == said.pop(f"{part}/{film.stem}")
    assert not said


def test_the_mel_of_a_sentence_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    index = shards("grid", 8, tmp_path, crf=0)
    ckpt = train("l2s", index, tmp_path / "run", model=READER | SPEECH, shrink=2, batch_size=2,
                 crop="lips", split="vcagan-16-7-10")  # fmt: skip
    trained = load_trained("l2s", ckpt, "cpu")
    with torch.no_grad():
        given = (trained.model, trained.recipe, trained.scaling, index, np.arange(8))
        clips = reconstruct(Evaluation(*given, trained.device))
    films = {path.stem: path for path in (tmp_path / "raw").rglob("*.mpg")}
    for key, wanted in zip(clips.of("key"), clips.made, strict=True):
        film = next(path for stem, path in films.items() if key.endswith(stem))
        pieces = Cutter(probe(str(film)), trained).pieces()
        found = np.concatenate(list(make_mels(pieces, trained, Clock())), axis=1)
        assert np.abs(found - wanted.numpy()).max() < 1e-5, key  # rounding; 3e-5 at the default crf
    assert np.abs(clips.made[0] - clips.made[1]).max() > 1e-4  # it depends on the film
