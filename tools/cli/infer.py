"""A trained model at work on anyone's video: `avb infer` and `avb ui`."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, App, print_json, refuse_unused, say

if TYPE_CHECKING:
    from avb.tools.infer.model import Trained

ONE_OF = "name VIDEO files, or --camera, or --follow, which write no --srt and no --track"

app = App()
inference = App(help="Words or speech from any video that ffmpeg reads.")
app.add_typer(inference, name="infer")


def infer(
    context: typer.Context,
    task: Literal["lip", "l2s"],
    videos: Annotated[
        list[str] | None, Argument(metavar="VIDEO...", help="Video files.", show_default=False)
    ] = None,
    camera: Annotated[
        int | None, Option(metavar="N", help="Read sentences live, of camera N.")
    ] = None,
    follow: Annotated[
        Path | None, Option(help="Read a film live: its pictures come 25 a second.")
    ] = None,
    ckpt: o.OwnCheckpoint = None,
    top: Annotated[int, Option(min=1, help="Words shown.")] = 5,
    vocoder: o.VocoderFile = None,
    out: Annotated[
        Path | None, Option(help="The WAV to write, or a folder.", show_default="VIDEO's name.wav")
    ] = None,
    mux: Annotated[
        Path | None, Option(help="Write the video with the speech, its own sound as second track.")
    ] = None,
    srt: Annotated[Path | None, Option(help="Write subtitles; or a folder.")] = None,
    grammar: o.GrammarFile = None,
    track: Annotated[Path | None, Option(help="Write the video with the box; or a folder.")] = None,
    face: Annotated[int, Option(min=1, help="1 is the largest and steadiest, 2 the next one.")] = 1,
    face_every: Annotated[
        int | None,
        Option(min=1, help="Look for faces every N pictures.", show_default="5 times a second"),
    ] = None,
    box: Annotated[
        Literal["auto", "fixed", "tracked", "whole"],
        Option(help="auto: as in training; whole: a crop already."),
    ] = "auto",
    device: o.Device = None,
    allow_url: Annotated[bool, Option("--allow-url", help="VIDEO may be an address.")] = False,
    as_json: o.Json = False,
) -> None:
    """Read or speak every film; a film that fails does not stop the others."""
    from avb.tools.infer import bundled, film
    from avb.tools.infer.model import load_trained
    from avb.train.checkpoint import best_of
    from avb.train.device import choose_device
    from avb.train.evaluate.words.reading import read_grammar
    from avb.train.tasks.task import command_of

    device = choose_device(device)
    videos = videos or []
    live = camera is not None or follow is not None
    if live == bool(videos) or (live and (srt or track)):
        raise UsageError(ONE_OF)
    if live:
        unused = ("box", "face_every", "top", "allow_url")
        refuse_unused(context, "with --camera and --follow", *unused)
    if ckpt is None:
        ckpt = bundled.checkpoint("sentence" if live or srt or grammar else task)
        vocoder = vocoder or bundled.vocoder(task)
    ckpt = best_of(ckpt)
    targets = outputs(videos, task, out, mux=mux, track=track, srt=srt)
    words = None if grammar is None else read_grammar(grammar)
    trained = load_trained(task, ckpt, device, context.obj, vocoder, words)
    if live:
        read_live(trained, camera, follow, face, as_json)
        return
    check_fits(context, trained, ckpt, box, srt, grammar)
    read = partial(
        film.infer, trained=trained, allow_url=allow_url, top=top, box=box, face=face,
        face_every=face_every,
    )  # fmt: skip
    read_films(read, videos, targets, command_of(trained.task.name), as_json)


def outputs(
    videos: list[str], task: str, out: Path | None, **more: Path | None
) -> dict[str, list[Path]]:
    """The files to write of each film; UsageError: one cannot be, or is there and was not named."""
    from avb.tools.infer import film
    from avb.train.checks import check_writable

    here = Path(".") if task == "l2s" else None
    targets = {"out": film.targets(videos, out or here, ".wav")}
    for name, given in more.items():
        targets[name] = film.targets(videos, given, ".srt" if name == "srt" else ".mp4")
    film.check_apart(targets)
    for path in itertools.chain(*targets.values()):
        check_writable(path)
    if out is None and (there := [str(path) for path in targets["out"] if path.exists()]):
        raise UsageError(f"{there[0]}: is there already; --out {there[0]} writes over it")
    return targets


def check_fits(
    context: typer.Context, trained: Trained, ckpt: Path, box: str, srt: Path | None,
    grammar: Path | None,
) -> None:  # fmt: skip
    """Refuse what this model cannot do; say what it is not told, and how good avb's own is."""
    from avb.tools.infer import bundled

    if trained.task.makes == "sentence":
        refuse_unused(context, f"on the sentences that {ckpt} reads", "top")
    if box in ("fixed", "whole"):
        refuse_unused(context, f"with --box {box}", "face", "face_every")
    if bundled.FOLDER in ckpt.parents:
        what = bundled.known(trained.task.name, trained.labels, trained.talkers, ckpt)
        say(f"note: the network that comes with avb {what}")
    if box == "fixed" and trained.settings.fixed_box is None:
        raise UsageError(f"--box fixed: {ckpt} was not trained with a fixed box")
    for option, given, what in (
        ("--srt", srt, "subtitles are"), ("--grammar", grammar, "a grammar is")
    ):  # fmt: skip
        if given is not None and trained.task.makes != "sentence":
            raise UsageError(f"{option}: {ckpt} reads single words; {what} of sentences")
    if trained.recipe.model.get("word_boundary"):
        say("note: this model was told where the word lies; here the middle of a window is read")


