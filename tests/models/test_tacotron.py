"""The Tacotron 2 decoder: published sizes, and step for step what torchaudio's decoder says."""

import pytest
import torch
from tiny import count, stir
from torch.nn import functional

from avb.models.masks import frame_mask
from avb.models.postnet import PostNet
from avb.models.synchronous import SynchronousConfig, SynchronousDecoder
from avb.models.tacotron import TacotronConfig, TacotronDecoder
from avb.pipeline.clip.audio import torchaudio

# model.md 2.3, PyTorch structure, without the post-net: {context width: (r = 1, r = 2)}.
PUBLISHED = {
    384: (17_180_177, 17_313_377),
    512: (18_255_505, 18_398_945),
    768: (20_406_161, 20_570_081),
    1024: (22_556_817, 22_741_217),
}


@pytest.mark.parametrize("dim", PUBLISHED)
@pytest.mark.parametrize("r", [1, 2])
def test_decoder_has_the_published_size_but_for_the_stop_layer(dim: int, r: int) -> None:
    with torch.device("meta"):
        decoder = TacotronDecoder(dim, config=TacotronConfig(columns_per_step=r))
    stop = (1024 + dim) + 1
    assert count(decoder) - count(decoder.postnet) == PUBLISHED[dim][r - 1] - stop
    assert count(decoder.postnet) == 4_348_144


def tiny(**sizes) -> TacotronDecoder:
    given = {
        "prenet_width": 7, "prenet_dropout": 0.0, "rnn_dim": 8, "attention_width": 9,
        "location_filters": 3, "location_kernel": 5, "post_width": 4,
    } | sizes  # fmt: skip
    return TacotronDecoder(6, 5, TacotronConfig(**given))


def torchaudio_decoder(ours: TacotronDecoder, r: int) -> torch.nn.Module:
    """torchaudio's decoder with the weights of ours."""
    torchaudio()
    from torchaudio.models.tacotron2 import _Decoder

    theirs = _Decoder(
        n_mels=5, n_frames_per_step=r, encoder_embedding_dim=6, decoder_rnn_dim=8,
        decoder_max_step=100, decoder_dropout=0.1, decoder_early_stopping=False,
        attention_rnn_dim=8, attention_hidden_dim=9, attention_location_n_filter=3,
        attention_location_kernel_size=5, attention_dropout=0.1, prenet_dim=7, gate_threshold=0.5,
    )  # fmt: skip
    names = {
        "attention.query": "attention_layer.query_layer",
        "attention.keys": "attention_layer.memory_layer",
        "attention.location_out": "attention_layer.location_layer.location_dense",
        "attention.location": "attention_layer.location_layer.location_conv",
        "attention.energy": "attention_layer.v",
        "projection": "linear_projection",
    }
    state = {}
    for name, value in ours.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if not name.startswith("postnet."):
            state[f"{names.get(module, module)}.{leaf}"] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert missing == ["gate_layer.weight", "gate_layer.bias"] and not unexpected
    return theirs.eval()


