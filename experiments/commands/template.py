"""TITLE: what it does, in a sentence.

Paper: its title (venue, year), and where in it. Official code: its address. Every difference from either, and why.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.flow import to_actions
from offmarl.algorithms.parts.nets import policy_net


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of TITLE; defaults are the paper's. Sizes that tests may shrink: size(paper, tiny)."""

    weight: float = 1.0  # of the only loss term there is


class Template(Algorithm):
    """What it consists of. Shapes: S seeds, B batch, E episodes, I agents, O observation, A actions."""

    name = "template"  # as the command line calls it
    title = "TITLE"  # as tables print it
    paper = "Title, venue year"
    source_code = "https://"
    actions = frozenset({"discrete", "continuous"})  # the spaces that it plays in
    execution = "decentralised"  # or "centralised": acting needs other agents' observations
    Config = Config

    def build(self) -> None:
        """Networks: every tensor carries the seeds as its first axis; the house's networks do so by themselves."""
        self.nets["policy"] = policy_net(self.init_streams, self.spec, self.config, self.spec.actions)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss terms [S], one number a seed; one step of Adam descends their sum. Noise: self.streams.normal(...)."""
        out = self.nets["policy"](batch.obs)  # [S, B, I, A]
        if not self.spec.discrete:
            return {"policy": self.config.weight * (out - batch.actions).pow(2).flatten(1).mean(1)}
        error = F.cross_entropy(out.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return {"policy": self.config.weight * error.view(len(self.seeds), -1).mean(1)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """Joint actions of every episode: obs [S,E,I,O], legal [S,E,I,A] -> [S,E,I] or [S,E,I,A] in [-1, 1]."""
        return to_actions(self.spec, self.nets["policy"](obs), legal), memory

    def nfe(self) -> int:
        """Network evaluations, one after the other, that an agent needs for one decision."""
        return 1
