"""Recurrent behavioural cloning.

Paper: Formanek et al. 2023 (OG-MARL, arXiv 2302.00521; baseline BC). Official code: instadeepai/og-marl (Apache-2.0),
`tf2_systems/offline/discrete_bc.py`, whose sizes and rates are the defaults; `algorithms/parts/recurrent.py` says how
windows differ. Discrete actions: cross-entropy without a mask, played as in `bc` by samples of the softmax over legal
actions (`act_by: argmax`: by the most likely). Continuous actions are ours: a Gaussian of unit variance, played by its
mean, as in `bc`; the code has no recurrent cloning for them alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import OWN
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import choice
from offmarl.algorithms.parts.flow import to_actions
from offmarl.algorithms.parts.recurrent import AgentGRU, Recurrent, Steps, chosen, mean_over
from offmarl.algorithms.parts.recurrent import Config as RecurrentConfig


@dataclass(frozen=True)
class Config(RecurrentConfig):
    """Settings of recurrent BC."""

    act_by: str = choice("sample", "argmax")  # a sample from the softmax over legal actions, or the most likely


class BCRNN(Recurrent):
    """Independent categorical or Gaussian policies on the agents' own past."""

    name = "bc_rnn"
    title = "BC-RNN"
    paper = "Off-the-Grid MARL: Datasets with Baselines for Offline Multi-Agent RL, AAMAS 2023 (baseline)"
    source_code = "https://github.com/instadeepai/og-marl"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"act_by": ("sample", "argmax"), "burn_in": (0, 5, 10, 20)}

    def build(self) -> None:
        """The policy."""
        self.nets["policy"] = AgentGRU(self.init_streams, self.spec, self.config, self.spec.actions)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cloning."""
        return {"policy": self.policy_loss(self.windows.at(batch.number))}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A sample of the softmax over the legal actions, or the most likely one; the mean of continuous actions."""
        logits, memory = self.step("policy", obs, memory)
        if self.spec.discrete and (self.explores or (self.play == OWN and self.config.act_by == "sample")):
            logits = logits + self.acting.gumbel(*logits.shape[1:])
        return to_actions(self.spec, logits, legal), memory

    def acting_rule(self) -> str:
        """A sample or the most likely of discrete actions."""
        return f"act_by {self.config.act_by}" if self.spec.discrete else ""

    def policy_loss(self, steps: Steps) -> Tensor:
        """Negative log-likelihood of the data's actions, up to a constant."""
        out = self.along("policy", steps)
        if not self.spec.discrete:
            return mean_over(0.5 * (out - steps.actions).square().sum(-1), steps.taken)
        return mean_over(-chosen(out.log_softmax(-1), steps.actions), steps.taken)
