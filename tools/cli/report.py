"""`avb report|plot|listen|listen-score`: results for readers and listeners."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from avb.tools.cli import options as o
from avb.tools.cli.console import App, print_json, refuse_unused, say
from avb.tools.cli.evaluate import interval

app = App()


@app.command()
def report(
    context: typer.Context,
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Folders of avb train.")],
    out: Annotated[Path, Option(help="The page to write.")] = Path("report.html"),
    data: o.Shards = None,
    clips: Annotated[int, Option(min=1, help="With --data: how many test clips.")] = 1,
    device: o.Device = None,
) -> None:
    """One page to mail: what was trained, curves, numbers beside published ones, pictures, sounds.

    Evaluations are the records of avb eval that lie in the run's folder. With --data there are
    clips, sounds and the map of features too.
    """
    from avb.tools.report.write import report

    if data is None:
        refuse_unused(context, "without --data", "clips")
    report(runs, data, out, clips, device, context.obj)


@app.command()
def plot(
    context: typer.Context,
    run: Annotated[Path, Argument(help="A folder of avb train.")],
    figure: Annotated[
        Literal[
            "curves", "confusion", "addressing", "similarity", "tsne", "mels", "mouths", "pairs"
        ],
        Option(help="addressing, tsne, mels, mouths and pairs need --data."),
    ],
    out: Annotated[Path, Option(help="The file to write, .png or .pdf.")],
    data: o.Shards = None,
    clip: Annotated[int, Option(min=1, help="Which of the report's clips.")] = 1,
    pair: Annotated[
        list[str] | None,
        Option(metavar="WORD:FRAMES", help="about:3-7 of mouths; of pairs, two or more."),
    ] = None,
    device: o.Device = None,
) -> None:
    """One figure of the report as a file; mouths and pairs are the paper's Figures 3 and 4."""
    from avb.tools.report.write import plot

    if figure not in ("mouths", "pairs"):
        refuse_unused(context, f"on --figure {figure}", "pair")
    if figure not in ("addressing", "mels"):
        refuse_unused(context, f"on --figure {figure}", "clip")
    plot(run, figure, out, data, clip, pair or [], device, context.obj)


@app.command()
def listen(
    systems: Annotated[
        list[str], Argument(metavar="NAME=DIR...", help="Folders of eval l2s --save-wavs.")
    ],
    out: Annotated[Path, Option(help="The page; its key is written beside it.")],
    vocoder: Annotated[
        Path | None, Option(help="True mels through it, of avb train vocoder, are a system too.")
    ] = None,
    clips: Annotated[int, Option(min=1, help="Sentences a system.")] = 24,
    seed: Annotated[int, Option(min=0, help="Which sentences, and the ids.")] = 0,
) -> None:
    """A listening test as one HTML file: systems, real speech, ceiling and floor, blind."""
    from avb.tools.listen import build
    from avb.train.vocoder.file import load

    taken = [build.REAL, build.CEILING, build.FLOOR, *([build.VOCODER] if vocoder else [])]
    folders = build.parse(systems, taken)
    key = build.build(folders, out, clips, seed, load(vocoder) if vocoder else None)
    total = len(folders) + len(taken)
    say(f"{out}: {clips} sentences of {total} systems, {total * clips} clips and 4 repeats")
    say(f"{key}: the key; keep it from the raters, avb listen-score needs it")


@app.command("listen-score")
def listen_score(
    answers: Annotated[list[Path], Argument(help="The file of each rater.")],
    key: Annotated[Path, Option(help="The key that avb listen wrote.")],
    as_json: o.Json = False,
) -> None:
    """Ratings with intervals over raters and sentences, human word error, paired differences."""
    from avb.tools.listen.score import score

    record = score(answers, key)
    if as_json:
        print_json(record)
        return
    say(f"{len(record['raters'])} raters, {len(record['excluded'])} left out")
    for one in record["excluded"]:
        say(f"left out: {one['rater']}: {'; '.join(one['reasons'])}")
    for line in ratings(record):
        typer.echo(line)
    for note in record["notes"]:
        say(f"note: {note}")


def ratings(record: dict[str, Any]) -> list[str]:
    """The table: figures with both intervals, then the differences."""
    width = max(len(name) for name in record["systems"])
    lines = []
    for measure in ("intelligibility", "naturalness", "wer"):
        lines.append(f"{measure}: mean [95 %, raters and sentences drawn], mean of raters +- t")
        for name, figures in record["systems"].items():
            one = figures[measure]
            half = one["rater_mean"]["half"]
            spread = "-" if half is None else f"{half:.2f}"
            mean = one["rater_mean"]["value"]
            lines.append(f"  {name:<{width}}  {interval(one, '.2f')}  {mean:.2f} +- {spread}")
    lines.append("differences: A - B [95 %], p, p by Holm")
    for pair in record["differences"]:
        shown = interval(pair, "+.2f")
        both = f"p {pair['p']:.2g}, {pair['p_holm']:.2g}"
        lines.append(f"  {pair['measure']}: {pair['a']} - {pair['b']}  {shown}  {both}")
    return lines
