"""Features without correlation, so that cosines compare all of what they hold."""

import torch
from torch import Tensor, nn

from avb.models.precision import at_least_float32, without_autocast


class Whitening(nn.Module):
    """Mean 0 and, but for the shrinkage, covariance 1 over all frames seen: [B x T x D].

    A few directions hold most of the variance of learnt features (two of 128 more than half, in
    the small recipes' audio), so a cosine, and with it Eq. 1 to 4, hardly sees the others. Here
    all directions count alike. The statistics are running means without gradient, the same in
    training and evaluation but for the batch at hand, which in training is counted first. Of
    several processes each counts its own share of it, as batch norm does.

    The inverse Cholesky factor whitens as any other root would, up to a rotation, which changes
    no cosine. The covariance is shrunk towards a multiple of 1, for directions that hold nothing.
    """

    momentum = 0.02
    shrinkage = 0.1
    epsilon = 1e-6  # added to the variance, for frames that are all alike

    mean: Tensor
    covariance: Tensor
    batches: Tensor
    identity: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("identity", torch.eye(dim), persistent=False)

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Whiten; `mask_BT` tells which frames are real and counted, all if None."""
        with without_autocast(feature_BTD):
            feature_BTD = at_least_float32(feature_BTD)
            if self.training:
                self._count(feature_BTD.detach(), mask_BT)
            variance = self.covariance.diagonal().mean() + self.epsilon
            shrunk = self.covariance.lerp(variance * self.identity, self.shrinkage)
            # Without its check: a NaN goes on to the loss, where it stops the training in order.
            root = torch.linalg.cholesky_ex(shrunk).L
            centred_BTD = feature_BTD - self.mean
            return torch.linalg.solve_triangular(
                root.T, centred_BTD.flatten(0, 1), upper=True, left=False
            ).unflatten(0, centred_BTD.shape[:2])

    @torch.no_grad()
    def _count(self, feature_BTD: Tensor, mask_BT: Tensor | None) -> None:
        frames_PD = feature_BTD.flatten(0, 1) if mask_BT is None else feature_BTD[mask_BT]
        self.batches += 1
        weight = (1 / self.batches).clamp_min(self.momentum)
        self.mean.lerp_(frames_PD.mean(0), weight)
        centred_PD = frames_PD - self.mean
        self.covariance.lerp_(centred_PD.T @ centred_PD / len(centred_PD), weight)
