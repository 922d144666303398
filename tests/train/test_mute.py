"""Films without sound and silent ones: who needs sound leaves them out, and says how many."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
import torch
from commands import avb, did, fault
from networks import evaluated
from networks import recipe as any_recipe

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.index import Index, load_index
from avb.pipeline.stream.stream import Stream
from avb.tools.bench.read import bench_read
from avb.train.split import Parts, teachable

MUTE, SILENT = {1, 4, 10}, {2, 7}  # rows of the index; 10 and 11 are for validation


TINY = ["--recipe", "tiny", "--set", "unit=clip", "--set", "batch_size=4", "--set", "model.width=8"]


def rewrite(index: Index, folder: Path, mute: set[int], silent: set[int]) -> Index:
    """The shards as prep writes them of films of which some have no sound track, or silence."""
    number = {index.key(i): i for i in range(len(index))}

    def change(row: dict[str, Any], members: dict[str, bytes]) -> None:
        if number[row["key"]] in mute:
            row["n_mel"], row["flags"] = 0, [*(row["flags"] or []), "no_audio"]
            for name in {"mel.npy", "flac"} & members.keys():
                del members[name]
        if number[row["key"]] in silent:
            row["flags"] = [*(row["flags"] or []), "silent"]

    folder.mkdir(parents=True)
    prepared.rewrite(index.folder, folder, change)
    return load_index(folder)


@pytest.fixture(scope="module")
def mute(lrw: Index, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return rewrite(lrw, tmp_path_factory.mktemp("mute") / "lrw", MUTE, SILENT)


def test_the_reader_hands_out_silence_for_a_film_without_sound(lrw: Index, mute: Index) -> None:
    assert set(np.flatnonzero(mute.no_audio)) == MUTE and set(np.flatnonzero(mute.silent)) == SILENT
    assert not lrw.no_audio.any() and not lrw.silent.any()
    own, theirs = (
        next(iter(Stream(index, batch_size=12, once=True, workers=0))) for index in (mute, lrw)
    )
    assert own.mel is not None and theirs.mel is not None
    assert torch.equal(own.video["lips"], theirs.video["lips"])
    assert torch.equal(own.mel_lengths, theirs.mel_lengths)
    floor = float(np.log(mute.dataset["mel"]["floor"]))
    for i in range(12):
        same = torch.equal(own.mel[i], theirs.mel[i])
        assert same == (i not in MUTE) and (same or bool((own.mel[i] == floor).all()))


def test_bench_reads_the_clips_that_have_a_mel(lrw: Index, mute: Index, tmp_path: Path) -> None:
    assert bench_read(mute.folder, clips=12, rounds=1)["clips"] == 12 - len(MUTE)
    none = rewrite(lrw, tmp_path / "lrw", set(range(12)), set())
    with pytest.raises(UsageError, match="no clip has a mel"):
        bench_read(none.folder, clips=12, rounds=1)


def test_a_row_that_lacks_its_mel_without_the_flag_cannot_be(mute: Index, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mute.folder, tmp_path / "lrw"))
    prepared.set_column(folder, "flags", [None] * 12)
    assert "cannot be" in fault(load_index, folder)


@pytest.mark.parametrize(
    ("sets", "said", "counts"),
    [
        ([], "1 of 2", {"train": 6, "val": 1}),
        (["keep_silent=true"], "2 without a sound track", {"train": 8, "val": 1}),
        (["model.slots=0"], "2 silent", {"train": 8, "val": 2}),
        (["model.slots=0", "keep_silent=true"], None, {"train": 10, "val": 2}),
    ],
)
def test_training_takes_what_it_can_learn_from_and_says_what_it_left(
    mute: Index, tmp_path: Path, sets: list[str], said: str | None, counts: dict[str, int]
) -> None:
    chosen = [word for text in sets for word in ("--set", text)]
    words = ["--data", mute.folder, "--device", "cpu", "--out", tmp_path, *TINY, *chosen]
    text = did("train", "lip", *words, "--steps", 2).stderr
    left = [line for line in text.splitlines() if line.startswith("left out of")]
    if not sets:
        assert left == [
            "left out of 10 clips of train: 2 without a sound track,"
            " 2 silent (--set keep_silent=true takes them)",
            "left out of 2 clips of val: 1 without a sound track",
        ]
    elif said is None:
        assert not left
    else:
        assert said in left[0]
    assert f"'train': {counts['train']}, 'val': {counts['val']}" in text


def test_words_are_measured_with_and_without_sound(
    mute: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--data", mute.folder, "--device", "cpu", "--out", tmp_path, *TINY, "--steps", 1]
    did("train", "lip", *words)
    caplog.clear()
    caplog.set_level("INFO")
    record = evaluated("lip", tmp_path / "best.pt", mute, "all")
    assert record["flags"]["no_audio"] == 3 and record["flags"]["silent"] == 2
    [told] = caplog.messages
    assert told == "3 of these clips have no sound track (seen, not heard), 2 are silent"
    assert len(record["clips"]) == 12
    heard = [clip["right_audio"] for clip in record["clips"] if "right_audio" in clip]
    assert len(heard) == 9 and record["metrics"]["top1_audio"]["value"] == np.mean(heard)
    assert record["addressing"]["flags"] | {"clips": 9, "of": 12} == record["addressing"]["flags"]
    json.dumps(record, default=float)


def test_what_helps_where_no_clip_is_left_depends_on_why(mute: Index) -> None:
    def line(task: str, rows: set[int]) -> str:
        parts = {"train": np.array(sorted(rows)), "val": np.array([0])}
        plan = any_recipe(task, **({"model": {}} if task == "asr" else {}))
        with pytest.raises(UsageError, match="no clip of train is left") as raised:
            teachable(mute, Parts("x", "x", parts), plan)
        return str(raised.value)

    assert "--set model.slots=0" in line("lip", MUTE)
    for task, rows in (("lip", SILENT), ("asr", MUTE | SILENT)):
        assert "slots" not in line(task, rows)
        assert "2 silent (--set keep_silent=true takes them)" in line(task, rows)


def test_speech_needs_sound(grid: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pystoi", reason="speech is measured with the extra eval")
    mute = rewrite(grid, tmp_path / "grid", {0}, set())
    listed, out = tmp_path / "list.txt", tmp_path / "run"

    def train(out: Path, *parts: str) -> tuple[int, str]:
        lines = [f"{part} {mute.key(i)}\n" for i, part in enumerate(parts)]
        listed.write_text("".join(lines))
        words = ["--data", mute.folder, "--device", "cpu", "--recipe", "tiny", "--out", out]
        words += ["--split-file", listed, "--set", "batch_size=1", "--steps", 1]
        return avb("train", "l2s", *words)[::2]

    code, text = train(out, "train", "train", "val")
    assert code == 0 and "left out of 2 clips of train: 1 without a sound track" in text
    code, text = train(tmp_path / "none", "train", "val")
    assert code == 2 and "no clip of train is left" in text.splitlines()[-1]
    caplog.clear()
    caplog.set_level("INFO")
    record = evaluated("l2s", out / "best.pt", mute, "train")
    assert len(record["clips"]) == 1 and record["flags"]["no_audio"] == 1
    assert caplog.messages[0] == "1 of these clips have no sound track (left out), 0 are silent"
