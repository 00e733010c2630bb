"""The recipe: value decomposition, value learning and policy extraction by choice, and values in their own unit (SVN).

Paper: Lee, Lee & Zhang 2026 (A Recipe for Stable Offline Multi-agent RL). Only its abstract was at hand, so equations
and settings are those of the official code, DongsuLeeTech/offline-marl-recipe (no licence): **reconstructed**. The
default is the one command of its README, for SMAC: the TD3+BC agent with SARSA targets, a QMIX mixer, SVN, and BRAC
with a `bc_weight` of 1. Without these options the code has TD targets and 0.03, by which a policy hardly clones: on 3m
good it takes the data's action in 77 % of cases, for 96 %, and has a quarter of the return. `iql` is the code's other
agent, IQL with AWR and the mean. Differences:
* `mixer_gradients`: in the code the mixer gets no gradient and stays random, as here in `released`.
* Discrete actions: the code has a Gaussian over one-hot vectors and no legal masks. Ours has masked categorical
  policies and critics of all actions; BRAC then maximises the expected value and clones by log-likelihood.
* IQL's values are mixed by the target mixer, as the critics that they follow; the code's by the mixer itself.
* The mixer's hypernetworks have no layer normalisation. The code's have, before a ReLU; with it one seed of six misses
  the best joint action of the coordination game: its slopes are larger, and guide policies beyond the data.
* A batch is of single transitions; the code's 32 windows of 20 steps are as many.
SVN divides the TD error by the mean absolute deviation of the team's values, without gradient: the fixed point stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.mixers import Monotonic
from offmarl.algorithms.parts.nets import AgentNet, frozen, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the recipe."""

    batch_size: int = size(640, tiny=8)
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    values: str = choice("sarsa", "td", "iql")  # what follows: the data's next action, the policy's, or a value
    mixer: str = choice("state", "none", "mean", "sum")  # none: each agent has its own TD error
    mixer_width: int = size(32, tiny=8)
    mixer_hidden: int = size(128, tiny=16)
    mixer_gradients: bool = True
    svn: bool = True
    expectile: float = 0.9  # iql
    extraction: str = choice("brac", "awr")
    bc_weight: float = 1.0  # brac
    inverse_temperature: float = 10.0  # awr
    policy_norm: bool = True  # layer normalisation in the policy; critics and values always have it


