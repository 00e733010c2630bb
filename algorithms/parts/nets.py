"""Networks with the seed axis. Shapes: S seeds, K members of an ensemble, B batch, I agents, G groups of weights."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.streams import SeedStreams


class Linear(nn.Module):
    """G independent affine maps: [G, N, in] -> [G, N, out]. Xavier-uniform weights, zero biases.

    `copies` counts the maps of one seed, so G = S * copies.
    """

    def __init__(self, streams: SeedStreams, copies: int, n_in: int, n_out: int):
        super().__init__()
        bound = (6.0 / (n_in + n_out)) ** 0.5
        weight = (2.0 * streams.uniform(copies, n_in, n_out) - 1.0) * bound
        self.weight = nn.Parameter(weight.flatten(0, 1))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[0], 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each map to its rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class LayerNorm(nn.Module):
    """Layer normalisation with separate weights for each group."""

    def __init__(self, groups: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, 1, width))
        self.bias = nn.Parameter(torch.zeros(groups, 1, width))
        self.one: Tensor
        self.zero: Tensor  # the kernel takes a third less time with weights than without
        self.register_buffer("one", torch.ones(width), persistent=False)
        self.register_buffer("zero", torch.zeros(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of [G, N, width]."""
        if len(self.weight) == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight[0, 0], self.bias[0, 0])
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:], self.one, self.zero), self.weight)


