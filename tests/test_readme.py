"""The README's commands and Python run; tree, results and benches of the docs are what is there."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import shards

ROOT = Path(__file__).parents[1]
KEYS = ("value", "low", "high")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


README = page("README.md")


def test_the_tree_names_every_room_and_nothing_else() -> None:
    tree = page("docs/architecture.md").split("## The tree")[1].split("```")[1]
    place: list[str] = []
    named = set()
    for line in tree.strip().splitlines():
        deep = (len(line) - len(line.lstrip())) // 2
        for word in re.split(r"  +", line.strip())[0].split():
            if "/" in word or "." in word:
                path = "".join(place[:deep]) + word
                assert (ROOT / path).exists(), path
                named.add(path.rstrip("/"))
                if word.endswith("/"):
                    place[deep:] = [word]
    for top in ("pipeline", "models", "train", "tools"):
        rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / top).rglob("*.py")}
        assert rooms <= named, rooms - named


def test_the_reader_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    shards("lrw", 12, tmp_path)
    shards("grid", 16, tmp_path)
    for block in blocks:
        scope: dict[str, object] = {}
        exec(block, scope)
    assert scope["batch"].video["lips"].shape[1:] == (29, 120, 120)  # type: ignore[attr-defined]


def test_the_results_are_those_of_the_records() -> None:
    from avb.train.evaluate.compare import compare

    section = page("docs/results.md")
    folder = ROOT / "results" / "grid-talker1"
    records = {p: json.loads(p.read_text()) for p in sorted(folder.glob("*/*.json"))}
    figures = []
    for path, record in records.items():
        if record["task"] == "lip":
            top1 = record["metrics"]["top1"]
            figures.append("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * top1[k] for k in KEYS)))
        if path.parent.name.endswith("-memory"):
            source = record["addressing"]["source"]
            nulls = [null["within_slot_auc"]["value"] for null in source["nulls"].values()]
            figures += [f"{v:.3f}" for v in (source["within_slot_auc"]["value"], *nulls)]
            ahead = source["ahead_of"]["features"]
            figures.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*map(ahead.get, KEYS)))
    for task, scale, digits, names in (
        ("lip", 100, 1, ["top1"]),
        ("speech", 1, 3, ["stoi", "estoi"]),
        ("speech", 1, 2, ["pesq_nb8", "mel_distance"]),
        ("speech", 100, 1, ["wer_judge", "wer_pocketsphinx"]),
    ):
        found = compare(str(folder / f"{task}-memory"), str(folder / f"{task}-baseline"))["metrics"]
        for entry in (found[name] for name in names):
            for side in "ab":
                each = [f"{scale * value:.{digits}f}" for value in entry[f"{side}_each"]]
                mean = f"{scale * entry[side]:.{digits}f}"
                figures.append(f"{mean} ({', '.join(each)})" if len(each) > 1 else mean)
            lead = (scale * entry["difference"][key] for key in KEYS)
            figures.append("{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*lead, d=digits))
    arms = ("adaptation", "control", "memory", "distillation")
    for quality, arm in itertools.product(("", "fine-"), arms):
        names = (f"words/{quality}{one}" for one in (arm, "baseline"))
        found = compare(*map(records_of, names))["metrics"]["top1"]
        lead = (100 * found["difference"][key] for key in KEYS)
        figures.append("| {:.1f} | {:+.1f} [{:+.1f}, {:+.1f}] |".format(100 * found["a"], *lead))
    for sound in ("recorded", "moved-second"):
        arms = [records_of(f"sync/words-{sound}-{arm}") for arm in ("memory", "baseline")]
        found = compare(*arms)["metrics"]["top1"]
        lead = (100 * found["difference"][key] for key in KEYS)
        figures.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*lead))
    figures.append("| {:.1f}, {:.1f} |".format(*(100 * found[side] for side in "ba")))
    for figure in figures:
        assert figure.replace("0.", ".") in section.replace("0.", "."), figure


def records_of(arm: str) -> str:
    """Its records of three seeds, as `compare` takes them."""
    return ",".join(str(ROOT / "results" / f"{arm}-seed{n}.json") for n in range(3))


def test_the_benches_are_those_of_the_records() -> None:
    lip, speech = (json.loads((ROOT / "results" / "bench" / f"{task}-cpu.json").read_text())
                   for task in ("lip", "l2s"))  # fmt: skip
    fast = speech["decoders"]["synchronous"]["clips_per_s"]
    for figure in (
        f"{lip['clips_per_s']:.2f} clips/s against {lip['eager_fp32_clips_per_s']:.2f}",
        f"{lip['ratio']:.2f} x",
        f"{speech['clips_per_s']:.3f} clips/s against {speech['eager_fp32_clips_per_s']:.3f}",
        f"{speech['ratio']:.2f} x",
        f"{fast:.3f}, {fast / speech['clips_per_s']:.1f} x Tacotron",
    ):
        assert figure.removeprefix("0").replace(" 0.", " .") in page("docs/speed.md"), figure


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.split()) <= 1600
    assert "bibtex" in README and README.index("## Results") < README.index("## The shards")


#: Told for a corpus and a GPU, run on a few drawn clips: what replaces what.
QUICK = {
    "/data/grid": "raw/grid",
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--slots 0,44,88 --seeds 0,1,2": "--slots 0,4 --seeds 0",
    "--out runs/vocoder.pt": "--out runs/vocoder.pt --steps 1 --device cpu",
}
STEP = "--device cpu --steps 1 --set batch_size=2 --set validate_every=1"
OF_CLIPS = f"{STEP} --recipe tiny --set unit=clip --set split=official"


def quick(line: str, number: int) -> list[str]:
    """A line of the README as it runs on drawn clips, with one step of training."""
    line = line.split("#")[0].strip()
    if re.search("avb train (lip|l2s)", line):
        line += f" --out runs/line{number}"
    if "-m avb train lip" in line or "avb train lip" in line or "avb ablate" in line:
        line += f" {OF_CLIPS} --set model.width=8" if "shards/lrw" in line else f" {STEP}"
    elif "avb train l2s" in line:
        line += f" {STEP} --recipe tiny"
    for told, instead in QUICK.items():
        line = line.replace(told, instead)
    words = line.split()
    starts = {"avb": [sys.executable, "-m", "avb"],
              "torchrun": [sys.executable, "-m", "torch.distributed.run"]}  # fmt: skip
    return [*starts[words[0]], *words[1:]]


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    """Each line of a block that begins with avb or torchrun, in the order of the page."""
    pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(words: list[str], codes: tuple[int, ...] = (0,)) -> None:
        done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True)
        assert done.returncode in codes, f"{' '.join(words)}\n{done.stdout}{done.stderr}"

    def avb(text: str) -> None:
        run([sys.executable, "-m", "avb", *text.split()])

    for corpus, clips in (("grid", 48), ("lrw", 40)):
        avb(f"synth {corpus} --out raw/{corpus} --clips {clips}")
    avb("prep lrw --root raw/lrw --out shards")
    films = sorted((tmp_path / "raw/lrw").rglob("*.mp4"))
    rows = [f"{film.relative_to(tmp_path)},{film.parts[-3]}" for film in films]
    (tmp_path / "mine.csv").write_text("\n".join(["video,label", *rows]))
    shutil.copy(films[0], tmp_path / "clip.mp4")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    shell = [line for language, block in blocks if not language for line in block.splitlines()]
    lines = [line for line in shell if line.startswith(("avb ", "torchrun "))]
    assert len(lines) > 20
    first = next(n for n, line in enumerate(lines) if "--init runs/in-sync" in line)
    for number, line in enumerate(lines):
        if number == first:  # what the rest of the page takes for granted
            for task, name in (("sync", "in-sync"), ("asr", "asr")):
                avb(f"train {task} --data shards/lrw --out runs/{name} {OF_CLIPS}")
            for name in ("words", "a", "b"):
                avb(f"train lip --data shards/grid --recipe tiny --out runs/{name} {STEP}")
            avb(f"train l2s --data shards/grid --recipe tiny --out runs/speech {STEP}")
            for name in ("a", "b"):
                avb(f"eval lip --ckpt runs/{name} --data shards/grid --out runs/{name}/test.json")
        if line.startswith("avb ui"):
            words = [*quick(line, number), "--port", "0"]
            with subprocess.Popen(
                words, cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True
            ) as served:
                assert served.stdout is not None
                assert served.stdout.readline().startswith("http://")
                served.terminate()
        else:
            run(quick(line, number), (0, 3) if " prep " in line else (0,))
