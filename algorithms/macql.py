"""MACQL: conservative Q-learning, independent per agent.

Paper: Kumar et al. 2020 (CQL), as MAC-Flow's baseline (Appendix F.1, H.2). Official code: aviralkumar2907/CQL (single
agent); the multi-agent composition follows og-marl's iql_cql: double Q-learning on local observations, the
conservative term over all actions (`cql_legal_only` restricts it), target networks copied every 200 updates.
MAC-Flow's Appendix F.1 speaks of a mixer and its H.2 of independent learners; `mixer` chooses, independent by default.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms import base
from offmarl.algorithms.base import choice
from offmarl.algorithms.flow import decode, masked
from offmarl.algorithms.mixers import mean_mixer
from offmarl.algorithms.nets import AgentNet, index_of_both, polyak, target_copy


@dataclass(frozen=True)
class Config(base.Config):
    """Settings of MACQL."""

    cql_weight: float = 3.0  # of the conservative term
    cql_legal_only: bool = False  # leave illegal actions out of the conservative term
    target_period: int = 200  # updates between copies of the target network
    mixer: str = choice("none", "mean")  # independent targets, or one for the team


class MACQL(base.Algorithm):
    """Twin Q networks with a penalty on actions outside the data."""

    name = "macql"
    title = "MACQL"
    paper = "Conservative Q-Learning, NeurIPS 2020; MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/aviralkumar2907/CQL"
    actions = frozenset({"discrete"})
    Config = Config

    def build(self) -> None:
        """Twin critics, their targets and a counter of updates."""
        spec, config = self.spec, self.config
        self.nets["critic"] = AgentNet(
            self.init_streams,
            spec.agents,
            spec.obs,
            config.hidden,
            spec.actions,
            layer_norm=True,
            copies=2,
            share_parameters=config.share_parameters,
        )
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        self.nets["target_critic"].register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: base.Batch) -> dict[str, Tensor]:
        """TD error and conservative term."""
        q = self.nets["critic"](batch.obs)  # [S, 2, B, I, A]
        chosen = q.gather(-1, index_of_both(batch.actions))[..., 0]  # [S, 2, B, I]
        legal = batch.legal[:, None] if self.config.cql_legal_only and batch.legal is not None else None
        gap = masked(q, legal).logsumexp(-1) - chosen
        return {
            "critic": self.critic_loss(batch, chosen),
            "conservative": self.config.cql_weight * gap.mean((2, 3)).sum(1),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The legal actions of highest value."""
        return decode(self.nets["critic"](obs).mean(1), legal), memory

    def nfe(self) -> int:
        """One pass of the critic."""
        return 1

    def after_update(self) -> None:
        """Copy the critic every `target_period` updates, without asking the host."""
        updates = self.nets["target_critic"].get_buffer("updates")
        updates += 1
        polyak(
            self.nets["target_critic"],
            self.nets["critic"],
            (updates % self.config.target_period == 0).float(),
        )

    def critic_loss(self, batch: base.Batch, chosen: Tensor) -> Tensor:
        """Double Q-learning: the online network selects among legal actions, the target network values."""
        with torch.no_grad():
            selected = decode(self.nets["critic"](batch.next_obs).mean(1), batch.next_legal)
            next_q = self.nets["target_critic"](batch.next_obs).min(1).values
            next_value = next_q.gather(-1, selected[..., None])[..., 0]  # [S, B, I]
            target = batch.rewards + self.config.discount * (1.0 - batch.done)[..., None] * next_value
        if self.config.mixer == "mean":
            chosen, target = mean_mixer(chosen)[..., None], mean_mixer(target)[..., None]
        return 0.5 * (chosen - target[:, None]).pow(2).mean((2, 3)).sum(1)
