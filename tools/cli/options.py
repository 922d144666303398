"""Options that several commands share, each declared once.

What an option is without being given stands in `show_default`; square brackets in a help text
would be taken for a style on a terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from avb.pipeline.errors import UsageError


def folder(text: str) -> Any:
    """A folder of this machine or of a store."""
    from avb.pipeline.storage.store import place

    return place(text)


def names(text: str) -> Any:
    """The names in a list with commas."""
    return text.split(",")


def whole(seeds: list[str]) -> list[int]:
    """Seeds as numbers, each once."""
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise UsageError(f"--seeds {','.join(seeds)}: expected whole numbers, such as 0,1,2")
    return list(dict.fromkeys(map(int, seeds)))


Corpus = Literal["lrw", "lrw1000", "grid"]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout, nothing else.")]
Device = Annotated[str | None, Option(help="cpu or cuda.", show_default="cuda if there")]

# Of prepared shards.
Shards = Annotated[
    Any, Option(parser=folder, metavar="FOLDER", help="Shards, a folder or an address.")
]
ShardFolder = Annotated[
    Any, Argument(parser=folder, metavar="FOLDER", help="OUT/<corpus>, a folder or an address.")
]
Jobs = Annotated[int | None, Option(min=1, help="Worker processes.", show_default="one a core")]

# Of a training.
RecipeName = Annotated[str, Option(help="A recipe's name, or a file.")]
Overrides = Annotated[
    list[str] | None, Option("--set", help="key=value over the recipe; repeatable.")
]
SplitName = Annotated[
    str | None,
    Option(
        help="A named split, such as speaker-dependent or speaker-independent.",
        show_default="per recipe",
    ),
]
Talkers = Annotated[Any, Option(parser=names, metavar="NAMES", help="Only these talkers, s1,s2.")]
SplitFile = Annotated[
    Path | None, Option(help="A list of part/talker/clip instead of a named split.")
]
Seeds = Annotated[Any, Option(parser=names, metavar="S1,S2,...", help="Of each.")]
Unit = Annotated[
    Literal["clip", "word", "sentence"] | None,
    Option(help="Learn a clip, a word of it, or its sentence.", show_default="per recipe"),
]
Tokens = Annotated[
    Literal["word", "char"],
    Option(help="What a sentence is read by; char: of any text."),
]
Steps = Annotated[
    int | None, Option(min=1, help="Length of each training.", show_default="per recipe")
]
Compile = Annotated[bool, Option("--compile", help="torch.compile.")]

# Of a checkpoint.
GrammarFile = Annotated[
    Path | None,
    Option(
        "--grammar",
        help="YAML: words of each place of a sentence, or a list of words.",
        show_default="the corpus's own",
    ),
]
VocoderFile = Annotated[
    Path | None,
    Option("--vocoder", help="Makes the sound; of avb train vocoder.", show_default="Griffin-Lim"),
]
Checkpoint = Annotated[Path, Option(help="best.pt, last.pt, or a run's folder.")]
OwnCheckpoint = Annotated[
    Path | None,
    Option(
        "--ckpt", help="best.pt, last.pt, or a run's folder.", show_default="what comes with avb"
    ),
]
