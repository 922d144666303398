"""Options that several commands share, each declared once.

What an option is without being given stands in `show_default`; square brackets in a help text
would be taken for a style on a terminal.
"""

from functools import partial
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


def whole(text: str) -> Any:
    """Seeds in a list with commas, each once."""
    seeds = text.split(",")
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise UsageError(f"--seeds {text}: expected whole numbers, such as 0,1,2")
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
Seeds = Annotated[Any, Option(parser=whole, metavar="S1,S2,...", help="Of each.")]
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
    Option(
        "--vocoder",
        help="Makes the sound; of avb train vocoder or vocos.",
        show_default="Griffin-Lim",
    ),
]
Checkpoint = Annotated[Path, Option(help="best.pt, last.pt, or a run's folder.")]
OwnCheckpoint = Annotated[
    Path | None,
    Option(
        "--ckpt", help="best.pt, last.pt, or a run's folder.", show_default="what comes with avb"
    ),
]

# Of `avb prep`, in panels.
which = partial(Option, rich_help_panel="Which clips")
how = partial(Option, rich_help_panel="What is stored")
run = partial(Option, rich_help_panel="How it runs")

Table = Annotated[Any, Argument(parser=folder, metavar="FILE", help="The CSV or Parquet.")]
Name = Annotated[str, which(help="Name of the corpus.")]
Root = Annotated[
    Any,
    which(
        parser=folder,
        metavar="FOLDER",
        help="Where the raw corpus lies; else AVB_<CORPUS>_ROOT, else datasets.yaml.",
    ),
]
Out = Annotated[Any, Option(parser=folder, metavar="FOLDER", help="Shards go to OUT/<corpus>/.")]
Limit = Annotated[int | None, which(min=1, help="Take only this many clips, a repeatable sample.")]
Speakers = Annotated[str | None, which(help="Take only these talkers, such as s1,s2.")]
Share = Annotated[
    str | None, which(help="I/N: only this share, for job arrays; a last run without completes.")
]
MaxSeconds = Annotated[
    float | None, which(min=0.04, show_default="60", help="Refuse longer clips as long.")
]
Audio = Annotated[
    Literal["required", "optional"] | None,
    which(
        show_default="required", help="With optional, films without sound become pictures alone."
    ),
]
Sync = Annotated[
    Path | None,
    how(help="Move each clip's sound by its lag in this table of avb sync; known: the corpus's."),
]
RetryFailed = Annotated[bool, which("--retry-failed", help="Take refused clips again.")]
CropKinds = Annotated[
    str | None, how(show_default="per corpus", help="What to cut: lips, face or lips,face.")
]
Box = Annotated[
    Literal["fixed", "tracked", "whole"] | None, how(show_default="per corpus", help="How to cut.")
]
Codec = Annotated[Literal["mp4", "h264", "jpeg"], how(help="Of the crops; h264 is a bare stream.")]
Crf = Annotated[
    int | None,
    how(min=0, max=51, show_default="per codec", help="Quality of the crops, lower is better."),
]
MelDtype = Annotated[Literal["float16", "uint8"], how(help="uint8 has half the bytes.")]
KeepAudio = Annotated[
    bool | None,
    how("--keep-audio/--no-keep-audio", show_default="per corpus", help="Store 16 kHz FLAC."),
]
ShardClips = Annotated[
    int | None, how(min=1, show_default="per corpus", help="Listed clips a shard.")
]
Decoder = Annotated[
    Literal["pyav", "ffmpeg"], how(help="pyav in this process, or the program ffmpeg.")
]
Tracker = Annotated[
    Literal["litert", "mediapipe"],
    how(help="litert, or mediapipe's own runtime (Python 3.11 and 3.12)."),
]
FaceEvery = Annotated[
    int | None, how(min=1, show_default="per corpus", help="Look for the face every N frames.")
]
PrepJobs = Annotated[
    int | None, run(min=1, show_default="one a core; of ray all it has", help="Worker processes.")
]
Engine = Annotated[
    Literal["local", "ray"], run(help="Processes of this machine, or a Ray cluster.")
]
Address = Annotated[
    str | None,
    run(show_default="RAY_ADDRESS, or its own", help="For ray: HOST:PORT of its head, or auto."),
]
ClipTimeout = Annotated[float, run(min=10, help="Seconds for one clip, else timeout.")]
MaxFailures = Annotated[
    str | None, run(show_default="no limit", help="Exit 1 if more are refused: N or P%.")
]
Overwrite = Annotated[bool, run("--overwrite", help="Replace shards made with other settings.")]
Prune = Annotated[bool, run("--prune", help="Let finished clips go that are no longer listed.")]
DryRun = Annotated[bool, run("--dry-run", help="List and plan, decode and write nothing.")]
