"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CorpusName = Annotated[str, typer.Argument(help="lrw, lrw1000, grid or table.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
RecipeName = Annotated[str, typer.Option(help="A recipe's name, or a file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the recipe; repeatable.")
]
Talkers = Annotated[str | None, typer.Option(help="Only these talkers, s1,s2.")]
SplitFile = Annotated[
    Path | None, typer.Option(help="A list of part/talker/clip instead of a named split.")
]
PerTalker = Annotated[
    bool, typer.Option("--per-talker", help="One model for each talker, in OUT/<talker>.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Length of the training.")]
Epochs = Annotated[float | None, typer.Option(min=0.001, help="Its length in epochs instead.")]
Seed = Annotated[int | None, typer.Option(help="Weights, order, augmentation.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda [cuda if there].")]
RunFolder = Annotated[Path | None, typer.Option(help="[runs/<task>-<corpus>-<recipe>]")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")
]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile.")]
Checkpoint = Annotated[Path, typer.Option(help="best.pt, last.pt, or a run's folder.")]
Shards = Annotated[str, typer.Option(help="Shards, a folder or an address.")]
Part = Annotated[str, typer.Option(help="test, val, train or all.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many clips; flagged.")]
Record = Annotated[Path | None, typer.Option(help="Write the whole record here.")]
