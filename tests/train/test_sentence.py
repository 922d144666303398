"""Sentences: what is learnt of a clip, padding, and a reader that learns eight of them by heart."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import did, fault, refused
from networks import LIP, all_parts, evaluated, trained

from avb.models import ctc
from avb.models.lip import LipConfig
from avb.models.sentence import SentenceReader
from avb.pipeline.config import load_corpora
from avb.pipeline.errors import UsageError
from avb.pipeline.stream.assemble import classes_of_frames
from avb.pipeline.stream.index import Index
from avb.pipeline.stream.stream import Stream
from avb.train import augment, trainer
from avb.train.data import resolve
from avb.train.evaluate.compare import compare
from avb.train.evaluate.evaluate import evaluate
from avb.train.evaluate.sentence import floors
from avb.train.evaluate.words.grammar import SLOT_WORDS
from avb.train.evaluate.words.reading import Reading, own_grammar, read_grammar
from avb.train.recipe_file import load_recipe, make_recipe
from avb.train.tasks.sentence import TASK
from avb.train.tasks.task import Scaling, find_task

GRID = load_corpora()["grid"]
SIZES = LIP | {"slots": 0, "blocks": 1, "hidden": 48}


def recipe(unit: str = "sentence", **changes: Any) -> Any:
    raw = {"corpus": "grid", "unit": unit, "shrink": 4, "model": SIZES} | changes
    return make_recipe("lip", raw, "test")


def test_the_tokens_of_a_clip_are_its_words_or_its_letters(grid: Index) -> None:
    by_word, by_letter = grid.of_unit("sentence"), grid.of_unit("characters")
    assert by_letter.labels[0] == " " and "".join(by_letter.labels[1:]).islower()
    for index, unit in ((by_word, "sentence"), (by_letter, "characters")):
        batch = next(iter(Stream(index, batch_size=8, unit=unit, once=True, workers=0)))
        assert batch.tokens is not None
        for row, words in zip(batch.tokens, batch.words, strict=True):
            said = [index.labels[i] for i in row if i >= 0]
            text = [word for word, _, _ in words]
            assert said == (text if unit == "sentence" else list(" ".join(text)))
    sentences = next(iter(Stream(by_word, batch_size=8, unit="sentence", once=True, workers=0)))
    assert sentences.frames is not None and sentences.tokens is not None
    for frames, row in zip(sentences.frames, sentences.tokens, strict=True):
        heard = torch.unique_consecutive(frames)
        assert heard[(heard >= 0) & (heard < len(by_word.labels))].tolist() == row.tolist()
    clips = next(iter(Stream(grid, batch_size=8, once=True, workers=0)))
    assert clips.tokens is None


def test_clips_without_room_for_their_tokens_or_with_unknown_words_are_left_out(
    grid: Index,
) -> None:
    index, rows = grid.of_unit("characters"), np.arange(8)
    letters = index.tokens(rows, "characters")
    least = [len(t) + sum(a == b for a, b in zip(t, t[1:], strict=False)) for t in letters]
    frames = np.array(least) - (rows % 2)  # every second has one too few
    short = dataclasses.replace(index, num_frames=frames)
    assert TASK.usable_rows(short, rows, recipe("characters")).tolist() == [0, 2, 4, 6]
    unknown = dataclasses.replace(grid, dataset=grid.dataset | {"labels": ["bin", "now"]})
    assert not TASK.usable_rows(unknown, rows, recipe()).size


def test_frames_have_the_word_that_is_said_at_their_middle() -> None:
    words = [("bin", 0.04, 0.1), ("blue", 0.1, 0.2)]
    # The middles of frames 0 to 5 are at 0.02, 0.06, 0.10, 0.14, 0.18, 0.22.
    assert classes_of_frames(words, [7, 8], 6, 50, 25) == [50, 7, 8, 8, 8, 50]
    assert classes_of_frames([*words, ("now", None, None)], [7, 8, 9], 6, 50, 25) == [-1] * 6


def test_a_window_has_the_words_whose_middle_is_inside(grid: Index) -> None:
    frames = torch.tensor([9, 9, 4, 4, 4, 7, 7, 9, 5, 5, -1])  # 9 is silence
    words: Any = [(name, a / 25, b / 25) for name, a, b in (("d", 2, 5), ("g", 5, 7), ("e", 8, 10))]
    clip: Any = (frames, [4, 7, 5, -1], words)
    inside, said = augment.words_inside(*clip, 3, 5)
    # Of 4 the middle is 3.5, of 7 it is 6, of 5 it is 9.
    assert inside.tolist() == [4, 4, 7, 7, 9] and said.tolist() == [4, 7]
    inside, said = augment.words_inside(*clip, 4, 5)
    assert inside.tolist() == [-1, 7, 7, 9, -1] and said.tolist() == [7]
    # The same word twice with no silence between is two, each with its own middle.
    clip = (torch.tensor([9, 4, 4, 4, 4, 9]), [4, 4], [("d", 0.04, 0.12), ("d", 0.12, 0.2)])
    assert augment.words_inside(*clip, 0, 6)[1].tolist() == [4, 4]
    inside, said = augment.words_inside(*clip, 3, 3)
    assert inside.tolist() == [4, 4, 9] and said.tolist() == [4]
    inside, said = augment.words_inside(*clip, 2, 3)
    assert inside.tolist() == [4, 4, 4] and said.tolist() == [4, 4]
    assert augment.words_inside(*clip[:2], [("d", None, None)] * 2, 0, 6)[1].tolist() == []
    index = grid.of_unit("sentence")
    batch = next(iter(Stream(index, batch_size=8, unit="sentence", once=True, workers=0)))
    cut = augment.window(batch, 30, 0)
    assert cut.frames is not None and cut.tokens is not None and cut.frames.shape == (8, 30)
    for whole, part in zip(batch.words, cut.tokens, strict=True):
        said = [index.labels[i] for i in part if i >= 0]
        text = [word for word, _, _ in whole]
        assert any(text[i : i + len(said)] == said for i in range(7 - len(said)))


def test_padding_changes_neither_what_is_read_nor_what_is_learnt() -> None:
    torch.manual_seed(0)
    model = SentenceReader(5, LipConfig(**LIP)).eval()
    video, lengths = torch.randn(2, 1, 12, 24, 24), torch.tensor([12, 8])
    mel = torch.randn(2, 80, 48)
    together = model(video, mel, lengths)
    alone = model(video[1:, :, :8], mel[1:, :, :32])
    for mine, theirs in (
        (together.logits, alone.logits),
        (together.real_logits, alone.real_logits),
    ):
        torch.testing.assert_close(mine[1:, :8], theirs, rtol=1e-4, atol=1e-5)
    assert together.logits.shape == (2, 12, 6)


def test_what_a_recipe_of_sentences_cannot_have() -> None:
    assert load_recipe("lip", "sentence-tiny").task == "sentence"
    for wrong, text in (
        ({"window": 40, "unit": "characters"}, "others are whole"),
        ({"unit": "word", "task": "sentence"}, "unit word is not of the task sentence"),
    ):
        assert text in fault(recipe, **wrong)
    plan = recipe(model=SIZES | {"word_boundary": True})
    line = fault(find_task("sentence").build, plan, Scaling(130.0, 30.0, -11.5, 3.5, 4, 112, 51))
    assert "a sentence is read whole" in line


def test_letters_are_asked_for_with_sentences_alone(grid: Index, tmp_path: Path) -> None:
    given = ("train", "lip", "--tokens", "char", "--data", grid.folder, "--out", tmp_path / "run")
    for unit in ([], ["--unit", "word"]):
        assert "--unit sentence" in refused(*given, *unit)
    assert not (tmp_path / "run").exists()


def test_a_film_too_long_for_its_grammar_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc, "MOST_STEPS", 10)
    reading = Reading(["a", "b"], "sentence").within([["a"], ["b"]])
    line = fault(reading.words, np.log(np.full((20, 3), 1 / 3)))
    assert "20 frames are too many" in line


def test_letters_are_read_of_whole_clips_whatever_the_recipe(grid: Index) -> None:
    plan = resolve("lip", grid, GRID, "sentence-tiny", [], "characters")
    assert (plan.task, plan.unit, plan.window) == ("sentence", "characters", 0)
    assert resolve("lip", grid, GRID, "sentence-tiny", []).window > 0
    untimed = dataclasses.replace(grid, word_s=np.full_like(grid.word_s, np.nan))
    assert resolve("lip", untimed, GRID, "sentence-tiny", []).window == 0


def test_what_a_task_is_not_trained_with_is_refused(grid: Index) -> None:
    given = ("lip", grid, GRID, "modern")
    with pytest.raises(UsageError, match="--set augment.mixup=0 --set label_smoothing=0$"):
        resolve(*given, [], "sentence")
    with pytest.raises(UsageError, match="modern: label_smoothing: of single words.*smoothing=0$"):
        resolve(*given, ["augment.mixup=0"], "sentence")
    with pytest.raises(UsageError, match="tiny: augment.mixup: of single words"):
        resolve("l2s", grid, GRID, "tiny", ["augment.mixup=0.4"])
    with pytest.raises(UsageError, match="mask_bins: of readers of words alone; --set .*bins=0$"):
        resolve("sync", grid, GRID, "tiny", ["augment.mask_bins=8"])
    off = ["augment.mixup=0", "label_smoothing=0"]
    assert resolve(*given, off, "sentence").task == "sentence"
    assert resolve(*given, [], "word").label_smoothing > 0
    assert recipe(label_smoothing=0.1).label_smoothing  # that of a checkpoint of before


def test_the_grammar_of_grid_is_that_of_its_names() -> None:
    assert GRID.grammar == [list(words) for words in SLOT_WORDS]


def test_no_sentence_is_outside_of_the_grammar() -> None:
    labels = sorted(word for words in SLOT_WORDS for word in words)
    assert GRID.grammar is not None
    reading = Reading(labels, "sentence").within(GRID.grammar)
    rng = np.random.default_rng(0)
    for _ in range(20):
        log_probs = np.log(rng.dirichlet(np.full(len(labels) + 1, 0.1), 20))
        said = [one.word for one in reading.words(log_probs)]
        assert len(said) == 6
        assert all(word in words for word, words in zip(said, SLOT_WORDS, strict=True))
    assert reading.words(log_probs[:5]) == []  # no room for six words


def test_letters_become_words_with_times_and_a_word_list_bounds_them(tmp_path: Path) -> None:
    labels = [" ", "a", "b", "n"]
    path = [4, 3, 3, 4, 1, 0, 0, 2, 1, 4, 4, 2]  # " n a _ ba b", as frames; 4 is blank
    rows = np.full((len(path), 5), 0.05)
    rows[np.arange(len(path)), path] = 0.8
    spoken = Reading(labels, "characters").words(np.log(rows))
    assert [(s.word, s.first, s.stop) for s in spoken] == [("na", 1, 5), ("bab", 7, 12)]
    file = tmp_path / "words.yaml"
    file.write_text("[na, ba, ban]")
    listed = Reading(labels, "characters").within(read_grammar(file)).words(np.log(rows))
    assert [s.word for s in listed] == ["na", "ba"]
    line = fault(Reading(labels, "characters").within, [["bat"]])
    assert "'bat': this reader does not know 't'" in line
    file.write_text("[[na, yes]]")
    assert "yes, no, on and off in quotes" in fault(read_grammar, file)


def test_a_corpus_grammar_is_taken_where_all_of_its_words_are_known() -> None:
    words = [word for place in SLOT_WORDS for word in place]
    assert own_grammar(GRID.grammar, words, "sentence") == GRID.grammar
    assert own_grammar(GRID.grammar, words[1:], "sentence") is None
    letters = sorted({" ", *"".join(words)})
    assert own_grammar(GRID.grammar, letters, "characters") == GRID.grammar
    assert own_grammar(GRID.grammar, letters[1:], "characters") is None
    assert own_grammar(None, words, "sentence") is None


def test_from_training_to_a_comparison_as_typed(grid: Index, tmp_path: Path) -> None:
    records = []
    for slots in (4, 0):
        out, sets = tmp_path / str(slots), SIZES | {"slots": slots}
        did(
            "train", "lip", "--unit", "sentence", "--data", grid.folder, "--device", "cpu",
            "--split", "vcagan-16-7-10", "--steps", 2, "--out", out,
            f"--set=model={json.dumps(sets)}", "--set=shrink=4", "--set=batch_size=2",
        )  # fmt: skip
        words = ["--ckpt", out, "--data", grid.folder, "--part", "all", "--device", "cpu"]
        did("eval", "lip", *words, "--out", out / "all.json")
        records.append(out / "all.json")
    words = ["--data", grid.folder, "--out", tmp_path / "report.html", "--clips", 1]
    did("report", tmp_path / "4", tmp_path / "0", *words)
    page = (tmp_path / "report.html").read_text()
    assert "Lip reading of sentences: numbers" in page and "word error, within the grammar" in page
    pytest.importorskip("onnxruntime")
    did("export", "--ckpt", tmp_path / "4", "--to", "onnx", "--out", tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert config["labels"] == grid.labels
    record = json.loads(records[0].read_text())
    assert record["task"] == "sentence" and len(record["clips"]) == 8
    assert {"wer_free", "cer_free", "sentences_free", "wer_grammar"} <= set(record["metrics"])
    assert record["ceiling"]["wer_grammar"]["value"] is not None
    chance = 1 - np.mean([1 / len(words) for words in SLOT_WORDS])
    assert record["floors"]["grammar"]["wer_grammar"] == pytest.approx(chance)
    for clip in record["clips"]:
        assert len(clip["heard_grammar"]) == 6
    result = compare(*map(str, records))
    assert result["metrics"]["wer_grammar"]["n"] == 8
    a, b = (json.loads(r.read_text())["metrics"]["wer_grammar"]["value"] for r in records)
    difference = result["metrics"]["wer_grammar"]["difference"]["value"]
    assert difference == pytest.approx(a - b, abs=1e-9)


def test_clips_are_measured_whole_whatever_was_trained_on(grid: Index, tmp_path: Path) -> None:
    """Words without times are no reason to leave a clip out; too few frames are, and are told."""
    plan: dict[str, Any] = {"corpus": "grid", "unit": "sentence", "split": "vcagan-16-7-10"}
    best = trained("lip", grid, tmp_path, model=SIZES, shrink=4, window=20, **plan)
    times, frames = grid.word_s.copy(), grid.num_frames.copy()
    times[:6], frames[1] = np.nan, 3
    untimed = dataclasses.replace(grid, word_s=times)
    record = evaluate("lip", best, untimed, GRID, "all")
    assert len(record["clips"]) == len(grid) and "left_out" not in record["flags"]
    short = dataclasses.replace(untimed, num_frames=frames)
    record = evaluate("lip", best, short, GRID, "all")
    assert len(record["clips"]) == len(grid) - 1 and record["flags"]["left_out"] == 1


def test_clips_without_words_make_no_floor() -> None:
    known = [["bin", "now"], ["set", "now"], ["set", "now"], *[[]] * 9]
    found = floors(known, [["set", "now"]], None, ["free"], None)
    assert found["constant"]["sentences_free"]["value"] == 1
    assert "constant" not in floors([[]], [["set"]], None, ["free"], None)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["sentence", "characters"])
def test_eight_sentences_are_learnt_by_heart(grid: Index, tmp_path: Path, unit: str) -> None:
    sizes = SIZES | {"width": 16, "hidden": 96, "dropout": 0.0, "back_dropout": 0.0}
    plan = recipe(
        unit, model=sizes, batch_size=8,
        augment={"jitter": 0, "flip": 0.0}, lr=0.004, warmup=10, clip_norm=5.0, steps=1200,
        validate_every=40, patience=8,
    )  # fmt: skip
    index = grid.of_unit(unit)
    trainer.train(plan, index, all_parts(index, None), tmp_path)
    record = evaluated("lip", tmp_path / "best.pt", grid, "all")
    assert record["metrics"]["wer_free"]["value"] == 0
    assert record["metrics"]["sentences_free"]["value"] == 1
    if unit == "sentence":  # eight sentences have not all of the grammar's letters
        assert record["metrics"]["sentences_grammar"]["value"] == 1
