"""CFCQL: conservative Q-learning of a team, where the penalty lets one agent at a time leave the data.

Paper: Shao et al. 2023 (CFCQL). Official code: thu-rllab/CFCQL (no licence). Only the paper's abstract and notes on its
text were at hand, so equations and settings are the code's. Discrete actions: double Q-learning through QMIX's mixer.
Continuous actions: TD3 with critics of the joint observation and action. An agent's soft maximum takes its teammates'
actions from the data, and the agents' soft maxima are added with weights that sum to one. Differences:
* `weights`: by the divergence from cloned behaviour for discrete actions; equal for continuous ones, as the code's
  command says (`by_space`). The behaviour is cloned in the same steps, in the code beforehand: by a GRU, or for
  continuous actions by a variational autoencoder, where ours is a tanh-Gaussian.
* Discrete: feed-forward networks, twin critics and one-step targets; in the code GRUs, one critic and lambda-returns.
* Continuous: a policy step in every update, not in every fifth; no batch normalisation, but layer normalisation in the
  critics. In the code the log-densities of the policy's samples at obs and at next_obs are exchanged (not built).
* `cql_weight` is 0.1 to 50 by dataset in the code, one value here. GELU, not ReLU. Half the squared TD error, as the
  code's discrete part.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.gaussian import tanh_gaussian
from offmarl.algorithms.parts.mixers import Monotonic
from offmarl.algorithms.parts.nets import central_critic, frozen, index_of_both, policy_net, target_copy, twin_critic

SMOOTH = 1e-5  # added to probabilities in the divergence
EDGE = 0.99  # actions are moved into [-EDGE, EDGE] before a density is taken


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of CFCQL."""

    hidden: tuple[int, ...] = size((256, 256), tiny=(16, 16))
    batch_size: int = size(256, tiny=8)
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    max_grad_norm: float = 10.0
    cql_weight: float = 1.0  # of the conservative term
    cql_actions: int = size(10, tiny=2)  # continuous: samples of each agent from each proposal
    cql_policy: bool = False  # continuous: add samples of the policy at obs and next_obs
    cql_deviation: float = 0.2  # continuous: standard deviation of the policy's samples
    weights: str = choice("by_space", "divergence", "equal")  # of the agents in the conservative term
    temperature: float = 0.5  # divergence: multiplies it in the softmax over agents
    target_period: int = 25  # discrete: updates between copies of the target networks
    target_noise: float = 0.05  # continuous: standard deviation of the smoothing noise
    penalty: float = 1e-3  # continuous: on squared actions


