"""Team values from agents' values. Shapes: S seeds, K members of an ensemble, B batch, I agents, G state."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.nets import MLP
from offmarl.algorithms.parts.streams import SeedStreams


def mix(values: Tensor, mixer: str) -> Tensor:
    """The values of a TD error: the team's mean [..., I] -> [..., 1] (MAC-Flow, Appendix E), or every agent's own."""
    return values.mean(-1, keepdim=True) if mixer == "mean" else values


class Monotonic(nn.Module):
    """QMIX (Rashid et al. 2018): non-negative weights of the values, from hypernetworks of the state."""

    def __init__(self, streams: SeedStreams, agents: int, state: int, width: int = 32, hidden: Sequence[int] = (64,)):
        super().__init__()
        self.agents, self.width = agents, width
        self.first = MLP(streams, state, hidden, agents * width)
        self.first_bias = MLP(streams, state, (), width)
        self.last = MLP(streams, state, hidden, width)
        self.last_bias = MLP(streams, state, hidden, 1)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Values [S, K, B, I] at states [S, B, G] -> [S, K, B, 1]."""
        first = self.first(state).abs().unflatten(-1, (self.agents, self.width))
        mixed = torch.einsum("skbi,sbie->skbe", values, first) + self.first_bias(state)[:, None]
        last, bias = self.last(state).abs()[:, None], self.last_bias(state)[:, None]
        return (F.elu(mixed) * last).sum(-1, keepdim=True) + bias


class StateWeights(nn.Module):
    """OMIGA's linear mixer: Q_tot = sum_i w_i(s) Q_i + b(s), with non-negative weights."""

    def __init__(self, streams: SeedStreams, agents: int, state: int, hidden: Sequence[int] = (64,), bias: bool = True):
        super().__init__()
        self.weights = MLP(streams, state, hidden, agents)
        self.bias = MLP(streams, state, hidden, 1) if bias else None

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """State [S, B, G] -> weights [S, B, I] and bias [S, B]."""
        bias = state.new_zeros(state.shape[:-1]) if self.bias is None else self.bias(state)[..., 0]
        return self.weights(state).abs(), bias
