"""Behavioural cloning.

Paper: MAC-Flow (ICLR 2026), Appendix F.1. Official code: none for this baseline. Discrete actions: cross-entropy,
without a mask, as in og-marl's discrete BC, but with an MLP instead of a recurrent network; it plays samples of its
softmax over the legal actions, as there (`act_by: argmax` plays the most likely one, as any play without noise does).
Continuous actions: a Gaussian of unit variance, so half the squared error, evaluated by its mean.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import OWN, Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.flow import to_actions
from offmarl.algorithms.parts.nets import policy_net


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of BC."""

    act_by: str = choice("sample", "argmax")  # a sample from the softmax over legal actions, or the most likely


class BC(Algorithm):
    """Independent categorical or Gaussian policies on local observations."""

    name = "bc"
    title = "BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/instadeepai/og-marl"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"act_by": ("sample", "argmax"), "max_grad_norm": (0.0, 0.5, 1.0, 5.0)}

    def build(self) -> None:
        """The policy."""
        self.nets["policy"] = policy_net(self.init_streams, self.spec, self.config, self.spec.actions)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cloning."""
        return {"policy": self.policy_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """A sample of the softmax over the legal actions, or the most likely one; the mean of continuous actions."""
        logits = self.nets["policy"](obs)
        if self.spec.discrete and (self.explores or (self.play == OWN and self.config.act_by == "sample")):
            logits = logits + self.acting.gumbel(*logits.shape[1:])
        return to_actions(self.spec, logits, legal), memory

    def acting_rule(self) -> str:
        """A sample or the most likely of discrete actions."""
        return f"act_by {self.config.act_by}" if self.spec.discrete else ""

    def policy_loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the data's actions, up to a constant."""
        out = self.nets["policy"](batch.obs)
        if not self.spec.discrete:
            return 0.5 * (out - batch.actions).pow(2).sum(-1).mean((1, 2))
        error = F.cross_entropy(out.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return error.view(len(self.seeds), -1).mean(1)
