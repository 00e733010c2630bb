"""What the recurrent methods share: networks with a memory, and windows of the data to train them on.

Source: og-marl's recurrent baselines (Formanek et al. 2023, arXiv 2302.00521; instadeepai/og-marl, Apache-2.0). A
window is `horizon` consecutive rows of the data from a drawn transition on. It runs on into the next episodes, as
there, so that the first steps of episodes are seen as often as others; the memory begins anew where an episode does.
Differences:

* the row after an episode's last transition belongs to its window, so that what follows a time-out can be valued; the
  code values the next episode's first step instead;
* with `burn_in` so many rows before a window fill its memory, without gradient; by default it begins empty, as there;
* GELU between the layers before the memory, where there are several.

Shapes: S seeds, B windows, T rows, E episodes, I agents, O observation, A actions, H memory; G groups of weights, each
with R rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data, TaskSpec
from offmarl.algorithms.parts.config import BaseConfig, size
from offmarl.algorithms.parts.mixers import Monotonic
from offmarl.algorithms.parts.nets import AgentNet, Linear, keep_weights, target_copy
from offmarl.algorithms.parts.streams import SeedStreams


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the recurrent methods; defaults are og-marl's."""

    hidden: tuple[int, ...] = size((64,), tiny=(16,))  # of the layers before the memory, which is as wide as the last
    batch_size: int = size(32, tiny=8)  # windows per seed in one update
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    horizon: int = size(20, tiny=5)  # rows of a window
    burn_in: int = 0  # rows before a window, which fill its memory only

    def __post_init__(self) -> None:
        """Check that there is a memory, and a window with a transition.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        if not self.hidden:
            raise ValueError("hidden=(): the memory is as wide as the last of these layers, so one is needed")
        if self.horizon < 2 or self.burn_in < 0:
            sizes = f"horizon={self.horizon} and burn_in={self.burn_in}"
            raise ValueError(f"{sizes}: a window has two rows or more, and no fewer than none before it")


@dataclass(frozen=True)
class ValueConfig(Config):
    """Settings of the recurrent methods with a mixed value."""

    mixer_width: int = size(32, tiny=8)
    mixer_hidden: int = size(64, tiny=16)  # units of the networks that make the mixer's weights
    target_period: int = 200  # updates between copies of the targets; 0: Polyak averaging


class AgentGRU(AgentNet):
    """A network with a memory for each agent: layers, a ReLU, a gated recurrent unit, a ReLU, an affine map.

    The unit is that of `torch.nn.GRU` (Cho et al. 2014). Inputs and sharing are as in `AgentNet`.
    """

    def __init__(self, streams: SeedStreams, spec: TaskSpec, config: Config, n_out: int):
        *before, width = config.hidden
        layers = BaseConfig(hidden=tuple(before), share_parameters=config.share_parameters)
        super().__init__(streams, spec, layers, spec.obs, width)
        copies = self.mlp.groups // len(streams.generators)
        self.burn_in, self.width = config.burn_in, width
        self.of_input = Linear(streams, copies, width, 3 * width)  # three gates: reset, update, new
        self.of_memory = Linear(streams, copies, width, 3 * width)
        self.last = Linear(streams, copies, width, n_out)

    def forward(self, obs: Tensor, first: Tensor) -> Tensor:
        """The outputs along windows [S,B,T,I,*], without those of `burn_in` rows, through which no gradient flows.

        Args:
            obs: [S,B,burn_in + T,I,O].
            first: [S,B,burn_in + T] bool, the first rows of episodes, where the memory is empty.
        """
        filled, n = None, self.burn_in
        if n:
            with torch.no_grad():
                filled = self._along(obs[:, :, :n], first[:, :, :n])[-1]
        memories = torch.stack(self._along(obs[:, :, n:], first[:, :, n:], filled), 1)  # [G, T, R, H]
        S, B, T, I = (*obs.shape[:2], memories.shape[1], obs.shape[3])
        return self._outputs(memories.flatten(1, 2), (S, T * B, I)).unflatten(1, (T, B)).transpose(1, 2)

    def step(self, obs: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """The outputs [S,E,I,*] at one observation [S,E,I,O], and the memory [S,E,I,H] after it; None: it is empty."""
        held = None if memory is None else self._rows(memory)
        held = self._next(self._inputs(obs), held)
        return self._outputs(held, obs.shape), self._by_agent(held, obs.shape)

    def keep_agent(self, agent: int) -> None:
        """Keep only this agent's part: inputs are [S, E, 1, *] from now on."""
        super().keep_agent(agent)
        for part in () if self.shared else (self.of_input, self.of_memory, self.last):
            keep_weights(part, self.agents, agent)

    def _along(self, obs: Tensor, first: Tensor, held: Tensor | None = None) -> list[Tensor]:
        """The memories after each row of windows: T tensors [G,R,H]."""
        T, I = obs.shape[2:4]
        inputs = self._inputs(obs.transpose(1, 2).flatten(1, 2)).unflatten(1, (T, -1))
        goes_on = (~first).transpose(1, 2).flatten(1)[..., None, None].expand(-1, -1, I, -1).to(obs.dtype)
        memories = []
        for now, kept in zip(inputs.unbind(1), self._rows(goes_on).unflatten(1, (T, -1)).unbind(1)):
            held = self._next(now, None if held is None else held * kept)
            memories.append(held)
        return memories

    def _inputs(self, obs: Tensor) -> Tensor:
        """What observations [S,N,I,O] give to the gates: [G,R,3H]."""
        return self.of_input(self._rows(F.relu(super().forward(obs))))

    def _next(self, inputs: Tensor, held: Tensor | None) -> Tensor:
        """The memory [G,R,H] after one more row."""
        held = inputs.new_zeros(*inputs.shape[:2], self.width) if held is None else held
        (r, z, n), (hr, hz, hn) = inputs.chunk(3, -1), self.of_memory(held).chunk(3, -1)
        return torch.lerp((n + (r + hr).sigmoid() * hn).tanh(), held, (z + hz).sigmoid())

    def _outputs(self, memories: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Outputs [S,N,I,*] for memories [G,R,H]."""
        return self._by_agent(self.last(F.relu(memories)), shape)

    def _rows(self, x: Tensor) -> Tensor:
        """Values [S,N,I,*] as rows of the groups: [G,R,*]."""
        return self._groups(x).reshape(self.mlp.groups, -1, x.shape[-1])


class Steps(NamedTuple):
    """Windows of T rows. Observations and `first` begin `burn_in` rows earlier."""

    obs: Tensor  # [S, B, burn_in + T, I, O]
    first: Tensor  # [S, B, burn_in + T] bool: an episode's first row
    legal: Tensor | None  # [S, B, T, I, A] bool
    actions: Tensor  # [S, B, T, I] int64, or [S, B, T, I, A]; after an episode's last transition its own again
    rewards: Tensor  # [S, B, T, I]
    done: Tensor  # [S, B, T] float
    state: Tensor  # [S, B, T, G]
    taken: Tensor  # [S, B, T] bool: a transition starts here; the others are last rows of episodes, and padding
    followed: Tensor  # [S, B, T - 1] bool: a transition starts here, and the next row is what it led to


class Windows:
    """A dataset, as windows from given transitions on. Beyond the data's end its last row repeats."""

    def __init__(self, data: Data, horizon: int, burn_in: int = 0):
        self.data, self.horizon = data, horizon
        rows = len(data.obs)
        self.taken = torch.zeros(rows, dtype=torch.bool, device=data.rows.device).index_fill(0, data.rows, True)
        self.first = torch.cat([torch.ones_like(self.taken[:1]), ~self.taken[:-1]])
        self.transition = self.taken.cumsum(0) - 1
        self.around = torch.arange(-burn_in, horizon, device=data.rows.device)
        # A time-out that is valued, but whose successor was not recorded, as in `Dataset.successors`.
        cut = (data.last & (data.done == 0)).nonzero()[:, 0]
        lost = (data.obs[data.rows[cut] + 1] == data.obs[data.rows[cut]]).flatten(1).all(1)
        lost[:-1] &= lost.all()
        self.followed = self.taken.index_fill(0, data.rows[cut[lost]], False)

    def at(self, number: Tensor) -> Steps:
        """The windows from these transitions [S,B] on."""
        data = self.data
        before = (data.rows[number][..., None] + self.around).clamp(0, len(data.obs) - 1)
        rows = before[..., -self.horizon :]
        index = self.transition[rows]
        return Steps(
            obs=data.obs[before],
            first=self.first[before],
            legal=None if data.legal is None else data.legal[rows],
            actions=data.actions[index],
            rewards=data.rewards[index],
            done=data.done[index],
            state=data.state[rows],
            taken=self.taken[rows],
            followed=self.followed[rows[..., :-1]],
        )


class Recurrent(Algorithm):
    """A method that learns from windows, and whose memory at play [S,E,I,H] is that of one network."""

    Config = Config

    def prepare(self, data: Data) -> Data:
        """Keep the data, for windows."""
        self.windows = Windows(data, self.config.horizon, self.config.burn_in)
        return data

    def along(self, net: str, steps: Steps) -> Tensor:
        """A network's outputs along windows: [S,B,T,I,*]."""
        return self.nets[net](steps.obs, steps.first)

    def step(self, net: str, obs: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """A network's outputs for one observation, and its memory: see `AgentGRU.step`."""
        gru = self.nets[net]
        assert isinstance(gru, AgentGRU)
        return gru.step(obs, memory)


class RecurrentCritic(Recurrent):
    """A recurrent method with a critic of each agent for all its actions, mixed monotonically (QMIX)."""

    Config = ValueConfig

    def build(self) -> None:
        """The critic, the mixer and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["critic"] = AgentGRU(streams, spec, config, spec.actions)
        self.nets["mixer"] = Monotonic(streams, spec.agents, spec.state, config.mixer_width, (config.mixer_hidden,))
        for name in ("critic", "mixer"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def after_update(self) -> None:
        """Copy the targets now and then, or Polyak averaging."""
        if rate := self.step_variant():
            self.move_targets(rate)

    def step_variant(self) -> float:
        """The rate of the targets in this update: 1 or 0 if they are copied, or the constant of Polyak averaging."""
        if self.config.target_period:
            return float(self.updates % self.config.target_period == 0)
        return self.config.polyak

    def td_error(self, steps: Steps, value: Tensor, following: Tensor) -> Tensor:
        """Half the squared error of the team's values [S,B,T], given those of the rows that follow [S,B,T-1]: [S]."""
        rewards, not_done = steps.rewards[:, :, :-1].mean(-1), 1.0 - steps.done[..., :-1]
        error = value[..., :-1] - (rewards + self.config.discount * not_done * following)
        return mean_over(0.5 * error.square(), steps.followed)

    def team(self, net: str, values: Tensor, state: Tensor) -> Tensor:
        """Values of agents [S,B,T,I] or [S,K,B,T,I], mixed by their states [S,B,T,G]."""
        each = values if values.ndim == 5 else values[:, None]
        return self.nets[net](each.flatten(2, 3), state.flatten(1, 2)).reshape(values.shape[:-1])

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team, along the windows from these transitions on."""
        steps = self.windows.at(batch.number)
        q = chosen(self.along("critic", steps), steps.actions)
        return mean_over(self.team("mixer", q, steps.state), steps.taken)


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """The entries [...] of values [...,A] at actions [...]."""
    return values.gather(-1, actions[..., None])[..., 0]


def mean_over(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of values [S,B,T] (or [S,B,T,I]) over the rows of each seed that count [S,B,T]: [S]."""
    values = values if values.ndim == 3 else values.mean(-1)
    return torch.where(counts, values, 0.0).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
