"""Promise: an imported checkpoint says of a stored clip what its published tensors say.

The published model is `straight_line` of `tests/models/test_published.py`; what the pixels are
scaled by is written here once more, from the authors' loader.
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from commands import did, refused
from networks import evaluated
from torch import Tensor, nn

from avb.pipeline.stream.assemble import Assembler
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.network import load_network
from avb.train.tasks.lip import LipReading
from avb.train.tasks.task import Evaluation

CLASSIFIER = {"gru": "fc", "mstcn": "tcn.tcn_output"}
Published = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def independent() -> ModuleType:
    path = Path(__file__).parents[1] / "models/test_published.py"
    spec = importlib.util.spec_from_file_location("published_straight_line", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(independent: ModuleType, back_end: str, classes: int) -> Published:
    torch.manual_seed(1)
    found = independent.random_checkpoint(back_end)
    for leaf in ("weight", "bias"):
        name = f"{CLASSIFIER[back_end]}.{leaf}"
        found["back_state_dict"][name] = found["back_state_dict"][name][:classes].clone()
    return found


@pytest.mark.parametrize("back_end", ["gru", "mstcn"])
def test_an_imported_checkpoint_says_what_its_tensors_say(
    lrw: Index, independent: ModuleType, tmp_path: Path, monkeypatch: Any, back_end: str
) -> None:
    theirs = published(independent, back_end, len(lrw.labels))
    torch.save(theirs, tmp_path / "theirs.ckpt")
    words = [tmp_path / "theirs.ckpt", "--out", tmp_path / "ours.pt", "--data", lrw.folder]
    text = did("import-checkpoint", *words).stderr
    assert f"{back_end}, {independent.SLOTS[back_end]} slots, 10 words" in text
    assert "CC BY-NC 4.0" in text
    built: list[nn.Module] = []
    build = LipReading.build

    def seen(*arguments: Any) -> nn.Module:
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(LipReading, "build", seen)
    record = evaluated("lip", tmp_path / "ours.pt", lrw, "all", limit=1)
    assert record["flags"]["trained_on"] == "published" and record["flags"]["n"] == 1
    assert "ms-dot-k" in record["flags"]["split_source"]

    key = record["clips"][0]["key"]
    row = next(i for i in range(len(lrw)) if lrw.key(i) == key)
    frames, mel = Assembler(lrw, ("lips",), True, False).decode(row)
    box = frames["lips"][:, 4:116, 4:116].astype(np.float64)
    grey = (box - 16) / (235 - 16)  # as a decoder to RGB stretches limited range, from 0 to 1
    video = torch.from_numpy((grey - 0.4136) / 0.1700)[None, None]
    heard = torch.from_numpy(mel.astype(np.float64))
    heard = (heard - heard.mean(1, keepdim=True)) / (heard.std(1, keepdim=True) + 1e-10)
    with torch.no_grad():
        expected = independent.straight_line(theirs, video, heard[None])
        found = built[1](video.float(), heard[None].float())  # [0] is a trial
    for name in ("logits", "real_logits"):
        torch.testing.assert_close(getattr(found, name).double(), expected[name], rtol=0, atol=2e-3)
    assert record["clips"][0]["said"] == lrw.labels[int(expected["logits"].argmax())]
    loaded = load_network(tmp_path / "ours.pt", "lip")
    given = (loaded.recipe, loaded.scaling, lrw, np.array([row]), torch.device("cpu"))
    _, ours = next(Evaluation(loaded.model, *given).batches())
    torch.testing.assert_close(ours.video_BCTHW.double(), video, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_one_line_with_it(independent: ModuleType, tmp_path: Path) -> None:
    whole = published(independent, "gru", 3)
    words = tmp_path / "words.txt"
    words.write_text("ABOUT\nYOUNG\nPRICE\n")
    file, out = tmp_path / "theirs.ckpt", tmp_path / "ours.pt"

    def faulty(content: Any, *options: object) -> str:
        torch.save(content, file)
        given = options or ("--labels", words)
        line = refused("import-checkpoint", file, "--out", out, *given)
        assert not out.exists()
        return line

    def changed(part: str, name: str, value: Tensor | None) -> Any:
        tensors = {k: v for k, v in whole[part].items() if k != name}
        return whole | {part: tensors | ({} if value is None else {name: value})}

    audio, memory, back = "a_front_state_dict", "mem_state_dict", "back_state_dict"
    text = faulty(changed(audio, "frontend.3.bias", None))
    assert f"1 missing: {audio}/frontend.3.bias" in text and "unexpected" not in text
    text = faulty(changed(memory, "norm.weight", torch.zeros(2)))
    assert f"1 unexpected: {memory}/norm.weight" in text and "missing" not in text
    text = faulty(changed(memory, "a\0b", torch.zeros(2)))
    assert f"1 unexpected: {ascii(memory + '/a' + chr(0) + 'b')}" in text
    assert f"no {back}/fc.weight" in faulty(changed(back, "fc.weight", None))
    assert f"{memory}/key is no matrix" in faulty(changed(memory, "key", torch.tensor(1e30)))
    assert f": no {back}" in faulty({k: v for k, v in whole.items() if k != back})
    text = faulty(changed(memory, "value", torch.zeros(44, 512)))
    assert f"1 of another shape: {memory}/value (44, 512), expected (88, 512)" in text
    assert f"{memory} is not tensors by name" in faulty(whole | {memory: {"key": 3}})
    assert f"{memory} is not tensors by name" in faulty(whole | {memory: torch.zeros(2)})
    assert "no v_front_state_dict" in faulty({"state_dict": {}})
    assert "a Tensor" in faulty(torch.zeros(3))
    assert "weights for 3 words" in faulty(whole, "--labels", write(tmp_path / "w", "A B"))
    assert "must be different" in faulty(whole, "--labels", write(tmp_path / "w", "A A B"))
    assert "does not name its words" in faulty(whole, "--out", out)
    assert "one of both" in faulty(whole, "--labels", words, "--data", tmp_path)
    assert "avb synth" in faulty(whole, "--data", tmp_path / "nowhere")
    assert "cannot be read" in faulty(whole, "--labels", tmp_path / "nowhere")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_words_are_in_the_order_of_folders(independent: ModuleType, tmp_path: Path) -> None:
    torch.save(published(independent, "gru", 3), tmp_path / "theirs.ckpt")
    words = write(tmp_path / "words.txt", "YOUNG\nABOUT\n\nPRICE\n")
    out = tmp_path / "new" / "ours.pt"
    did("import-checkpoint", tmp_path / "theirs.ckpt", "--out", out, "--labels", words)
    state = checkpoint.load(out, "lip")
    assert state["data"]["labels"] == ["ABOUT", "PRICE", "YOUNG"]
    assert state["recipe"]["model"]["variant"] == state["recipe"]["model"]["pool"] == "released"
    line = refused("import-checkpoint", out, "--out", out, "--labels", words)
    assert "is the file to import" in line
    absent = tmp_path / "none.ckpt"
    line = refused("import-checkpoint", absent, "--out", out, "--labels", words)
    assert f"{absent}: missing" in line


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("/tmp/avb-import-was-here",))


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    file, given = tmp_path / "x.ckpt", ("--out", tmp_path / "y.pt", "--labels", "none")
    torch.save({"v_front_state_dict": Evil()}, file)
    assert "holds more than tensors" in refused("import-checkpoint", file, *given)
    assert not Path("/tmp/avb-import-was-here").exists()
    file.write_bytes(b"cut")
    refused("import-checkpoint", file, *given)
