"""Proves that two revisions of avb behave alike, by what their command lines make and say.

    python tests/scale/same.py record --checkout DIR --grid DIR --grid-original DIR --out a.json
    python tests/scale/same.py compare a.json b.json    # each difference; exit 1 if there is one
    make same BEFORE=main                               # both, of this checkout and of a revision

Both on one machine, in one environment, on one core: a record is a quarter of an hour of its time.
Of --grid (re-encoded clips) at most 40 of a talker are taken, of --grid-original all. Every recipe
that a checkout has is trained with batches of two, the small ones for 20 steps, others for 3 (20
take more than a minute); their checkpoints are compared, as a log has few lines of so few steps.
"""
# ruff: noqa: T201

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MADE = """
synth lrw --clips 16 --odd --out WORK/raw-lrw
synth lrw1000 --clips 16 --odd --out WORK/raw-lrw1000
synth grid --clips 16 --odd --out WORK/raw-grid
prep lrw --root WORK/raw-lrw --out WORK/drawn
prep lrw1000 --root WORK/raw-lrw1000 --out WORK/drawn
prep grid --root WORK/raw-grid --out WORK/drawn
prep grid --root WORK/few --out WORK/real --crop lips,face
prep grid --root ORIGINAL --out WORK/original --crop lips,face
prep grid --root ORIGINAL --out WORK/jpeg --crop face --limit 8 --codec jpeg --decoder ffmpeg
prep grid --root ORIGINAL --out WORK/h264 --crop lips --limit 8 --codec h264 --mel-dtype uint8
prep grid --root ORIGINAL --out WORK/dry --dry-run
prep table WORK/mine.csv --name mine --box tracked --out WORK/table
TRAININGS
eval lip --ckpt WORK/lip-tiny --data WORK/real/grid --part all --limit 12 --out WORK/lip.json
eval lip --ckpt WORK/lip-paper --data WORK/drawn/lrw --part val --limit 2
eval l2s --ckpt WORK/l2s-tiny --data WORK/real/grid --part all --limit 8 --save-wavs WORK/wavs
infer lip ORIGINAL/s1/video/bbiz2p.mpg --ckpt WORK/lip-tiny
infer l2s ORIGINAL/s1/video/bbiz2p.mpg --ckpt WORK/l2s-tiny --out WORK/film.wav
compare WORK/lip.json WORK/lip.json
stats WORK/drawn
stats WORK/real
verify WORK/drawn --jobs 1
verify WORK/real --sources --jobs 1
inspect grid --root ORIGINAL
inspect lrw --root WORK/raw-lrw
inspect lrw1000 --root WORK/raw-lrw1000
inspect grid --root WORK/raw-grid
export --ckpt WORK/lip-tiny --to safetensors --out WORK/exported
preview WORK/real/grid --out WORK/preview.png
listen tiny=WORK/wavs --clips 5 --out WORK/listen.html
report WORK/lip-tiny WORK/l2s-tiny --out WORK/report.html
"""
MISTAKES = """
prepp
prep gird
prep grid --root WORK/gone --out WORK/x
prep grid --root WORK/none --out WORK/x
prep grid --root WORK/few --out WORK/x --crop nose
prep grid --root WORK/few --out WORK/real --codec jpeg
prep table WORK/bad.csv --name bad --out WORK/x
synth grid --out WORK/real
stats WORK/none
verify WORK/hurt --jobs 1
compare WORK/mine.csv WORK/mine.csv
train lip --data WORK/none
train lip --data WORK/real/grid --recipe tinny
train lip --data WORK/real/grid --recipe tiny --set batch_sise=2
train lip --data WORK/real/grid --recipe tiny --set lr=fast
train lip --data WORK/real/grid --recipe tiny --split none
train lip --data WORK/real/grid --recipe tiny --unit word --out WORK/lip-tiny
eval lip --ckpt WORK/gone.pt --data WORK/real/grid
eval l2s --ckpt WORK/lip-tiny --data WORK/real/grid
infer lip WORK/gone.mpg --ckpt WORK/lip-tiny
infer lip WORK/bad.csv --ckpt WORK/lip-tiny
"""
# What recipes are trained on that want no real GRID.
DRAWN = {
    "lip-paper": "lrw", "lip-released": "lrw", "lip-modern": "lrw", "lip-paper-literal": "lrw",
    "lip-paper-mstcn": "lrw", "lip-paper-lrw1000": "lrw1000", "asr-paper": "lrw",
}  # fmt: skip
SMALL = ("tiny", "small")  # 20 steps are seconds
MORE = {  # arguments that all these have
    "prep": "--jobs 1",
    "train": "--device cpu --set batch_size=2 --set warmup=1",
    "eval": "--device cpu",
    "infer": "--device cpu",
}
NO_JSON = {"train", "preview", "listen", "report"}
# Of a clock, or of the allocator (peak_gib): no two runs of one revision have the same. Checkpoints
# hold the revision, and so their hashes differ.
VOLATILE = {"seconds", "clips_per_s", "mean_ms", "data_wait", "left_s", "mfu", "peak_gib"}
VOLATILE |= {"revision", "checkpoint_sha256"}
ROUNDED = {"estoi": 9, "estoi_aligned": 9}  # pystoi adds noise of 1e-16 that has no seed
# Run once on all shards' rows and checkpoints, by the libraries that wrote them.
READ = """if True:
    import hashlib, json, sys, pyarrow.parquet, torch
    def walk(value, name):
        if isinstance(value, torch.Tensor):
            data = value.contiguous().numpy().tobytes()
            yield name, hashlib.sha256(data).hexdigest()[:16]
        for key, one in value.items() if isinstance(value, dict) else ():
            yield from walk(one, f"{name}.{key}")
    def rows(path):
        for i, row in enumerate(pyarrow.parquet.read_table(path).to_pylist()):
            timeless = {k: v for k, v in row.items() if not k.endswith("_ms")}
            data = json.dumps(timeless, default=repr).encode()
            yield f"{i} {row['key']}", hashlib.sha256(data).hexdigest()[:16]
    load = lambda path: walk(torch.load(path, weights_only=True, map_location="cpu"), "")
    read = {path: dict((load if path.endswith(".pt") else rows)(path)) for path in sys.argv[1:]}
    print(json.dumps(read))"""


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    for name in ("--checkout", "--grid", "--grid-original", "--out"):
        recording.add_argument(name, type=Path, required=True)
    commands.add_parser("compare").add_argument("records", type=Path, nargs=2)
    args = parser.parse_args()
    if args.command == "compare":
        sys.exit(compare(*(json.loads(path.read_text()) for path in args.records)))
    with tempfile.TemporaryDirectory(prefix="avb-same-") as work:
        paths = {"WORK": Path(work), "ORIGINAL": args.grid_original, "CHECKOUT": args.checkout}
        record = User({name: path.resolve() for name, path in paths.items()}).record(args.grid)
    args.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def compare(before: dict, after: dict) -> int:
    """Print what differs; 1 if anything does."""
    a, b = dict(leaves(before)), dict(leaves(after))
    differing = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
    for name in differing:
        print(f"{name}\n  - {a.get(name, 'nothing')}\n  + {b.get(name, 'nothing')}")
    print(f"{len(a.keys() | b.keys()) - len(differing)} values equal, {len(differing)} different")
    return int(bool(differing))


