"""Dropout by bytes."""

import pytest
import torch

from avb.models.dropout import Dropout


def test_a_share_is_dropped_the_mean_kept_and_the_gradient_follows() -> None:
    torch.manual_seed(0)
    ones = torch.ones(2, 3, 50, 40, 41).contiguous(memory_format=torch.channels_last_3d)
    x = ones.requires_grad_()
    dropout = Dropout(0.1)
    y = dropout(x)
    assert y.stride() == x.stride()
    kept = y != 0
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.005)
    assert float(y.detach().mean()) == pytest.approx(1, abs=0.005)
    assert torch.equal(y[kept], torch.full_like(y[kept], 256 / 230))  # 26 of 256 are dropped
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())
    assert not torch.equal(dropout(x), y)


def test_draws_repeat_with_the_seed_and_evaluation_drops_nothing() -> None:
    x, dropout = torch.randn(7, 5), Dropout(0.5)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert torch.equal(dropout.eval()(x), x)


def test_none_and_all() -> None:
    x = torch.randn(7, 5)
    assert torch.equal(Dropout(0)(x), x) and torch.equal(Dropout(1)(x), torch.zeros(7, 5))
