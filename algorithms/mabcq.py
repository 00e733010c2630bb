"""MABCQ: Q-learning over the actions that are likely under a cloned policy.

Paper: Fujimoto et al. 2019 (BCQ, discrete), as MAC-Flow's baseline (Appendix F.1). Official code: sfujim/BCQ (single
agent); the multi-agent version follows og-marl's iql_bcq and qmix_bcq. Differences:

* the threshold is on the ratio to the most likely legal action, as in both codes; MAC-Flow's text could also mean the
  probability itself;
* agents take the admissible action of the highest value, as in BCQ; og-marl evaluates with all legal actions
  (`released`), which may explain the low published numbers;
* squared error without a penalty on logits, as in og-marl; BCQ has the Huber loss and a small penalty;
* the target takes the minimum of the twins, which the papers leave open.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.mixers import Monotonic, mix
from offmarl.algorithms.parts.nets import index_of_both, policy_net, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MABCQ."""

    threshold: float = 0.4  # of an admissible action's probability over the largest one
    target_period: int = 200  # updates between copies of the target networks
    mixer: str = choice("mean", "monotonic", "none")  # monotonic: QMIX; none: each agent has its own TD error
    eval_mask: bool = True  # act by admissible actions only


class MABCQ(Algorithm):
    """Twin critics, and a cloned policy that restricts their maximum."""

    name = "mabcq"
    title = "MABCQ"
    paper = "Batch-Constrained Q-learning, ICML 2019; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/sfujim/BCQ"
    actions = frozenset({"discrete"})
    Config = Config
    tunes = {"threshold": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)}
    variants = {"released": {"mixer": "monotonic", "eval_mask": False, "discount": 0.99, "adam_epsilon": 1e-8}}

    def build(self) -> None:
        """The cloned policy, twin critics, the mixer and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        if config.mixer == "monotonic":
            self.nets["mixer"] = Monotonic(streams, spec.agents, spec.state)
            self.nets["target_mixer"] = target_copy(self.nets["mixer"])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, and cloning."""
        return {"critic": self.critic_loss(batch), "policy": self.policy_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The admissible actions of the highest value."""
        return self.best(obs, self.admissible(obs, legal) if self.config.eval_mask else legal), memory

    def nfe(self) -> int:
        """One pass of the critic, and one of the policy for the admissible actions."""
        return 1 + self.config.eval_mask

    def after_update(self) -> None:
        """Copy the targets every `target_period` updates."""
        if self.step_variant():
            self.move_targets(1.0)

    def step_variant(self) -> bool:
        """Whether this update copies the targets."""
        return self.updates % self.config.target_period == 0

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of double Q-learning over admissible actions."""
        q = self.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions))[..., 0]  # [S, 2, B, I]
        with torch.no_grad():
            selected = self.best(batch.next_obs, self.admissible(batch.next_obs, batch.next_legal))
            next_q = self.nets["target_critic"](batch.next_obs).gather(-1, index_of_both(selected))[..., 0]
            next_value = self.mix("target_mixer", next_q, batch.next_state).amin(1)
            reward = batch.rewards if self.config.mixer == "none" else mix(batch.rewards, "mean")
            target = reward + self.config.discount * (1.0 - batch.done)[..., None] * next_value
        error = self.mix("mixer", q, batch.state) - target[:, None]
        return 0.5 * error.square().mean((2, 3)).sum(1)

    def policy_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the data's actions."""
        logits = self.nets["policy"](batch.obs)
        error = F.cross_entropy(logits.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return error.view(len(self.seeds), -1).mean(1)

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor | None:
        """As of any critic, but mixed where TD errors are."""
        if self.config.mixer != "monotonic":
            return super().mean_value(batch)
        q = self.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions))[..., 0]
        return self.mix("mixer", q, batch.state).flatten(1).mean(1)

    def admissible(self, obs: Tensor, legal: Tensor | None) -> Tensor:
        """Which legal actions the cloned policy finds likely: [S,B,I,A] bool."""
        probability = masked(self.nets["policy"](obs), legal).softmax(-1)
        return probability >= self.config.threshold * probability.amax(-1, keepdim=True)

    def best(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """The actions of the highest value within the mask, by the mean of the twins: [S,B,I]."""
        return decode(self.nets["critic"](obs).mean(1), mask)

    def mix(self, net: str, q: Tensor, state: Tensor) -> Tensor:
        """The values of a TD error, of the team or of each agent: [S,2,B,I] -> [S,2,B,1 or I]."""
        return self.nets[net](q, state) if self.config.mixer == "monotonic" else mix(q, self.config.mixer)
