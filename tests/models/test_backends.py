"""Back ends: published sizes, true lengths, batch statistics before the cut."""

import pytest
import torch
from tiny import stir
from torch.nn import functional

from avb.models.backends import Branch, GRUBackEnd, TCNBackEnd


@pytest.mark.parametrize("network", [GRUBackEnd(6, 4, hidden=5), TCNBackEnd(6, 4, hidden=5)])
def test_frames_past_the_end_change_nothing(network: torch.nn.Module) -> None:
    network = stir(network).eval()
    lengths = torch.randint(1, 30, (64,))
    lengths[0] = 29
    feature = 10 * torch.randn(64, 29, 6)
    together = network(feature, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = network(feature[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(feature)[1:], together[1:], rtol=1e-2)


def test_the_mean_runs_over_all_states_before_the_classifier() -> None:
    network = GRUBackEnd(6, 4, hidden=5).eval()
    feature = torch.randn(2, 7, 6)
    states, _ = network.gru(feature)
    expected = torch.stack([network.classifier(states[:, t]) for t in range(7)]).mean(0)
    torch.testing.assert_close(network(feature), expected)


@pytest.mark.parametrize("network", [GRUBackEnd(6, 4, hidden=5), TCNBackEnd(6, 4, hidden=5)])
def test_of_a_marked_word_only_its_frames_are_averaged(network: torch.nn.Module) -> None:
    network = stir(network).eval()
    feature, lengths = torch.randn(2, 7, 6), torch.tensor([7, 5])
    # Past the end of the second, too.
    word = torch.tensor([[0, 0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]])
    inside, outside = network(feature, lengths, word), network(feature, lengths, 1 - word)
    counts = torch.tensor([[2, 5], [4, 1]])[:, :, None]  # of real frames, inside and outside
    mean = (counts * torch.stack([inside, outside], 1)).sum(1) / counts.sum(1)  # all is linear
    everywhere = network(feature, lengths)
    torch.testing.assert_close(mean, everywhere, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(inside, outside, rtol=1e-2)
    unmarked = torch.zeros_like(word)
    torch.testing.assert_close(network(feature, lengths, unmarked), everywhere)
    unmarked[1, 5:] = 1  # where no frame is real
    torch.testing.assert_close(network(feature, lengths, unmarked), everywhere)


def test_the_norm_counts_the_margins_that_are_then_cut() -> None:
    branch = Branch(3, 2, kernel=5, dilation=4).train()
    x = torch.randn(2, 3, 6)
    out = branch(x)
    assert out.shape == (2, 2, 6)
    wide = functional.conv1d(x, branch.conv.weight, branch.conv.bias, dilation=4, padding=16)
    assert wide.shape[2] == 6 + 16
    torch.testing.assert_close(branch.norm.running_mean, 0.1 * wide.mean((0, 2)))
    deviation = (wide.var((0, 2), correction=0)[:, None] + 1e-5).sqrt()
    normed = (wide - wide.mean((0, 2))[:, None]) / deviation
    torch.testing.assert_close(out, functional.prelu(normed[:, :, 8:-8], branch.act.weight))


def test_every_block_has_a_convolution_beside_it_and_sees_the_whole_clip() -> None:
    network = TCNBackEnd(6, 4, hidden=2)
    assert [tuple(block.shortcut.weight.shape) for block in network.blocks] == [(6, 6, 1)] * 4
    # 2 x 6 x (1 + 2 + 4 + 8) + 1 = 181 frames.
    feature = torch.zeros(1, 400, 6, requires_grad=True)
    x = feature.transpose(1, 2)
    for block in network.eval().blocks:
        x = block(x, None)
    x[0, :, 200].sum().backward()
    assert feature.grad is not None
    seen = feature.grad.abs().sum(2)[0].nonzero()[:, 0]
    assert (seen.min().item(), seen.max().item()) == (110, 290)
