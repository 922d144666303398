"""`avb bench`: side by side in one run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from avb.tools.cli.console import App, show
from avb.tools.cli.options import Compile, Device, Json, Overrides, RecipeName

app = App(
    help="Measure, side by side in one run.",
)
step = App(
    help="The training step against plain eager PyTorch on the same batches.",
)
app.add_typer(step, name="train")

Streamed = Annotated[
    str | None,
    typer.Option(help="Shards to stream, a folder or an address [drawn batches]."),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Clips a step [per recipe; on the CPU 8, speech 2].")
]
Timed = Annotated[
    int | None, typer.Option(min=1, help="Timed steps a round [24, on the CPU 1 or 6].")
]
Rounds = Annotated[int | None, typer.Option(min=1, help="Turns of each [5, on the CPU 3].")]


@app.command("prep")
def bench_prep_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A raw corpus.")],
    corpus: Annotated[str | None, typer.Option(help="Which one [recognised].")] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many clips, a repeatable sample.")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Times each clip is measured.")] = 3,
    codec: Annotated[str, typer.Option(help="mp4, h264 or jpeg.")] = "mp4",
    mel_dtype: Annotated[str, typer.Option(help="float16 or uint8.")] = "float16",
    as_json: Json = False,
) -> None:
    """Preparing a clip against decoding its picture and sound alone, on one core."""
    from avb.tools.bench.prep import bench_prep

    show(bench_prep(folder, corpus, clips, rounds, codec, mel_dtype, context.obj), as_json)


@app.command("read")
def bench_read_command(
    folder: Annotated[Path, typer.Argument(help="Shards, OUT/<corpus>.")],
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 300,
    as_json: Json = False,
) -> None:
    """Reading shards against plain webdataset and PyAV on the same clips, on one core."""
    from avb.tools.bench.read import bench_read

    show(bench_read(folder, clips), as_json)


@app.command("storage")
def bench_storage_command(
    folder: Annotated[Path, typer.Argument(help="Shards on this machine, OUT/<corpus>.")],
    store: Annotated[str, typer.Argument(metavar="URL", help="The same shards in a store.")],
    clips: Annotated[int, typer.Option(min=1, help="How many clips a round.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    as_json: Json = False,
) -> None:
    """Reading shards from a store, once they are in the cache, against a local folder."""
    from avb.pipeline.storage.store import place
    from avb.tools.bench.storage import bench_storage

    show(bench_storage(folder, place(store), clips, rounds), as_json)


@app.command("growth")
def bench_growth_command(
    rows: Annotated[int, typer.Option(min=1, help="How many clips.")] = 100_000,
    kind: Annotated[str, typer.Option(help="lrw (a word each) or grid (sentences).")] = "lrw",
    folder: Annotated[
        Path | None, typer.Option(help="Where the temporary files go [the system's place].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time and memory of planning, accounting, verifying and indexing clips made up by code."""
    from avb.tools.bench.growth import bench_growth

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is tidied up
    show(bench_growth(rows, kind, folder), as_json)


@app.command("engines")
def bench_engines_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A raw corpus.")],
    corpus: Annotated[str | None, typer.Option(help="Which one [recognised].")] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many clips, a repeatable sample.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes of each.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    address: Annotated[str | None, typer.Option(help="Ray's HOST:PORT, or auto.")] = None,
    as_json: Json = False,
) -> None:
    """`avb prep` on Ray against as many processes without it, start-up left out."""
    from avb.tools.bench.engines import bench_engines

    found = bench_engines(folder, corpus, clips, jobs, rounds, address, context.obj)
    show(found, as_json)


@app.command("driver")
def bench_driver_command(
    workers: Annotated[int, typer.Option(min=1, help="Simulated workers.")] = 1000,
    units: Annotated[int, typer.Option(min=1, help="Units that sleep.")] = 2000,
    unit_s: Annotated[float, typer.Option(min=0, help="Seconds each sleeps.")] = 60.0,
    as_json: Json = False,
) -> None:
    """The driver of `avb prep --engine ray` alone, its units replaced by sleeps."""
    from avb.tools.bench.engines import bench_driver

    show(bench_driver(workers, units, unit_s), as_json)


@app.command("hours")
def bench_hours_command(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(help="Raw clips, a folder a corpus.")],
    clips: Annotated[int, typer.Option(min=1, help="How many of each are measured.")] = 40,
    driver: Annotated[bool, typer.Option(help="Measure Ray's driver too.")] = True,
    as_json: Json = False,
) -> None:
    """Hours that whole corpora take on 1 to 256 cores, as a table."""
    from avb.tools.bench.hours import bench_hours, lines

    record = bench_hours(folders, clips, context.obj, driver)
    if as_json:
        show(record, True)
        return
    for line in lines(record):
        typer.echo(line)


@step.command("lip")
def bench_train_lip(
    context: typer.Context,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    data: Streamed = None,
    device: Device = None,
    batch_size: BatchSize = None,
    steps: Timed = None,
    rounds: Rounds = None,
    compile_model: Compile = False,
    as_json: Json = False,
) -> None:
    """The lip reader."""
    from avb.pipeline.storage.store import place
    from avb.tools.bench.train import bench_train as measure

    record = measure(
        "lip", recipe, overrides, data=place(data) if data else None, device=device,
        batch_size=batch_size, steps=steps, rounds=rounds, compile_model=compile_model,
        datasets=context.obj,
    )  # fmt: skip
    show(record, as_json)


@step.command("l2s")
def bench_train_l2s(
    context: typer.Context,
    recipe: RecipeName = "paper",
    overrides: Overrides = None,
    data: Streamed = None,
    device: Device = None,
    batch_size: BatchSize = None,
    steps: Timed = None,
    rounds: Rounds = None,
    compile_model: Compile = False,
    as_json: Json = False,
) -> None:
    """The speech model, with both decoders."""
    from avb.pipeline.storage.store import place
    from avb.tools.bench.train import bench_train as measure

    record = measure(
        "l2s", recipe, overrides, data=place(data) if data else None, device=device,
        batch_size=batch_size, steps=steps, rounds=rounds, compile_model=compile_model,
        datasets=context.obj,
    )  # fmt: skip
    show(record, as_json)
