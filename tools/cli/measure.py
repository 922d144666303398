"""Figures of checkpoints: one pass, two compared, a page of them, listeners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avb.tools.cli.console import App
from avb.tools.cli.options import Checkpoint, Device, Json, Limit, Part, Record, Shards

app = App()


evaluation = App(
    help="Measure a checkpoint on a part of its split.",
)
app.add_typer(evaluation, name="eval")


@evaluation.command("lip")
def eval_lip(
    context: typer.Context,
    ckpt: Checkpoint,
    data: Shards,
    part: Part = "test",
    device: Device = None,
    limit: Limit = None,
    out: Record = None,
    as_json: Json = False,
) -> None:
    """Accuracy, confusions, the audio path and the mirrored test."""
    from avb.pipeline.storage.store import place
    from avb.tools.eval_command import run

    run("lip", ckpt, place(data), part, device, limit, out, as_json, context.obj)


@evaluation.command("l2s")
def eval_l2s(
    context: typer.Context,
    ckpt: Checkpoint,
    data: Shards,
    part: Part = "test",
    device: Device = None,
    limit: Limit = None,
    judge: Annotated[
        Path | None, typer.Option(help="A judge of words, from avb train judge.")
    ] = None,
    save_wavs: Annotated[
        Path | None, typer.Option(help="A folder for the sounds: model, Griffin-Lim, real.")
    ] = None,
    windows: Annotated[
        str | None,
        typer.Option(help="40 frames at a time: covered, or cut (70 of 75, as the paper's)."),
    ] = None,
    out: Record = None,
    as_json: Json = False,
) -> None:
    """STOI, ESTOI, PESQ and word error beside ceiling and floors."""
    from avb.pipeline.storage.store import place
    from avb.tools.eval_command import run

    run(
        "l2s", ckpt, place(data), part, device, limit, out, as_json, context.obj,
        judge, save_wavs, windows,
    )  # fmt: skip


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="Record of avb eval; several seeds: a,b or a folder.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another, on the same clips.")],
    by_talker: Annotated[
        bool, typer.Option("--by-talker", help="Intervals draw talkers: a claim about unseen ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Two evaluations of the same clips, paired: McNemar, differences with intervals."""
    from avb.tools.compare_command import run

    run(first, second, by_talker, as_json)


@app.command()
def report(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of avb train.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    data: Annotated[
        str | None, typer.Option(help="Shards: adds clips, sounds and the map of features.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="With --data: how many test clips.")] = 4,
    device: Device = None,
) -> None:
    """One page to mail: what was trained, curves, numbers beside published ones, pictures, sounds.

    Evaluations are the records of avb eval that lie in the run's folder.
    """
    from avb.pipeline.storage.store import place
    from avb.tools.report.command import report as write

    write(runs, place(data) if data else None, out, clips, device, context.obj)


@app.command()
def plot(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A folder of avb train.")],
    figure: Annotated[
        str, typer.Option(help="curves, confusion, addressing, similarity, tsne or mels.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, .png or .pdf.")],
    data: Annotated[str | None, typer.Option(help="Shards, for addressing, tsne and mels.")] = None,
    clip: Annotated[int, typer.Option(min=1, help="Which of the report's clips.")] = 1,
    device: Device = None,
) -> None:
    """One figure of the report as a file."""
    from avb.pipeline.storage.store import place
    from avb.tools.report.command import plot as draw

    draw(run, figure, out, place(data) if data else None, clip, device, context.obj)


@app.command()
def listen(
    systems: Annotated[
        list[str], typer.Argument(metavar="NAME=DIR...", help="Folders of eval l2s --save-wavs.")
    ],
    out: Annotated[Path, typer.Option(help="The page; its key is written beside it.")],
    clips: Annotated[int, typer.Option(min=1, help="Sentences a system.")] = 24,
    seed: Annotated[int, typer.Option(help="Which sentences, and the ids.")] = 0,
) -> None:
    """A listening test as one HTML file: systems, real speech, ceiling and floor, blind."""
    from avb.tools.listen_command import make

    make(systems, out, clips, seed)


@app.command("listen-score")
def listen_score(
    answers: Annotated[list[Path], typer.Argument(help="The file of each rater.")],
    key: Annotated[Path, typer.Option(help="The key that avb listen wrote.")],
    as_json: Json = False,
) -> None:
    """Ratings with intervals over raters and sentences, human word error, paired differences."""
    from avb.tools.listen_command import score

    score(answers, key, as_json)
