"""From a table of the paper to the commands that make it, in their order."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from avb.pipeline.config import Corpus
from avb.pipeline.errors import UsageError
from avb.pipeline.parse import checked, read_json, read_yaml
from avb.pipeline.shards.dataset import read_dataset
from avb.train.recipe import Recipe
from avb.train.recipe_file import load_recipe, names
from avb.train.tasks.task import find_task

FILE = Path(__file__).with_name("tables.yaml")
RECORD, DONE = "test.json", "trained.json"


@dataclass(frozen=True)
class Arm:
    """A model of a table; see the head of tables.yaml."""

    task: str = ""  # of a helper
    sets: list[str] = field(default_factory=list)
    init: str = ""
    teacher: str = ""
    helper: bool = False
    like: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper; see the head of tables.yaml."""

    title: str
    task: Literal["lip", "l2s"]
    recipes: dict[str, str]
    arms: dict[str, Arm]
    published: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    split: str = ""
    listen: bool = False


@dataclass(frozen=True)
class Wanted:
    """What of a table is asked for; the shards of `corpus` lie, or will lie, in `data`."""

    table: PaperTable
    corpus: str
    data: Path
    out: Path
    recipe: str
    seeds: list[int]
    root: str | None = None  # the raw corpus
    split: str | None = None
    speakers: str | None = None
    unit: str | None = None
    steps: int | None = None
    device: str | None = None

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run."""
        return self.out / arm / f"seed{seed}"

    def measured(self) -> dict[str, Arm]:
        """The arms that stand in the table."""
        return {name: arm for name, arm in self.table.arms.items() if not arm.helper}


@dataclass(frozen=True)
class Step:
    """One command: words after `avb`, and the file by which one knows that it is done.

    `recipe` is of a training. A training says of itself when it is done: `done` is written after.
    What is made of a checkpoint is older than the next one.
    """

    words: list[str]
    done: Path
    recipe: Recipe | None = None
    accepted: tuple[int, ...] = (0,)  # exit codes with which it is done
    of: Path | None = None  # the checkpoint

    def is_done(self) -> bool:
        """Whether it need not run. A training that was asked for otherwise looks itself."""
        if self.recipe is not None:
            known = self.trained()
            return bool(known.get("done")) and known.items() >= self.asked().items()
        if not self.done.exists():
            return False
        if self.of is None or not self.of.exists():
            return True
        return self.of.stat().st_mtime_ns <= self.done.stat().st_mtime_ns

    def asked(self) -> dict[str, Any]:
        """What a training is asked for: a recipe's file and the shards may change under it."""
        assert self.recipe is not None
        data = Path(self.words[self.words.index("--data") + 1])
        held = read_dataset(data)["fingerprint"] if (data / "dataset.json").exists() else None
        return {"command": self.words, "recipe": self.recipe.as_dict(), "shards": held}

    def trained(self) -> dict[str, Any]:
        """What is known of a training: `done`, `seconds` of all its calls; or nothing yet."""
        try:
            known: dict[str, Any] = read_json(self.done)
        except (OSError, ValueError):
            return {}
        return known


@cache
def tables() -> dict[str, PaperTable]:
    """Every table by its name on the command line."""
    raw = read_yaml(FILE)
    return {name: checked(PaperTable, entry, f"{FILE.name}: {name}") for name, entry in raw.items()}


