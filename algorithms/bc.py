"""Behavioural cloning.

Paper: MAC-Flow (ICLR 2026), Appendix F.1. No official code for this baseline. Discrete actions: cross-entropy on logits
without an illegal-action mask, as og-marl's discrete BC, but with an MLP instead of a recurrent network and with the
most likely legal action at evaluation instead of a sample (`act_by: sample` restores that, always with fresh draws).
Continuous actions: a Gaussian of unit variance, so half the squared error, and its mean at evaluation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.flow import to_actions
from offmarl.algorithms.parts.nets import policy_net


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of BC."""

    act_by: str = choice("argmax", "sample")  # the most likely legal action, or a draw from the softmax


class BC(Algorithm):
    """Independent categorical or Gaussian policies on local observations."""

    name = "bc"
    title = "BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/instadeepai/og-marl"
    actions = frozenset({"discrete", "continuous"})
    Config = Config

    def build(self) -> None:
        """One policy network for all agents."""
        self.nets["policy"] = policy_net(self.init_streams, self.spec, self.config, self.spec.actions)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood of the data's actions, up to a constant."""
        logits = self.nets["policy"](batch.obs)
        if not self.spec.discrete:
            return {"policy": 0.5 * (logits - batch.actions).pow(2).sum(-1).mean((1, 2))}
        error = F.cross_entropy(logits.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return {"policy": error.view(len(self.seeds), -1).mean(1)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The most likely legal actions, or a draw (of discrete ones)."""
        logits = self.nets["policy"](obs)
        if self.spec.discrete and (self.explores or self.config.act_by == "sample"):
            logits = logits + self.acting.gumbel(*logits.shape[1:])
        return to_actions(self.spec, logits, legal), memory

    def nfe(self) -> int:
        """One pass of the policy."""
        return 1
