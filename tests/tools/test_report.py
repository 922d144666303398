"""The report: nothing is fetched, every number of a record is there, and pictures and sounds are.

Runs are real, of two steps on drawn words of LRW with their sound kept, for both tasks, and one
without memory.
"""

import base64
import dataclasses
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from commands import did, refused
from networks import READER, evaluated
from prepared import set_column, shards

from avb.pipeline.config import load_corpora
from avb.pipeline.stream.index import Index, load_index
from avb.tools.report import page, published, tables, verdict
from avb.tools.report.runs import load_runs
from avb.train import trainer
from avb.train.evaluate import speech as eval_l2s
from avb.train.recipe_file import make_recipe
from avb.train.split import split_rows

pytest.importorskip("matplotlib", reason="figures need the extra report")
pytest.importorskip("sklearn", reason="the map of features needs the extra report")
pytest.importorskip("pystoi", reason="speech is measured with the extra eval")

FETCHED = re.compile(r"""(?:src|href|srcset|action|poster)\s*=\s*["']?([^"'\s>]+)|url\(([^)]+)\)""")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Ten clips with sound, called by two words in turn: drawn, no word comes twice."""
    index = shards("lrw", 10, tmp_path_factory.mktemp("spoken"), keep_audio=True)
    set_column(index.folder, "label", ["ABOUT", "YOUNG"] * 5)
    return load_index(index.folder)


def train(task: str, index: Index, out: Path, **model: Any) -> Path:
    """A run of two steps with the record of its test part."""
    corpus = load_corpora()["lrw"]
    base: dict[str, Any] = {"batch_size": 4, "steps": 2, "validate_every": 1}
    if task == "l2s":
        model = {"decoder": "synchronous"} | model
    recipe = make_recipe(task, base | {"model": READER | model}, "test")  # type: ignore[arg-type]
    order = ["train", "train", "train", "val", *["test"] * 6]
    listed = {index.key(i): part for i, part in zip(range(len(index)), order, strict=True)}
    trainer.train(recipe, index, split_rows(index, corpus, "official", listed=listed), out)
    record = evaluated(task, out / "best.pt", index, "test")
    (out / "test.json").write_text(json.dumps(record, default=float))
    return out


@pytest.fixture(scope="module")
def runs(spoken: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_l2s, "GL_ITERATIONS", 4)
        return {
            "words": train("lip", spoken, folder / "words"),
            "baseline": train("lip", spoken, folder / "baseline", slots=0),
            "speech": train("l2s", spoken, folder / "speech"),
        }


@pytest.fixture(scope="module")
def text(runs: dict[str, Path], spoken: Index, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of all three, with clips."""
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_l2s, "GL_ITERATIONS", 4)
        did("report", *runs.values(), "--data", spoken.folder, "--clips", 1, "--out", out)
    return out.read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The part of the page under a heading."""
    found = [part for part in text.split("<section")[1:] if f"<h2>{title}" in part]
    assert len(found) == 1, title
    return found[0]


def test_the_page_asks_for_nothing_outside_itself(text: str) -> None:
    asked = [a or b for a, b in FETCHED.findall(text)]
    assert asked and all(a.strip("\"'").startswith(("data:", "#")) for a in asked)
    assert "http:" not in text and "https:" not in text
    assert "<script" not in text and "@import" not in text and "<link" not in text


def entries(values: Any) -> Iterator[dict[str, float]]:
    """Every figure with an interval, at any depth."""
    if isinstance(values, dict) and {"value", "low", "high"} <= set(values):
        if values["value"] is not None:
            yield values
    elif isinstance(values, dict):
        for inner in values.values():
            yield from entries(inner)


@pytest.mark.parametrize("name", ["words", "baseline", "speech"])
def test_all_figures_are_there_with_intervals(text: str, runs: dict[str, Path], name: str) -> None:
    record = json.loads((runs[name] / "test.json").read_text())
    plain = text.replace("\N{NO-BREAK SPACE}", " ")
    kept = ("metrics", "ceiling", "real", "floors", "per_slot")
    found = list(entries({k: record[k] for k in kept if k in record}))
    found += list(entries({k: v for k, v in record["addressing"].items() if k != "flags"}))
    assert len(found) > (3 if name == "baseline" else 60)
    for entry in found:
        value, low, high = (entry[k] for k in ("value", "low", "high"))
        forms = [
            f"{s * value:{sign}.{d}f} [{s * low:{sign}.{d}f}, {s * high:{sign}.{d}f}]"
            for s, d, sign in ((1, 3, ""), (100, 1, ""), (1, 2, ""), (1, 1, ""), (1, 3, "+"))
        ]
        assert any(form in plain for form in forms), forms[0]
    for clip_count in (str(record["flags"]["n"]), record["flags"]["checkpoint_sha256"]):
        assert clip_count in plain


def test_players_hold_three_sounds_a_clip(text: str, spoken: Index) -> None:
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    assert len(sounds) == 3
    for data in sounds:
        with av.open(io.BytesIO(base64.b64decode(data, validate=True))) as file:
            blocks = [frame.to_ndarray() for frame in file.decode(audio=0)]
            assert (file.streams[0].rate, file.streams[0].channels) == (16000, 1)
        samples = np.concatenate(blocks, axis=1)
        assert samples.dtype == np.int16 and samples.any()
        assert abs(samples.shape[1] - spoken.num_frames[0] * 640) <= 640


def test_crops_move_beside_the_players(text: str, spoken: Index) -> None:
    films = re.findall(r'<video muted loop [^>]*src="data:video/mp4;base64,([^"]+)"', text)
    assert len(films) == 3, "one clip of each run"
    for data in films:
        with av.open(io.BytesIO(base64.b64decode(data, validate=True))) as file:
            pictures = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
        assert len(pictures) == spoken.num_frames[0]
        assert pictures[0].shape == (112, 112)


def test_the_verdict_comes_first(text: str, runs: dict[str, Path]) -> None:
    """Whoever opens the page reads how good it is, and what not to believe, before all else."""
    head, first = text.split("<section")[0], section(text, "In short")
    assert "<h1>Lip reading and lip to speech: lrw</h1>" in head
    assert text.index("<h2>In short") == text.index("<h2>")
    plain = html.unescape(first).replace("\N{NO-BREAK SPACE}", " ")
    for name, figure, factor, digits in (("words", "top1", 100, 1), ("speech", "stoi", 1, 3)):
        entry = json.loads((runs[name] / "test.json").read_text())["metrics"][figure]
        value, low, high = (f"{factor * entry[k]:.{digits}f}" for k in ("value", "low", "high"))
        assert re.search(rf"{name}: [\w-]+ {value} \[{low}, {high}\]", plain), plain
    assert "With the memory (words against baseline): top-1" in plain
    assert "not of the paper's size" in plain and "another seed" in plain


def test_each_task_has_its_figures(text: str) -> None:
    for task in ("Lip reading", "Lip to speech"):
        assert f"{task}: loss terms" in section(text, "Training")
    assert section(text, "Training").count("<svg") == 2
    words, speech = section(text, "words: words seen"), section(text, "speech: seen and heard")
    assert words.count("<svg") == 2, "addresses and the map of features"
    assert speech.count("<svg") == 3, "addresses, mels and the map of features"
    assert "words taken for others</figcaption>" in section(text, "Lip reading: words")
    assert section(text, "The memory").count("<svg") == 2
    assert "currentColor" in text, "figures take the colour of the page's text"


def test_runs_are_compared_in_pairs_and_one_without_memory_says_so(text: str) -> None:
    own = section(text, "baseline: words seen")
    assert "0 slots" in own and "<svg" not in own
    assert "baseline, test: left out, a model with 0 slots" in section(text, "The memory")
    own = section(text, "Runs compared")
    assert "words, test (A) against baseline, test (B)" in own and "McNemar" in own
    assert "speech" not in own


def test_without_shards_a_line_says_how_to_get_clips(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["words"], tmp_path / "run")
    (tmp_path / "run" / "test.json").unlink()
    did("report", tmp_path / "run", "--out", tmp_path / "r")
    plain = (tmp_path / "r").read_text()
    assert "avb report --data SHARDS" in plain and "avb eval lip --ckpt" in plain
    assert "<audio" not in plain and "loss terms" in plain


def test_published_rows_load_and_each_names_a_source() -> None:
    found = published.load()
    assert len(found.rows) > 50
    for row in found.rows:
        assert len(row.source) > 8 and row.mark in found.marks and row.metrics and row.splits
        for name, value in row.metrics.items():
            assert name in tables.STYLES and 0 < value < 5
    names = [(row.corpus, row.method) for row in found.rows]
    assert len(set(names)) == len(names)
    corpora = load_corpora()
    assert all(s in corpora[r.corpus].splits for r in found.rows for s in r.splits)


def test_rows_with_other_flags_are_labelled_and_like_ones_are_not(text: str) -> None:
    flags = {"split": "official", "part": "test", "limit": None, "boundary": False, "unit": "clip"}
    flags |= {"n": 24_998}
    record = {"task": "lip", "flags": flags}
    rows = {row.method: row for row in published.load().rows if row.corpus == "lrw"}
    paper, told = rows["the paper, 88 slots"], rows["SyncVSR 2024 with boundary"]
    assert published.reasons(record, "lrw", paper) == []
    assert "with word boundary" in published.reasons(record, "lrw", told)
    # As where only some words of the corpus were prepared.
    for name, value in (("limit", 30), ("part", "val"), ("boundary", True), ("unit", "word"),
                        ("n", 2500)):  # fmt: skip
        changed = {"task": "lip", "flags": flags | {name: value}}
        assert published.reasons(changed, "lrw", paper), name
    assert published.reasons(record, "grid", paper) == ["other corpus: lrw"]
    own = section(text, "Lip reading: numbers")
    assert "not comparable; with word boundary" in own
    assert "only 6 of the 25,000 clips of test" in own


def test_a_row_is_comparable_with_those_runs_alone_that_it_fits(runs: dict[str, Path]) -> None:
    (run,) = load_runs([runs["words"]])
    flags = {"split": "official", "part": "test", "limit": None, "unit": "clip", "n": 24_998}
    plain, told = (
        dataclasses.replace(
            run.results[0],
            title=title,
            record=run.results[0].record | {"flags": flags | {"boundary": boundary}},
        )
        for title, boundary in (("plain", False), ("told", True))
    )
    for results, said in (
        ([plain], "comparable"),
        ([plain, told], "comparable with plain alone"),
        ([told], "not comparable; without word boundary"),
    ):
        table, fits = tables.published_table(results, "lrw")
        (paper,) = (row for row in table.rows if row[0] == "the paper, 88 slots")
        assert paper[-2] == said and fits == (plain in results)


def test_the_gain_is_of_the_part_that_a_run_is_told_by(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """`avb eval --part val` writes its record beside the one of the test part."""
    folders = [Path(shutil.copytree(runs[n], tmp_path / n)) for n in ("words", "baseline")]
    for folder in folders:
        record = json.loads((folder / "test.json").read_text())
        record["flags"]["part"] = "val"
        (folder / "val.json").write_text(json.dumps(record))
    found = verdict.pairs(load_runs(folders))
    (line,) = verdict.gains(found)
    assert len(found) == 2 and " points, paired over the same samples" in line


def test_what_is_known_of_the_clips_already_is_a_doubt(runs: dict[str, Path]) -> None:
    (run,) = load_runs([runs["speech"]])
    flags = run.results[0].record["flags"]
    flags |= {"wer_judge": {"judge_saw_test": 3}, "vocoder": {"vocoder_saw_test": 0}}
    flags["talkers_taught"] = 1
    said = " ".join(verdict.doubts([run])).lower()
    assert "its judge has learnt from 3 of these clips" in said and "its vocoder" not in said
    assert "taught it too" in said
    flags |= {"wer_judge": None, "talkers_taught": 0}
    said = " ".join(verdict.doubts([run])).lower()
    assert "has learnt from" not in said and "taught it too" not in said


@pytest.mark.parametrize(
    "figure", ["curves", "confusion", "similarity", "addressing", "mels", "mouths", "pairs"]
)
def test_plot_writes_the_figure(
    figure: str, runs: dict[str, Path], spoken: Index, tmp_path: Path
) -> None:
    out = tmp_path / ("figure.pdf" if figure == "curves" else "figure.png")
    run = runs["words" if figure == "confusion" else "speech"]
    pairs = ["--pair", "ABOUT:2-4", "--pair", "YOUNG:1"] if figure == "pairs" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_l2s, "GL_ITERATIONS", 2)
        did("plot", run, "--figure", figure, "--out", out, "--data", spoken.folder, *pairs)
    assert out.read_bytes()[:4] in (b"%PDF", b"\x89PNG") and out.stat().st_size > 5000


def test_bad_input_is_one_clear_line(
    runs: dict[str, Path], spoken: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in refused("report", tmp_path / "nothing")
    assert "holds no recipe.yaml" in refused("report", tmp_path)
    assert "best.pt: a file; give the folder" in refused("report", runs["words"] / "best.pt")
    assert "given twice" in refused("report", runs["words"], runs["words"])
    line = refused("plot", runs["words"], "--figure", "addressing", "--out", "a.png")
    assert "give --data" in line
    assert "not one of" in refused("plot", runs["words"], "--figure", "cats", "--out", "a.png")
    assert ".png or .pdf" in refused("plot", runs["words"], "--figure", "curves", "--out", "a.gif")
    for name, figure, why in (
        ("baseline", "similarity", "0 slots"),
        ("baseline", "addressing", "0 slots"),
        ("words", "mels", "makes no mels"),
        ("baseline", "mouths", "0 slots"),
        ("words", "pairs", "twice or more for pairs"),
    ):
        flags = ("--figure", figure, "--out", "a.png", "--data", spoken.folder)
        assert why in refused("plot", runs[name], *flags)
    flags = ("--figure", "mouths", "--out", "a.png", "--data", spoken.folder, "--pair")
    assert "give WORD:FRAMES" in refused("plot", runs["words"], *flags, "ABOUT")
    assert "not hold ABOUT twice" in refused("plot", runs["words"], *flags, "ABOUT:90")
    assert not list(tmp_path.iterdir())

    other = tmp_path / "other"
    shutil.copytree(runs["words"], other)
    shutil.copy(runs["baseline"] / "test.json", other / "val.json")
    assert "neither best.pt" in refused("report", other)
    shutil.copy(runs["speech"] / "test.json", other / "val.json")
    assert "another run (task l2s, here lip)" in refused("report", other)
    (other / "val.json").write_text("{")
    assert "cannot be read as JSON" in refused("report", other)


def test_names_on_a_page_are_text_and_no_markup(runs: dict[str, Path]) -> None:
    run = dataclasses.replace(load_runs([runs["words"]])[0], name="<b>&")
    drawn = page.render([run], [page.Section("x", [tables.facts_table([run])])])
    assert "<b>&" not in drawn and "&lt;b&gt;&amp;" in drawn


def test_addresses_that_could_not_be_compared_are_a_line(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """As where few clips say few words."""

    def without(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {k: None if k in ("value", "low", "high") else without(v) for k, v in tree.items()}

    run = Path(shutil.copytree(runs["words"], tmp_path / "run"))
    record = json.loads((run / "test.json").read_text())
    sides = {side: without(record["addressing"][side]) for side in ("source", "target")}
    record["addressing"] |= sides
    (run / "test.json").write_text(json.dumps(record))
    did("report", run, "--out", tmp_path / "page.html")
    assert "these clips do not tell" in (tmp_path / "page.html").read_text()
    line = refused("plot", run, "--figure", "similarity", "--out", tmp_path / "x.png")
    assert "too few words that stand at one place" in line
