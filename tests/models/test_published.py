"""A published checkpoint is read to the letter: LipReader says what its own tensors say.

`straight_line` is the released model once more, written from `model.md` with plain functional
calls on tensors under their published names. It shares no line with the networks it checks.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avb.models.published import from_published, lip_reader, published_settings

LAYOUT = Path(__file__).resolve().parents[3] / "shared/reference/published_checkpoint_layout.json"
SLOTS = {"gru": 88, "mstcn": 168}
Shapes = dict[str, dict[str, list[int]]]


# The published layout -----------------------------------------------------------------------------


def norm(name: str, width: int) -> dict[str, list[int]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": [width] for leaf in leaves} | {f"{name}.num_batches_tracked": []}


def residual(name: str, before: int, width: int, prelu: bool) -> dict[str, list[int]]:
    shapes = {f"{name}.conv1.weight": [width, before, 3, 3]} | norm(f"{name}.bn1", width)
    shapes |= {f"{name}.conv2.weight": [width, width, 3, 3]} | norm(f"{name}.bn2", width)
    if prelu:
        shapes |= {f"{name}.relu1.weight": [width], f"{name}.relu2.weight": [width]}
    if before != width:
        shapes |= {f"{name}.downsample.0.weight": [width, before, 1, 1]}
        shapes |= norm(f"{name}.downsample.1", width)
    return shapes


def layout(back_end: str) -> Shapes:
    """Published names and shapes, as listed in `published_checkpoint_layout.json`."""
    video = {"frontend.0.weight": [64, 1, 5, 7, 7], "frontend.2.weight": [64]}
    video |= norm("frontend.1", 64)
    for stage, (before, width) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        video |= residual(f"resnet.layer{stage}.0", before, width, prelu=True)
        video |= residual(f"resnet.layer{stage}.1", width, width, prelu=True)
    audio = {"frontend.0.weight": [128, 1, 3, 3], "frontend.0.bias": [128]}
    audio |= norm("frontend.1", 128) | {"frontend.2.weight": [128]}
    audio |= {"frontend.3.weight": [256, 128, 3, 3], "frontend.3.bias": [256]}
    audio |= norm("frontend.4", 256) | {"frontend.5.weight": [256]}
    audio |= residual("Res_block.0", 256, 256, prelu=False)
    audio |= {"Linear.weight": [512, 5120], "Linear.bias": [512]}
    slots = SLOTS[back_end]
    memory = {"key": [slots, 512], "value": [slots, 512]}
    for name in ("q_embd", "v_embd"):
        memory |= {f"{name}.weight": [512, 512], f"{name}.bias": [512]}
    memory |= {"fusion.weight": [512, 1024], "fusion.bias": [512]}
    back: dict[str, list[int]] = {}
    if back_end == "gru":
        for end in ("l0", "l0_reverse", "l1", "l1_reverse"):
            back[f"gru.weight_ih_{end}"] = [1536, 512 if "l0" in end else 1024]
            back[f"gru.weight_hh_{end}"] = [1536, 512]
            back |= {f"gru.bias_ih_{end}": [1536], f"gru.bias_hh_{end}": [1536]}
        back |= {"fc.weight": [500, 1024], "fc.bias": [500]}
    else:
        for block in range(4):
            name, before = f"tcn.mb_ms_tcn.network.{block}", 768 if block else 512
            for i, width in enumerate((before, 768)):
                for k in range(3):
                    unit = f"{name}.cbcr{i}_{k}"
                    back |= {f"{unit}.conv.weight": [256, width, 3 + 2 * k]}
                    back |= {f"{unit}.conv.bias": [256], f"{unit}.non_lin.weight": [256]}
                    back |= norm(f"{unit}.batchnorm", 256)
            back |= {f"{name}.downsample.weight": [768, before, 1]}
            back |= {f"{name}.downsample.bias": [768], f"{name}.relu_final.weight": [768]}
        back |= {"tcn.tcn_output.weight": [500, 768], "tcn.tcn_output.bias": [500]}
    parts = ("v_front_state_dict", "a_front_state_dict", "mem_state_dict", "back_state_dict")
    return dict(zip(parts, (video, audio, memory, back), strict=True))


def random_checkpoint(back_end: str) -> dict[str, dict[str, Tensor]]:
    """All tensors random and unlike each other, sized so that activations neither die nor grow."""

    def fill(name: str, shape: list[int]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            return torch.rand(shape) * 0.8 + 0.2  # norm scales and PReLU slopes too
        fan_in = torch.Size(shape[1:]).numel()
        return torch.randn(shape) * (fan_in**-0.5 if len(shape) > 1 else 0.1)

    return {
        part: {name: fill(name, shape) for name, shape in shapes.items()}
        for part, shapes in layout(back_end).items()
    }


@pytest.fixture(scope="module", params=["gru", "mstcn"])
def published(request: pytest.FixtureRequest) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    return random_checkpoint(request.param)


# model.md, sections 1.1 to 1.4, in evaluation -----------------------------------------------------

Tensors = dict[str, Tensor]


def bn(x: Tensor, p: Tensors, name: str) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean, var, weight, bias = (
        p[f"{name}.{leaf}"].view(shape)
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def basic_block(x: Tensor, p: Tensors, name: str, stride: int, prelu: bool) -> Tensor:
    def act(y: Tensor, which: str) -> Tensor:
        return F.prelu(y, p[f"{name}.{which}.weight"]) if prelu else F.relu(y)

    y = bn(F.conv2d(x, p[f"{name}.conv1.weight"], stride=stride, padding=1), p, f"{name}.bn1")
    y = bn(F.conv2d(act(y, "relu1"), p[f"{name}.conv2.weight"], padding=1), p, f"{name}.bn2")
    if f"{name}.downsample.0.weight" in p:
        x = F.conv2d(x, p[f"{name}.downsample.0.weight"], stride=stride)
        x = bn(x, p, f"{name}.downsample.1")
    return act(y + x, "relu2")


def video_features(video: Tensor, p: Tensors) -> Tensor:
    x = F.conv3d(video, p["frontend.0.weight"], stride=(1, 2, 2), padding=(2, 3, 3))
    x = F.prelu(bn(x, p, "frontend.1"), p["frontend.2.weight"])
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    clips, _, frames = x.shape[:3]
    x = x.transpose(1, 2).reshape(clips * frames, 64, 28, 28)
    for stage in range(1, 5):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            x = basic_block(x, p, f"resnet.layer{stage}.{block}", stride, prelu=True)
    assert x.shape[1:] == (512, 4, 4)
    return F.avg_pool2d(x, 3, 3).view(clips, frames, 512)


def audio_features(mel: Tensor, p: Tensors) -> Tensor:
    x = mel[:, None]
    for conv in (0, 3):
        weight, bias = p[f"frontend.{conv}.weight"], p[f"frontend.{conv}.bias"]
        x = bn(F.conv2d(x, weight, bias, stride=2, padding=1), p, f"frontend.{conv + 1}")
        x = F.prelu(x, p[f"frontend.{conv + 2}.weight"])
    x = basic_block(x, p, "Res_block.0", 1, prelu=False)
    clips, channels, rows, frames = x.shape
    x = x.reshape(clips, channels * rows, frames).transpose(1, 2)
    return F.linear(x, p["Linear.weight"], p["Linear.bias"])


def bridge(video: Tensor, audio: Tensor, p: Tensors) -> dict[str, Tensor]:
    def address(x: Tensor, embedding: str, slots: Tensor) -> Tensor:
        q = F.linear(x, p[f"{embedding}.weight"], p[f"{embedding}.bias"])
        q = q / q.norm(dim=-1, keepdim=True)
        return (16 * q @ (slots / slots.norm(dim=-1, keepdim=True)).T).softmax(-1)

    def fuse(x: Tensor) -> Tensor:
        return F.linear(torch.cat([video, x], -1), p["fusion.weight"], p["fusion.bias"])

    a_src, a_tgt = address(video, "q_embd", p["key"]), address(audio, "v_embd", p["value"])
    return {
        "recalled": fuse(a_src @ p["value"]),
        "real": fuse(audio),
        "source_addressing": a_src,
        "target_addressing": a_tgt,
        "saving": F.mse_loss(a_tgt @ p["value"], audio),
        "bridging": F.kl_div(a_src.log(), a_tgt, reduction="none").sum(-1).mean(),
    }


def gru(x: Tensor, p: Tensors) -> Tensor:
    for layer in range(2):
        directions = []
        for end in (f"l{layer}", f"l{layer}_reverse"):
            steps = x if "reverse" not in end else x.flip(1)
            h, states = x.new_zeros(len(x), 512), []
            for t in range(x.shape[1]):
                i = F.linear(steps[:, t], p[f"gru.weight_ih_{end}"], p[f"gru.bias_ih_{end}"])
                g = F.linear(h, p[f"gru.weight_hh_{end}"], p[f"gru.bias_hh_{end}"])
                (ir, iz, in_), (gr, gz, gn) = i.chunk(3, 1), g.chunk(3, 1)
                reset, update = (ir + gr).sigmoid(), (iz + gz).sigmoid()
                new = (in_ + reset * gn).tanh()
                h = (1 - update) * new + update * h
                states.append(h)
            out = torch.stack(states, 1)
            directions.append(out if "reverse" not in end else out.flip(1))
        x = torch.cat(directions, -1)
    return F.linear(x.mean(1), p["fc.weight"], p["fc.bias"])


def mstcn(x: Tensor, p: Tensors) -> Tensor:
    x = x.transpose(1, 2)
    for block, dilation in enumerate((1, 2, 4, 8)):
        name, y = f"tcn.mb_ms_tcn.network.{block}", x
        for half in range(2):
            branches = []
            for k, kernel in enumerate((3, 5, 7)):
                unit, pad = f"{name}.cbcr{half}_{k}", (kernel - 1) * dilation
                w, b = p[f"{unit}.conv.weight"], p[f"{unit}.conv.bias"]
                z = F.conv1d(y, w, b, dilation=dilation, padding=pad)
                z = bn(z, p, f"{unit}.batchnorm")[:, :, pad // 2 : -(pad // 2)]
                branches.append(F.prelu(z, p[f"{unit}.non_lin.weight"]))
            y = torch.cat(branches, 1)
        x = F.conv1d(x, p[f"{name}.downsample.weight"], p[f"{name}.downsample.bias"])
        x = F.prelu(x + y, p[f"{name}.relu_final.weight"])
    return F.linear(x.mean(2), p["tcn.tcn_output.weight"], p["tcn.tcn_output.bias"])


def straight_line(
    checkpoint: dict[str, dict[str, Tensor]], video: Tensor, mel: Tensor
) -> dict[str, Tensor]:
    parts = {
        part: {name: x.double() if x.is_floating_point() else x for name, x in state.items()}
        for part, state in checkpoint.items()
    }
    f_src = video_features(video, parts["v_front_state_dict"])
    f_tgt = audio_features(mel, parts["a_front_state_dict"])
    out = bridge(f_src, f_tgt, parts["mem_state_dict"])
    back = parts["back_state_dict"]
    classify = gru if "fc.weight" in back else mstcn
    return out | {
        "logits": classify(out["recalled"], back),
        "real_logits": classify(out["real"], back),
    }


# Tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("back_end", "variant"), [("gru", "lrw_gru"), ("mstcn", "lrw_mstcn")])
def test_the_layout_here_is_the_listed_one(back_end: str, variant: str) -> None:
    if not LAYOUT.exists():
        pytest.skip(f"no {LAYOUT}")
    listed = json.loads(LAYOUT.read_text())["variants"][variant]["state_dicts"]
    assert layout(back_end) == {
        part: {name: tensor["shape"] for name, tensor in state["tensors"].items()}
        for part, state in listed.items()
    }


def test_lip_reader_says_what_the_published_tensors_say(published) -> None:
    model = lip_reader(published_settings(published))
    model.load_state_dict(from_published(published))
    model = model.double().eval()
    video, mel = torch.randn(1, 1, 4, 112, 112).double(), torch.randn(1, 80, 16).double()
    with torch.no_grad():
        output, expected = model(video, mel), straight_line(published, video, mel)
    found = vars(output.bridge) | {"logits": output.logits, "real_logits": output.real_logits}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, name=name: f"{name}: {m}")
    assert expected["logits"].std() > 0.05  # not all biases


def test_every_tensor_is_taken_once_and_as_it_is(published) -> None:
    taken = [value.data_ptr() for value in from_published(published).values()]
    given = [value.data_ptr() for part in published.values() for value in part.values()]
    assert sorted(taken) == sorted(given)


def test_settings_are_read_from_the_tensors(published) -> None:
    back_end = "gru" if "fc.weight" in published["back_state_dict"] else "mstcn"
    assert published_settings(published) == {
        "classes": 500,
        "slots": SLOTS[back_end],
        "radius": 16.0,
        "variant": "released",
        "back_end": back_end,
        "pool": "released",
    }


def test_names_of_a_parallel_wrapper_are_taken_too(published) -> None:
    wrapped = {
        part: {f"module.{name}": value for name, value in tensors.items()}
        for part, tensors in published.items()
    }
    assert published_settings(wrapped) == published_settings(published)
    expected = from_published(published)
    assert all(value is expected[name] for name, value in from_published(wrapped).items())


def test_what_does_not_fit_is_named() -> None:
    whole = random_checkpoint("gru")

    def message(part: str, change: dict[str, Tensor | None]) -> str:
        tensors = whole[part] | {name: value for name, value in change.items() if value is not None}
        kept = {k: v for k, v in tensors.items() if k not in change or change[k] is not None}
        with pytest.raises(ValueError) as raised:
            from_published({**whole, part: kept})
        return str(raised.value)

    found = message("a_front_state_dict", {"frontend.3.bias": None})
    assert "1 missing: a_front_state_dict/frontend.3.bias" in found and "unexpected" not in found
    found = message("mem_state_dict", {"norm.weight": torch.zeros(2)})
    assert "1 unexpected: mem_state_dict/norm.weight" in found and "missing" not in found
    found = message("mem_state_dict", {"a\0b": torch.zeros(2)})
    assert r"1 unexpected: mem_state_dict/'a\x00b'" in found or r"a\x00b" in found
    found = message("mem_state_dict", {"value": torch.zeros(44, 512)})
    assert re.search(r"1 of another shape: mem_state_dict/value \(44, 512\), .* \(88, 512\)", found)
    found = message("back_state_dict", {"fc.weight": None})
    assert "no back_state_dict/fc.weight" in found
    found = message("mem_state_dict", {"key": torch.tensor(1e30)})
    assert "mem_state_dict/key is no matrix" in found
    del whole["back_state_dict"]
    with pytest.raises(ValueError, match="no back_state_dict"):
        from_published(whole)
