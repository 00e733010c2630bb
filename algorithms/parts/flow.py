"""Flow matching on straight paths, and actions as points of a flow."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.batch import TaskSpec

Field = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> velocity; t broadcasts over the last axis of x


def flow_matching_loss(field: Field, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared error of the velocity on x_t = (1 - t) x_0 + t x_1, averaged over all axes but the seeds: [S].

    Source: MAC-Flow Eq. 5 and 6, with the code's mean over coordinates instead of the paper's sum.
    """
    velocity = field(torch.lerp(noise, target, time), time)
    return F.mse_loss(velocity, target - noise, reduction="none").flatten(1).mean(1)


def euler(field: Field, noise: Tensor, steps: int) -> Tensor:
    """Integrate the field from noise at t = 0 to t = 1 (MAC-Flow Algorithm 2)."""
    x = noise
    for k in range(steps):
        x = torch.add(x, field(x, torch.full_like(x[..., :1], k / steps)), alpha=1 / steps)
    return x


def encode(actions: Tensor, count: int, scale: float) -> Tensor:
    """Discrete actions [...] as one-hot points [..., count] of length `scale`."""
    return scale * (actions[..., None] == torch.arange(count, device=actions.device)).float()


def to_points(spec: TaskSpec, actions: Tensor, scale: float) -> Tensor:
    """Actions of the data as targets of a flow [..., A]: one-hot or continuous, multiplied by `scale`.

    The noise has unit variance, so a larger scale makes an error of the flow smaller in the action.
    """
    return encode(actions, spec.actions, scale) if spec.discrete else scale * actions


def to_actions(spec: TaskSpec, x: Tensor, legal: Tensor | None, scale: float = 1.0) -> Tensor:
    """The actions of points [..., A]: the legal action with the largest coordinate, or the point clipped to [-1, 1]."""
    return decode(x, legal) if spec.discrete else (x / scale).clamp(-1.0, 1.0)


def masked(scores: Tensor, legal: Tensor | None) -> Tensor:
    """Scores with -inf for illegal actions."""
    if legal is None:
        return scores
    return scores.clamp(min=torch.finfo(scores.dtype).min).masked_fill(~legal, -torch.inf)


def decode(x: Tensor, legal: Tensor | None) -> Tensor:
    """The legal action with the largest coordinate: [..., A] -> [...]."""
    return masked(x, legal).argmax(-1)
