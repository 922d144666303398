"""Whitened features have no correlation, whatever the features were; padding does not count."""

import numpy as np
import pytest
import torch

from avb.models.frontends import AudioFrontEnd
from avb.models.masks import frame_mask
from avb.models.whitening import Whitening

DIM = 6


def correlated(frames: int, seed: int = 0) -> torch.Tensor:
    """Frames of which one direction has 400 times the variance of another, far from 0."""
    drawn = np.random.default_rng(seed).normal(size=(frames, DIM)) * np.linspace(1, 20, DIM)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, DIM)))[0]
    return torch.tensor(drawn @ turn + 30, dtype=torch.float32)[None]


def whitened_by_hand(frames: np.ndarray, batches: list[np.ndarray]) -> np.ndarray:
    """Running mean and covariance, shrunk by a tenth; the root by eigenvectors, not Cholesky."""
    mean, covariance = np.zeros(DIM), np.eye(DIM)
    for number, batch in enumerate(batches, start=1):
        weight = max(1 / number, 0.02)
        mean = (1 - weight) * mean + weight * batch.mean(axis=0)
        spread = (batch - mean).T @ (batch - mean) / len(batch)
        covariance = (1 - weight) * covariance + weight * spread
    variance = np.trace(covariance) / DIM
    values, vectors = np.linalg.eigh(0.9 * covariance + 0.1 * variance * np.eye(DIM))
    return (frames - mean) @ vectors / np.sqrt(values) @ vectors.T


def test_frames_are_whitened_by_all_batches_so_far() -> None:
    network = Whitening(DIM)
    batches = [correlated(200, seed) for seed in range(3)]
    for batch in batches:
        network(batch)
    fresh = correlated(50, seed=9)
    expected = whitened_by_hand(fresh[0].numpy(), [batch[0].numpy() for batch in batches])
    found = network.eval()(fresh)[0].numpy()
    # Roots differ by a rotation, which leaves every product of two frames as it is.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-3, atol=1e-3)


def test_no_direction_outweighs_the_others() -> None:
    network = Whitening(DIM)
    frames = correlated(5000)
    before, after = (np.linalg.eigvalsh(np.cov(x[0].T)) for x in (frames, network(frames)))
    assert before[-1] / before[0] > 300
    # A variance v becomes v / (0.9 v + 0.1 mean), so the largest may reach 1 / 0.9.
    assert after[-1] < 1.12
    assert after[-1] / after[0] < 30


def test_training_and_evaluation_agree_on_the_same_statistics() -> None:
    network = Whitening(DIM)
    frames = correlated(100)
    learnt = network(frames)
    torch.testing.assert_close(network.eval()(frames), learnt)
    assert int(network.batches) == 1


def test_padded_frames_do_not_count() -> None:
    frames = correlated(40).reshape(2, 20, DIM)
    mask = frame_mask(torch.tensor([20, 7]), 20)
    padded, cut = Whitening(DIM), Whitening(DIM)
    found = padded(frames.where(mask[:, :, None], 1e6), mask)
    expected = cut(frames[mask][None])
    torch.testing.assert_close(found[mask], expected[0])
    torch.testing.assert_close(padded.covariance, cut.covariance)


def test_frames_all_alike_become_0_and_a_nan_goes_on() -> None:
    assert not Whitening(DIM)(torch.full((1, 8, DIM), 3.0)).any()
    frames = correlated(30)
    frames[0, 0, 0] = float("nan")
    assert Whitening(DIM)(frames).isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_it_in_float32(dtype: torch.dtype) -> None:
    frames = correlated(60)
    expected = Whitening(DIM)(frames)
    with torch.autocast("cpu", dtype):
        found = Whitening(DIM)(frames)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_the_audio_front_end_ends_in_it() -> None:
    network = AudioFrontEnd(dim=DIM, width=4, dropout=0.0, whitened=True)
    for _ in range(3):
        features = network(torch.randn(8, 80, 100))
    spread = torch.cov(features.detach().flatten(0, 1).T)
    assert torch.linalg.eigvalsh(spread)[-1] < 1.5
    with torch.device("meta"):
        assert AudioFrontEnd(whitened=True)(torch.zeros(2, 80, 116)).shape == (2, 29, 512)
