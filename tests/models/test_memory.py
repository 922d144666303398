"""The memory is the paper's equations: each is compared with loops over frames and slots.

The loops below are written from equations 1 to 8 alone and use nothing but sums, square roots,
exponentials and logarithms of single numbers.
"""

import math

import numpy as np
import pytest
import torch
from tiny import count
from torch import Tensor

from avb.models.lip import LipOutput, lip_losses
from avb.models.masks import frame_mask
from avb.models.memory import Bridge, BridgingMemory, Losses

B, T, N, C, D, E, R = 2, 3, 5, 4, 6, 7, 16.0
LENGTHS = [3, 2]


# The paper in loops -------------------------------------------------------------------------------


def loop_similarity(feature: np.ndarray, slots: np.ndarray) -> np.ndarray:
    s = np.zeros((*feature.shape[:2], len(slots)))
    for b, j, i in np.ndindex(*s.shape):
        dot = sum(x * y for x, y in zip(slots[i], feature[b, j], strict=True))
        squares = sum(x * x for x in slots[i]), sum(x * x for x in feature[b, j])
        s[b, j, i] = dot / (math.sqrt(squares[0]) * math.sqrt(squares[1]))
    return s


def loop_addressing(s: np.ndarray, r: float) -> np.ndarray:
    a = np.zeros_like(s)
    for b, j in np.ndindex(*s.shape[:2]):
        total = sum(math.exp(r * x) for x in s[b, j])
        for i in range(s.shape[2]):
            a[b, j, i] = math.exp(r * s[b, j, i]) / total
    return a


def loop_read(a: np.ndarray, slots: np.ndarray) -> np.ndarray:
    out = np.zeros((*a.shape[:2], slots.shape[1]))
    for b, j, i in np.ndindex(*a.shape):
        for d in range(slots.shape[1]):
            out[b, j, d] += a[b, j, i] * slots[i, d]
    return out


def loop_saving(rebuilt: np.ndarray, target: np.ndarray, lengths: list[int]) -> float:
    total = 0.0
    for b, length in enumerate(lengths):
        for j in range(length):
            total += sum((target[b, j, d] - rebuilt[b, j, d]) ** 2 for d in range(D)) / length
    return total / len(lengths)


def loop_bridging(a_target: np.ndarray, a_source: np.ndarray, lengths: list[int]) -> float:
    total = 0.0
    for b, length in enumerate(lengths):
        for j in range(length):
            for p, q in zip(a_target[b, j], a_source[b, j], strict=True):
                total += p * math.log(p / q) / length
    return total / len(lengths)


def loop_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    out = np.zeros((*x.shape[:-1], len(bias)))
    for index in np.ndindex(*x.shape[:-1]):
        for o in range(len(bias)):
            products = (w * v for w, v in zip(weight[o], x[index], strict=True))
            out[(*index, o)] = bias[o] + sum(products)
    return out


# Equations ----------------------------------------------------------------------------------------


def features() -> tuple[Tensor, Tensor]:
    return torch.randn(B, T, C).double(), torch.randn(B, T, D).double()


@pytest.fixture(params=[("paper", {}), ("released", {}), ("released", {"value_projection": False})])
def network(request: pytest.FixtureRequest) -> BridgingMemory:
    variant, options = request.param
    return BridgingMemory(C, D, N, E, R, variant, **options).double().eval()