def read_films(
    read: Callable[..., dict[str, Any]], videos: list[str], targets: dict[str, list[Path]],
    task: str, as_json: bool,
) -> None:  # fmt: skip
    """Every film with the files to write of it; exit code 1 if one could not be used."""
    from avb.tools.infer.video import BadVideo

    records = []
    for number, video in enumerate(videos):
        paths = {name: given[number] for name, given in targets.items() if given}
        try:
            records.append(read(video, paths=paths))
            if not as_json:
                show_film(records[-1])
        except (BadVideo, OSError) as error:
            say(f"avb: {error}")
            records.append({"video": video, "error": str(error)})
    if as_json:
        print_json({"task": task, "videos": records})
    if any("error" in record for record in records):
        raise typer.Exit(FAILED)


def read_live(
    trained: Trained, camera: int | None, follow: Path | None, face: int, as_json: bool
) -> None:
    """Print words as they come, each with its delay, until the film ends or Ctrl-C."""
    from avb.tools.infer.live import Camera, Paced, hear, leave_a_core
    from avb.tools.infer.sentence import record
    from avb.tools.infer.video import FPS, pictures, probe

    if trained.task.name != "sentence":
        raise UsageError("--camera and --follow take a reader of sentences (--unit sentence)")
    if camera is not None and follow is not None:
        raise UsageError("give --camera or --follow, not both")
    leave_a_core()
    words, eye, shown = [], None, None
    film = None if follow is None else str(follow)
    try:
        if camera is not None:
            eye = Camera(camera)
            shown = Paced(iter(eye))
        else:
            shown = Paced(pictures(probe(str(follow))))
        say("Ctrl-C ends it")
        for word in hear(shown, trained, face, film):
            delay = shown.seconds - word.stop / FPS
            words.append(record([word])["words"][0] | {"delay": round(delay, 3)})
            if not as_json:
                at = f"{word.first / FPS:7.2f} {word.stop / FPS:7.2f}"
                typer.echo(f"{at}  {word.word} {word.confidence:.2f}  +{delay:.2f} s")
    except KeyboardInterrupt:
        pass
    finally:
        if eye is not None:
            eye.close()
    if shown is None:  # Ctrl-C before there was anything to see
        raise KeyboardInterrupt
    late = statistics.median([word["delay"] for word in words]) if words else None
    fps = shown.taken / shown.seconds
    if as_json:
        print_json({"task": "lip", "words": words, "delay": late, "fps": round(fps, 2)})
    told = "no word" if late is None else f"{len(words)} words, {late:.2f} s after their end"
    say(f"{told} (median); {fps:.1f} pictures a second")


inference.variant(
    "lip", infer, "The sentence, or words for every window of 29 pictures, one every 0.2 s.",
    task="lip", vocoder=None, out=None, mux=None,
)  # fmt: skip
inference.variant(
    "l2s", infer,
    "The speech that belongs to a silent face: 16 kHz, mono, as long as the video.",
    task="l2s", top=5, srt=None, grammar=None, camera=None, follow=None,
)  # fmt: skip


def show_film(record: dict[str, Any]) -> None:
    """The result of one film: what was found on stdout, the rest on stderr."""
    others = f", {record['faces']} faces (--face)" if record["faces"] > 1 else ""
    turned = f", turned by {record['turned']} degrees" if record["turned"] else ""
    say(f"{record['video']}: {record['duration']:.2f} s, box {record['box']}{turned}{others}")
    for start, end in record["absent"]:
        say(f"nobody is seen from {start:.2f} to {end:.2f} s")
    if "sentence" in record:
        typer.echo(record["sentence"])
        for word in record["words"]:
            at = f"{word['start']:7.2f} {word['end']:7.2f}"
            typer.echo(f"{at}  {word['word']} {word['confidence']:.2f}")
    for window in record.get("windows", []):
        typer.echo(f"{window['start']:7.2f} {window['end']:7.2f}  {_words(window['words'])}")
    if len(record.get("windows", [])) > 1:
        typer.echo(f"{'all':>15}  {_words(record['words'])}")
    if "out" in record:
        typer.echo(record["out"])
    for name in ("mux", "track", "srt"):
        if name in record:
            say(f"{name}: {record[name]}")
    spent = ", ".join(f"{stage} {s:.1f}" for stage, s in record["seconds"].items() if s)
    say(f"seconds: {spent}")


def _words(words: list[dict[str, Any]]) -> str:
    return "  ".join(f"{w['word']} {w['probability']:.2f}" for w in words) or "-"


@app.command()
def ui(
    context: typer.Context,
    ckpt: Annotated[
        list[Path] | None,
        Option(
            help="A run's best.pt, lip or l2s; repeatable, to choose from.",
            show_default="what comes with avb",
        ),
    ] = None,
    vocoder: o.VocoderFile = None,
    host: Annotated[str, Option(help="Who may open it; 0.0.0.0: everybody.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, help="0 takes a free one.")] = 7860,
    max_mb: Annotated[float, Option(min=1, help="Largest clip, in megabytes.")] = 200,
    max_seconds: Annotated[
        float, Option(min=1, help="Longest clip; its work may take ten times as long.")
    ] = 60,
    device: o.Device = None,
) -> None:
    """A page on this machine: drop or record a clip, see and hear what a model makes of it."""
    from avb.tools.infer import bundled
    from avb.tools.ui.serve import run

    if not ckpt:
        ckpt, vocoder = bundled.checkpoints(), vocoder or bundled.vocoder("l2s")
    run(ckpt, host, port, max_mb, max_seconds, device, context.obj, vocoder)
