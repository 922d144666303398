"""What is damaged, and which commands it is given to: one case is a folder and command lines."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from fuzzing.checkpoints import damaged_checkpoint, make_published
from fuzzing.films import damaged_film, make_films, write_table
from fuzzing.folders import damaged_folder
from fuzzing.mutate import Rng
from fuzzing.pool import LIMIT_S, Child, Outcome
from fuzzing.records import damaged_json, damaged_run, make_judge
from fuzzing.tables import odd_alignments, odd_table, sentence_film

Words = list[Any]
Case = tuple[str, int, int]
Record = dict[str, Any]

#: Films in a table; a preparation starts processes of its own, so many go into one.
BATCH = 25
#: Cases of each kind: 2,000 films (of them 500 in tables), 500 checkpoints and shards, 500 tables
#: of odd cells and 500 alignments, 400 records and runs for readers, 100 judges and 100 vocoders.
KINDS = {"film": 1500, "table": 500 // BATCH, "checkpoint": 250, "shard": 250, "cell": 500}
KINDS |= {"align": 500 // BATCH, "record": 400, "judge": 100, "vocoder": 100}
#: Kinds of which many files go into one preparation, and where it leaves its account.
TOGETHER = {"table": "films", "align": "out/grid"}
CPU = ["--device", "cpu"]
SMALL = "width=8 blocks=0 audio_dim=16 audio_width=8 hidden=16 slots=4".split()
SOUND = ["model.width=8", "model.blocks=1", "model.critic_width=1", "window=10"]
SPEECH = ["decoder=synchronous", "decoder_sizes={width: 16, units: 1, post_width: 16}"]


@dataclass
class Seeds:
    """What is damaged: good films, runs of both tasks, the authors' layout, shards and others."""

    films: list[Path]

    def __post_init__(self) -> None:
        self.film, of = self.films[0], self.films[0].with_name
        self.sentence, self.shards, self.published = of("sentence.mpg"), of("mine"), of("theirs.pt")
        self.lip, self.l2s, self.recipe = of("lip"), of("l2s"), of("recipe.yaml")
        self.judge, self.vocoders = of("judge.pt"), [of("vocos") / "best.pt", of("refiner.pt")]

    def record(self, task: str) -> Path:
        """An evaluation of a run."""
        return self.film.with_name(f"{task}.json")


def make_seeds(out: Path) -> Seeds:
    """All of them, by code and by the commands themselves; made anew each time."""
    shutil.rmtree(out, ignore_errors=True)
    folder = out / "seeds"
    folder.mkdir(parents=True)
    (folder / "log").touch()
    films = make_films(folder)
    seeds = Seeds(films)
    sentence_film(folder, next(path for path in films if path.suffix == ".mpg"))
    make_published(seeds.published)
    (folder / "words.txt").write_text("now\ntwo\n")
    table = write_table(folder, [films[0].name] * 6)
    small = ["--set=batch_size=2", "--set=validate_every=2", "--set=shrink=4", "--steps=2"]
    small += [f"--set=model.{word}" for word in SMALL]
    child = Child(folder / "log")
    try:
        for words in (
            ["prep", "table", table, "--out", folder, "--name", "mine"],
            ["train", "lip", "--data", seeds.shards, "--out", seeds.lip, *small, *CPU],
            ["train", "l2s", "--data", seeds.shards, "--out", seeds.l2s, *small, *CPU]
            + [f"--set=model.{word}" for word in SPEECH] + ["--set=crop=lips"],
            ["train", "vocos", "--data", seeds.shards, "--out", folder / "vocos", *small[:4], *CPU]
            + [f"--set={word}" for word in SOUND],
            ["train", "vocoder", "--data", seeds.shards, "--out", folder / "refiner.pt", *CPU]
            + ["--steps=2"],
            *(["eval", task, "--ckpt", folder / task, "--data", seeds.shards, "--part", "all",
               *CPU, "--out", seeds.record(task)] for task in ("lip", "l2s")),
        ):  # fmt: skip
            outcome = child.run(words, 300)
            if outcome.code:
                raise RuntimeError(f"{words}: {outcome.why} {outcome.err} {outcome.trace}")
    finally:
        child.close()
    recipe = yaml.safe_load((seeds.lip / "recipe.yaml").read_text())["recipe"]
    seeds.recipe.write_text(yaml.safe_dump(recipe))
    make_judge(seeds.judge, seeds.shards)
    return seeds


