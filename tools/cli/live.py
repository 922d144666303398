"""`avb infer lip --camera | --follow`: a sentence while it is spoken."""

from __future__ import annotations

import statistics
from pathlib import Path

import typer

from avb.pipeline.errors import UsageError
from avb.tools.cli.console import FAILED, fail, print_json, say
from avb.tools.infer.model import Trained


def live(
    trained: Trained, camera: int | None, follow: Path | None, face: int, as_json: bool
) -> None:
    """Print words as they come, each with its delay, until the film ends or Ctrl-C."""
    from avb.tools.infer.live import Camera, Paced, hear, leave_a_core
    from avb.tools.infer.sentence import record
    from avb.tools.infer.video import FPS, BadVideo, pictures, probe

    if trained.task.name != "sentence":
        raise UsageError("--camera and --follow take a reader of sentences (--unit sentence)")
    if camera is not None and follow is not None:
        raise UsageError("give --camera or --follow, not both")
    leave_a_core()
    words, eye, shown = [], None, None
    try:
        if camera is not None:
            eye = Camera(camera)
            shown = Paced(eye)
        else:
            frames = pictures(probe(str(follow)))
            shown = Paced(lambda: next(frames, None))
        say("Ctrl-C ends it")
        for word in hear(shown, trained, trained.grammar, face):
            delay = shown.seconds - word.stop / FPS
            words.append(record([word])["words"][0] | {"delay": round(delay, 3)})
            if not as_json:
                at = f"{word.first / FPS:7.2f} {word.stop / FPS:7.2f}"
                typer.echo(f"{at}  {word.word} {word.confidence:.2f}  +{delay:.2f} s")
    except KeyboardInterrupt:
        pass
    except BadVideo as error:
        fail(str(error), FAILED)
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
