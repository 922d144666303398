"""`avb sync`: how far each clip's sound lies from its lips."""

import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from avb.pipeline.errors import UsageError
from avb.pipeline.machine import cores
from avb.tools.cli import options as o
from avb.tools.cli.console import FAILED, INTERRUPTED, PREEMPTED, App, fail, refuse_unused, show

app = App()
OF_TRAINING = ("by", "recipe", "overrides", "steps", "folds", "jobs")
GOES_ON = "stopped; the same command goes on"


@app.command()
def sync(
    context: typer.Context,
    folder: o.ShardFolder,
    out: Annotated[Path, Option(help="The table to write, Parquet.")] = Path("sync.parquet"),
    model: Annotated[
        Path | None,
        Option(
            help="Network to measure by: OUT.runs/fold0/sync.pt, a run of avb train sync or l2s.",
            show_default="train what it needs",
        ),
    ] = None,
    by: Annotated[
        Literal["sync", "l2s"],
        Option(help="Task that tells lags; l2s: by the speech it makes of lips, slow and exact."),
    ] = "sync",
    recipe: o.RecipeName = "tiny",
    overrides: o.Overrides = None,
    steps: o.Steps = None,
    folds: Annotated[int, Option(min=2, help="Networks, each measures what it has not seen.")] = 2,
    jobs: Annotated[
        int | None, Option(min=1, help="Folds at a time.", show_default="one a core; 1 on a GPU")
    ] = None,
    device: o.Device = None,
    apply: Annotated[
        Path | None,
        Option(help="Do not measure: write shards to --out with their sound moved by this table."),
    ] = None,
    against: Annotated[
        Path | None, Option(help="Say how far this other table agrees with the new one.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """The lag between lips and sound of every clip, for `avb prep --sync`.

    No labels and no weights from elsewhere are needed. Zero is where the corpus lies in the middle.
    What sound was moved by already counts. Running it again goes on with what was stopped.
    """
    if apply is not None:
        show(move_sound(context, folder, apply, out), as_json)
        return
    from avb.train import sync as measuring
    from avb.train import trainer
    from avb.train.checks import check_writable
    from avb.train.data import open_shards
    from avb.train.device import choose_device, use_threads
    from avb.train.recipe_file import load_recipe, make_recipe

    check_writable(out)
    if against is not None:
        check_against(against, out)  # before hours of training
    device = choose_device(device)
    if model is not None:
        refuse_unused(context, "with --model", *OF_TRAINING)
        measuring.measure_by(folder, model, out, device)
    else:
        index, _ = open_shards(folder)
        wanted = load_recipe(by, recipe, overrides)
        changes = {"corpus": index.dataset["corpus"], "steps": steps or wanted.steps}
        wanted = make_recipe(by, wanted.as_dict() | changes, recipe)
        if wanted.crop not in index.dataset["crops"]:
            raise UsageError(f"{folder}: holds no {wanted.crop} crop; --set crop=face takes faces")
        at_once = jobs or (1 if device != "cpu" else min(folds, cores()))
        use_threads(cores())
        try:
            measuring.measure_corpus(folder, wanted, out, folds, device, at_once, cores())
        except trainer.Preempted as stop:
            fail(GOES_ON, INTERRUPTED if stop.by == signal.SIGINT else PREEMPTED)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(GOES_ON) from None
    show(measuring.summary(out, against), as_json)


def check_against(against: Path, out: Path) -> None:
    """UsageError: no table to compare with, or one that would be written over first."""
    from avb.train.sync import read_lags

    if against.resolve() == out.resolve():
        raise UsageError(f"--against {against} is what --out writes; give another --out")
    read_lags(against)


def move_sound(context: typer.Context, folder: Any, table: Path, out: Path) -> dict[str, Any]:
    """The shards of `folder` in `out`, with the sound of each clip where its lips are."""
    from avb.pipeline.build.resound import apply_lags
    from avb.pipeline.corpora.lags import read_lags
    from avb.pipeline.files import ABSENT, DISK_FAULTS
    from avb.tools.progress import progress

    refuse_unused(context, "with --apply", "model", "against", *OF_TRAINING)
    if out.suffix == ".parquet" or not isinstance(folder, Path):
        raise UsageError("--apply: from a folder of this machine to another, given as --out")
    lags = read_lags(table)
    try:
        with progress("clip") as bar:
            record = apply_lags(folder, lags, out, bar.update)
    except ValueError as error:
        raise UsageError(f"{folder}: {error} (avb verify finds every fault)") from None
    except OSError as error:
        if error.errno not in DISK_FAULTS | ABSENT:
            raise
        fail(f"{error.filename or out}: {error.strerror}; {folder} is as it was", FAILED)
    told = {name: n for name, n in record["counts"]["flags"].items() if name.startswith("sync_")}
    return {"shards": str(out), "fingerprint": record["fingerprint"]} | told
