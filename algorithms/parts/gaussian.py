"""Gaussian policies for continuous actions."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, LOG_STD = 9.0, (-5.0, 2.0)  # bounds before tanh, as in OMIGA's code


class TanhGaussian(NamedTuple):
    """A normal distribution in R^A, squashed into (-1, 1)^A; both fields [..., A]."""

    mean: Tensor
    log_std: Tensor

    def expand(self, copies: int) -> "TanhGaussian":
        """The distribution repeated for N samples: [S, ..., A] -> [S, N, ..., A]."""
        return TanhGaussian(*(p[:, None].expand(-1, copies, *p.shape[1:]) for p in self))

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., A] from standard normal noise, and their log-densities [...]."""
        x = self.mean + self.log_std.exp() * noise
        return x.tanh(), self._log_density(x, noise)

    def log_density(self, actions: Tensor, edge: float) -> Tensor:
        """Log-density of actions in [-1, 1], moved into [-edge, edge], since atanh has poles: [..., A] -> [...]."""
        x = actions.clamp(-edge, edge).atanh()
        return self._log_density(x, (x - self.mean) / self.log_std.exp())

    def mode(self) -> Tensor:
        """The squashed mean [..., A]."""
        return self.mean.tanh()

    def _log_density(self, x: Tensor, noise: Tensor) -> Tensor:
        log_slope = 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))  # log of the derivative of tanh at x
        return (-0.5 * noise.square() - self.log_std - 0.5 * math.log(2.0 * math.pi) - log_slope).sum(-1)


def tanh_gaussian(out: Tensor) -> TanhGaussian:
    """The distribution of a network's output [..., 2 A]."""
    mean, log_std = out.chunk(2, -1)
    return TanhGaussian(mean.clamp(-MEAN, MEAN), log_std.clamp(*LOG_STD))


def log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a normal distribution with a diagonal covariance: [..., A] -> [...]."""
    noise = (x - mean) * torch.exp(-log_std)
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)
