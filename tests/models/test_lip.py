"""The lip reader: sizes, what it may and may not see, padding, and that it learns."""

import pytest
import torch
from tiny import TINY_LIP, count, stir

from avb.models.lip import LipConfig, LipReader, lip_losses


def batch(clips: int, frames: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(clips, 1, frames, side, side), torch.randn(clips, 80, 4 * frames)


def test_released_models_have_the_published_sizes() -> None:
    with torch.device("meta"):
        gru = LipReader(500, LipConfig(variant="released"))
        tcn = LipReader(500, LipConfig(variant="released", back_end="mstcn", slots=168))
        assert (count(gru), count(tcn)) == (24_816_244, 41_696_884)
        needed = [count(m) - count(m.audio) - count(m.memory.value) for m in (gru, tcn)]
        assert needed == [20_453_364, 37_334_004]
        output = gru(torch.zeros(2, 1, 29, 112, 112), torch.zeros(2, 80, 116))
    assert output.logits.shape == output.real_logits.shape == (2, 500)
    assert output.bridge.source_addressing.shape == (2, 29, 88)


@pytest.mark.parametrize(("back_end", "variant"), [("gru", "paper"), ("mstcn", "released")])
def test_audio_changes_nothing_that_is_read_from_video(back_end, variant) -> None:
    model = stir(LipReader(5, LipConfig(back_end=back_end, variant=variant, **TINY_LIP))).eval()
    video, mel = batch(3, 6)
    heard, silent = model(video, mel), model(video)
    assert torch.equal(heard.logits, silent.logits)
    assert torch.equal(heard.bridge.source_addressing, silent.bridge.source_addressing)
    bridge = silent.bridge
    assert silent.real_logits is bridge.real is bridge.target_addressing is None
    assert bridge.saving is bridge.bridging is None
    other = model(video, mel + 1)
    assert torch.equal(other.logits, heard.logits)
    assert not torch.equal(other.real_logits, heard.real_logits)


def test_features_are_what_the_memory_is_given() -> None:
    model = stir(LipReader(5, LipConfig(**TINY_LIP))).eval()
    (video, mel), lengths = batch(2, 6), torch.tensor([6, 4])
    source, target = model.features(video, mel, lengths)
    assert source.shape == (2, 6, 16) and target.shape == (2, 6, 10)
    found, expected = model.memory(source, target), model(video, mel, lengths).bridge
    assert torch.equal(found.source_addressing, expected.source_addressing)
    assert torch.equal(found.target_addressing, expected.target_addressing)
    assert model.features(video)[1] is None
    plain = LipReader(5, LipConfig(**TINY_LIP | {"slots": 0}))
    assert plain.features(video, mel)[1] is None


@pytest.mark.parametrize(
    ("back_end", "whitened"), [("gru", False), ("mstcn", False), ("gru", True)]
)
def test_one_clip_alone_is_the_same_as_padded_among_64(back_end, whitened) -> None:
    sizes = TINY_LIP | {"back_end": back_end, "audio_whitened": whitened}
    model = stir(LipReader(5, LipConfig(variant="released", **sizes))).eval().double()
    video, mel = (x.double() for x in batch(64, 7, side=16))
    lengths = torch.randint(1, 8, (64,))
    lengths[0] = 7
    together = model(video, mel, lengths)
    sums = torch.zeros(2).double()
    for row, n in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        alone = model(video[one, :, :n], mel[one, :, : 4 * n])
        torch.testing.assert_close(together.logits[one], alone.logits)
        torch.testing.assert_close(together.real_logits[one], alone.real_logits)
        for side in ("source_addressing", "target_addressing"):
            found = getattr(together.bridge, side)[one, :n]
            torch.testing.assert_close(found, getattr(alone.bridge, side))
        sums += torch.stack([alone.bridge.saving, alone.bridge.bridging]).detach()
    means = torch.stack([together.bridge.saving, together.bridge.bridging])
    torch.testing.assert_close(means, sums / len(lengths))
    assert not torch.allclose(model(video, mel).logits[1:], together.logits[1:], rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_the_memory_in_float32(dtype) -> None:
    model = LipReader(5, LipConfig(variant="released", **TINY_LIP))
    with torch.autocast("cpu", dtype):
        output = model(*batch(2, 5))
    assert output.logits.dtype == dtype
    bridge = output.bridge
    for value in (bridge.source_addressing, bridge.target_addressing, bridge.saving):
        assert value.dtype == torch.float32
    losses = lip_losses(output, torch.tensor([0, 1]))
    assert losses.total().dtype == torch.float32 and losses.total().isfinite()


def test_baseline_has_no_audio_and_starts_from_the_same_weights() -> None:
    torch.manual_seed(3)
    full = LipReader(5, LipConfig(**TINY_LIP))
    torch.manual_seed(3)
    baseline = LipReader(5, LipConfig(**TINY_LIP | {"slots": 0}))
    shared = baseline.state_dict()
    assert {name.split(".")[0] for name in shared} == {"visual", "back_end"}
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in shared.items())
    video, mel = batch(2, 4)
    output = baseline.eval()(video, mel)
    assert output.real_logits is None and output.bridge.bridging is None
    direct = baseline.back_end(baseline.visual(video))
    assert torch.equal(output.logits, direct)
    losses = lip_losses(output, torch.tensor([0, 1]))
    assert torch.equal(losses.total(), losses.recalled)


def test_the_control_hears_in_training_and_recalls_nothing() -> None:
    """Video and zeros, then video and real audio: Eq. 7 without a memory."""
    torch.manual_seed(0)
    control = LipReader(5, LipConfig(**TINY_LIP | {"slots": 0, "audio_term": True})).eval()
    torch.manual_seed(0)
    baseline = LipReader(5, LipConfig(**TINY_LIP | {"slots": 0})).eval()
    for key, value in baseline.state_dict().items():
        assert torch.equal(value, control.state_dict()[key])
    video, mel = torch.randn(2, 1, 3, 32, 32), torch.randn(2, 80, 12)
    output = control(video, mel)
    torch.testing.assert_close(output.logits, control(video).logits)
    source, target = control.features(video, mel)
    assert target is not None and output.real_logits is not None
    memory, zeros = control.memory, torch.zeros(2, 3, TINY_LIP["audio_dim"])
    torch.testing.assert_close(output.bridge.recalled, memory.fuse(source, zeros))
    torch.testing.assert_close(output.bridge.real, memory.fuse(source, target))
    losses = lip_losses(output, torch.tensor([1, 2]))
    assert losses.real is not None and losses.saving is None and losses.bridging is None
    losses.recalled.backward(retain_graph=True)
    heard = [p for p in control.audio.parameters()]
    assert all(p.grad is None for p in heard)  # in what is read from video there is no sound
    losses.real.backward()
    assert sum(float(p.grad.abs().sum()) for p in heard if p.grad is not None) > 0
    with pytest.raises(ValueError, match="no memory to recall from"):
        memory.recall(source)
    with pytest.raises(ValueError, match="audio_term with 7 slots"):
        LipReader(5, LipConfig(**TINY_LIP | {"audio_term": True}))


def test_word_boundary_is_one_more_feature_and_must_be_given() -> None:
    model = LipReader(5, LipConfig(word_boundary=True, **TINY_LIP)).eval()
    video, _ = batch(2, 4)
    inside = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
    first, second = model(video, boundary_BT=inside), model(video, boundary_BT=1 - inside)
    assert not torch.equal(first.logits, second.logits)
    with pytest.raises(ValueError, match="expects word boundaries"):
        model(video)
    with pytest.raises(ValueError, match="does not take word boundaries"):
        LipReader(5, LipConfig(**TINY_LIP))(video, boundary_BT=inside)


def test_a_mel_that_is_not_four_columns_a_frame_is_refused() -> None:
    video, mel = batch(1, 4)
    with pytest.raises(ValueError, match="15 columns beside 4 video frames: expected 16"):
        LipReader(5, LipConfig(**TINY_LIP))(video, mel[:, :, :15])


def test_label_smoothing_spreads_the_label() -> None:
    output = LipReader(4, LipConfig(**TINY_LIP | {"slots": 0}))(batch(3, 4)[0])
    labels = torch.tensor([0, 1, 2])
    smoothed = lip_losses(output, labels, label_smoothing=0.2).recalled
    target = 0.8 * torch.eye(4)[labels] + 0.2 / 4
    expected = -(target * output.logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(smoothed, expected)


@pytest.mark.parametrize(
    ("variant", "back_end"),
    [
        ("paper", "gru"),
        ("released", "mstcn"),
        pytest.param("released", "gru", marks=pytest.mark.slow),
        pytest.param("paper", "mstcn", marks=pytest.mark.slow),
    ],
)
def test_one_batch_is_learnt_by_heart(variant, back_end) -> None:
    sizes = TINY_LIP | {"width": 4, "hidden": {"gru": 16, "mstcn": 6}[back_end], "dropout": 0.0}
    sizes |= {"fusion_dropout": 0.0, "back_dropout": 0.0}
    model = LipReader(4, LipConfig(variant=variant, back_end=back_end, **sizes))
    video, mel = batch(8, 4, side=24)
    labels = torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        losses = lip_losses(model(video, mel), labels)
        optimizer.zero_grad()
        losses.total().backward()
        optimizer.step()
    assert losses.recalled.item() < 0.02 and losses.real.item() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("whitened", [False, True])
def test_whole_model_compiles_as_one_graph(whitened) -> None:
    """With MS-TCN and clips of one length; the compiler leaves recurrent networks as they are."""
    sizes = TINY_LIP | {"audio_whitened": whitened}
    model = LipReader(5, LipConfig(back_end="mstcn", variant="released", **sizes)).eval()
    video, mel = batch(2, 4)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(video, mel).logits, model(video, mel).logits)