@pytest.mark.parametrize("r", [1, 2])
def test_each_step_is_that_of_torchaudio(r: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = stir(tiny(columns_per_step=r)).eval()
    theirs = torchaudio_decoder(ours, r)
    monkeypatch.setattr(functional, "dropout", lambda x, *_, **__: x)  # theirs cannot be set
    feature, lengths = torch.randn(2, 6, 6), torch.tensor([6, 4])
    mel = torch.randn(2, 24, 5).transpose(1, 2)  # laid out as theirs needs it
    mask = frame_mask(lengths, 6)

    found = ours(feature, mask, mel)
    expected, *_ = theirs(feature, mel, lengths)
    real = mask.repeat_interleave(4, 1)[:, None]
    torch.testing.assert_close(found.before, expected * real)

    alone = ours(feature)
    theirs.decoder_max_step = 24 // r
    with pytest.warns(UserWarning, match="max"):
        expected, *_ = theirs.infer(feature, torch.tensor([6, 6]))
    torch.testing.assert_close(alone.before, expected)


@pytest.mark.parametrize("r", [1, 2, 4])
def test_a_step_sees_true_columns_before_it_only(r: int) -> None:
    decoder = stir(tiny(columns_per_step=r)).eval()
    feature, mel = torch.randn(1, 3, 6), torch.randn(1, 5, 12)
    changed = mel.clone()
    changed[:, :, 4:] += 1
    first, second = (decoder(feature, None, x).before[0] for x in (mel, changed))
    moved = (first - second).abs().amax(0) > 0
    assert moved.tolist() == [False] * (4 + r) + [True] * (8 - r)


def test_without_teacher_the_true_mel_is_not_seen() -> None:
    decoder = stir(tiny()).eval()
    feature, mel = torch.randn(1, 3, 6), torch.randn(1, 5, 12)
    alone = decoder(feature).before
    assert torch.equal(decoder(feature, None, mel, teacher_ratio=0.0).before, alone)
    forced = decoder(feature, None, mel, teacher_ratio=1.0).before
    assert not torch.equal(forced, alone)
    # A step that sees its own last columns as if they were true repeats itself.
    torch.testing.assert_close(decoder(feature, None, alone).before, alone)


def test_the_mixed_history_draws_every_step_anew() -> None:
    decoder = stir(tiny()).eval()
    feature, mel = torch.randn(1, 20, 6), torch.randn(1, 5, 80)
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(decoder(feature, None, mel, teacher_ratio=0.5).before)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    shown: list[torch.Tensor] = []
    decoder.attention_rnn.register_forward_hook(lambda _, args, out: shown.append(args[0][0, :7]))
    torch.manual_seed(1)
    said = decoder(feature, None, mel, teacher_ratio=0.5).before
    true_seen, own_seen = (
        decoder.prenet(x.transpose(1, 2).reshape(1, 40, 10))[0, :-1] for x in (mel, said)
    )
    rows = torch.stack(shown)[1:]
    from_truth = torch.isclose(rows, true_seen, atol=1e-5).all(1)
    from_itself = torch.isclose(rows, own_seen, atol=1e-5).all(1)
    assert (from_truth ^ from_itself).all()
    assert 8 < from_truth.sum() < 31


def test_gradient_does_not_flow_back_through_its_own_columns() -> None:
    """What it said is taken as it is, like data; states carry the gradient."""
    decoder = stir(tiny())
    feature, mel = torch.randn(1, 3, 6), torch.randn(1, 5, 12)
    decoder(feature, None, mel, teacher_ratio=0.0).before[:, :, -2:].sum().backward()
    # Only the last step's columns: with a way back, earlier steps' columns would add theirs.
    gradient = decoder.projection.bias.grad
    assert gradient is not None and (gradient == 1).all()


def test_uneven_columns_per_step_are_refused() -> None:
    with pytest.raises(ValueError, match="3 columns per step: expected 1, 2 or 4"):
        tiny(columns_per_step=3)


def test_post_net_adds_five_convolutions_with_tanh_but_the_last() -> None:
    post = stir(PostNet(3, 4)).eval()
    mel = torch.randn(2, 3, 9)
    x = mel
    for i, (conv, norm) in enumerate(zip(post.convs, post.norms, strict=True)):
        x = functional.conv1d(x, conv.weight, conv.bias, padding=2)
        x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = x.tanh() if i < 4 else x
    assert i == 4
    torch.testing.assert_close(post(mel), mel + x)


def test_a_frame_of_the_synchronous_decoder_reaches_its_own_columns_first() -> None:
    """Before the convolutions each frame owns exactly its 4 columns, in order."""
    decoder = SynchronousDecoder(6, 5, SynchronousConfig(3, units=0, post_width=4)).eval()
    feature = torch.randn(1, 7, 6)
    changed = feature.clone()
    changed[:, 3] += 1
    moved = (decoder(feature).before - decoder(changed).before).abs().amax(1)[0] > 0
    assert moved.nonzero()[:, 0].tolist() == [12, 13, 14, 15]
    spread = decoder.spread(feature)[0, 3].view(4, 3)
    by_hand = spread @ decoder.projection.weight[:, :, 0].T + decoder.projection.bias
    torch.testing.assert_close(decoder(feature).before[0, :, 12:16], by_hand.T)
