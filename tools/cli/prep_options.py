"""Options of `avb prep`, each declared once for all corpora."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from avb.tools.cli.options import folder

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
