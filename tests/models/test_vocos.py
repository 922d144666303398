"""Promise: the generator's sound lies where its columns do, and critics and generator part ways."""

import dataclasses

import pytest
import torch

from avb.models.critics import Critics
from avb.models.vocos import HOP, Vocos, VocosConfig, overlap_add

SMALL = VocosConfig(width=16, blocks=2, critic_width=2)


def test_frames_of_a_sound_add_up_to_it_as_torch_has_it() -> None:
    sound, window = torch.randn(2, 50 * HOP), torch.hann_window(800)
    spectrum = torch.stft(sound, 800, HOP, window=window, return_complex=True)
    assert spectrum.shape[2] == 51  # the last column is the one that mels do not have
    made = overlap_add(torch.fft.irfft(spectrum.transpose(1, 2), dim=2), window)
    torch.testing.assert_close(made, sound, rtol=1e-4, atol=1e-5)
    odd = torch.randn(2, 401, 51, dtype=torch.complex64)  # the spectrum of no sound
    odd[:, [0, -1]] = odd[:, [0, -1]].real + 0j
    wanted = torch.istft(odd, 800, HOP, window=window)
    made = overlap_add(torch.fft.irfft(odd.transpose(1, 2), dim=2), window)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sound_is_as_long_as_its_mels_and_a_column_is_heard_where_it_is_seen() -> None:
    network = Vocos(SMALL).eval()
    mels = torch.randn(1, 80, 60)
    sound = network(mels).sound
    assert sound.shape == (1, 60 * HOP) and sound.dtype == torch.float32
    other = mels.clone()
    other[:, :, 30] += 1
    moved = (network(other).sound != sound)[0].nonzero()
    reach = (3 + 3 * SMALL.blocks) * HOP + 400  # of the convolutions, and half a window
    assert 30 * HOP - reach <= moved.min() < 30 * HOP < moved.max() <= 30 * HOP + reach


@torch.no_grad()
def test_a_clip_sounds_alike_alone_and_among_others() -> None:
    network, mels = Vocos(SMALL).eval(), torch.randn(3, 80, 40)
    together = network(mels).sound
    torch.testing.assert_close(network(mels[1:2]).sound, together[1:2], rtol=1e-4, atol=1e-6)


def test_the_generator_s_term_moves_no_critic_and_the_critics_no_generator() -> None:
    network = Vocos(SMALL).train()
    output = network(torch.randn(2, 80, 30), torch.randn(2, 30 * HOP) / 10)
    generator, critics = [*network.generator.parameters()], [*network.critics.parameters()]

    def reached(loss: torch.Tensor, weights: list[torch.nn.Parameter]) -> int:
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return sum(one is not None and bool(one.any()) for one in found)

    assert reached(output.adversary, generator) == len(generator)
    assert reached(output.critics, critics) > 0.9 * len(critics)
    assert not reached(output.critics, generator) and not reached(output.adversary, critics)


def test_a_magnitude_without_bound_has_a_gradient_that_is_a_number() -> None:
    network = Vocos(dataclasses.replace(SMALL, critic_width=0))
    with torch.no_grad():
        network.generator.head.bias.fill_(100)  # its exponential is infinite in float32
    network(torch.randn(1, 80, 20)).sound.square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("n_fft", [160, 319, 801])
def test_a_transform_that_leaves_samples_out_is_refused(n_fft: int) -> None:
    with pytest.raises(ValueError, match=f"n_fft {n_fft}: expected an even number, 320 or more"):
        VocosConfig(n_fft=n_fft)


def test_critics_learn_to_tell_true_from_made() -> None:
    torch.manual_seed(0)
    critics = Critics(2)
    time = torch.arange(4000) / 16_000
    true = torch.sin(2 * torch.pi * 220 * time).expand(2, -1)
    made = torch.randn(2, 4000) / 2
    at_first = float(critics(made, true)[1].detach())
    assert at_first == pytest.approx(4, abs=0.2)  # hinge 2 for either group
    optimiser = torch.optim.AdamW(critics.parameters(), 5e-3)
    for _ in range(30):
        adversary, told = critics(made, true)
        optimiser.zero_grad()
        told.backward()
        optimiser.step()
    assert float(told.detach()) < 1.5 and float(adversary.detach()) > 2


def test_without_critics_and_in_use_nobody_judges() -> None:
    mels, sound = torch.randn(1, 80, 20), torch.randn(1, 20 * HOP)
    assert Vocos(dataclasses.replace(SMALL, critic_width=0)).train()(mels, sound).critics is None
    network = Vocos(SMALL)
    assert network.eval()(mels, sound).critics is None and network.train()(mels).critics is None
    assert sum(p.numel() for p in Vocos(VocosConfig()).generator.parameters()) == 13_345_058
