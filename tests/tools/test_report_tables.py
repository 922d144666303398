"""Single tables and figures of a report, without a page round them."""

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from avb.pipeline.errors import UsageError
from avb.tools.cli import evaluate as shown
from avb.tools.report import page, published, tables, verdict
from avb.tools.report.runs import load_run, load_runs

pytest.importorskip("matplotlib", reason="figures need the extra report")


def test_why_figures_are_missing_is_said_once() -> None:
    reason = "pesq is not installed; pip install pesq"
    without = {"value": None, "reason": reason}
    metrics = {"stoi": {"value": 0.5, "low": 0.4, "high": 0.6}, "pesq_nb8": without}
    metrics |= {"pesq_wb16": without}
    record = {"task": "l2s", "metrics": metrics, "flags": {"n": 3}, "floors": {}}
    result: Any = SimpleNamespace(record=record, title="speech")
    table = tables.metrics_table(result)
    assert table.caption.count(reason) == 1
    assert "PESQ narrow band, 8 kHz, PESQ wide band (pesq is" in table.caption
    assert not any(reason in cell for row in table.rows for cell in row)
    assert "\n".join(shown.table(record)).count(reason) == 1


def test_nulls_that_could_not_be_measured_are_neither_won_nor_lost() -> None:
    def told(**lows: float | None) -> str:
        ahead = {name: {"value": low, "low": low, "high": low} for name, low in lows.items()}
        result: Any = SimpleNamespace(record={"addressing": {"source": {"ahead_of": ahead}}})
        return tables.verdict(result)

    both = told(**{name: [0.1, None][i % 2] for i, name in enumerate(tables.NULLS)})
    first, second, *_ = tables.NULLS.values()
    assert first in both and second not in both
    assert told(**dict.fromkeys(tables.NULLS)).endswith("these clips do not tell.")


def test_many_words_become_bars_and_judged_words_a_matrix() -> None:
    from avb.tools.report import figures
    from avb.tools.report.style import drawing, svg

    clips = [{"key": f"a/{i}", "label": f"W{i}", "said": f"W{i // 2}"} for i in range(80)]
    spoken = "bin blue at f two now".split()
    heard = "bin red at f two now".split()
    speech = {"key": "s1/a", "words": spoken, "heard": heard, "heard_judge": spoken}
    with drawing():
        drawn = svg(figures.confusion({"task": "lip", "clips": clips}))
        assert "W3 taken for W1" in drawn and "said, and" not in drawn
        assert figures.heard({"task": "l2s", "clips": [speech]})[1] == ("blue", "blue", 1)
        assert "said, and" in svg(figures.confusion({"task": "l2s", "clips": [speech]}))
    assert figures.heard({"clips": [speech | {"heard_judge": []}]}) == []  # not another judge's


def test_a_run_says_its_origins_and_one_of_another_kind_is_refused(tmp_path: Path) -> None:
    def write(task: str, model: dict[str, Any], **data: Any) -> None:
        saved = {"recipe": {"task": task, "model": model}, "data": {"labels": []} | data}
        (tmp_path / "recipe.yaml").write_text(json.dumps(saved))

    origin = {"task": "sync", "sha256": "ab" * 32, "step": 300}
    write("lip", {"slots": 0, "audio_term": True}, init=origin)
    facts = load_run(tmp_path).facts()
    assert facts["memory"] == "none (0 slots, the control with real audio)"
    assert (facts["began with"], facts["teacher"]) == ("sync abababababab of step 300", "none")
    write("asr", {})
    with pytest.raises(UsageError, match="a run of asr; reports are of lip and l2s"):
        load_run(tmp_path)


def test_a_record_without_its_main_figure_is_told_without_it() -> None:
    record = {"task": "lip", "metrics": {"top1_both": 0.5}, "flags": {"n": 3, "part": "test"}}
    run: Any = SimpleNamespace(name="r", task="lip", results=[SimpleNamespace(record=record)])
    assert verdict.figure(run).startswith("r: top-1 – % on 3 samples of test")


