"""Other formats and other people's files, and this installation: `avb export`, `doctor`, ..."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.tools.cli import options as o
from avb.tools.cli.console import App, before_command, print_json, say

app = App()
models = App(help="The networks that find faces.")
app.add_typer(models, name="models")


@app.command()
def export(
    context: typer.Context,
    ckpt: o.Checkpoint,
    to: Annotated[Literal["safetensors", "onnx"], Option(help="The format.")],
    out: Annotated[Path, Option(help="A folder: model, config.json, MODEL_CARD.md.")],
    record: Annotated[
        list[Path] | None, Option(help="Record of avb eval on it, for the card; repeatable.")
    ] = None,
    data: o.Shards = None,
    frames: Annotated[
        int | None,
        Option(min=1, help="Frames a clip, for speech as ONNX.", show_default="75 of GRID"),
    ] = None,
    half: Annotated[bool, Option("--half", help="Weights of 16 bits, as safetensors.")] = False,
    as_json: o.Json = False,
) -> None:
    """A checkpoint as safetensors or ONNX (extra `export`), with a model card.

    The safetensors are a checkpoint like any other to avb; a vocoder may be one too.

    The licence and the mel of the card are those of --data, the shards it was trained on.
    """
    from avb.tools.export.export import export
    from avb.train.checkpoint import best_of

    config = export(best_of(ckpt), to, out, record or [], data, frames, context.obj, half)
    if as_json:
        print_json(config)
        return
    step = config["val"]["step"] if config["task"] == "vocoder" else config["step"]
    say(f"{out}: model.{to}, config.json, MODEL_CARD.md; {config['task']}, step {step}")
    if to == "onnx":
        facts = config["onnx"]
        say(
            f"onnxruntime and PyTorch differ by at most {facts['largest_difference']:.2g}"
            f" ({facts['tolerance']:g} is accepted); inputs {facts['inputs']}"
        )


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, Argument(help="The authors' published LRW checkpoint.")],
    out: Annotated[Path, Option(help="The checkpoint to write, for avb eval lip.")],
    data: o.Shards = None,
    labels: Annotated[
        Path | None, Option(help="A file of LRW's 500 words, instead of its shards.")
    ] = None,
) -> None:
    """The authors' published LRW weights as a checkpoint of avb."""
    from avb.tools.export.published import import_published

    import_published(file, out, labels, data)


@models.callback()
def _models() -> None:
    pass  # with one command alone Typer would drop its name


@models.command()
def fetch() -> None:
    """Bring mediapipe's face models here: 36 MB by pip, once; 2 MB are kept."""
    from avb.pipeline.clip.facemodels import WHEEL, WHEEL_MB, fetch, missing

    if missing():
        say(f"the face models of {WHEEL}: {WHEEL_MB} MB, once")
    folder = fetch()
    say(f"the face models are in {folder}" if folder else "the face models are here already")


@app.command()
def doctor(context: typer.Context, as_json: o.Json = False) -> None:
    """What is installed, found and free, and what to do about the rest; exit 1: the base fails."""
    from avb.tools.doctor import run

    raise typer.Exit(run(context.obj, as_json))


@app.command()
def demo(
    context: typer.Context,
    clip: Annotated[
        Path | None, Argument(help="With --quick: a film of your own.", show_default="a drawn one")
    ] = None,
    out: Annotated[Path, Option(help="Everything goes here.")] = Path("demo"),
    quick: Annotated[
        bool, Option("--quick", help="One clip, by the networks that come with avb: a minute.")
    ] = False,
) -> None:
    """The whole pipeline on drawn and spoken corpora, from nothing to a report."""
    if quick:
        from avb.tools.ui.quick import quick as make_page

        typer.echo(make_page(out, clip, context.obj))
        return
    if clip is not None:
        raise UsageError("a film of your own is for --quick")
    from avb.tools.demo import demo

    raise typer.Exit(demo(out, before_command(context.obj)))
