"""Promise: files from outside that are made to break a command are one line of it."""

from pathlib import Path

import pytest
from commands import refused

from avb.tools.report import style

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "deep.json", "deep.json"],
        ["listen-score", "answers", "--key", "deep.json"],
        ["report", "run"],
    ],
    ids=lambda words: words[0],
)
def test_json_that_is_nested_too_deeply_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "answers"):
        Path(folder).mkdir()
    Path("deep.json").write_text(DEEP)
    Path("run/val.json").write_text(DEEP)
    Path("run/metrics.jsonl").write_text(DEEP + "\n")
    Path("run/recipe.yaml").write_text("recipe: {task: lip, model: {}}\ndata: {labels: []}\n")
    Path("answers/a.csv").write_text("rater\n")
    assert "nested too deeply" in refused(*words)


@pytest.mark.parametrize("text", ["$", "a $x_{$ b", "cost $\\frac{1}$", "$^{^{^{$", "再び"])
# matplotlib 3.8 is imported with a warning of pyparsing's of its own: no promise of a picture.
@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_names_in_figures_are_drawn_as_they_are(text: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra report")
    with style.drawing():
        figure, axes = style.new(2)
        axes.set(title=text, xlabel=text)
        axes.set_xticks([0, 1], [text, text])
    assert text.replace("&", "&amp;") in style.svg(figure)
