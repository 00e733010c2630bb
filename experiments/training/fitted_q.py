"""Fitted Q evaluation: what policies would return, from data alone (Le et al. 2019).

Many policies are evaluated at once, each by a critic of its own, from the actions that it takes at the data's
observations. Shapes: P policies, R rows of observations, N transitions, B batch, I agents, O observation, A action.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.adam import Adam
from offmarl.algorithms.parts.batch import Data, TaskSpec
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.nets import AgentNet, TeamNet, polyak, target_copy
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.algorithms.parts.streams import SeedStreams


@dataclass(frozen=True)
class Settings:
    """How a critic is fitted."""

    steps: int = 1500  # updates
    batch: int = 256  # transitions
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 1e-3  # of Adam, falling linearly to a tenth
    polyak: float = 0.1
    discount: float = 0.99
    joint: bool = False  # one critic of the joint observation and action, for small tasks; else the mean of agents'


class Critic(nn.Module):
    """Team values of P policies: [P,B,I,O] and actions [P,B,I,A] (discrete: one-hot) -> [P,B]."""

    def __init__(self, policies: int, spec: TaskSpec, settings: Settings):
        super().__init__()
        streams, config = SeedStreams([0] * policies, "fitted q"), BaseConfig(hidden=settings.hidden)
        size = spec.obs + spec.actions
        self.net: nn.Module = (
            TeamNet(streams, spec.agents * size, settings.hidden, 1, copies=1)
            if settings.joint
            else AgentNet(streams, spec, config, size, 1, layer_norm=True)
        )

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The mean of the agents' values, or the joint critic's."""
        return (
            self.net(obs, actions).flatten(2).mean(-1)
            if isinstance(self.net, AgentNet)
            else self.net(obs, actions)[:, 0, :, 0, 0]
        )


def fitted_q(data: Data, choices: Tensor, spec: TaskSpec, settings: Settings = Settings()) -> Tensor:
    """The discounted team return of policies from the first observations of the data's episodes: [P].

    Y = r + discount (1 - done) Q'(o', pi(o')), r the mean of the agents' rewards. All policies see the same batches
    from the same first weights. Observations are standardised, rewards scaled by the size of the data's returns.

    Args:
        data: whole episodes; what `done` ends has no value after it.
        choices: what each policy does at every row: [P,R,I] int64, or [P,R,I,A]. Legal ones: masks are the policy's.
        spec: of the task.
        settings: how critics are fitted.
    """
    encode = (lambda a: F.one_hot(a, spec.actions).float()) if spec.discrete else (lambda a: a)
    obs = (data.obs - data.obs.mean((0, 1))) / (data.obs.std((0, 1)) + 1e-3)
    rewards = data.rewards.mean(-1)
    scale = returns_to_go(rewards, data.last, settings.discount).abs().mean().clamp(min=1e-6)
    critic, many = Critic(len(choices), spec, settings), (len(choices), -1, -1, -1)
    target, rate = target_copy(critic), torch.tensor(settings.rate)
    optimiser, draws = Adam([(critic.parameters(), rate)], 1e-8), SeedStreams([0], "batches")
    for step in range(settings.steps):
        rate.fill_(settings.rate * (1 - 0.9 * step / settings.steps))
        k = draws.integers(len(data.rows), settings.batch)[0]
        row, goes_on = data.rows[k], 1 - data.done[k]
        with torch.no_grad():
            after = target(obs[row + 1].expand(many), encode(choices[:, row + 1]))
            goal = rewards[k] / scale + settings.discount * goes_on * after
        error = critic(obs[row].expand(many), encode(data.actions[k]).expand(many)) - goal
        optimiser.zero_grad()
        error.pow(2).mean(1).sum().backward()
        optimiser.step()
        polyak(target, critic, settings.polyak)
    first = data.rows[torch.cat([data.last.new_ones(1), data.last[:-1]])]
    with torch.no_grad():
        return critic(obs[first].expand(many), encode(choices[:, first])).mean(1) * scale
