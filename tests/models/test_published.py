"""A published checkpoint is read to the letter: LipReader says what its own tensors say.

`straight_line` is the released model once more, written from `model.md` with plain functional
calls on tensors under their published names. It shares no line with the networks it checks.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avb.models.published import from_published, lip_reader, published_settings, published_shapes

LAYOUT = Path(__file__).resolve().parents[3] / "shared/reference/published_checkpoint_layout.json"
SLOTS = {"gru": 88, "mstcn": 168}


def settings(back_end: str) -> dict[str, Any]:
    """Those of a published checkpoint."""
    return {
        "classes": 500, "slots": SLOTS[back_end], "radius": 16.0, "variant": "released",
        "back_end": back_end, "pool": "released",
    }  # fmt: skip


def random_checkpoint(back_end: str) -> dict[str, dict[str, Tensor]]:
    """All tensors random and unlike each other, sized so that activations neither die nor grow."""

    def fill(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            return torch.rand(shape) * 0.8 + 0.2  # norm scales and PReLU slopes too
        fan_in = torch.Size(shape[1:]).numel()
        return torch.randn(shape) * (fan_in**-0.5 if len(shape) > 1 else 0.1)

    found: dict[str, dict[str, Tensor]] = {}
    for place, shape in published_shapes(settings(back_end)).items():
        part, name = place.split("/")
        found.setdefault(part, {})[name] = fill(name, shape)
    return found


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
    parts = {part: {name: x.double() if x.is_floating_point() else x for name, x in state.items()}
             for part, state in checkpoint.items()}  # fmt: skip
    f_src = video_features(video, parts["v_front_state_dict"])
    f_tgt = audio_features(mel, parts["a_front_state_dict"])
    out = bridge(f_src, f_tgt, parts["mem_state_dict"])
    back = parts["back_state_dict"]
    classify = gru if "fc.weight" in back else mstcn
    logits, real_logits = (classify(out[name], back) for name in ("recalled", "real"))
    return out | {"logits": logits, "real_logits": real_logits}


# Tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("back_end", "variant"), [("gru", "lrw_gru"), ("mstcn", "lrw_mstcn")])
def test_the_layout_is_the_listed_one(back_end: str, variant: str) -> None:
    if not LAYOUT.exists():
        pytest.skip(f"no {LAYOUT}")
    listed = json.loads(LAYOUT.read_text())["variants"][variant]["state_dicts"]
    assert published_shapes(settings(back_end)) == {
        f"{part}/{name}": tuple(tensor["shape"])
        for part, state in listed.items()
        for name, tensor in state["tensors"].items()
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
    assert published_settings(published) == settings(back_end)


def test_names_of_a_parallel_wrapper_are_taken_too(published) -> None:
    wrapped = {part: {f"module.{name}": value for name, value in tensors.items()}
               for part, tensors in published.items()}  # fmt: skip
    assert published_settings(wrapped) == published_settings(published)
    expected = from_published(published)
    assert all(value is expected[name] for name, value in from_published(wrapped).items())
