"""Promise: exported weights say of a stored clip what the checkpoint says of it."""

import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import avb, did, refused
from networks import LABELS, save_model, save_vocoder
from safetensors.torch import load_file
from safetensors.torch import save_file as to_file

from avb.pipeline.errors import UsageError
from avb.pipeline.stream.batch import Batch
from avb.tools.export.export import to_onnx
from avb.train import augment, checkpoint
from avb.train.network import load_network
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Scaling, find_task
from avb.train.vocoder.file import load as load_vocoder

#: Of a checkpoint of `save_model`.
SCALING = Scaling(130.0, 30.0, -11.5, 3.5, 4, 112, len(LABELS))


def prepare(given: Any, recipe: Any) -> Any:
    cpu = torch.device("cpu")
    return find_task(recipe.task).prepare(given, recipe, SCALING, cpu, train=False)


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter traces into the log what pytest would keep: half of its time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def batch(clips: int = 3, frames: int = 29) -> Batch:
    """Drawn noise where shards would have clips."""
    generator = torch.Generator().manual_seed(clips)
    size = (clips, frames, 120, 120)
    video = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    return Batch(
        keys=["k"] * clips, video={"lips": video}, mel=torch.zeros(clips, 80, 4 * frames),
        lengths=torch.full((clips,), frames), mel_lengths=torch.full((clips,), 4 * frames),
        label_id=torch.zeros(clips, dtype=torch.int64),
        boundary=torch.tensor([[0.2, 0.6]] * clips), words=[[]] * clips, speakers=[None] * clips,
        epoch=torch.zeros(clips, dtype=torch.int64),
    )  # fmt: skip


def run_onnx(path: Path, **given: Any) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in given.items()})[0]