class MLP(nn.Module):
    """GELU perceptron, with optional layer normalisation after each hidden activation (as in fql)."""

    def __init__(
        self,
        streams: SeedStreams,
        n_in: int,
        hidden: Sequence[int],
        n_out: int,
        layer_norm: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        widths = [n_in, *hidden, n_out]
        self.groups = len(streams.generators) * copies
        self.layers = nn.ModuleList(Linear(streams, copies, a, b) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(LayerNorm(self.groups, h) for h in hidden) if layer_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """[G, ..., in] -> [G, ..., out]."""
        return self._after_first(self.layers[0](self._rows(x)), x.shape)

    def given(self, known: Tensor) -> Callable[[Tensor], Tensor]:
        """The network as a function of its other inputs [G, ..., b], where its first ones [G, ..., a] stay the same.

        The first layer multiplies the known ones once. With gradients, where a field is asked once, it multiplies all
        inputs together, which is cheaper.
        """
        if torch.is_grad_enabled():
            return lambda x: self(torch.cat([known, x], -1))
        first = self.layers[0]
        assert isinstance(first, Linear)
        weight, rest = first.weight[:, : known.shape[-1]], first.weight[:, known.shape[-1] :]
        start = torch.baddbmm(first.bias, self._rows(known), weight)
        return lambda x: self._after_first(torch.baddbmm(start, self._rows(x), rest), x.shape)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(self.groups, -1, x.shape[-1])

    def _after_first(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The output for what the first layer gives [G, N, width], in the shape of the inputs."""
        norms = repeat(None) if self.norms is None else self.norms
        for norm, layer in zip(norms, islice(self.layers, 1, None)):  # a slice would be a new module
            x = F.gelu(x)
            x = layer(x if norm is None else norm(x))
        return x.reshape(*shape[:-1], -1)


class AgentNet(nn.Module):
    """A network that each agent applies to its own input: [S, B, I, in] -> [S, B, I, out].

    It has the hidden layers of the settings. With `share_parameters` the agent's one-hot id is appended to the input;
    otherwise each agent has its own weights.
    An ensemble (`copies` > 1) returns [S, K, B, I, out].
    """

    def __init__(
        self,
        streams: SeedStreams,
        spec: TaskSpec,
        config: BaseConfig,
        n_in: int,
        n_out: int,
        layer_norm: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        self.agents, self.copies, self.shared = spec.agents, copies, config.share_parameters
        self.ids: Tensor
        self.register_buffer("ids", torch.eye(spec.agents), persistent=False)
        n_in, groups = (n_in + spec.agents, copies) if self.shared else (n_in, copies * spec.agents)
        self.mlp = MLP(streams, n_in, config.hidden, n_out, layer_norm, groups)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs [S, B, I, *] are concatenated."""
        return self._by_agent(self.mlp(self._groups(*inputs, *self._ids(inputs[0]))), inputs[0].shape)

    def given(self, known: Tensor) -> Callable[..., Tensor]:
        """The network as a function of its other inputs, where its first one stays the same: see `MLP.given`."""
        net = self.mlp.given(self._groups(known))
        return lambda *rest: self._by_agent(net(self._groups(*rest, *self._ids(known))), known.shape)

    def _ids(self, like: Tensor) -> list[Tensor]:
        """The agents' ids as the last input, where weights are shared."""
        return [self.ids.expand(*like.shape[:2], -1, -1)] if self.shared else []

    def _groups(self, *inputs: Tensor) -> Tensor:
        """Inputs [S, B, I, *] as those of the groups of weights: [S * copies, B, I, *] or [S * copies * I, B, *]."""
        x = torch.cat(inputs, -1)
        x = (x if self.shared else x.transpose(1, 2))[:, None].expand(-1, self.copies, -1, -1, -1)
        return x.flatten(0, 1) if self.shared else x.flatten(0, 2)

    def _by_agent(self, out: Tensor, shape: Sequence[int]) -> Tensor:
        """Outputs of the groups as [S, copies, B, I, out], without `copies` where there is one."""
        S, B, I = shape[:3]
        if self.shared:
            out = out.reshape(S, self.copies, B, I, -1)
        else:
            out = out.reshape(S, self.copies, I, B, -1).transpose(2, 3)
        return out if self.copies > 1 else out[:, 0]

    def keep_agent(self, agent: int) -> None:
        """Keep only this agent's part: inputs are [S, B, 1, *] from now on."""
        if self.shared:
            self.ids = self.ids[agent : agent + 1]
        else:
            keep_weights(self.mlp, self.agents, agent)
            self.mlp.groups //= self.agents


class TeamNet(nn.Module):
    """An ensemble on the concatenated inputs of all agents: [S, B, I, *] -> [S, K, B, 1, out]."""

    def __init__(self, streams: SeedStreams, n_in: int, hidden: Sequence[int], n_out: int, copies: int):
        super().__init__()
        self.copies = copies
        self.mlp = MLP(streams, n_in, hidden, n_out, layer_norm=True, copies=copies)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs are flattened and concatenated."""
        x = torch.cat([each.flatten(2) for each in inputs], -1)
        out = self.mlp(x[:, None].expand(-1, self.copies, -1, -1).flatten(0, 1))
        return out.unflatten(0, (-1, self.copies))[..., None, :]


def given(net: nn.Module, known: Tensor) -> Callable[..., Tensor]:
    """An MLP or AgentNet as a function of its other inputs, where its first one stays the same: see `MLP.given`."""
    assert isinstance(net, MLP | AgentNet)
    return net.given(known)


def keep_weights(net: nn.Module, agents: int, agent: int) -> None:
    """Keep one agent's part of weights with a group per agent [S * K * I, ...]."""
    for weight in net.parameters():
        weight.data = weight.data.unflatten(0, (-1, agents))[:, agent].contiguous()


def policy_net(streams: SeedStreams, spec: TaskSpec, config: BaseConfig, n_out: int) -> AgentNet:
    """A network of every agent on its own observation: [S,B,I,O] -> [S,B,I,n_out]."""
    return AgentNet(streams, spec, config, spec.obs, n_out)


def twin_critic(streams: SeedStreams, spec: TaskSpec, config: BaseConfig) -> AgentNet:
    """Two critics of every agent: values of all discrete actions [S,2,B,I,A], or of a continuous one, A = 1."""
    n_in, n_out = (spec.obs, spec.actions) if spec.discrete else (spec.obs + spec.actions, 1)
    return AgentNet(streams, spec, config, n_in, n_out, layer_norm=True, copies=2)


def central_critic(streams: SeedStreams, spec: TaskSpec, config: BaseConfig) -> TeamNet:
    """Two critics of the joint observation and action [S,B,I,A]; discrete actions are one-hot or weights."""
    return TeamNet(streams, spec.agents * (spec.obs + spec.actions), config.hidden, 1, copies=2)


def index_of_both(actions: Tensor) -> Tensor:
    """Discrete actions [S,B,I] as an index into the values of twin critics [S,2,B,I,A]."""
    return actions[:, None, ..., None].expand(-1, 2, -1, -1, -1)


def target_copy(net: nn.Module) -> nn.Module:
    """A copy without gradients, for a target network."""
    return copy.deepcopy(net).requires_grad_(False)


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Within this context, gradients flow through the network but not into its weights."""
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


@torch.no_grad()
def polyak(target: nn.Module, net: nn.Module, rate: float) -> None:
    """Polyak averaging: target += rate * (net - target)."""
    slow: list[Tensor] = list(target.parameters())
    fast: list[Tensor] = list(net.parameters())
    torch._foreach_lerp_(slow, fast, rate)  # pyright: ignore[reportPrivateImportUsage]
