"""MATD3BC: deterministic policies that maximise Q and stay close to the data.

Paper: Fujimoto & Gu 2021 (TD3+BC), as MAC-Flow's baseline (Appendix F.1). Official code: sfujim/TD3_BC (single agent),
which the default follows: clipped double Q-learning, target policy smoothing, a policy step in every second update, and
a Q term divided by its mean magnitude, without gradient. The mean mixer makes it multi-agent. Observations are not
standardised, as in all of MAC-Flow's agents. `released` is td3bc.py of MAC-Flow's authors (DongsuLeeTech/scout): no
mixer, no target policy, no smoothing, no delay, the lesser twin in the policy's loss, a magnitude with gradient, and a
policy with layer normalisation and without tanh, whose actions are cut to the bounds only when it acts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.mixers import mix
from offmarl.algorithms.parts.nets import AgentNet, frozen, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MATD3BC."""

    alpha: float = 2.5  # weight of the normalised Q term
    target_noise: float = 0.2  # standard deviation of the smoothing noise
    target_clip: float = 0.5  # of the smoothing noise
    policy_delay: int = 2  # updates of the critic per update of the policy and the targets
    target_policy: bool = True  # False: TD targets use the policy itself
    mixer: str = choice("mean", "none")  # none: each agent has its own TD error
    detach_magnitude: bool = True  # of Q, in the weight of the Q term
    policy_critic: str = choice("first", "lesser")  # of the twins, in the policy's loss
    policy_norm: bool = False  # layer normalisation in the policy; critics always have it
    squash: bool = True  # actions by tanh; False: cut to the bounds when acting


class MATD3BC(Algorithm):
    """Deterministic policies on local observations, twin critics with the mean mixer."""

    name = "matd3bc"
    title = "MATD3BC"
    paper = "A Minimalist Approach to Offline RL, NeurIPS 2021; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/sfujim/TD3_BC"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"alpha": (0.1, 0.3, 1.0, 2.0, 2.5, 3.0, 4.0, 8.0)}
    variants = {
        "released": {
            "mixer": "none",
            "target_policy": False,
            "target_noise": 0.0,
            "policy_delay": 1,
            "detach_magnitude": False,
            "policy_critic": "lesser",
            "policy_norm": True,
            "squash": False,
            "discount": 0.99,
            "adam_epsilon": 1e-8,
        }
    }

    def build(self) -> None:
        """The policy, twin critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = AgentNet(streams, spec, config, spec.obs, spec.actions, config.policy_norm)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        if config.target_policy:
            self.nets["target_policy"] = target_copy(self.nets["policy"])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error; in every `policy_delay`-th update also those of the policy."""
        losses = {"critic": self.critic_loss(batch)}
        return losses | self.policy_losses(batch) if self.step_variant() else losses

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The output of the policy."""
        return self.decide("policy", obs).clamp(-1.0, 1.0), memory

    def after_update(self) -> None:
        """Polyak averaging, when the policy is updated."""
        if self.step_variant():
            self.move_targets(self.config.polyak)

    def step_variant(self) -> bool:
        """Whether this update, counted from one, updates the policy."""
        return (self.updates - 1) % self.config.policy_delay == 0

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of the mixed value, with the minimum of the twins in the target."""
        with torch.no_grad():
            policy = "target_policy" if self.config.target_policy else "policy"
            noise = self.config.target_noise * self.streams.normal(*batch.actions.shape[1:])
            noise = noise.clamp(-self.config.target_clip, self.config.target_clip)
            next_actions = self.decide(policy, batch.next_obs) + noise
            next_actions = next_actions.clamp(-1.0, 1.0) if self.config.squash else next_actions
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
            not_done = (1.0 - batch.done)[..., None]
            target = self.mix(batch.rewards) + self.config.discount * not_done * self.mix(next_q)
        q = self.nets["critic"](batch.obs, batch.actions)[..., 0]  # [S, 2, B, I]
        return (self.mix(q) - target[:, None]).square().mean((2, 3)).sum(1)

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared distance to the data, and Q maximisation by one of the twins, divided by its mean magnitude."""
        actions = self.decide("policy", batch.obs)
        with frozen(self.nets["critic"]):
            twins = self.nets["critic"](batch.obs, actions)[..., 0]
            value = self.mix(twins[:, 0] if self.config.policy_critic == "first" else twins.amin(1))
        magnitude = value.abs().mean((1, 2))
        magnitude = magnitude.detach() if self.config.detach_magnitude else magnitude
        return {
            "cloning": (actions - batch.actions).square().mean((1, 2, 3)),
            "q": -self.config.alpha * value.mean((1, 2)) / magnitude,
        }

    def decide(self, policy: str, obs: Tensor) -> Tensor:
        """The actions of a policy [S,B,I,A]."""
        out = self.nets[policy](obs)
        return out.tanh() if self.config.squash else out

    def mix(self, values: Tensor) -> Tensor:
        """The values of a TD error: the team's mean [..., I] -> [..., 1], or every agent's own."""
        return mix(values, self.config.mixer)
