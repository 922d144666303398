"""Single tables and figures of a report, without a page round them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avb.pipeline.errors import UsageError
from avb.tools.cli import evaluate as shown
from avb.tools.report import tables, verdict
from avb.tools.report.runs import load_run

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