class Recipe(Algorithm):
    """Policies on local observations, twin critics and, for IQL, values of each agent."""

    name = "recipe"
    title = "SVN recipe"
    paper = "A Recipe for Stable Offline Multi-agent Reinforcement Learning, arXiv 2603.08399"
    source_code = "https://github.com/DongsuLeeTech/offline-marl-recipe"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"bc_weight": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)}
    variants = {
        "released": {"mixer_gradients": False},
        "iql": {"values": "iql", "mixer": "mean", "svn": False, "extraction": "awr", "policy_norm": False},
    }

    def build(self) -> None:
        """The policy, twin critics, the value (iql), the mixer (state), and targets of critics and mixer."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = AgentNet(streams, spec, config, spec.obs, spec.actions, config.policy_norm)
        self.nets["critic"] = twin_critic(streams, spec, config)
        if config.values == "iql":
            self.nets["value"] = AgentNet(streams, spec, config, spec.obs, 1, layer_norm=True)
        if config.mixer == "state":
            mixer = Monotonic(streams, spec.agents, spec.state, config.mixer_width, (config.mixer_hidden,))
            self.nets["mixer"] = mixer.requires_grad_(config.mixer_gradients)
        for name in {"critic", "mixer"} & set(self.nets):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, expectile regression (iql), and those of the policy."""
        losses = {"critic": self.critic_loss(batch)}
        if self.config.values == "iql":
            losses["value"] = self.value_loss(batch)
        return losses | self.policy_losses(batch)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The most likely legal actions, or the policy's mean."""
        return self.mode(obs, legal), memory

    def critic_loss(self, batch: Batch) -> Tensor:
        """Half the squared TD error of the team: of both twins, or with SVN of the lesser, in units of its spread."""
        q = self.team(self.chosen("critic", batch.obs, batch.actions), batch.state)
        target = self.target(batch)
        if not self.config.svn:
            return 0.5 * (q - target[:, None]).square().mean((1, 2, 3))
        lesser = q.amin(1)
        return 0.5 * ((lesser - target) / spread(lesser)).square().mean((1, 2))

    def value_loss(self, batch: Batch) -> Tensor:
        """Expectile regression of the team's value towards the lesser target critic."""
        with torch.no_grad():
            q = self.chosen("target_critic", batch.obs, batch.actions).amin(1, keepdim=True)
            q = self.team(q, batch.state, "target_")[:, 0]
        gap = q - self.team_value(batch, "target_")
        weight = torch.where(gap < 0.0, 1.0 - self.config.expectile, self.config.expectile)
        return (weight * (gap / spread(q) if self.config.svn else gap).square()).mean((1, 2))

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """BRAC: Q maximisation in units of its mean magnitude, and cloning. AWR: cloning by advantages."""
        out = self.nets["policy"](batch.obs)
        if self.config.extraction == "awr":
            return {"policy": -(self.weights(batch) * self.log_density(out, batch)).mean((1, 2))}
        value = self.guidance(out, batch)
        cloning = -self.log_density(out, batch) if self.spec.discrete else (out - batch.actions).square().mean(-1)
        return {
            "cloning": self.config.bc_weight * cloning.mean((1, 2)),
            "q": -value.mean((1, 2)) / (value.abs().mean((1, 2)).detach() + 1e-6),
        }

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """The team's TD target [S,B,J]; for IQL the agents' targets are mixed, as in the code."""
        not_done = self.config.discount * (1.0 - batch.done)[..., None]
        if self.config.values == "iql":
            own = batch.rewards + not_done * self.nets["value"](batch.next_obs)[..., 0]
            return self.team(own[:, None], batch.state, "target_")[:, 0]
        data = self.config.values == "sarsa"
        actions = batch.next_actions if data else self.mode(batch.next_obs, batch.next_legal)
        q = self.chosen("target_critic", batch.next_obs, actions)
        if self.config.mixer == "state":
            following, rewards = self.team(q, batch.next_state, "target_").amin(1), batch.rewards.sum(-1, keepdim=True)
        else:
            following, rewards = (self.team(x, batch.state) for x in (q.amin(1), batch.rewards))
        return rewards + not_done * following

    @torch.no_grad()
    def weights(self, batch: Batch) -> Tensor:
        """AWR's weights [S,B,J] of the samples, from advantages that are standardised over the batch."""
        q = self.chosen("critic", batch.obs, batch.actions).amin(1)
        if self.config.values == "iql":
            advantage = self.team(q[:, None], batch.state)[:, 0] - self.team_value(batch)
        else:
            mode = self.mode(batch.obs, batch.legal)
            advantage = q - self.chosen("critic", batch.obs, mode).amin(1)
        centred = advantage - advantage.mean((1, 2), keepdim=True)
        deviation = centred.square().mean((1, 2), keepdim=True).sqrt() + 1e-6
        return (self.config.inverse_temperature * centred / deviation).clamp(-50.0, 10.0).exp().clamp(max=100.0)

    def guidance(self, out: Tensor, batch: Batch) -> Tensor:
        """The lesser critic's value of each agent's policy [S,B,I], which gradients reach through the policy alone."""
        with frozen(self.nets["critic"]):
            if self.spec.discrete:
                odds = masked(out, batch.legal).softmax(-1)
                return (odds * self.nets["critic"](batch.obs).amin(1)).sum(-1)
            return self.nets["critic"](batch.obs, out)[..., 0].amin(1)

    def log_density(self, out: Tensor, batch: Batch) -> Tensor:
        """Of the data's actions [S,B,I]; a Gaussian has unit variance, and its constant is left out."""
        if self.spec.discrete:
            return masked(out, batch.legal).log_softmax(-1).gather(-1, batch.actions[..., None])[..., 0]
        return -0.5 * (batch.actions - out).square().sum(-1)

    def mode(self, obs: Tensor, legal: Tensor | None) -> Tensor:
        """The policy's most likely actions."""
        out = self.nets["policy"](obs)
        return decode(out, legal) if self.spec.discrete else out.clamp(-1.0, 1.0)

    def chosen(self, net: str, obs: Tensor, actions: Tensor) -> Tensor:
        """Values of actions by both critics [S,2,B,I]."""
        if not self.spec.discrete:
            return self.nets[net](obs, actions)[..., 0]
        index = actions[:, None, ..., None].expand(-1, 2, -1, -1, -1)
        return self.nets[net](obs).gather(-1, index)[..., 0]

    def team(self, values: Tensor, state: Tensor, which: str = "") -> Tensor:
        """Values [..., I] of one team [..., 1], or of each agent; the mixer takes [S,K,B,I]."""
        if self.config.mixer == "state":
            return self.nets[f"{which}mixer"](values, state)
        joined = {"mean": values.mean, "sum": values.sum}.get(self.config.mixer)
        return joined(-1, keepdim=True) if joined else values

    def team_value(self, batch: Batch, which: str = "") -> Tensor:
        """The team's value [S,B,J] (iql)."""
        return self.team(self.nets["value"](batch.obs)[:, None, ..., 0], batch.state, which)[:, 0]

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team: the mixer and the sum have values of all agents' rewards together."""
        values = self.team(self.chosen("critic", batch.obs, batch.actions), batch.state).flatten(1).mean(1)
        return values / (self.spec.agents if self.config.mixer in ("state", "sum") else 1)


def spread(values: Tensor) -> Tensor:
    """The mean absolute deviation of values [S,B,J] of each seed [S,1,1], without gradient."""
    values = values.detach()
    return (values - values.mean((1, 2), keepdim=True)).abs().mean((1, 2), keepdim=True) + 1e-6