def steps(wanted: Wanted) -> list[Step]:
    """Everything that makes the table, in order; UsageError: a recipe or its key is not there."""
    found = [_prep(wanted)]
    common = ["--data", str(wanted.data)]
    for flag in ("split", "speakers", "device"):
        if value := getattr(wanted, flag):
            common += [f"--{flag}", value]
    judge = wanted.out / "judge.pt"
    if wanted.table.task == "l2s":
        found.append(Step(["train", "judge", *common, "--out", str(judge)], judge))
    for name, arm in wanted.table.arms.items():
        found += [_training(wanted, name, arm, seed, common) for seed in wanted.seeds]
    where = ["--data", str(wanted.data), *(["--device", wanted.device] if wanted.device else [])]
    for name in wanted.measured():
        for seed in wanted.seeds:
            folder = wanted.folder(name, seed)
            words = ["eval", wanted.table.task, "--ckpt", str(folder), *where]
            if wanted.table.task == "l2s":
                words += ["--judge", str(judge)]
            if wanted.table.listen:
                words += ["--save-wavs", str(folder / "wavs")]
            words += ["--out", str(folder / RECORD)]
            found.append(Step(words, folder / RECORD, of=folder / "best.pt"))
    first = wanted.seeds[0]
    folder = wanted.folder("memory", first)
    for figure in wanted.table.figures:
        picture = wanted.out / f"{figure}-seed{first}.pdf"
        words = ["plot", str(folder), "--figure", figure, *where, "--out", str(picture)]
        found.append(Step(words, picture, of=folder / "best.pt"))
    if wanted.table.listen:
        page = wanted.out / f"listen-seed{first}.html"
        systems = [f"{name}={wanted.folder(name, first) / 'wavs'}" for name in wanted.measured()]
        found.append(Step(["listen", *systems, "--out", str(page)], page, of=folder / "best.pt"))
    return found


def missing(wanted: Wanted, corpus: Corpus, root: Path) -> str | None:
    """What has to be had before the first step can run; None if it is there.

    UsageError: the shards are damaged, or of another corpus, whose figures are not of this table;
    or there are none, and the folder is not one that `avb prep` makes.
    """
    if (wanted.data / "dataset.json").exists():
        if (held := read_dataset(wanted.data)["corpus"]) != wanted.corpus:
            raise UsageError(
                f"{wanted.data}: shards of {held}, and this table is of {wanted.corpus}; give its"
                " shards as --data, or choose with --corpus"
            )
        return None
    if wanted.data.name != wanted.corpus:  # `avb prep` makes OUT/<corpus>
        raise UsageError(
            f"{wanted.data}: no shards; shards of {wanted.corpus} that are to be made go to a"
            f" folder {wanted.corpus}, such as {wanted.data / wanted.corpus}"
        )
    if root.is_dir():
        return None
    licence = corpus.licence
    return (
        f"{corpus.title}: no shards in {wanted.data} and no raw corpus in {root}; its licence:"
        f" {licence.name} ({licence.apply})"
    )


def _prep(wanted: Wanted) -> Step:
    words = ["prep", wanted.corpus, "--out", str(wanted.data.parent)]
    words += ["--root", wanted.root] if wanted.root else []
    return Step(words, wanted.data / "dataset.json", accepted=(0, 3))  # 3: some clips refused


def _value(wanted: Wanted, key: str) -> object:
    """A value of the table's own recipe, the model's default where it names none."""
    recipe = load_recipe(wanted.table.task, wanted.recipe)
    kind, _, name = key.rpartition(".")
    if kind == "model":
        return recipe.model.get(name, getattr(find_task(recipe.task).config(), name))
    return getattr(recipe, name)


def _training(wanted: Wanted, name: str, arm: Arm, seed: int, common: list[str]) -> Step:
    task, folder = arm.task or wanted.table.task, wanted.folder(name, seed)
    # A file is of the table's own task; a helper has the recipe of that name, or the paper's.
    own = wanted.recipe if task == wanted.table.task or wanted.recipe in names(task) else "paper"
    sets = arm.sets + [f"{key}={_value(wanted, key)}" for key in arm.like]
    recipe = load_recipe(task, own, sets)
    words = ["train", task, *common, "--recipe", own, "--seed", str(seed)]
    words += [word for text in sets for word in ("--set", text)]
    if wanted.unit and find_task(task).makes == "word":
        words += ["--unit", wanted.unit]
    if wanted.steps:
        words += ["--steps", str(wanted.steps)]
    for flag in ("init", "teacher"):
        if other := getattr(arm, flag):
            if other not in wanted.table.arms:
                raise UsageError(f"{FILE.name}: arm {name}: no arm {other}")
            words += [f"--{flag}", str(wanted.folder(other, seed))]
    return Step([*words, "--out", str(folder), "--resume"], folder / DONE, recipe)