@pytest.mark.parametrize(
    "settings", [{"shrink": 2, "model": {"word_boundary": True}}], ids=["boundary"]
)
def test_the_onnx_lip_model_says_the_same_words(tmp_path: Path, settings: Any) -> None:
    pytest.importorskip("onnxruntime", reason="the extra export")
    pytest.importorskip("onnxscript", reason="the extra export")
    recipe, model = save_model(tmp_path / "best.pt", "lip", **settings)
    out = tmp_path / "out"
    told = did("export", "--ckpt", tmp_path / "best.pt", "--to", "onnx", "--out", out).stderr
    assert "differ by at most" in told
    for clips, frames in ((1, 29), (3, 29), (2, 35)):  # any batch, any length
        given = batch(clips, frames)
        inputs = prepare(given, recipe)
        with torch.no_grad():
            wanted = model(inputs.video_BCTHW, None, None, inputs.boundary_BT).logits.numpy()
        video = augment.crop_center(given.video["lips"], SCALING.margin).contiguous()
        found = run_onnx(out / "model.onnx", video=video, boundary=inputs.boundary_BT)
        assert np.abs(found - wanted).max() < 1e-4
        assert (found.argmax(1) == wanted.argmax(1)).all()
        assert np.ptp(wanted, axis=1).min() > 0.01  # else equal words would mean nothing
    config = json.loads((out / "config.json").read_text())
    assert config["labels"] == LABELS and config["onnx"]["largest_difference"] < 1e-4
    assert config["video"]["size"] == 112 and config["fps"] == 25
    assert not list(out.glob("*.tmp")) and "opset" in (out / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_every_kind_of_lip_reader_exports_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra export")
    kinds = itertools.product(["gru", "mstcn"], [0, 8], [True, False])
    for back_end, slots, boundary in kinds:  # what one leaves behind must not bind the next
        changes = {"back_end": back_end, "slots": slots, "word_boundary": boundary}
        changes |= {"variant": "released", "pool": "released"}
        recipe, model = save_model(tmp_path / "best.pt", "lip", model=changes)
        assert to_onnx(model, recipe, SCALING)[1]["largest_difference"] < 1e-4, changes


@pytest.mark.slow
def test_the_onnx_speech_model_makes_the_same_mels(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra export")
    recipe, model = save_model(tmp_path / "best.pt", "l2s", shrink=2)
    words = ["--ckpt", tmp_path / "best.pt", "--out", tmp_path / "out", "--frames", 20]
    did("export", "--to", "onnx", *words)
    given = batch(2, 20)
    inputs = prepare(given, recipe)
    with torch.no_grad():
        mel = model(inputs.video_BCTHW).mels.after
    wanted = SCALING.from_speech_range(mel).clamp(-11.5, 3.5).numpy()
    video = augment.crop_center(given.video["lips"], SCALING.margin).contiguous()
    found = run_onnx(tmp_path / "out/model.onnx", video=video)
    assert found.shape == (2, 80, 80) and np.abs(found - wanted).max() < 1e-3
    assert np.ptp(wanted) > 0.1


def test_safetensors_and_config_rebuild_the_model(tmp_path: Path) -> None:
    recipe, model = save_model(tmp_path / "best.pt", "lip")
    out = tmp_path / "out"
    words = ["--ckpt", tmp_path / "best.pt", "--to", "safetensors", "--out", out]
    assert "--frames is for speech" in refused("export", *words, "--frames", 20)
    assert avb("export", *words)[0] == 0
    config = json.loads((out / "config.json").read_text())
    again = make_recipe("lip", config["recipe"], "config.json")
    rebuilt = find_task(again.task).build(again, Scaling(**config["scaling"])).eval()
    rebuilt.load_state_dict(load_file(out / "model.safetensors"))
    given = prepare(batch(), recipe).video_BCTHW
    with torch.no_grad():
        assert torch.equal(rebuilt(given).logits, model(given).logits)
    did("export", *words)  # again into the same folder


def test_the_card_has_figures_flags_and_what_is_not_known(tmp_path: Path) -> None:
    ckpt, out, record = tmp_path / "best.pt", tmp_path / "out", tmp_path / "record.json"
    save_model(ckpt, "lip", "lrw")
    flags = {"n": 400, "part": "test", "split": "official", "unit": "clip"}
    flags["checkpoint_sha256"] = hashlib.sha256(ckpt.read_bytes()).hexdigest()
    top1 = {"value": 0.8541, "low": 0.81, "high": 0.89}
    made = {"metrics": {"top1": top1}, "floors": {"chance": 0.002, "reason": "few"}, "flags": flags}
    record.write_text(json.dumps(made))
    words = ["export", "--ckpt", ckpt, "--to", "safetensors", "--out", out]
    did(*words, "--record", record)
    card = (out / "MODEL_CARD.md").read_text()
    for text in ("0.8541 [0.8100, 0.8900]", "floors: chance", "few", "unit clip", "slots: 4"):
        assert text in card, text
    assert "BBC agreement" in card and "## Not known" in card
    assert "Not measured" not in card and "How many clips it was trained on" in card
    told = json.loads((out / "config.json").read_text())["measured"]
    assert avb(*words, "--half")[0] == 0  # again, without the record
    assert told and json.loads((out / "config.json").read_text())["measured"] == told
    again = (out / "MODEL_CARD.md").read_text()
    assert "0.8541 [0.8100, 0.8900]" in again and "400 samples of test, split official" in again
    flags["checkpoint_sha256"] = "0" * 64
    record.write_text(json.dumps(made))
    assert "another checkpoint" in refused(*words, "--record", record)


@pytest.mark.parametrize(
    ("kind", "changes", "words", "said"),
    [
        (
            "l2s",
            {"model": {"decoder": "tacotron", "decoder_sizes": {}}},
            ["--to", "onnx"],
            "model.decoder=synchronous",
        ),
        ("lip", {}, ["--to", "tflite"], "'safetensors', 'onnx'"),
        ("lip", {}, ["--to", "safetensors", "--record", "nowhere.json"], "nowhere.json"),
        ("lip", {}, ["--to", "safetensors", "--data", "nowhere"], "no dataset.json"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    tmp_path: Path, kind: str, changes: Any, words: list[str], said: str
) -> None:
    pytest.importorskip("onnxscript", reason="the extra export")
    save_model(tmp_path / "best.pt", kind, **changes)
    out = tmp_path / "out"
    assert said in refused("export", "--ckpt", tmp_path / "best.pt", "--out", out, *words)
    assert not out.exists()


def test_no_judge_is_exported_nor_into_a_folder_of_something_else(tmp_path: Path) -> None:
    save_model(tmp_path / "best.pt", "lip")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    words = ["--ckpt", tmp_path / "best.pt", "--to", "safetensors", "--out", tmp_path]
    assert "another --out" in refused("export", *words)
    assert (tmp_path / "config.json").read_text() == '{"mine": 1}'
    checkpoint.save(tmp_path / "judge.pt", {"task": "judge"})
    words = ["--ckpt", tmp_path / "judge.pt", "--to", "safetensors", "--out", tmp_path / "out"]
    assert "judge" in refused("export", *words)


def test_exported_weights_are_a_checkpoint_of_half_the_size(tmp_path: Path) -> None:
    _, model = save_model(tmp_path / "best.pt", "lip", ema=0.99)
    state = checkpoint.load(tmp_path / "best.pt")
    checkpoint.save(tmp_path / "best.pt", state | {"ema": state["model"]})
    out = tmp_path / "out"
    words = ["export", "--ckpt", tmp_path / "best.pt", "--to", "safetensors", "--out", out]
    did(*words)
    did(*words[:2], out, *words[3:5], "--out", tmp_path / "again")
    for made in (out, tmp_path / "again"):
        assert json.loads((made / "config.json").read_text())["weights"] == "averaged (ema)"
    whole = (out / "model.safetensors").stat().st_size
    did(*words, "--half")
    file = checkpoint.best_of(out)
    assert file == out / "model.safetensors" and file.stat().st_size < 0.6 * whole
    loaded = load_network(file, "lip")
    assert loaded.data["labels"] == LABELS and loaded.scaling == SCALING and loaded.step == 7
    for name, value in loaded.model.state_dict().items():
        wanted = model.state_dict()[name]
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted.half().float() if wanted.is_floating_point() else wanted)
    state["model"]["visual.norm.running_var"][0] = 1e6
    checkpoint.save(tmp_path / "large.pt", state)
    large = ["export", "--ckpt", tmp_path / "large.pt", *words[3:5], "--out", tmp_path / "large"]
    assert "visual.norm.running_var: too large for numbers of 16" in refused(*large, "--half")
    # What was measured on the file itself goes into its card.
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    top1 = {"value": 0.25, "low": 0.2, "high": 0.3}
    flags = {"n": 9, "part": "all", "speakers": ["s2"], "checkpoint_sha256": sha256}
    made = {"metrics": {"top1": top1}, "floors": {"chance": 0.1}, "flags": flags}
    (tmp_path / "record.json").write_text(json.dumps(made))
    did(*words, "--half", "--record", tmp_path / "record.json")
    (measured,) = json.loads((out / "config.json").read_text())["measured"]
    assert measured["metrics"]["top1"] == top1 and measured["speakers"] == ["s2"]
    assert "0.2500 [0.2000, 0.3000]" in (out / "MODEL_CARD.md").read_text()
    assert "--half" in refused(*words[:3], "--to", "onnx", "--out", out, "--half")


def test_every_reader_of_words_says_which(tmp_path: Path) -> None:
    """And of which log-mels, be they those of `datasets.yaml` or not."""
    save_model(tmp_path / "asr.pt", "asr")
    state = checkpoint.load(tmp_path / "asr.pt")
    state["data"]["settings"]["mel"]["n_fft"] = 400
    checkpoint.save(tmp_path / "asr.pt", state)
    did("export", "--ckpt", tmp_path / "asr.pt", "--to", "safetensors", "--out", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["labels"] == LABELS and config["mel"]["n_fft"] == 400


def test_an_exported_vocoder_makes_sound(tmp_path: Path) -> None:
    file = save_vocoder(tmp_path / "vocoder.pt", 2.0)
    words = ["export", "--ckpt", file, "--to", "safetensors", "--half", "--out", tmp_path / "out"]
    did(*words)
    again = load_vocoder(tmp_path / "out" / "model.safetensors")
    before = load_vocoder(file).network.state_dict()
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, before[name].half().float())
    assert again.facts["hash"] in (tmp_path / "out" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("cut", [4, 200, -9])
def test_damaged_safetensors_are_one_line(tmp_path: Path, cut: int) -> None:
    save_model(tmp_path / "best.pt", "lip")
    words = ["export", "--ckpt", tmp_path / "best.pt", "--to", "safetensors", "--out", tmp_path]
    did(*words)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UsageError, match="damaged or no checkpoint"):
        checkpoint.load(file)
    to_file({"x": torch.zeros(1)}, file)
    with pytest.raises(UsageError, match="not a checkpoint of avb"):
        checkpoint.load(file)
