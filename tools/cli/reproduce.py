"""`avb reproduce`: a table of the paper from raw clips or shards to a page, in one line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from avb.pipeline.errors import UsageError
from avb.tools.cli import options as o
from avb.tools.cli.console import App, before_command, fail, print_json, refuse_unused, say, show

if TYPE_CHECKING:
    from avb.pipeline.config import Corpus
    from avb.tools.reproduce.plan import Step, Wanted

app = App()
A_WEEK = 24 * 7.0  # hours


@app.command()
def reproduce(
    context: typer.Context,
    table: Annotated[
        Literal["table1", "table2", "table3", "table4", "table5", "ablation", "figures"],
        Argument(help="Of the paper."),
    ],
    corpus: Annotated[o.Corpus | None, Option(help="On which.", show_default="the paper's")] = None,
    recipe: Annotated[
        str | None, Option(help="A name or a YAML file.", show_default="the paper's")
    ] = None,
    seeds: o.Seeds = "0,1,2",
    root: Annotated[str | None, Option(help="The raw corpus, if there are no shards yet.")] = None,
    data: Annotated[Path | None, Option(help="Its shards.", show_default="shards/<corpus>")] = None,
    unit: o.Unit = None,
    split: Annotated[str | None, Option(help="A named split.", show_default="the table's")] = None,
    speakers: o.Talkers = None,
    steps: o.Steps = None,
    device: o.Device = None,
    out: Annotated[
        Path | None,
        Option(help="Folder of all of it.", show_default="runs/<table>-<corpus>-<recipe>"),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would run, in which order, and how long.")
    ] = False,
    card: Annotated[
        str | None,
        Option(help="With --dry-run: hours on this card by its FLOPs (h100 hbm3, a100)."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Train what is missing, resume what was begun, measure, compare; one page and one JSON."""
    from avb.pipeline.config import corpus_root, load_corpora
    from avb.tools.ablate import NEEDS
    from avb.tools.reproduce import plan
    from avb.train.checks import need

    if not dry_run:
        refuse_unused(context, "without --dry-run", "card")
    asked = plan.tables()[table]
    chosen: str = corpus or list(asked.recipes)[0]
    if chosen not in asked.recipes:
        raise UsageError(f"{table} is of speech, and {chosen} has words alone; --corpus grid")
    if unit == "sentence":
        raise UsageError(
            f"{table} is of words, --unit clip or word; sentences: avb ablate lip --unit sentence"
        )
    own = recipe or asked.recipes[chosen]
    out = out or Path("runs") / f"{table}-{chosen}-{Path(own).stem}"
    wanted = plan.Wanted(
        asked, chosen, data or Path("shards") / chosen, out, own, seeds, root,
        split or asked.split or None, speakers and ",".join(speakers),
        unit or ("word" if chosen == "grid" else None), steps, device,
    )  # fmt: skip
    todo = plan.steps(wanted)
    entry = load_corpora(context.obj)[chosen]
    lack = plan.missing(wanted, entry, Path(str(corpus_root(chosen, entry, root))))
    if dry_run:
        _tell(todo, wanted, lack, card, as_json)
        return
    if lack:
        raise UsageError(lack)
    need("matplotlib", "jinja2", *NEEDS[asked.task], *["sklearn"] * ("tsne" in asked.figures))
    _carry_out(todo, context.obj)
    _show(wanted, table, entry, as_json)


def _carry_out(todo: list[Step], datasets: Path | None) -> None:
    from avb.tools.reproduce.run import Stopped, carry_out

    top = before_command(datasets)
    for number, step in enumerate(todo, 1):
        if step.is_done():
            continue
        say(f"[{number}/{len(todo)}] avb {shlex.join(step.words)}")
        try:
            carry_out(step, top)
        except Stopped as stopped:
            # Another training than the one that lies there is wrong usage.
            further = "the same command goes on there"
            if stopped.code == 2 and step.recipe and step.done.with_name("last.pt").exists():
                further = "ask for it as it was, or give another --out"
            fail(f"{stopped}; {further}", stopped.code)


def _show(wanted: Wanted, table: str, entry: Corpus, as_json: bool) -> None:
    """What it came to, on the terminal and in the folder of the table."""
    from avb.tools.reproduce.result import as_text, result, write

    other = list(wanted.table.recipes)[0] != wanted.corpus
    title = wanted.table.title + (f", on {entry.title}" if other else "")
    title += f", split {wanted.split}" if wanted.split else ""
    found = result(wanted, table, title)
    write(found, wanted)
    held = f"{wanted.out / table}.html and .json hold all of it"
    show(found, as_json, [*as_text(found), held])


def _tell(
    todo: list[Step], wanted: Wanted, lack: str | None, card: str | None, as_json: bool
) -> None:
    """Every step, with the hours that its training takes."""
    from avb.tools.reproduce.run import clips_per_s

    if lack:
        say(f"missing: {lack}")
    rates: dict[str, float] = {}
    told: list[dict[str, Any]] = []
    for step in todo:
        done, hours, note = step.is_done(), None, ""
        if step.recipe is not None and not done:
            key = repr(step.recipe)
            if key not in rates:
                try:
                    rates[key] = clips_per_s(step.recipe, card)
                except KeyError:
                    raise UsageError(f"--card {card}: its peak is not known here") from None
            clips = (wanted.steps or step.recipe.steps) * step.recipe.batch_size
            hours = round(clips / rates[key] / 3600, 2)
            note = f"{hours:.2f} h"
        told.append({"command": f"avb {shlex.join(step.words)}", "done": done, "hours": hours})
        if not as_json:
            typer.echo(f"{'done' if done else note:>9}  {told[-1]['command']}")
    total = sum(step["hours"] or 0.0 for step in told)
    if as_json:
        print_json({"steps": told, "hours": round(total, 2), "card": card, "missing": lack})
        return
    by = (
        f"by FLOPs, {card} reaching of its peak what an H200 did (results/gpu)"
        if card
        else "by two steps on this machine"
    )
    say(f"trainings that are left: {total:.1f} h one after the other, {by}")
    if total > A_WEEK and card is None:
        say("that is too long for this machine: --recipe tiny is made for one without a GPU")
