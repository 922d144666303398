"""The README's Python runs, and the files its tree names are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEYS = ("value", "low", "high")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_of_the_tree_exists() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        words = re.match(r"( *)((?:[\w.]+/?(?: |$))+)", line)
        assert words is not None, line
        names = [w for w in words[2].split() if "/" in w or "." in w]
        if not words[1] and names[0].endswith("/"):
            folder = names.pop(0)
            assert (ROOT / folder).is_dir(), folder
        for name in names:
            inside = ROOT / (folder if words[1] else "") / name
            assert inside.exists(), f"{folder}{name}"


def test_the_tree_leaves_out_no_module() -> None:
    tree = README.split("## The tree")[1]
    for folder in ("pipeline", "models", "train", "tools"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert path.name in tree, f"{folder}/{path.name}"


def test_the_reader_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mediapipe", reason="faces are tracked with the extra prep")
    from avb.pipeline.config import load_corpora
    from avb.pipeline.prep import prep
    from avb.tools.prep_command import settings_for
    from avb.tools.synth import make

    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    for name, clips in (("lrw", 12), ("grid", 16)):
        make(name, Path("raw") / name, clips=clips)
        entry = load_corpora()[name]
        prep(entry, settings_for(name, entry), Path("raw") / name, Path("shards"))
    for block in blocks:
        scope: dict[str, object] = {}
        exec(block, scope)
    assert scope["batch"].video["lips"].shape[1:] == (29, 120, 120)  # type: ignore[attr-defined]


def test_the_results_are_those_of_the_records() -> None:
    section = README.split("## Results so far")[1].split("\n## ")[0]
    folder = ROOT / "results" / "grid-talker1"
    figures = []
    for name in ("lip-memory", "lip-baseline"):
        top1 = json.loads((folder / f"{name}.json").read_text())["metrics"]["top1"]
        figures.append("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * top1[k] for k in KEYS)))
    for name in ("speech-memory", "speech-baseline"):
        metrics = json.loads((folder / f"{name}.json").read_text())["metrics"]
        for metric in ("stoi", "estoi"):
            text = "{:.3f} [{:.3f}, {:.3f}]".format(*(metrics[metric][k] for k in KEYS))
            figures.append(text.replace("0.", "."))
        for metric in ("wer_judge", "wer_pocketsphinx"):
            values = (100 * metrics[metric][k] for k in KEYS)
            figures.append("{:.1f} [{:.1f}, {:.1f}]".format(*values))
    for name in ("lip-memory", "speech-memory"):
        source = json.loads((folder / f"{name}.json").read_text())["addressing"]["source"]
        trained = source["within_slot_auc"]
        texts = ["{:.3f} [{:.3f}, {:.3f}]".format(*(trained[k] for k in KEYS))]
        texts += [f"{null['within_slot_auc']['value']:.3f}" for null in source["nulls"].values()]
        figures += [text.replace("0.", ".") for text in texts]
    for figure in figures:
        assert figure in section, figure
