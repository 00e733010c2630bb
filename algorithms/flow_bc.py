"""Flow BC: behavioural cloning with individual flows.

Paper: MAC-Flow (ICLR 2026), Appendix F.1. Official code: agents/flowbc.py of DongsuLeeTech/mac-flow, which acts with a
distilled policy. Ours follows the paper's text: the full Euler integration acts, without distillation and without Q. No
code is released for discrete actions: one-hot targets and a masked argmax, as in MAC-Flow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, size
from offmarl.algorithms.parts.flow import Field, euler, flow_matching_loss, to_actions, to_points
from offmarl.algorithms.parts.nets import AgentNet, given


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of Flow BC."""

    flow_steps: int = size(10, tiny=3)  # Euler steps
    layer_norm: bool = True  # in the flow
    action_scale: float = 1.0  # of actions as points of the flow; its noise has unit variance


class FlowBC(Algorithm):
    """Individual vector fields on local observations."""

    name = "flow_bc"
    title = "Flow BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"action_scale": (1.0, 2.0, 4.0, 8.0), "layer_norm": (True, False)}

    def build(self) -> None:
        """The vector field: of observation, noisy action and time."""
        spec, config = self.spec, self.config
        n_in = spec.obs + spec.actions + 1
        self.nets["flow"] = AgentNet(self.init_streams, spec, config, n_in, spec.actions, config.layer_norm)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Flow matching."""
        return {"flow": self.flow_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The integrated flow of each agent, from its own noise."""
        noise = self.acting_noise(*obs.shape[1:-1], self.spec.actions)
        points = euler(self.field(obs), noise, self.config.flow_steps)
        return to_actions(self.spec, points, legal, self.config.action_scale), memory

    def acting_rule(self) -> str:
        """Each agent integrates from noise of its own."""
        return "normal noise"

    def nfe(self) -> int:
        """One pass of the flow for each of its steps."""
        return self.config.flow_steps

    def flow_loss(self, batch: Batch) -> Tensor:
        """Flow matching to the data's actions (Eq. 5), with an own time for each agent."""
        target = to_points(self.spec, batch.actions, self.config.action_scale)
        noise = self.streams.normal(*target.shape[1:])
        time = self.streams.uniform(*target.shape[1:-1], 1)
        return flow_matching_loss(self.field(batch.obs), target, noise, time)

    def field(self, obs: Tensor) -> Field:
        """The vector field at these observations: x [S,B,I,A], t [S,B,I,1] -> [S,B,I,A]."""
        return given(self.nets["flow"], obs)
