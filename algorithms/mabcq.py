"""MABCQ: Q-learning over the actions that a cloned policy finds likely enough.

Paper: Fujimoto et al. 2019 (BCQ, discrete), as MAC-Flow's baseline (Appendix F.1). Official code: sfujim/BCQ (single
agent); the multi-agent composition follows og-marl's iql_bcq and qmix_bcq. Ours differs in this:

* the threshold is on the ratio to the most likely legal action, as in both codes; MAC-Flow's wording could mean the
  probability itself;
* agents act by the highest value among legal and admissible actions, as in BCQ; og-marl drops the second condition
  when it evaluates (`released`), which may be why the published numbers are so low;
* squared error and no penalty on logits, as in og-marl; BCQ has Huber's and a small one;
* the target takes the lesser of the twins, which the papers leave open.
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
from offmarl.algorithms.parts.nets import index_of_both, policy_net, polyak, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MABCQ."""

    threshold: float = 0.4  # least probability of an admissible action, as a share of the likeliest one's
    target_period: int = 200  # updates between copies of the target networks
    mixer: str = choice("mean", "monotonic", "none")  # of the critics; monotonic is QMIX
    eval_mask: bool = True  # only admissible actions at evaluation too


class MABCQ(Algorithm):
    """Twin Q networks and a cloned policy that says which of their maxima count."""

    name = "mabcq"
    title = "MABCQ"
    paper = "Batch-Constrained Q-learning, ICML 2019; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/sfujim/BCQ"
    actions = frozenset({"discrete"})
    Config = Config
    variants = {"released": {"mixer": "monotonic", "eval_mask": False}}

    def build(self) -> None:
        """Cloned policy, twin critics, their targets and, where wanted, mixers."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        if config.mixer == "monotonic":
            self.nets["mixer"] = Monotonic(streams, spec.agents, spec.state)
            self.nets["target_mixer"] = target_copy(self.nets["mixer"])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error and cross-entropy of the cloned policy."""
        logits = self.nets["policy"](batch.obs)
        error = F.cross_entropy(logits.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return {
            "critic": self.critic_loss(batch),
            "policy": error.view(len(self.seeds), -1).mean(1),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The legal and admissible actions of highest value."""
        return self.best(obs, legal if not self.config.eval_mask else self.admissible(obs, legal)), memory

    def nfe(self) -> int:
        """One pass of the critic, after one of the policy."""
        return 1 + self.config.eval_mask

    def after_update(self) -> None:
        """Copy critic and mixer every `target_period` updates."""
        for name in ("critic", "mixer"):
            if name in self.nets and self.step_variant():
                polyak(self.nets[f"target_{name}"], self.nets[name], 1.0)

    def step_variant(self) -> bool:
        """Whether the targets are copied in this update."""
        return self.updates % self.config.target_period == 0

    def critic_loss(self, batch: Batch) -> Tensor:
        """Double Q-learning within the admissible actions."""
        q = self.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions))[..., 0]  # [S, 2, B, I]
        with torch.no_grad():
            selected = self.best(batch.next_obs, self.admissible(batch.next_obs, batch.next_legal))
            next_q = self.nets["target_critic"](batch.next_obs).gather(-1, index_of_both(selected))[..., 0]
            following = self.mix("target_mixer", next_q, batch.next_state).amin(1)
            reward = batch.rewards if self.config.mixer == "none" else mix(batch.rewards, "mean")
            target = reward + self.config.discount * (1.0 - batch.done)[..., None] * following
        error = self.mix("mixer", q, batch.state) - target[:, None]
        return 0.5 * error.square().mean((2, 3)).sum(1)

    def admissible(self, obs: Tensor, legal: Tensor | None) -> Tensor:
        """Which legal actions the cloned policy finds likely enough: [S,B,I,A]."""
        likely = masked(self.nets["policy"](obs), legal).softmax(-1)
        return likely >= self.config.threshold * likely.amax(-1, keepdim=True)

    def best(self, obs: Tensor, among: Tensor | None) -> Tensor:
        """The actions of highest value by the mean of the twins: [S,B,I]."""
        return decode(self.nets["critic"](obs).mean(1), among)

    def mix(self, net: str, q: Tensor, state: Tensor) -> Tensor:
        """The team's value, or every agent's: [S,2,B,I] -> [S,2,B,1 or I]."""
        return self.nets[net](q, state) if self.config.mixer == "monotonic" else mix(q, self.config.mixer)
