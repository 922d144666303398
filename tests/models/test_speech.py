"""The speech model: sizes, lengths, what it may see, padding, windows, and that it learns."""

from typing import Any

import pytest
import torch
from tiny import TINY_DECODERS, TINY_SPEECH, count, stir
from torch.nn import functional

from avb.models.encoder import VideoEncoder
from avb.models.postnet import Mels
from avb.models.speech import SpeechConfig, SpeechReconstructor, speech_losses, window_starts
from avb.models.tacotron import TacotronDecoder

DECODERS = ("tacotron", "synchronous")


def batch(clips: int, frames: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(clips, 3, frames, side, side), torch.randn(clips, 80, 4 * frames)


def build(side: int = 96, **arguments: Any) -> SpeechReconstructor:
    return SpeechReconstructor(SpeechConfig(**arguments), side)


def small(decoder: str, **other: Any) -> SpeechReconstructor:
    sizes = {"decoder": decoder, "decoder_sizes": TINY_DECODERS[decoder]}
    return build(**TINY_SPEECH | sizes | other)


@pytest.fixture(params=[*DECODERS, "lstm_late"])
def tiny(request: pytest.FixtureRequest) -> SpeechReconstructor:
    late = request.param == "lstm_late"
    return stir(small("synchronous" if late else request.param, lstm_late=late))


def test_encoder_has_the_published_size() -> None:
    with torch.device("meta"):
        encoder = VideoEncoder()
        assert count(encoder.groups) == 17_248_464
        assert sum(len(units) for units in encoder.groups) == 16
        assert count(encoder.lstm) == 887_808
        assert encoder(torch.zeros(2, 3, 40, 96, 96)).shape == (2, 40, 384)
        assert VideoEncoder(hidden=384).dim == 768


@pytest.mark.parametrize("side", [96, 88, 64, 48])
def test_encoder_ends_in_one_vector_a_frame_whatever_the_picture(side: int) -> None:
    encoder = VideoEncoder(side, channels=1, width=2, blocks=1, hidden=3).eval()
    assert encoder(torch.rand(1, 1, 5, side, side)).shape == (1, 5, 6)
    with pytest.raises(ValueError, match=f"80 x 80 for an encoder built for {side} x {side}"):
        encoder(torch.rand(1, 1, 5, 80, 80))


def test_encoder_convolutions_see_17_frames_on_either_side() -> None:
    encoder = stir(VideoEncoder(32, channels=1, width=2, hidden=3)).eval()
    video = torch.rand(1, 1, 45, 32, 32, requires_grad=True)
    x = video
    for units in encoder.groups:
        for unit in units:
            x = unit(x, None)
    x[:, :, 22].sum().backward()
    assert video.grad is not None
    seen = video.grad.abs().sum((1, 3, 4))[0].nonzero()[:, 0]
    assert (seen.min().item(), seen.max().item()) == (22 - 17, 22 + 17)


def test_encoder_is_the_listed_convolutions() -> None:
    """model.md 2.1, written once more with functional calls."""
    encoder = stir(VideoEncoder(channels=1, width=2, hidden=3)).eval()
    p = encoder.state_dict()
    video = torch.rand(1, 1, 3, 96, 96)

    def conv(x: torch.Tensor, name: str, **how) -> torch.Tensor:
        x = functional.conv3d(x, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], **how)
        norm = [p[f"{name}.norm.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *norm)

    x = video
    for group, side in enumerate((48, 24, 12, 6, 3)):
        half = {"stride": (1, 2, 2), "padding": 1 if group else 2}
        x = conv(x, f"groups.{group}.0", **half).relu()
        for unit in (1, 2):
            x = (conv(x, f"groups.{group}.{unit}", padding=1) + x).relu()
        assert x.shape == (1, 2 * 2**group, 3, side, side)
    x = conv(x, "groups.5.0", stride=(1, 3, 3), padding=(1, 0, 0)).relu()
    expected, _ = encoder.lstm(x[:, :, :, 0, 0].transpose(1, 2))
    torch.testing.assert_close(encoder(video), expected)


def test_75_frames_become_300_columns(tiny: SpeechReconstructor) -> None:
    with torch.no_grad():
        output = tiny.eval()(*batch(1, 75))
    for mels in (output.mels, output.real_mels):
        assert mels.before.shape == mels.after.shape == (1, 80, 300)
    assert output.bridge.source_addressing.shape == (1, 75, 7)


def test_full_models_have_the_sizes_of_their_parts() -> None:
    with torch.device("meta"):
        tacotron = SpeechReconstructor()
        synchronous = build(decoder="synchronous")
        # C = 384, D = 512, E = 384, N = 150, variant `paper`.
        memory = 150 * (384 + 512) + (384 + 512) * 384 + 384
        assert count(tacotron.memory) == count(synchronous.memory) == memory
        rest = 17_248_464 + 887_808 + memory + 5_739_648
        assert count(tacotron) == rest + 17_313_377 - (1024 + 384 + 1) + 4_348_144
        output = synchronous(torch.zeros(2, 3, 75, 96, 96), torch.zeros(2, 80, 300))
    assert output.mels.after.shape == output.real_mels.after.shape == (2, 80, 300)
    assert output.bridge.source_addressing.shape == (2, 75, 150)


def test_audio_changes_nothing_that_is_made_from_video(tiny: SpeechReconstructor) -> None:
    tiny.eval()
    video, mel = batch(2, 5)
    heard, silent, other = tiny(video, mel), tiny(video), tiny(video, mel + 1)
    for output in (silent, other):
        assert torch.equal(heard.mels.after, output.mels.after)
        assert torch.equal(heard.bridge.source_addressing, output.bridge.source_addressing)
    assert silent.real_mels is None and silent.bridge.saving is None
    assert not torch.equal(heard.real_mels.after, other.real_mels.after)


def test_features_are_what_the_memory_is_given(tiny: SpeechReconstructor) -> None:
    tiny.eval()
    (video, mel), lengths = batch(2, 6), torch.tensor([6, 4])
    source, target = tiny.features(video, mel, lengths)
    dim = 32 if tiny.lstm_late else 10  # of the last convolution, of the LSTM
    assert source.shape == (2, 6, dim) and target is not None and target.shape == (2, 6, 12)
    found, expected = tiny.memory(source, target), tiny(video, mel, lengths).bridge
    assert torch.equal(found.source_addressing, expected.source_addressing)
    assert torch.equal(found.target_addressing, expected.target_addressing)
    assert tiny.features(video)[1] is None


def test_the_same_seed_makes_the_same_speech_with_and_without_audio() -> None:
    sizes = TINY_DECODERS["tacotron"] | {"prenet_dropout": 0.5}
    model = small("tacotron", decoder_sizes=sizes).eval()
    video, mel = batch(2, 4)
    made = []
    for audio in (mel, None, None):
        torch.manual_seed(5)
        made.append(model(video, audio).mels.after)
    assert torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])
    assert not torch.equal(model(video).mels.after, made[0])  # the pre-net's dropout stays on