class CFCQL(Algorithm):
    """Twin critics of a team with a penalty on the values of actions outside the data, one agent at a time."""

    name = "cfcql"
    title = "CFCQL"
    paper = "Counterfactual Conservative Q Learning for Offline Multi-agent RL, NeurIPS 2023"
    source_code = "https://github.com/thu-rllab/CFCQL"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"cql_weight": (0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 15.0, 50.0)}

    def build(self) -> None:
        """The critic, its mixer or the policy, targets of these, and the cloned behaviour."""
        spec, config, streams = self.spec, self.config, self.init_streams
        if spec.discrete:
            self.nets["critic"] = twin_critic(streams, spec, config)
            self.nets["mixer"] = Monotonic(streams, spec.agents, spec.state)
        else:
            self.nets["critic"] = central_critic(streams, spec, config)
            self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.leaves = torch.eye(spec.agents, dtype=torch.bool, device=self.device)  # who leaves the data, in its turn
        for name in list(self.nets):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])
        if config.weights == "divergence" or (config.weights == "by_space" and spec.discrete):
            self.nets["behaviour"] = policy_net(streams, spec, config, spec.actions * (1 if spec.discrete else 2))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, conservative term and cloning; for continuous actions also those of the policy."""
        values = self.discrete_values(batch) if self.spec.discrete else self.continuous_values(batch)
        cloning = {"cloning": self.cloning(batch)} if "behaviour" in self.nets else {}
        return self.critic_losses(batch, *values) | cloning | ({} if self.spec.discrete else self.policy_losses(batch))

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The legal actions of the highest value (to explore: samples of the values' softmax), or the policy's mode."""
        if self.spec.discrete:
            values = self.nets["critic"](obs).mean(1)
            values = values + self.acting.gumbel(*values.shape[1:]) if self.explores else values
            return decode(values, legal), memory
        return self.nets["policy"](obs).tanh(), memory

    def after_update(self) -> None:
        """Copy the target now and then (discrete), or Polyak averaging."""
        if rate := self.step_variant():
            self.move_targets(rate)

    def step_variant(self) -> float:
        """The rate of the target in this update: 1 or 0 (discrete), or the constant of Polyak averaging."""
        if self.spec.discrete:
            return float(self.updates % self.config.target_period == 0)
        return self.config.polyak

    def critic_losses(self, batch: Batch, q: Tensor, soft_max: Tensor, next_q: Tensor) -> dict[str, Tensor]:
        """TD error and conservative term.

        Args:
            q: the team's values of the data's actions [S,2,B].
            soft_max: the agents' log-sum-exps of the team's values, by their weights [S,2,B].
            next_q: the team's values of the next actions [S,B].
        """
        target = batch.rewards.mean(-1) + self.config.discount * (1.0 - batch.done) * next_q
        return {
            "critic": 0.5 * (q - target[:, None]).square().mean(2).sum(1),
            "conservative": self.config.cql_weight * (soft_max - q).mean(2).sum(1),
        }

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Q maximisation by the first critic, each agent among the data's teammates; a penalty on large actions."""
        actions = self.nets["policy"](batch.obs).tanh()
        with frozen(self.nets["critic"]):
            value = self.alone(batch, actions[:, None])[:, 0]
        return {
            "policy": -value.mean((1, 2, 3)),
            "penalty": self.config.penalty * actions.square().mean((1, 3)).sum(1),
        }

    def cloning(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the data under the behaviour."""
        out = self.nets["behaviour"](batch.obs)
        if self.spec.discrete:
            return -masked(out, batch.legal).log_softmax(-1).gather(-1, batch.actions[..., None]).mean((1, 2, 3))
        return -tanh_gaussian(out).log_density(batch.actions, EDGE).mean((1, 2))

    def discrete_values(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `critic_losses`, by double Q-learning."""
        q = self.nets["critic"](batch.obs)  # [S, 2, B, I, A]
        chosen = q.gather(-1, index_of_both(batch.actions))[..., 0]
        values = self.counterfactual(q, chosen, batch.state)
        values = masked(values, None if batch.legal is None else batch.legal[:, None])
        with torch.no_grad():
            selected = decode(self.nets["critic"](batch.next_obs).mean(1), batch.next_legal)
            next_q = self.nets["target_critic"](batch.next_obs).gather(-1, index_of_both(selected))[..., 0]
            next_q = self.nets["target_mixer"](next_q, batch.next_state)[..., 0].amin(1)
        team_q = self.nets["mixer"](chosen, batch.state)[..., 0]
        return team_q, (self.weights(batch, values) * values.logsumexp(-1)).sum(-1), next_q

    def continuous_values(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `critic_losses`, the soft maxima estimated by importance sampling."""
        N, (_, B, I, A), deviation = self.config.cql_actions, batch.actions.shape, self.config.cql_deviation
        with torch.no_grad():
            actions = [2.0 * self.streams.uniform(N, B, I, A) - 1.0]
            density = [torch.full(actions[0].shape[:-1], -A * math.log(2.0), device=self.device)]
            for obs in (batch.obs, batch.next_obs) if self.config.cql_policy else ():
                noise = self.streams.normal(N, B, I, A)
                actions.append((self.nets["policy"](obs).tanh()[:, None] + deviation * noise).clamp(-1.0, 1.0))
                density.append((-0.5 * noise.square() - math.log(deviation * math.sqrt(2.0 * math.pi))).sum(-1))
            next_actions = self.nets["target_policy"](batch.next_obs).tanh()
            next_actions = (next_actions + self.config.target_noise * self.streams.normal(B, I, A)).clamp(-1.0, 1.0)
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0, 0].amin(1)
        values = self.alone(batch, torch.cat(actions, 1)) - torch.cat(density, 1)[:, None]
        q = self.nets["critic"](batch.obs, batch.actions)[..., 0, 0]
        return q, (self.weights(batch, values) * values.logsumexp(2)).sum(-1), next_q

    @torch.no_grad()
    def weights(self, batch: Batch, values: Tensor) -> Tensor:
        """Of the agents [S,2,B,I]: equal, or a softmax of how far from the behaviour each one is.

        That is the divergence of its values' softmax [S,2,B,I,A], or the negative log-density of its policy's action.
        """
        if "behaviour" not in self.nets:
            return torch.full((1,), 1.0 / self.spec.agents, device=self.device)
        out = self.nets["behaviour"](batch.obs)
        if self.spec.discrete:
            own, behaviour = values.softmax(-1) + SMOOTH, masked(out, batch.legal).softmax(-1)[:, None] + SMOOTH
            distance = (own * (own.log() - behaviour.log())).sum(-1)
        else:
            distance = -tanh_gaussian(out).log_density(self.nets["policy"](batch.obs).tanh(), EDGE)[:, None]
        return (self.config.temperature * distance).softmax(-1)

    def counterfactual(self, every: Tensor, chosen: Tensor, state: Tensor) -> Tensor:
        """The team's values of every action of each agent, the others' the data's [S,2,B,I,A], from agents' values."""
        rows = torch.where(self.leaves[:, None], every[..., None], chosen[..., None, None, :]).permute(0, 1, 3, 4, 2, 5)
        mixed = self.nets["mixer"](rows.flatten(1, 3), state)[..., 0]
        return mixed.unflatten(1, rows.shape[1:4]).permute(0, 1, 4, 2, 3)

    def alone(self, batch: Batch, actions: Tensor) -> Tensor:
        """The team's values of N actions of each agent, the others' the data's: [S,N,B,I,A] -> [S,2,N,B,I]."""
        joint = torch.where(self.leaves[..., None], actions[..., None, :, :], batch.actions[:, None, :, None])
        obs = batch.obs[:, None, :, None].expand(*joint.shape[:-1], -1)
        return self.nets["critic"](obs.flatten(1, 3), joint.flatten(1, 3))[..., 0, 0].unflatten(2, joint.shape[1:4])

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team."""
        if not self.spec.discrete:
            return self.nets["critic"](batch.obs, batch.actions).flatten(1).mean(1)
        chosen = self.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions))[..., 0]
        return self.nets["mixer"](chosen, batch.state).flatten(1).mean(1)
