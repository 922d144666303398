"""A trained model at work: anyone's video, other formats, other people's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from avb.tools.cli.console import App
from avb.tools.cli.options import Checkpoint, Device, Json

app = App()
infer = App(
    help="Words or speech from any video that ffmpeg reads.",
)
app.add_typer(infer, name="infer")
models = App(help="The networks that find faces.")
app.add_typer(models, name="models")

Videos = Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Video files.")]
FaceNumber = Annotated[
    int, typer.Option("--face", min=1, help="1 is the largest and steadiest, 2 the next one.")
]
FaceEvery = Annotated[
    int | None, typer.Option(min=1, help="Look for faces every N pictures [5 times a second].")
]
Box = Annotated[
    str, typer.Option(help="auto (as in training), fixed, tracked, or whole (a crop already).")
]
TrackOut = Annotated[
    Path | None, typer.Option("--track", help="Write the video with the box; or a folder.")
]
AllowUrl = Annotated[bool, typer.Option("--allow-url", help="VIDEO may be an address.")]


def _infer(context: typer.Context, **given: Any) -> None:
    from avb.tools import infer_command

    code = infer_command.run(infer_command.Options(datasets=context.obj, **given))
    if code:
        raise typer.Exit(code)


@infer.command("lip")
def infer_lip(
    context: typer.Context,
    videos: Videos,
    ckpt: Checkpoint,
    top: Annotated[int, typer.Option(min=1, help="Words shown.")] = 5,
    track: TrackOut = None,
    face: FaceNumber = 1,
    face_every: FaceEvery = None,
    box: Box = "auto",
    device: Device = None,
    allow_url: AllowUrl = False,
    as_json: Json = False,
) -> None:
    """Ranked words for every window of 29 pictures, one every 0.2 s."""
    _infer(
        context, task="lip", videos=videos, ckpt=ckpt, top=top, track=track, face=face,
        face_every=face_every, box=box, device=device, allow_url=allow_url, as_json=as_json,
    )  # fmt: skip


@infer.command("l2s")
def infer_l2s(
    context: typer.Context,
    videos: Videos,
    ckpt: Checkpoint,
    out: Annotated[
        Path | None, typer.Option(help="The WAV to write, or a folder [VIDEO's name.wav].")
    ] = None,
    mux: Annotated[
        Path | None,
        typer.Option(help="Write the video with the speech, its own sound as second track."),
    ] = None,
    track: TrackOut = None,
    face: FaceNumber = 1,
    face_every: FaceEvery = None,
    box: Box = "auto",
    device: Device = None,
    allow_url: AllowUrl = False,
    as_json: Json = False,
) -> None:
    """The speech that belongs to a silent face: 16 kHz, mono, as long as the video."""
    _infer(
        context, task="l2s", videos=videos, ckpt=ckpt, out=out, mux=mux, track=track, face=face,
        face_every=face_every, box=box, device=device, allow_url=allow_url, as_json=as_json,
    )  # fmt: skip


@models.callback()
def _models() -> None:
    pass  # with one command alone Typer would drop its name


@models.command()
def fetch() -> None:
    """Bring mediapipe's face models here: 36 MB by pip, once; 2 MB are kept."""
    from avb.pipeline.clip.facemodels import WHEEL, WHEEL_MB, fetch, missing
    from avb.tools.cli.console import say

    if missing():
        say(f"the face models of {WHEEL}: {WHEEL_MB} MB, once")
    folder = fetch()
    say(f"the face models are in {folder}" if folder else "the face models are here already")


@app.command()
def ui(
    context: typer.Context,
    ckpt: Annotated[
        list[Path], typer.Option(help="A run's best.pt, lip or l2s; repeatable, to choose from.")
    ],
    host: Annotated[str, typer.Option(help="Who may open it; 0.0.0.0: everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0 takes a free one.")] = 7860,
    max_mb: Annotated[float, typer.Option(min=1, help="Largest clip, in megabytes.")] = 200,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="Longest clip; its work may take ten times as long.")
    ] = 60,
    device: Device = None,
) -> None:
    """A page on this machine: drop or record a clip, see and hear what a model makes of it."""
    from avb.tools.ui.command import Options, run

    run(Options(ckpt, host, port, max_mb, max_seconds, device, context.obj))


@app.command()
def export(
    context: typer.Context,
    ckpt: Checkpoint,
    to: Annotated[str, typer.Option(help="safetensors or onnx.")],
    out: Annotated[Path, typer.Option(help="A folder: model, config.json, MODEL_CARD.md.")],
    record: Annotated[
        list[Path] | None,
        typer.Option(help="Record of avb eval on it, for the card; repeatable."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The shards it was trained on, for their licence and mel.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames a clip, for speech as ONNX [75 of GRID].")
    ] = None,
    as_json: Json = False,
) -> None:
    """A checkpoint as safetensors or ONNX, with a model card (extra `export`)."""
    from avb.pipeline.storage.store import place
    from avb.tools.export_command import run

    shards = place(data) if data else None
    run(ckpt, to, out, record or [], shards, frames, as_json, context.obj)


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="The authors' published LRW checkpoint.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write, for avb eval lip.")],
    data: Annotated[str | None, typer.Option(help="Shards of LRW, for their words.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Or a file of LRW's 500 words.")] = None,
) -> None:
    """The authors' published LRW weights as a checkpoint of avb."""
    from avb.pipeline.storage.store import place
    from avb.tools.export.published import import_published

    import_published(file, out, labels, place(data) if data else None)


@app.command()
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """What is installed, found and free, and what to do about the rest; exit 1: the base fails."""
    from avb.tools.doctor import run

    code = run(context.obj, as_json)
    if code:
        raise typer.Exit(code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Everything goes here.")] = Path("demo"),
) -> None:
    """The whole pipeline on drawn and spoken corpora, from nothing to a report."""
    from avb.tools.demo import demo as run

    code = run(out)
    if code:
        raise typer.Exit(code)