def arrays(network: BridgingMemory) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("padded", [False, True])
def test_memory_is_the_equations_in_its_order(network: BridgingMemory, padded: bool) -> None:
    source, target = features()
    lengths = LENGTHS if padded else [T] * B
    mask = frame_mask(torch.tensor(LENGTHS), T) if padded else None
    with torch.no_grad():
        bridge, (value, addressing) = network(source, target, mask), network.recall(source)
    w, f_src, f_tgt = arrays(network), source.numpy(), target.numpy()

    query, keyed = f_src, f_tgt
    if network.variant == "released":
        query = loop_linear(f_src, w["query.weight"], w["query.bias"])
        if "value.weight" in w:
            keyed = loop_linear(f_tgt, w["value.weight"], w["value.bias"])
    a_source = loop_addressing(loop_similarity(query, w["key_memory"]), R)
    a_target = loop_addressing(loop_similarity(keyed, w["value_memory"]), R)
    recalled = loop_read(a_source, w["value_memory"])
    saving = loop_saving(loop_read(a_target, w["value_memory"]), f_tgt, lengths)
    if network.variant == "released":
        saving /= D
    fused = [loop_linear(np.concatenate([f_src, f], -1), w["fusion.weight"], w["fusion.bias"])
             for f in (recalled, f_tgt)]  # fmt: skip

    np.testing.assert_allclose(addressing, a_source, rtol=1e-10)
    np.testing.assert_allclose(value, recalled, rtol=1e-10)
    np.testing.assert_allclose(bridge.source_addressing, a_source, rtol=1e-10)
    np.testing.assert_allclose(bridge.target_addressing, a_target, rtol=1e-10)
    np.testing.assert_allclose(bridge.recalled, fused[0], rtol=1e-10)
    np.testing.assert_allclose(bridge.real, fused[1], rtol=1e-10)
    assert bridge.saving.item() == pytest.approx(saving, rel=1e-10)
    bridging = loop_bridging(a_target, a_source, lengths)
    assert bridge.bridging.item() == pytest.approx(bridging, rel=1e-10)


def test_task_loss_is_two_cross_entropies_and_total_is_the_sum() -> None:
    recalled, real = torch.randn(3, 4), torch.randn(3, 4)
    labels = [2, 0, 3]

    def loop_entropy(logits: Tensor) -> float:
        total = 0.0
        for row, label in zip(logits.tolist(), labels, strict=True):
            total -= row[label] - math.log(sum(math.exp(x) for x in row))
        return total / len(labels)

    bridge = Bridge(recalled, saving=torch.tensor(0.7), bridging=torch.tensor(0.2))
    losses = lip_losses(LipOutput(recalled, real, bridge), torch.tensor(labels))
    expected = loop_entropy(recalled) + loop_entropy(real)
    assert losses.task.item() == pytest.approx(expected, rel=1e-5)
    assert losses.total().item() == pytest.approx(expected + 0.7 + 0.2, rel=1e-5)
    assert losses.total(0.5, 2.0).item() == pytest.approx(expected + 0.35 + 0.4, rel=1e-5)
    # Labels may also be probabilities, as of two clips mixed.
    shares = torch.eye(4)[torch.tensor(labels)]
    mixed = lip_losses(LipOutput(recalled, real, bridge), shares)
    assert mixed.task.item() == pytest.approx(expected, rel=1e-5)


# Properties ---------------------------------------------------------------------------------------


def test_one_hot_addressing_recalls_the_slot_as_it_is() -> None:
    network = BridgingMemory(C, D, N, E, radius=1e5)
    value, addressing = network.recall(3 * network.key_memory.detach()[None])
    torch.testing.assert_close(addressing[0], torch.eye(N))
    torch.testing.assert_close(value[0], network.value_memory)


def test_zero_frame_addresses_all_slots_alike_and_keeps_gradients_finite() -> None:
    network = BridgingMemory(C, D, N, E)
    source = torch.zeros(1, 1, C, requires_grad=True)
    bridge = network(source, torch.zeros(1, 1, D))
    torch.testing.assert_close(bridge.source_addressing, torch.full((1, 1, N), 1 / N))
    (bridge.saving + bridge.bridging).backward()
    assert source.grad is not None and source.grad.isfinite().all()