def cases(counts: dict[str, int], seed: int, only: str | None = None) -> list[Case]:
    """Kind, number and seed of each case, or of one that is made again."""
    if only is not None:
        kind, number = only.split(":")
        return [(kind, int(number), seed)]
    return [(kind, number, seed) for kind in KINDS for number in range(counts[kind])]


def run_case(child: Child, case: Case, seeds: Seeds, out: Path) -> list[Record]:
    """Damage, run, and keep what is found; a record for each outcome."""
    kind, number, seed = case
    folder = out / "work" / f"{kind}-{number}"
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    done, commands = _MAKE[kind](rng, folder, seeds, number)
    limit_s = LIMIT_S * (4 if kind in TOGETHER else 1)
    outcomes = []
    for words in commands:
        outcome = child.run(words, limit_s)
        if not outcome.why and (left := [path.name for path in folder.rglob("*.tmp*")]):
            outcome.why = f"left behind: {', '.join(left)}"
        outcomes.append(outcome)
        if outcome.why:
            break
    worst = max(outcomes, key=lambda o: ("ok", "line", "finding").index(o.kind))
    records = [_record(worst)]
    if kind in TOGETHER and not worst.why:
        records = _of_many(folder / TOGETHER[kind], worst)
    words = commands[outcomes.index(worst)]
    records = [
        {"case": f"{kind}:{number}", "kind": kind, "done": done} | r
        | {"command": " ".join(map(str, words)), "seconds": round(worst.seconds, 2), "mb": worst.mb}
        for r in records
    ]  # fmt: skip
    if worst.why:
        kept = out / "findings" / folder.name
        kept.parent.mkdir(exist_ok=True)
        (folder / "outcome.txt").write_text(f"{records}\n{worst.err}\n{worst.trace}", "utf-8")
        shutil.move(folder, kept)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # TensorBoard's thread in the child was still writing
            time.sleep(1.0)
            shutil.rmtree(folder)
    return records


def _record(outcome: Outcome) -> Record:
    said = (outcome.err.splitlines() or [""])[-1] if outcome.code else ""
    return {"outcome": outcome.kind, "files": 1, "why": outcome.why, "said": said[:300]}


def _of_many(folder: Path, outcome: Outcome) -> list[Record]:
    """What the manifest says of each film; one that killed a decoder is a row as well."""
    manifest = folder / "manifest.parquet"
    if not manifest.exists():
        return [_record(outcome) | {"files": BATCH}]
    rows = pq.read_table(manifest, columns=["status", "error"]).to_pylist()
    refused = [row for row in rows if row["status"] != "ok"]
    found = [{"outcome": "line", "files": 1, "why": "", "said": f"{r['status']}: {r['error']}"}
             for r in refused if r["error"]]  # fmt: skip
    mute = len(refused) - len(found)
    found.append({"outcome": "ok", "files": len(rows) - len(refused), "why": "", "said": ""})
    if mute or len(rows) != BATCH:
        why = f"{len(rows)} rows of {BATCH} films, {mute} refused without a word"
        found.append({"outcome": "finding", "files": 1, "why": why, "said": ""})
    return found