def test_the_true_mel_by_griffin_lim_beside_a_vocoder_is_not_without_looking() -> None:
    floors = {"mean_mel": {"stoi": 0.34}, "griffin_lim": {"stoi": 0.94}}
    record = {"task": "l2s", "metrics": {"stoi": 0.57}, "floors": floors}
    result = SimpleNamespace(record=record | {"flags": {"n": 3, "part": "test"}})
    run: Any = SimpleNamespace(results=[result], name="r", task="l2s")
    assert verdict.figure(run).endswith("test; 0.340 without looking.")


def test_runs_of_strangers_are_compared_and_doubted_by_talker(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, slots in (("mine", 44), ("other", 0)):
        (tmp_path / name).mkdir()
        recipe = {"task": "lip", "model": {"slots": slots}}
        saved = {"recipe": recipe, "data": {"labels": []}}
        (tmp_path / name / "recipe.yaml").write_text(json.dumps(saved))
        flags = {"part": "test", "n": 40, "intervals": "of talkers drawn, then clips"}
        clips = [{"key": f"s{i % 4}/c{i}", "right": bool(r)}
                 for i, r in enumerate(rng.integers(0, 2, 40))]  # fmt: skip
        record = {"task": "lip", "flags": flags, "clips": clips, "metrics": {"top1": 0.5}}
        (tmp_path / name / "test.json").write_text(json.dumps(record))
    runs = load_runs([tmp_path / "mine", tmp_path / "other"])
    (pair,) = verdict.pairs(runs)
    assert pair.record and pair.record["by_talker"]
    assert "Intervals are over talkers and clips: another seed is not in them." in (
        verdict.doubts(runs)
    )


def run_of(name: str, slots: int, seed: int = 0, **data: Any) -> Any:
    recipe = {"task": "lip", "seed": seed, "steps": 9, "model": {"slots": slots, "width": 4}}
    record = {"task": "lip", "metrics": {"top1": 0.5}}
    results = [SimpleNamespace(record=record)]
    return SimpleNamespace(
        name=name, task="lip", slots=slots, recipe=recipe, data=data, results=results
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (run_of("other", 0), True),
        (run_of("other", 0, seed=1), False),
        (run_of("other", 0, init={"task": "sync"}), False),
        (run_of("other", 0, teacher={"task": "asr"}), False),
        (run_of("other", 44), False),
    ],
)
def test_only_the_memory_may_differ_where_it_is_said_to_gain(other: Any, said: bool) -> None:
    mine = run_of("mine", 88)
    difference = {"value": 0.1, "low": 0.05, "high": 0.15}
    record = {"metrics": {"top1": {"a": 0.5, "difference": difference}}}
    pair = verdict.Pair((mine, mine.results[0]), (other, other.results[0]), record)
    assert bool(verdict.gains([pair])) == said


@pytest.mark.parametrize("how", [True, "guessed", "none", False])
def test_a_guessed_boundary_is_not_told(how: object) -> None:
    record = {"task": "lip", "flags": {"boundary": how, "split": "official"}}
    row = published.Row("lip", "lrw", "x", ["official"], {}, "P", "s", boundary=True)
    assert (published.row_reasons(record, "lrw", row) == []) == (how is True)


def test_crops_of_odd_sides_move_too() -> None:
    """As shards of `--codec jpeg` may have them."""
    film = base64.b64decode(page.film_uri(np.zeros((3, 95, 95), np.uint8), 25.0).split(",")[1])
    with av.open(io.BytesIO(film)) as file:
        assert {(frame.width, frame.height) for frame in file.decode(video=0)} == {(94, 94)}


def test_the_record_that_eval_writes_by_itself_comes_first(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("recipe: {task: lip}\ndata: {labels: []}\n")
    for name, part in (("test", "test"), ("test-guessed", "test"), ("a", "test"), ("b", "val")):
        record = {"task": "lip", "flags": {"part": part, "n": 0}, "clips": [], "metrics": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    named = [result.path.stem for result in load_run(tmp_path).results]
    assert named[0] == "test" and named[-1] == "b"


def test_the_chance_between_equals_is_told_by_sentence_too() -> None:
    exact = {"a_better": 53, "b_better": 20, "p": 1.4e-4}
    assert tables.mcnemar_line(exact).endswith("B on 20, p 0.00014")
    assert tables.mcnemar_line(exact | {"p_by_sentence": 0.02}).endswith("(by sentence 0.02)")