# model.md 1.3, at initialisation with unit-normal features.
@pytest.mark.parametrize(
    ("slots", "entropy"), [(44, 3.55), (88, 4.23), (112, 4.47), (150, 4.76), (168, 4.88)]
)
def test_fresh_memory_is_as_soft_as_the_released_one(slots: int, entropy: float) -> None:
    network = BridgingMemory(slots=slots, variant="released")
    bridge = network(torch.randn(20, 29, 512), torch.randn(20, 29, 512))
    a = bridge.source_addressing
    assert -(a * a.log()).sum(-1).mean().item() == pytest.approx(entropy, abs=0.02)
    if slots == 88:
        assert a.amax(-1).mean().item() == pytest.approx(0.053, abs=0.004)
        assert bridge.bridging.item() == pytest.approx(0.5, abs=0.1)
        assert network.key_memory.std().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_addresses_in_float32(network: BridgingMemory, dtype: torch.dtype) -> None:
    network = network.float()
    source, target = (f.to(dtype) for f in features())
    expected = network(source.float(), target.float())
    with torch.autocast("cpu", dtype):
        bridge, (value, addressing) = network(source, target), network.recall(source)
    assert bridge.recalled.dtype == bridge.real.dtype == dtype  # only the fusion is left to it
    for found, same in (
        (bridge.source_addressing, expected.source_addressing),
        (bridge.target_addressing, expected.target_addressing),
        (bridge.saving, expected.saving),
        (bridge.bridging, expected.bridging),
        (addressing, expected.source_addressing),
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, same)
    assert value.dtype == torch.float32


def test_opposite_frames_keep_the_divergence_finite() -> None:
    """Probabilities of 1e-14: in float16 the divergence would be infinite (checked below)."""
    network = BridgingMemory(C, C, 2, E)
    with torch.no_grad():
        network.key_memory.copy_(torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0]]))
        network.value_memory.copy_(network.key_memory.flip(0))
    frame = torch.tensor([[[1.0, 0, 0, 0]]]).half()
    with torch.autocast("cpu", torch.float16):
        assert network(frame, frame).bridging.item() == pytest.approx(2 * R, rel=1e-4)
    half = torch.tensor([R, -R]).softmax(0).half()
    assert not (half.flip(0) * (half.flip(0).log() - half.log())).sum().isfinite()


# N, variants and sizes ----------------------------------------------------------------------------


def test_zero_slots_pass_video_on_as_it_came() -> None:
    network = BridgingMemory(C, D, slots=0, fused_dim=E)
    source, target = features()
    bridge = network(source, target)
    assert bridge.recalled is source and network.fused_dim == C
    assert bridge.real is bridge.saving is bridge.bridging is bridge.source_addressing is None
    assert not list(network.parameters())
    with pytest.raises(ValueError, match="0 slots"):
        network.recall(source)
    assert Losses(torch.tensor(2.0)).total().item() == 2


@pytest.mark.parametrize(
    ("slots", "parameters"),
    [(44, 1_095_168), (88, 1_140_224), (112, 1_164_800), (150, 1_203_712), (168, 1_222_144)],
)
def test_released_memory_has_the_published_size(slots: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(BridgingMemory(slots=slots, variant="released")) == parameters
        # Without the two projections: 2 x (512 x 512 + 512).
        assert count(BridgingMemory(slots=slots)) == parameters - 525_312
        one = BridgingMemory(slots=slots, variant="released", value_projection=False)
        assert count(one) == parameters - 525_312 // 2


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="'papers'.*'released'"):
        BridgingMemory(variant="papers")  # type: ignore[arg-type]


def test_dropout_before_the_fusion_belongs_to_the_released_variant() -> None:
    source, target = (f.float() for f in features())
    paper, released = (BridgingMemory(C, D, N, E, variant=v) for v in ("paper", "released"))
    assert torch.equal(paper(source, target).real, paper(source, target).real)
    assert not torch.equal(released(source, target).real, released(source, target).real)
    assert released.dropout.p == 0.5
    assert BridgingMemory(C, D, N, E, variant="released", dropout=0.1).dropout.p == 0.1