def leaves(value, name=""):
    """The name and the text of every value of a record; an empty list or mapping is one too."""
    if isinstance(value, dict | list) and value:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, f"{name} > {key}" if name else str(key))
    else:
        yield name, json.dumps(value)


def stable(value, digits=None):
    """A record without its volatile keys; floats are rounded where it is said how far."""
    if isinstance(value, dict):
        kept = [key for key in value if key not in VOLATILE]
        return {key: stable(value[key], ROUNDED.get(key, digits)) for key in kept}
    if isinstance(value, list):
        return [stable(one, digits) for one in value]
    return round(value, digits) if digits and isinstance(value, float) else value


class User:
    """Gives commands to the avb of a checkout, and notes what it makes and says."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths, self.work = paths, paths["WORK"]
        code = os.pathsep.join(str(paths["CHECKOUT"] / one) for one in (".", "src"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AVB_")} | {
            "PYTHONPATH": code, "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100",
        }  # fmt: skip
        found = self.python("-c", "import avb; print(avb.__file__)").stdout.strip()
        if not Path(found).resolve().is_relative_to(paths["CHECKOUT"]):
            sys.exit(f"{found} is imported, not the avb of {paths['CHECKOUT']}")

    def record(self, grid: Path) -> dict:
        self.sample(grid.resolve())
        record = {"help": dict(self.helps()), "made": {}, "mistakes": {}}
        lines = MADE.replace("TRAININGS", "\n".join(self.trainings()))
        for line in lines.strip().splitlines():
            record["made"][line] = self.avb(line)
            if line.startswith("synth grid"):
                self.tables()
        shutil.copytree(self.work / "drawn/lrw", self.work / "hurt")
        with next((self.work / "hurt").glob("val-*.tar")).open("r+b") as tar:
            tar.seek(3000)
            tar.write(b"hurt")
        record["files"] = self.files()
        for line in MISTAKES.strip().splitlines():
            record["mistakes"][line] = self.avb(line, mistake=True)
        return record

    def trainings(self):
        """A line for each recipe of the checkout."""
        for path in sorted((self.paths["CHECKOUT"] / "train/recipes").glob("*/*.yaml")):
            task, name = path.parent.name, path.stem
            drawn = DRAWN.get(f"{task}-{name}")
            data = f"drawn/{drawn}" if drawn else "real/grid"
            steps = 20 if name.endswith(SMALL) else 3
            yield f"train {task} --recipe {name} --data WORK/{data} --steps {steps}"

    def python(self, *args: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *args], cwd=self.paths["CHECKOUT"], env=self.env, timeout=1800,
            capture_output=True, text=True,
        )  # fmt: skip

    def avb(self, line: str, mistake: bool = False) -> dict:
        """The exit code and what was said, without bars of progress and what they count."""
        command, words = line.split()[0], line.split()
        if "--help" not in words:
            words += MORE.get(command, "").split()
            if command == "train" and "--out" not in words:
                words += ["--out", f"WORK/{words[1]}-{words[3]}" if not mistake else "WORK/never"]
            if not mistake and command not in NO_JSON:
                words.append("--json")
        for name, path in self.paths.items():
            words = [word.replace(name, str(path)) for word in words]
        start = time.monotonic()
        ran = self.python("-m", "avb", *words)
        took = f"{time.monotonic() - start:6.1f} s, exit {ran.returncode}:"
        print(took, line, file=sys.stderr, flush=True)
        told = [re.sub(r" \(\d+ s\)| \| [0-9.]+ clips/s.*", "", one)
                for one in self.hide(ran.stderr).split("\n") if "clip/s]" not in one]  # fmt: skip
        try:
            out = stable(json.loads(self.hide(ran.stdout)))
        except ValueError:
            out = [re.sub(r" \| [0-9.]+ clips/s.*", "", one)
                   for one in self.hide(ran.stdout).split("\n")]  # fmt: skip
        return {"exit": ran.returncode, "out": out, "err": told}

    def hide(self, text: str) -> str:
        for name, path in self.paths.items():
            text = text.replace(str(path), name)
        return text

    def helps(self, command: str = ""):
        """The options of a command and its help, then those of the commands below it."""
        text = self.avb(f"{command} --help".strip())["out"]
        heads = [line[2:].split("  ")[0] for line in text if line.startswith("  -")]
        options = sorted({name for head in heads for name in re.findall(r"--?\w[\w-]*", head)})
        yield f"avb {command}".strip(), {"options": dict.fromkeys(options, True), "text": text}
        if "Commands:" in text:
            for line in text[text.index("Commands:") + 1 :]:
                if below := re.match(r"  (\w\S*)", line):
                    yield from self.helps(f"{command} {below[1]}".strip())

    def sample(self, grid: Path) -> None:
        """A root of links to some real clips of each talker."""
        (self.work / "none").mkdir()
        for talker in sorted(one for one in grid.iterdir() if one.is_dir()):
            films = sorted((talker / "video").iterdir())
            for film in films[:: -(-len(films) // 40)]:
                align = talker / "align" / f"{film.stem}.align"
                for one in (film, align) if align.exists() else (film,):
                    link = self.work / "few" / one.relative_to(grid)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(one)

    def tables(self) -> None:
        """A table of drawn films, with two rows that cannot be made, and one that is none."""
        films = sorted(
            path.relative_to(self.work) for path in self.work.glob("raw-grid/s*/video/*")
        )
        spans = [f"{film},word{i % 3},{i / 10},2.5" for i, film in enumerate(films[:6])]
        rows = ["video,label,start,end", *spans, "gone.mpg,word1,0,1", f"{films[0]},word2,3,1"]
        (self.work / "mine.csv").write_text("\n".join(rows) + "\n")
        (self.work / "bad.csv").write_text("film,label\na.mpg,b\n")

    def files(self) -> dict:
        """What lies in the folder: manifests and checkpoints by their content, others hashed."""
        paths = [one for one in sorted(self.work.rglob("*")) if one.is_file()]
        paths = [one for one in paths if not one.is_symlink() and ".avb" not in one.parts]
        # TensorBoard's files have times, a lock has a process id.
        paths = [one for one in paths if "tfevents" not in one.name and one.name != ".lock"]
        asked = [str(one) for one in paths if one.suffix in (".parquet", ".pt")]
        found = json.loads(self.python("-c", READ, *asked).stdout)
        for path in (one for one in paths if str(one) not in asked):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.suffix in (".json", ".jsonl"):
                lines = self.hide(path.read_text())
                lines = lines.splitlines() if path.suffix == ".jsonl" else [lines]
                found[str(path)] = [stable(json.loads(line)) for line in lines]
            elif path.suffix in (".html", ".md", ".yaml"):
                text = re.sub("revision: .*", "", self.hide(path.read_text()))
                found[str(path)] = hashlib.sha256(text.encode()).hexdigest()
        return {self.hide(name): one for name, one in found.items()}


if __name__ == "__main__":
    main()
