"""MACQL: conservative Q-learning.

Paper: Kumar et al. 2020 (CQL), as MAC-Flow's baseline (Appendix F.1, H.2). Official code: aviralkumar2907/CQL (single
agent).

Discrete actions: double Q-learning on local observations, the conservative term over all actions (`cql_legal_only`
restricts it), target networks copied every 200 updates; the composition follows og-marl's iql_cql. Continuous actions:
a tanh-Gaussian policy, conservative term by importance sampling from the uniform distribution and from the policy here
and at the next observation, without Lagrange multiplier, targets without entropy and moved by Polyak averaging.
MAC-Flow's Appendix F.1 speaks of a mixer; its H.2 says that discrete CQL learns independently. `mixer: by_space` is
that: none for discrete actions, the mean for continuous ones.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.gaussian import TanhGaussian, tanh_gaussian
from offmarl.algorithms.parts.mixers import mix
from offmarl.algorithms.parts.nets import frozen, index_of_both, policy_net, polyak, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MACQL."""

    cql_weight: float = 3.0  # of the conservative term
    cql_legal_only: bool = False  # discrete: leave illegal actions out of the conservative term
    cql_actions: int = 10  # continuous: actions of each of the three proposals in the conservative term
    target_period: int = 200  # discrete: updates between copies of the target network
    mixer: str = choice("by_space", "none", "mean")  # independent targets, or one for the team
    act_entropy: bool = True  # continuous: learn a weight of the policy's entropy, towards -A; False: none


class MACQL(Algorithm):
    """Twin Q networks with a penalty on actions outside the data."""

    name = "macql"
    title = "MACQL"
    paper = "Conservative Q-Learning, NeurIPS 2020; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/aviralkumar2907/CQL"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    variants = {"quick": {"cql_actions": 1}}

    def build(self) -> None:
        """Twin critics and their targets; for continuous actions a policy and the weight of its entropy."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.mixer = config.mixer
        if config.mixer == "by_space":
            self.mixer = "none" if spec.discrete else "mean"
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        if not spec.discrete:
            self.nets["policy"] = policy_net(streams, spec, config, 2 * spec.actions)
            if config.act_entropy:
                self.nets["temperature"] = nn.ParameterList([torch.zeros(len(self.seeds))])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error and conservative term; for continuous actions the policy's."""
        if self.spec.discrete:
            return self.critic_losses(batch, *self.discrete_values(batch))
        here, there = (tanh_gaussian(self.nets["policy"](obs)) for obs in (batch.obs, batch.next_obs))
        values = self.continuous_values(batch, *(TanhGaussian(*(p.detach() for p in each)) for each in (here, there)))
        return self.critic_losses(batch, *values) | self.policy_losses(batch, here)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The legal actions of highest value (to explore, a draw from the values' softmax), or the policy's mode."""
        if self.spec.discrete:
            values = self.nets["critic"](obs).mean(1)
            values = values + self.acting.gumbel(*values.shape[1:]) if self.explores else values
            return decode(values, legal), memory
        return tanh_gaussian(self.nets["policy"](obs)).mode(), memory

    def nfe(self) -> int:
        """One pass of the critic or of the policy."""
        return 1

    def after_update(self) -> None:
        """Move the critic's target."""
        if rate := self.step_variant():
            polyak(self.nets["target_critic"], self.nets["critic"], rate)

    def step_variant(self) -> float:
        """How far the target moves in this update: all the way now and then, or always a little."""
        if self.spec.discrete:
            return float(self.updates % self.config.target_period == 0)
        return self.config.polyak

    def critic_losses(self, batch: Batch, chosen: Tensor, soft: Tensor, following: Tensor) -> dict[str, Tensor]:
        """From values of the data's actions [S,2,B,I], their soft maximum [S,2,B,I] and the next values [S,B,I]."""
        live = (1.0 - batch.done)[..., None]
        target = mix(batch.rewards, self.mixer) + self.config.discount * live * mix(following, self.mixer)
        error = mix(chosen, self.mixer) - target[:, None]
        return {
            "critic": 0.5 * error.square().mean((2, 3)).sum(1),
            "conservative": self.config.cql_weight * (soft - chosen).mean((2, 3)).sum(1),
        }

    def discrete_values(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Double Q-learning: the online network selects among legal actions, the target network values."""
        q = self.nets["critic"](batch.obs)  # [S, 2, B, I, A]
        chosen = q.gather(-1, index_of_both(batch.actions))[..., 0]
        legal = batch.legal[:, None] if self.config.cql_legal_only and batch.legal is not None else None
        with torch.no_grad():
            selected = decode(self.nets["critic"](batch.next_obs).mean(1), batch.next_legal)
            next_q = self.nets["target_critic"](batch.next_obs).amin(1)
        return chosen, masked(q, legal).logsumexp(-1), next_q.gather(-1, selected[..., None])[..., 0]

    def continuous_values(self, batch: Batch, here: TanhGaussian, there: TanhGaussian) -> tuple[Tensor, Tensor, Tensor]:
        """The same with an integral for the sum, estimated from three proposals. The policy is held fixed."""
        S, B, I, A = batch.actions.shape
        N = self.config.cql_actions
        uniform = 2.0 * self.streams.uniform(N, B, I, A) - 1.0
        proposals = [(uniform, torch.full((S, N, B, I), -A * math.log(2.0), device=self.device))]
        proposals += [p.expand(N).sample(self.streams.normal(N, B, I, A)) for p in (here, there)]
        actions, log_density = (torch.cat(parts, 1) for parts in zip(*proposals))
        # One pass for the data's actions and the 3 N proposed ones: as rows of the batch.
        actions = torch.cat([batch.actions[:, None], actions], 1).flatten(1, 2)
        q = self.nets["critic"](batch.obs.repeat(1, 3 * N + 1, 1, 1), actions)[..., 0].unflatten(2, (-1, B))
        with torch.no_grad():
            next_actions, _ = there.sample(self.streams.normal(B, I, A))
            following = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
        return q[:, :, 0], (q[:, :, 1:] - log_density[:, None]).logsumexp(2), following

    def policy_losses(self, batch: Batch, policy: TanhGaussian) -> dict[str, Tensor]:
        """Soft actor-critic's, the critic held fixed."""
        actions, log_density = policy.sample(self.streams.normal(*batch.actions.shape[1:]))
        with frozen(self.nets["critic"]):
            value = self.nets["critic"](batch.obs, actions)[..., 0].amin(1)
        if not self.config.act_entropy:
            return {"policy": -value.mean((1, 2))}
        log_weight = self.nets.get_parameter("temperature.0")
        surprise = log_density.mean((1, 2))
        return {
            "policy": log_weight.detach().exp() * surprise - value.mean((1, 2)),
            "temperature": -log_weight * (surprise.detach() - self.spec.actions),
        }
