"""OMIGA: in-sample learning with implicit global-to-local value regularisation.

Paper: Wang et al. 2023 (OMIGA), Eq. 9-15; hyperparameters of MAC-Flow's Appendix F.1. Official code:
ZhengYinan-AIR/OMIGA. MAC-Flow adds twin critics, with the minimum in weights and targets, and a mixer of width 128. The
`released` variant follows the official code: one critic, mixer width 64, networks of 2 x 256, learning rate 5e-4,
discount 0.99, batch 128, and weights bounded by e^10 only. Here all three losses share one gradient step; the code
takes three steps in turn. The policy clones the inverse tanh of actions, moved into [-edge, edge]: the code's edge of
1 - 1e-7 (`released`) makes targets of 8.3 of actions at the bounds, which are many in our recordings; 0.99 makes 2.6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, size
from offmarl.algorithms.parts.gaussian import tanh_gaussian
from offmarl.algorithms.parts.mixers import StateWeights
from offmarl.algorithms.parts.nets import AgentNet, policy_net, target_copy, twin_critic

BOUND = 10.0  # of exponents


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of OMIGA."""

    alpha: float = 10.0  # strength of the regularisation
    max_weight: float = 100.0  # of one sample in the policy's loss
    edge: float = 0.99  # largest action of the data in the policy's loss
    mixer_width: int = size(128, tiny=16)
    twin: bool = True  # the minimum of the twins; False: the first critic only
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings. ValueError naming the setting."""
        super().__post_init__()
        if not 0.0 < self.edge < 1.0:
            raise ValueError(f"edge={self.edge}: write a number between 0 and 1, both excluded")


class OMIGA(Algorithm):
    """Policies, critics and values of each agent, with a linear mixer of the state."""

    name = "omiga"
    title = "OMIGA"
    paper = "Offline Multi-Agent RL with Implicit Global-to-Local Value Regularization, NeurIPS 2023"
    source_code = "https://github.com/ZhengYinan-AIR/OMIGA"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"alpha": (0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)}
    variants = {
        "released": {
            "hidden": (256, 256),
            "learning_rate": 5e-4,
            "adam_epsilon": 1e-8,
            "batch_size": 128,
            "discount": 0.99,
            "mixer_width": 64,
            "max_weight": 22026.0,
            "edge": 1.0 - 1e-7,
            "twin": False,
        }
    }

    def build(self) -> None:
        """The policy, the critic, the value, the mixer, and targets of the last three."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, 2 * spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["value"] = AgentNet(streams, spec, config, spec.obs, 1, layer_norm=True)
        self.nets["mixer"] = StateWeights(streams, spec.agents, spec.state, (config.mixer_width,))
        for name in ("critic", "value", "mixer"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, regularised value and weighted cloning."""
        with torch.no_grad():
            weights, _ = self.nets["target_mixer"](batch.state)  # [S, B, I]
            q = self.minimum(self.nets["target_critic"](batch.obs, batch.actions)[..., 0])
        value = self.nets["value"](batch.obs)[..., 0]
        residual = (weights * (q - value) / self.config.alpha).clamp(-BOUND, BOUND)
        return {
            "critic": self.critic_loss(batch),
            "value": self.value_loss(residual, weights * value / self.config.alpha),
            "policy": self.policy_loss(batch, residual.detach()),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The mode of the policy."""
        return tanh_gaussian(self.nets["policy"](obs)).mode(), memory

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of the mixed critics, with the mixed next value in the target."""
        with torch.no_grad():
            weights, bias = self.nets["target_mixer"](batch.next_state)
            next_value = (weights * self.nets["target_value"](batch.next_obs)[..., 0]).sum(-1) + bias
            target = batch.rewards.mean(-1) + self.config.discount * (1.0 - batch.done) * next_value
        weights, bias = self.nets["mixer"](batch.state)
        q = self.nets["critic"](batch.obs, batch.actions)[..., 0]  # [S, 2, B, I]
        error = ((weights[:, None] * q).sum(-1) + bias[:, None] - target[:, None]).square().mean(2)
        return error.sum(1) if self.config.twin else error[:, 0]

    @staticmethod
    def value_loss(residual: Tensor, value: Tensor) -> Tensor:
        """E[exp(z) + w V / alpha], minimised by the soft value; scaled by exp(-max z) against overflow."""
        largest = residual.detach().flatten(1).amax(1).clamp(min=-1.0)[:, None, None]
        return (torch.exp(residual - largest) + torch.exp(-largest) * value).mean((1, 2))

    def policy_loss(self, batch: Batch, residual: Tensor) -> Tensor:
        """Cloning, weighted by each agent's own residual."""
        policy = tanh_gaussian(self.nets["policy"](batch.obs))
        weight = residual.exp().clamp(max=self.config.max_weight)
        return -(weight * policy.log_density(batch.actions, self.config.edge)).mean((1, 2))

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team: the agents' values by their weights, and the bias."""
        weights, bias = self.nets["mixer"](batch.state)
        values = self.nets["critic"](batch.obs, batch.actions)[..., 0].mean(1)
        return ((weights * values).sum(-1) + bias).mean(1)

    def minimum(self, q: Tensor) -> Tensor:
        """The minimum of the twins [S,2,B,I] -> [S,B,I], or the first critic."""
        return q.amin(1) if self.config.twin else q[:, 0]
