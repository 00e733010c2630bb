"""MACQL: conservative Q-learning.

Paper: Kumar et al. 2020 (CQL), as MAC-Flow's baseline (Appendix F.1, H.2). Official code: aviralkumar2907/CQL (single
agent).

Discrete actions follow og-marl's iql_cql: double Q-learning on local observations, the conservative term over all
actions (`cql_legal_only`: over legal ones), targets copied every 200 updates. Continuous actions: soft actor-critic
with a tanh-Gaussian policy; the conservative term by importance sampling from the uniform distribution and from the
policy at the current and the next observation, without a Lagrange multiplier; targets without entropy, moved by Polyak
averaging.
MAC-Flow's Appendix F.1 mentions a mixer, but H.2 says that discrete CQL learns independently. Hence `mixer: by_space`:
none for discrete actions, the mean for continuous ones.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.gaussian import TanhGaussian, tanh_gaussian
from offmarl.algorithms.parts.mixers import mix
from offmarl.algorithms.parts.nets import frozen, index_of_both, policy_net, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MACQL."""

    cql_weight: float = 3.0  # of the conservative term
    cql_legal_only: bool = False  # discrete: conservative term over legal actions only
    cql_actions: int = size(10, tiny=2)  # continuous: samples from each of the three proposals of the conservative term
    target_period: int = 200  # discrete: updates between copies of the target network
    mixer: str = choice("by_space", "none", "mean")  # none: each agent has its own TD error
    act_entropy: bool = True  # continuous: entropy term with a learnt weight, target entropy -A


class MACQL(Algorithm):
    """Twin critics with a penalty on the values of actions outside the data."""

    name = "macql"
    title = "MACQL"
    paper = "Conservative Q-Learning, NeurIPS 2020; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/aviralkumar2907/CQL"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"cql_weight": (0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)}

    def build(self) -> None:
        """Twin critics and their targets; for continuous actions the policy and the weight of its entropy."""
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
        """TD error and conservative term; for continuous actions also those of the policy."""
        if self.spec.discrete:
            return self.critic_losses(batch, *self.discrete_values(batch))
        policy, next_policy = (tanh_gaussian(self.nets["policy"](obs)) for obs in (batch.obs, batch.next_obs))
        fixed = (TanhGaussian(p.mean.detach(), p.log_std.detach()) for p in (policy, next_policy))
        return self.critic_losses(batch, *self.continuous_values(batch, *fixed)) | self.policy_losses(batch, policy)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The legal actions of the highest value (to explore: samples of the values' softmax), or the policy's mode."""
        if self.spec.discrete:
            values = self.nets["critic"](obs).mean(1)
            values = values + self.acting.gumbel(*values.shape[1:]) if self.explores else values
            return decode(values, legal), memory
        return tanh_gaussian(self.nets["policy"](obs)).mode(), memory

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
            q: values of the data's actions [S,2,B,I].
            soft_max: log-sum-exp of the values of all actions [S,2,B,I].
            next_q: values of the next actions [S,B,I].
        """
        not_done = (1.0 - batch.done)[..., None]
        target = mix(batch.rewards, self.mixer) + self.config.discount * not_done * mix(next_q, self.mixer)
        error = mix(q, self.mixer) - target[:, None]
        return {
            "critic": 0.5 * error.square().mean((2, 3)).sum(1),
            "conservative": self.config.cql_weight * (soft_max - q).mean((2, 3)).sum(1),
        }

    def policy_losses(self, batch: Batch, policy: TanhGaussian) -> dict[str, Tensor]:
        """Those of soft actor-critic, with the critic fixed."""
        actions, log_density = policy.sample(self.streams.normal(*batch.actions.shape[1:]))
        with frozen(self.nets["critic"]):
            value = self.nets["critic"](batch.obs, actions)[..., 0].amin(1)
        if not self.config.act_entropy:
            return {"policy": -value.mean((1, 2))}
        log_weight = self.nets.get_parameter("temperature.0")
        negative_entropy = log_density.mean((1, 2))
        return {
            "policy": log_weight.detach().exp() * negative_entropy - value.mean((1, 2)),
            "temperature": -log_weight * (negative_entropy.detach() - self.spec.actions),
        }

    def discrete_values(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `critic_losses`, by double Q-learning."""
        q = self.nets["critic"](batch.obs)  # [S, 2, B, I, A]
        chosen = q.gather(-1, index_of_both(batch.actions))[..., 0]
        legal = batch.legal[:, None] if self.config.cql_legal_only and batch.legal is not None else None
        with torch.no_grad():
            selected = decode(self.nets["critic"](batch.next_obs).mean(1), batch.next_legal)
            next_q = self.nets["target_critic"](batch.next_obs).amin(1)
        return chosen, masked(q, legal).logsumexp(-1), next_q.gather(-1, selected[..., None])[..., 0]

    def continuous_values(
        self, batch: Batch, policy: TanhGaussian, next_policy: TanhGaussian
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `critic_losses`, the soft maximum estimated by importance sampling."""
        S, B, I, A = batch.actions.shape
        N = self.config.cql_actions
        uniform = 2.0 * self.streams.uniform(N, B, I, A) - 1.0
        proposals = [(uniform, torch.full((S, N, B, I), -A * math.log(2.0), device=self.device))]
        proposals += [p.expand(N).sample(self.streams.normal(N, B, I, A)) for p in (policy, next_policy)]
        actions, log_density = (torch.cat(parts, 1) for parts in zip(*proposals))
        # One pass for the data's actions and the 3 N samples, as rows of the batch.
        actions = torch.cat([batch.actions[:, None], actions], 1).flatten(1, 2)
        q = self.nets["critic"](batch.obs.repeat(1, 3 * N + 1, 1, 1), actions)[..., 0].unflatten(2, (-1, B))
        with torch.no_grad():
            next_actions, _ = next_policy.sample(self.streams.normal(B, I, A))
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
        return q[:, :, 0], (q[:, :, 1:] - log_density[:, None]).logsumexp(2), next_q
