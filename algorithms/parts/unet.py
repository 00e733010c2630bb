"""The temporal U-Net of the diffusion planners, and attention between agents, with the seed axis.

Architecture: Diffuser (Janner et al. 2022) as in MADiff's models/temporal.py, without the first skip, which is stored
there and never used. Inside, features are [R, S * C, T]: R rows (one agent's window each), C channels for every seed,
T time steps (a multiple of four). Convolutions have a group of weights for each seed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.diffusion import embed
from offmarl.algorithms.parts.nets import Linear
from offmarl.algorithms.parts.streams import SeedStreams

KERNEL, HEADS = 5, 4
CHANNELS = 16  # a multiple of them in every seed's group: on a CPU, convolutions of others take several times as long


class Conv(nn.Module):
    """A convolution over time for every seed; with `up`, a transposed convolution that doubles the length."""

    def __init__(
        self,
        streams: SeedStreams,
        n_in: int,
        n_out: int,
        kernel: int,
        stride: int = 1,
        up: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.seeds, self.stride, self.up, self.padding = len(streams.generators), stride, up, (kernel - 1) // 2
        bound = (n_in * kernel) ** -0.5
        shape = (n_in, n_out, kernel) if up else (n_out, n_in, kernel)
        self.weight = nn.Parameter(((2 * streams.uniform(*shape) - 1) * bound).flatten(0, 1))
        self.bias = nn.Parameter(((2 * streams.uniform(n_out) - 1) * bound).flatten()) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[R, S * in, T] -> [R, S * out, T / stride], or [R, S * out, 2 T] with `up`."""
        if self.up:
            return F.conv_transpose1d(x, self.weight, self.bias, self.stride, self.padding, groups=self.seeds)
        weight, missing = self.weight, -self.weight.shape[1] % CHANNELS
        if missing:
            x = F.pad(x.unflatten(1, (self.seeds, -1)), (0, 0, 0, missing)).flatten(1, 2)
            weight = F.pad(weight, (0, 0, 0, missing))
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, groups=self.seeds)


class Block(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, streams: SeedStreams, n_in: int, n_out: int, groups: int):
        super().__init__()
        self.conv, self.groups = Conv(streams, n_in, n_out, KERNEL), groups
        self.weight = nn.Parameter(torch.ones(len(streams.generators) * n_out))
        self.bias = nn.Parameter(torch.zeros(len(streams.generators) * n_out))

    def forward(self, x: Tensor) -> Tensor:
        """[R, S * in, T] -> [R, S * out, T]."""
        return mish(F.group_norm(self.conv(x), self.groups * self.conv.seeds, self.weight, self.bias))


