"""`avb bench`: side by side in one run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avb.tools.cli import options as o
from avb.tools.cli.console import App, show

app = App(help="Measure, side by side in one run.")
step = App(help="The training step against plain eager PyTorch on the same batches.")
app.add_typer(step, name="train")

Raw = Annotated[Path, typer.Argument(help="A raw corpus.")]
Which = Annotated[str | None, typer.Option(help="Which one.", show_default="recognised")]
Clips = Annotated[int, typer.Option(min=1, help="How many clips, a repeatable sample.")]
Rounds = Annotated[int, typer.Option(min=1, help="Turns of each.")]
Local = Annotated[Path, typer.Argument(help="Shards on this machine, OUT/<corpus>.")]


@app.command("prep")
def bench_prep(
    context: typer.Context,
    root: Raw,
    corpus: Which = None,
    clips: Clips = 40,
    rounds: Rounds = 3,
    codec: o.Codec = "mp4",
    mel_dtype: o.MelDtype = "float16",
    as_json: o.Json = False,
) -> None:
    """Preparing a clip against decoding its picture and sound alone, on one core."""
    from avb.tools.bench.prep import bench_prep

    show(bench_prep(root, corpus, clips, rounds, codec, mel_dtype, context.obj), as_json)


@app.command("read")
def bench_read(shards: Local, clips: Clips = 300, as_json: o.Json = False) -> None:
    """Reading shards against plain webdataset and PyAV on the same clips, on one core."""
    from avb.tools.bench.read import bench_read

    show(bench_read(shards, clips), as_json)


@app.command("hours")
def bench_hours(
    context: typer.Context,
    roots: Annotated[list[Path], typer.Argument(help="Raw clips, a folder a corpus.")],
    clips: Clips = 40,
    as_json: o.Json = False,
) -> None:
    """Hours that whole corpora take on 1 to 256 cores, as a table."""
    from avb.tools.bench.prep import bench_hours, lines

    record = bench_hours(roots, clips, context.obj)
    show(record, as_json, lines(record))


def bench_train(
    context: typer.Context,
    task: Literal["lip", "l2s"],
    recipe: o.RecipeName = "paper",
    overrides: o.Overrides = None,
    data: o.Shards = None,
    device: o.Device = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Clips a step.", show_default="per recipe; on the CPU 8, speech 2"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Timed steps a round.", show_default="24, on the CPU 1 or 6"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Turns of each.", show_default="5, on the CPU 3")
    ] = None,
    compile_model: o.Compile = False,
    as_json: o.Json = False,
) -> None:
    """Measure the training step; without --data on drawn batches."""
    from avb.tools.bench.train import bench_train

    record = bench_train(
        task, recipe, overrides, data=data, device=device, batch_size=batch_size, steps=steps,
        rounds=rounds, compile_model=compile_model, datasets=context.obj,
    )  # fmt: skip
    show(record, as_json)


step.variant("lip", bench_train, "The lip reader; without --data on drawn batches.", task="lip")
step.variant(
    "l2s", bench_train, "The speech model, with both decoders; without --data on drawn batches.",
    task="l2s",
)  # fmt: skip