def test_recalled_and_real_audio_are_decoded_as_two_batches(tiny: SpeechReconstructor) -> None:
    video, mel = batch(2, 5)
    lengths = torch.tensor([5, 3])
    tiny.eval()
    apart = tiny(video, mel, lengths, teacher_ratio=1.0)
    # In training mode without dropout, and with the statistics of evaluation.
    tiny.train()
    for module in tiny.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tiny.decoder.rnn_dropout = 0.0
    together = tiny(video, mel, lengths)
    for found, expected in ((together.mels, apart.mels), (together.real_mels, apart.real_mels)):
        torch.testing.assert_close(found.before, expected.before)
        torch.testing.assert_close(found.after, expected.after)


def test_one_clip_alone_is_the_same_as_padded_in_a_batch(tiny: SpeechReconstructor) -> None:
    tiny.eval().double()
    video, mel = (x.double() for x in batch(16, 8))
    lengths = torch.randint(1, 9, (16,))
    lengths[0] = 8
    together = tiny(video, mel, lengths)
    sums = torch.zeros(4).double()
    for row, n in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        alone = tiny(video[one, :, :n], mel[one, :, : 4 * n])
        for found, same in ((together.mels, alone.mels), (together.real_mels, alone.real_mels)):
            torch.testing.assert_close(found.before[one, :, : 4 * n], same.before)
            torch.testing.assert_close(found.after[one, :, : 4 * n], same.after)
            assert (found.after[one, :, 4 * n :] == 0).all()
        losses = speech_losses(alone, mel[one, :, : 4 * n])
        terms = (losses.recalled, losses.real, losses.saving, losses.bridging)
        sums += torch.stack(terms).detach()
    losses = speech_losses(together, mel)
    terms = (losses.recalled, losses.real, losses.saving, losses.bridging)
    torch.testing.assert_close(torch.stack(terms), sums / len(lengths), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_memory_attention_and_losses_in_float32(
    tiny: SpeechReconstructor, dtype: torch.dtype
) -> None:
    video, mel = batch(2, 4)
    values: list[torch.Tensor] = []
    if isinstance(tiny.decoder, TacotronDecoder):
        tiny.decoder.attention.register_forward_hook(lambda *call: values.append(call[-1]))
    with torch.autocast("cpu", dtype):
        output = tiny(video, mel, torch.tensor([4, 2]))
    values += [output.bridge.source_addressing, output.bridge.saving, output.bridge.bridging]
    values += [speech_losses(output, mel).total()]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values)


