"""The sync network: features meet where they fit, shifts are exact, any lag near zero is right."""

import math

import pytest
import torch

from avb.models.sync import (
    SyncConfig,
    SyncNetwork,
    edge_of,
    envelope_logits,
    find_lags,
    mean_over,
    sync_loss,
)

SMALL = SyncConfig(width=4, blocks=1, hidden=16, dim=8)
INSIDE = slice(edge_of(SMALL.reach), 30 - edge_of(SMALL.reach))


def test_later_sound_fits_at_a_later_shift() -> None:
    network = SyncNetwork(SMALL).eval()
    video, mel = torch.randn(2, 1, 30, 28, 28), torch.randn(2, 80, 120)
    late = torch.roll(mel, 3, dims=2)  # 30 ms
    with torch.no_grad():
        before, after = network(video, mel), network(video, late)
    torch.testing.assert_close(after[:, INSIDE, 3:], before[:, INSIDE, :-3])


def test_no_counted_frame_looks_beyond_its_clip() -> None:
    network = SyncNetwork(SMALL).eval()
    video, mel = torch.randn(1, 1, 40, 28, 28), torch.randn(1, 80, 160)
    with torch.no_grad():
        whole = network(video, mel)[:, INSIDE]
        cut = network(video[:, :, :30], mel[:, :, :120])[:, INSIDE]
    torch.testing.assert_close(whole, cut)


def test_autocast_leaves_the_comparison_in_float32() -> None:
    network = SyncNetwork(SMALL).eval()
    video, mel = torch.randn(2, 1, 30, 28, 28), torch.randn(2, 80, 120)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(video, mel)
        lips = network.video_head(network.visual(video).transpose(1, 2)).float()
        sound = network.audio(mel)[:, :, 2::4].float()
    expected = network.log_scale.exp() * torch.cosine_similarity(lips, sound, dim=1)
    torch.testing.assert_close(logits[:, :, SMALL.reach], expected)


@pytest.mark.parametrize("lag_ms", [-83.0, -4.0, 0.0, 12.5, 120.0])
def test_the_lag_is_the_top_of_a_parabola(lag_ms: float) -> None:
    shifts = torch.arange(-20, 21) * 10.0
    lag, sure = find_lags(-((shifts - lag_ms) / 8).square()[None])
    assert lag.item() == pytest.approx(lag_ms, abs=1e-3)
    assert sure.item() > 0.95


def test_a_clip_without_a_best_shift_is_not_sure() -> None:
    _, sure = find_lags(torch.zeros(1, 41))
    assert sure.item() == pytest.approx(5 / 41, abs=0.03)


def test_the_loss_is_the_likelihood_under_the_expected_lags() -> None:
    logits, tolerance = torch.tensor([[0.0, 2.0, 1.0]]), 10.0
    weights = [math.exp(-0.5), 1.0, math.exp(-0.5)]
    total = sum(math.exp(v) for v in (0.0, 2.0, 1.0))
    terms = zip((0.0, 2.0, 1.0), weights, strict=True)
    expected = -math.log(sum(math.exp(v) / total * w / sum(weights) for v, w in terms))
    assert sync_loss(logits, tolerance).item() == pytest.approx(expected, rel=1e-5)


def test_frames_outside_do_not_count() -> None:
    logits = torch.arange(12.0).reshape(1, 4, 3)
    mean = mean_over(logits, torch.tensor([1]), torch.tensor([3]))
    torch.testing.assert_close(mean, logits[:, 1:3].mean(1))


@pytest.mark.parametrize("late_ms", [-40.0, 0.0, 3.0, 27.5])
def test_speech_made_of_lips_tells_how_late_the_true_sound_is(late_ms: float) -> None:
    """Of tones that swell at rhythms of their own, drawn again some milliseconds later."""
    rates = torch.rand(80, 1) * 3 + 1

    def log_mel(late_s: float) -> torch.Tensor:
        times = torch.arange(300) / 100 - late_s
        return (2 * torch.sin(2 * math.pi * rates * times) - 4)[None]

    logits = envelope_logits(log_mel(0), log_mel(late_ms / 1000))
    edge = torch.tensor([10])
    lag, sure = find_lags(mean_over(logits, edge, 75 - edge))
    assert lag.item() == pytest.approx(late_ms, abs=1)
    assert sure.item() > 0.5
