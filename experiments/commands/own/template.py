"""TITLE: what it does, in one sentence.

Paper: title (venue, year), and the section or equation. Official code: address. Differences from both, and why.
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
    """Settings of TITLE; defaults are the paper's. Declare sizes that tests may shrink as size(paper, tiny)."""

    weight: float = 1.0  # of the loss


class Template(Algorithm):
    """Its networks and losses. Shapes: S seeds, B batch, E episodes, I agents, O observation, A actions."""

    name = "template"  # on the command line
    title = "TITLE"  # in tables
    paper = "Title, venue year"
    source_code = "https://"
    actions = frozenset({"discrete", "continuous"})  # or one of them
    execution = "decentralised"  # or "centralised": acting needs other agents' observations
    Config = Config
    tunes = {"weight": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)}  # eight combinations for `offmarl tune`

    def build(self) -> None:
        """The networks. The first axis of every tensor is the seeds; the networks of `parts` take care of it."""
        self.nets["policy"] = policy_net(self.init_streams, self.spec, self.config, self.spec.actions)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss terms [S]; one step of Adam descends their sum. Draw noise by self.streams.normal(...)."""
        return {"policy": self.policy_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """Joint actions: obs [S,E,I,O], legal [S,E,I,A] or None -> [S,E,I], or continuous [S,E,I,A] in [-1, 1]."""
        return to_actions(self.spec, self.nets["policy"](obs), legal), memory

    def nfe(self) -> int:
        """Network evaluations, one after the other, that an agent needs for one decision."""
        return 1

    def policy_loss(self, batch: Batch) -> Tensor:
        """The error of the data's actions [S]: squared, or cross-entropy."""
        out = self.nets["policy"](batch.obs)  # [S, B, I, A]
        if not self.spec.discrete:
            return self.config.weight * (out - batch.actions).pow(2).flatten(1).mean(1)
        error = F.cross_entropy(out.flatten(0, 2), batch.actions.flatten(), reduction="none")
        return self.config.weight * error.view(len(self.seeds), -1).mean(1)