def test_a_late_lstm_tells_the_decoder_of_frames_that_the_memory_never_saw() -> None:
    model = stir(small("synchronous", width=4, lstm_late=True)).eval().double()
    video = torch.rand(1, 3, 40, 32, 32).double().requires_grad_()

    def last_frame_seen(of_the_first: torch.Tensor) -> int:
        (grad,) = torch.autograd.grad(of_the_first.square().sum(), video)
        return int(grad.abs().sum((0, 1, 3, 4)).nonzero().max())

    assert 0 < last_frame_seen(model.features(video)[0][0, 0]) <= 17  # of the convolutions
    assert last_frame_seen(model(video).mels.after[0, :, 0]) == 39
    with pytest.raises(ValueError, match="fused_dim with lstm_late"):
        build(lstm_late=True, fused_dim=8)


def test_without_memory_a_late_lstm_is_the_same_model() -> None:
    video, _ = batch(2, 5)
    lengths, mels = torch.tensor([5, 3]), []
    for late in (False, True):
        torch.manual_seed(3)
        model = small("synchronous", slots=0, lstm_late=late).eval()
        mels.append(model(video, lengths_B=lengths).mels.after)
    assert torch.equal(*mels) and mels[0].abs().max() > 0


def test_baseline_has_no_audio_and_starts_from_the_same_weights() -> None:
    def model(slots: int) -> SpeechReconstructor:
        torch.manual_seed(3)
        return small("tacotron", slots=slots)

    full, baseline = model(7), model(0)
    shared = baseline.state_dict()
    assert {name.split(".")[0] for name in shared} == {"encoder", "decoder"}
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in shared.items())
    video, mel = batch(2, 4)
    output = baseline(video, mel)
    losses = speech_losses(output, mel)
    assert output.real_mels is None and torch.equal(losses.total(), losses.recalled)


def test_speech_loss_is_l1_twice_over_real_columns(tiny: SpeechReconstructor) -> None:
    video, mel = batch(2, 3)
    output = tiny.eval()(video, mel, torch.tensor([3, 2]))

    def loop(mels: Mels) -> float:
        total = 0.0
        for found in (mels.before, mels.after):
            for clip, columns in ((0, 12), (1, 8)):
                for f in range(80):
                    for m in range(columns):
                        error = abs(found[clip, f, m].item() - mel[clip, f, m].item())
                        total += error / (80 * columns)
        return total / 2

    losses = speech_losses(output, mel)
    assert losses.recalled.item() == pytest.approx(loop(output.mels), rel=1e-4)
    assert losses.real.item() == pytest.approx(loop(output.real_mels), rel=1e-4)
    assert losses.task.item() == pytest.approx((losses.recalled + losses.real).item())


# Windows ------------------------------------------------------------------------------------------


def test_windows_of_a_grid_clip() -> None:
    assert window_starts(75, 40, 30, cover_tail=False) == [0, 30]
    assert window_starts(75, 40, 30, cover_tail=True) == [0, 30, 35]
    assert window_starts(70, 40, 30, cover_tail=True) == [0, 30]
    assert window_starts(40, 40, 30, cover_tail=True) == [0]


def test_windows_join_to_280_columns_and_with_the_tail_to_300() -> None:
    model = small("synchronous").eval()
    video, _ = batch(2, 75)
    with torch.no_grad():
        paper, whole = model.windowed(video, cover_tail=False), model.windowed(video)
        pieces = [model(video[:, :, a : a + 40]).mels.after for a in (0, 30, 35)]
    assert paper.shape == (2, 80, 280) and whole.shape == (2, 80, 300)
    # The released samples are that long: 279 hops of 160.
    assert (paper.shape[2] - 1) * 160 == 44_640
    expected = torch.cat([pieces[0], pieces[1][:, :, 40:], pieces[2][:, :, 140:]], dim=2)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(paper, expected[:, :, :280])
    assert model.windowed(video[:, :, :25]).shape == (2, 80, 100)


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_batch_is_learnt_by_heart(decoder) -> None:
    sizes = TINY_DECODERS[decoder] | {"post_width": 32, "post_dropout": 0.0}
    if decoder == "tacotron":
        sizes |= {"rnn_dim": 48, "prenet_width": 32, "rnn_dropout": 0.0}
    else:
        sizes |= {"width": 64, "dropout": 0.0}
    wider = {"side": 16, "width": 4, "hidden": 24, "dropout": 0.0, "audio_dropout": 0.0}
    model = small(decoder, decoder_sizes=sizes, **wider)
    video, _ = batch(2, 2, side=16)
    time, pitch = torch.arange(8) / 2, torch.arange(80)[:, None] / 20
    mel = torch.stack([(time + pitch).sin(), (time * 1.5 - pitch).cos()])
    steps = 140
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    for _ in range(steps):
        losses = speech_losses(model(video, mel), mel)
        history.append(losses.recalled.item())
        optimizer.zero_grad()
        losses.total().backward()
        optimizer.step()
        schedule.step()
    assert history[0] > 1  # the mean size of the mel, 0.64, before and after the post-net
    assert losses.recalled.item() < 0.03 and losses.real.item() < 0.03