class Conditioned(nn.Module):
    """Two blocks with the condition added between them, and a residual connection."""

    def __init__(self, streams: SeedStreams, n_in: int, n_out: int, n_condition: int, groups: int):
        super().__init__()
        self.first, self.second = Block(streams, n_in, n_out, groups), Block(streams, n_out, n_out, groups)
        self.condition = Linear(streams, 1, n_condition, n_out)
        self.residual = nn.Identity() if n_in == n_out else Conv(streams, n_in, n_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [R, S * in, T], condition [S, R, n_condition] -> [R, S * out, T]."""
        added = over_time(self.condition(condition))
        return self.second(self.first(x) + added) + self.residual(x)


class Stage(nn.Module):
    """Two conditioned blocks at one resolution."""

    def __init__(self, streams: SeedStreams, n_in: int, n_out: int, n_condition: int, groups: int):
        super().__init__()
        self.first = Conditioned(streams, n_in, n_out, n_condition, groups)
        self.second = Conditioned(streams, n_out, n_out, n_condition, groups)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [R, S * in, T], condition [S, R, n_condition] -> [R, S * out, T]."""
        return self.second(self.first(x, condition), condition)


class AgentAttention(nn.Module):
    """Attention between agents, with a gate that starts at zero, so that it starts as the identity.

    Source: MADiff's models/ma_temporal.py. One score for each pair of agents and head, over channels and time.
    """

    def __init__(self, streams: SeedStreams, agents: int, channels: int, n_condition: int):
        super().__init__()
        self.agents, self.seeds = agents, len(streams.generators)
        widths = {
            "query": max(1, channels // 16) * HEADS,
            "key": max(1, channels // 16) * HEADS,
            "value": channels // 4 * HEADS,
        }
        # Keys have no bias: it would add a constant to all scores of a query, which the softmax cancels.
        self.features = nn.ModuleDict(
            {name: Conv(streams, channels, n, 1, bias=name != "key") for name, n in widths.items()}
        )
        self.conditions = nn.ModuleDict({name: Linear(streams, 1, n_condition, n) for name, n in widths.items()})
        self.gate = nn.Parameter(torch.zeros(self.seeds))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B * I, S * C, T] with the agents of a sample in neighbouring rows -> the same shape."""

        def part(name: str) -> Tensor:  # [B, S, heads, I, channels of a head * T]
            out = self.features[name](x) + over_time(self.conditions[name](condition))
            out = out.view(-1, self.agents, self.seeds, HEADS, out.shape[1] // (self.seeds * HEADS) * out.shape[2])
            return out.permute(0, 2, 3, 1, 4)

        query, key = part("query"), part("key")
        share = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        mixed = (share @ part("value")).permute(0, 3, 1, 2, 4).reshape(x.shape)
        gate = self.gate.repeat_interleave(x.shape[1] // self.seeds)
        return x + gate[:, None] * mixed


class UNet(nn.Module):
    """The noise in windows, or the clean windows, given the diffusion step and the target return.

    Args:
        size: numbers per time step of a window.
        groups: of the group normalisation.
        agents: with more than one, agents attend to each other after the middle and at every skip.
    """

    def __init__(
        self,
        streams: SeedStreams,
        size: int,
        width: int = 128,
        multipliers: Sequence[int] = (1, 4, 8),
        groups: int = 8,
        agents: int = 1,
    ):
        super().__init__()
        self.seeds, self.width, n_condition = len(streams.generators), width, 2 * width
        widths = [size, *(width * m for m in multipliers)]
        pairs = list(zip(widths, widths[1:]))
        self.time = nn.ModuleList([Linear(streams, 1, width, 4 * width), Linear(streams, 1, 4 * width, width)])
        sizes = [(1, width), (width, 4 * width), (4 * width, width)]
        self.returns = nn.ModuleList(Linear(streams, 1, a, b) for a, b in sizes)

        def stage(n_in: int, n_out: int) -> Stage:
            return Stage(streams, n_in, n_out, n_condition, groups)

        self.down = nn.ModuleList(stage(a, b) for a, b in pairs)
        self.shrink = nn.ModuleList(Conv(streams, b, b, 3, stride=2) for _, b in pairs[:-1])
        self.middle = stage(widths[-1], widths[-1])
        self.up = nn.ModuleList(stage(2 * b, a) for a, b in reversed(pairs[1:]))
        self.grow = nn.ModuleList(Conv(streams, a, a, 4, stride=2, up=True) for a, _ in reversed(pairs[1:]))
        self.head = nn.ModuleList(
            [Block(streams, width * multipliers[0], width, groups), Conv(streams, width, size, 1)]
        )
        places = [widths[-1], *(b for _, b in reversed(pairs[1:]))] if agents > 1 else []
        self.attention = nn.ModuleList(AgentAttention(streams, agents, c, n_condition) for c in places)

    def forward(self, x: Tensor, time: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        """What is predicted of windows x [S,R,T,N] at steps [S,R], for target returns [S,R] where `keep` [S,R] is 1."""
        S, R, T, N = x.shape
        condition = self.condition(time, returns, keep)
        h, skips = x.permute(1, 0, 3, 2).reshape(R, S * N, T), []
        for k, stage in enumerate(self.down):
            h = stage(h, condition)
            skips.append(h)
            h = self.shrink[k](h) if k < len(self.shrink) else h
        h = self._attend(0, self.middle(h, condition), condition)
        for k, stage in enumerate(self.up):
            skip = self._attend(k + 1, skips.pop(), condition)
            h = self.grow[k](stage(self._beside(h, skip), condition))
        h = self.head[1](self.head[0](h))
        return h.view(R, S, N, T).permute(1, 0, 3, 2)

    def condition(self, time: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        """Embeddings of step and return, activated once for all blocks: [S, R, 2 * width]."""
        first, last = self.time
        step = last(F.mish(first(embed(time, self.width))))
        target = returns[..., None]
        for k, layer in enumerate(self.returns):
            target = layer(F.mish(target) if k else target)
        return F.mish(torch.cat([step, target * keep[..., None]], -1))

    def _attend(self, place: int, x: Tensor, condition: Tensor) -> Tensor:
        return self.attention[place](x, condition) if len(self.attention) else x

    def _beside(self, x: Tensor, skip: Tensor) -> Tensor:
        """The channels of x and skip, concatenated for each seed."""
        both = torch.cat([x.unflatten(1, (self.seeds, -1)), skip.unflatten(1, (self.seeds, -1))], 2)
        return both.flatten(1, 2)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp x)); without gradients, on a CPU, by one exponential, in half of the time."""
    if torch.is_grad_enabled() or x.is_cuda:
        return F.mish(x)
    power = x.clamp(max=20.0).exp()  # beyond, it is x
    power *= power + 2.0
    return power.div_(power + 2.0).mul_(x)


def over_time(x: Tensor) -> Tensor:
    """A condition for all time steps: [S, R, C] -> [R, S * C, 1]."""
    return x.transpose(0, 1).flatten(1)[..., None]