def _film(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    done = damaged_film(rng, seeds.films, folder)
    film = next(folder.iterdir())
    if number % 3 < 2:
        return done, [["infer", "lip", film, "--ckpt", seeds.lip, *CPU, "--json"]]
    outs = ["--out", folder / "s.wav", "--mux", folder / "mux.mp4", "--track", folder / "box.mp4"]
    return done, [["infer", "l2s", film, "--ckpt", seeds.l2s, *CPU, *outs, "--json"]]


def _table(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    done = [damaged_film(rng, seeds.films, folder, i) for i in range(BATCH)]
    names = sorted((p.name for p in folder.iterdir()), key=lambda name: int(name.split(".")[0]))
    table = write_table(folder, names)
    decoder = ["--decoder", ("pyav", "ffmpeg")[number % 2]]
    words = ["prep", "table", table, "--out", folder, "--name", "films", "--jobs", 1, *decoder]
    return "; ".join(done), [words]


def _checkpoint(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    sources = [seeds.lip / "best.pt", seeds.l2s / "best.pt", seeds.published, seeds.lip / "last.pt"]
    source, path = sources[number % 4], folder / sources[number % 4].name
    done = damaged_checkpoint(rng, source, path, sources)
    given, data = ["--ckpt", path], ["--data", seeds.shards]
    infer = ["--json", *given, *CPU]
    export = ["export", *given, "--to", "safetensors", "--out", folder / "export"]
    evaluate = ["--part", "all", "--limit", 2, *given, *data, *CPU, "--out", folder / "r.json"]
    words: dict[int, list[Words]] = {
        0: [["infer", "lip", seeds.film, *infer], ["eval", "lip", *evaluate], export],
        1: [["infer", "l2s", seeds.film, *infer, "--out", folder / "s.wav"],
            ["eval", "l2s", *evaluate], export],
        2: [["import-checkpoint", path, "--out", folder / "ours.pt"]
            + ["--labels", seeds.published.with_name("words.txt")]],
        3: [["train", "lip", *data, "--recipe", seeds.recipe, "--steps", 3, *CPU]
            + ["--resume", "--out", folder]],
    }  # fmt: skip
    return f"{source.parent.name}/{source.name} {done}", words[number % 4]


def _shard(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    data = folder / "mine"
    shutil.copytree(seeds.shards, data)
    done = damaged_folder(rng, data)
    read = ["--data", data, *CPU]
    measured = ["--part", "all", "--limit", 4, "--out", folder / "r.json"]
    others: list[Words] = [
        ["eval", "lip", "--ckpt", seeds.lip / "best.pt", *read, *measured],
        ["train", "lip", "--recipe", seeds.recipe, *read, "--out", folder / "run"],
        ["stats", data],
        ["preview", data, "--out", folder / "preview.png"],
    ]
    return done, [["verify", data, "--jobs", 1], others[(0, 0, 1, 1, 2, 3)[number % 6]]]


def _cell(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    done, path = odd_table(rng, folder, seeds.film)
    words = ["prep", "table", path, "--name", "odd", "--out", folder / "out", "--json"]
    # What is listed is seldom decoded: that takes ten times as long.
    words += ["--dry-run"] if number % 10 else ["--jobs", 1, "--box", "whole", "--crop", "lips"]
    return done, [words]


def _align(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    done = odd_alignments(rng, folder, seeds.sentence, BATCH)
    words = ["prep", "grid", "--root", folder, "--out", folder / "out", "--jobs", 1]
    return done, [[*words, "--box", "whole", "--crop", "lips"]]


def _record_of_eval(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    task = ("lip", "l2s")[number % 2]
    run, good = (seeds.lip, seeds.l2s)[number % 2], seeds.record(task)
    if number % 4 < 2:
        (folder / "run").mkdir()
        done = damaged_run(rng, run, good, folder / "run")
        drawn = ["plot", folder / "run", "--figure", ("curves", "confusion")[number // 4 % 2]]
        page = ["report", folder / "run", "--out", folder / "page.html"]
        return done, [page, [*drawn, "--out", folder / "figure.png"]]
    bad = shutil.copy(good, folder / "bad.json")
    done = damaged_json(rng, Path(bad))
    card = ["export", "--ckpt", run / "best.pt", "--to", "safetensors", "--record", bad]
    return done, [["compare", good, bad, "--json"], [*card, "--out", folder / "export"]]


def _judge(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    path = folder / "judge.pt"
    done = damaged_checkpoint(rng, seeds.judge, path, [seeds.judge, seeds.lip / "best.pt"])
    words = ["eval", "l2s", "--ckpt", seeds.l2s, "--data", seeds.shards, "--part", "all", *CPU]
    return done, [[*words, "--limit", 2, "--judge", path, "--out", folder / "r.json"]]


def _vocoder(rng: Rng, folder: Path, seeds: Seeds, number: int) -> tuple[str, list[Words]]:
    path = folder / "vocoder.pt"
    source, other = seeds.vocoders[:: 1 if number % 2 else -1]
    done = damaged_checkpoint(rng, source, path, [other, seeds.l2s / "best.pt"])
    words = ["infer", "l2s", seeds.film, "--ckpt", seeds.l2s, "--box", "whole", *CPU]
    return done, [[*words, "--vocoder", path, "--out", folder / "speech.wav"]]


_MAKE: dict[str, Callable[[Rng, Path, Seeds, int], tuple[str, list[Words]]]] = {
    "film": _film, "table": _table, "checkpoint": _checkpoint, "shard": _shard,
    "cell": _cell, "align": _align, "record": _record_of_eval, "judge": _judge,
    "vocoder": _vocoder,
}  # fmt: skip
