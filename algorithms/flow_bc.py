"""Flow BC: behavioural cloning with individual flows.

Paper: MAC-Flow (ICLR 2026), Appendix F.1. Official code: agents/flowbc.py of DongsuLeeTech/mac-flow, which trains a
distilled head and acts with it, against the paper's text; ours follows the text: the full Euler integration acts,
without distillation and without Q. No discrete file is released: one-hot targets and a masked argmax, as for MAC-Flow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, size
from offmarl.algorithms.parts.flow import Field, euler, flow_matching_loss, to_actions, to_points
from offmarl.algorithms.parts.nets import AgentNet


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of Flow BC."""

    flow_steps: int = size(10, tiny=3)  # Euler steps
    layer_norm: bool = True  # in the flow
    action_scale: float = 1.0  # of actions as points of the flow, whose noise has unit variance


class FlowBC(Algorithm):
    """One vector field per agent on its local observation."""

    name = "flow_bc"
    title = "Flow BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    variants = {"quick": {"flow_steps": 5, "action_scale": 4.0}}

    def build(self) -> None:
        """A field of observation, noisy action and time."""
        spec, config = self.spec, self.config
        self.nets["flow"] = AgentNet(
            self.init_streams,
            spec.agents,
            spec.obs + spec.actions + 1,
            config.hidden,
            spec.actions,
            config.layer_norm,
            share_parameters=config.share_parameters,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Flow matching to the data's actions (Eq. 5), every agent at a time of its own."""
        target = to_points(self.spec, batch.actions, self.config.action_scale)
        noise = self.streams.normal(*target.shape[1:])
        time = self.streams.uniform(*target.shape[1:-1], 1)
        return {"flow": flow_matching_loss(self.field(batch.obs), target, noise, time)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """Integrate every agent's flow from noise."""
        noise = self.acting_noise(*obs.shape[1:-1], self.spec.actions)
        ends = euler(self.field(obs), noise, self.config.flow_steps)
        return to_actions(self.spec, ends, legal, self.config.action_scale), memory

    def nfe(self) -> int:
        """One pass a step of the integration."""
        return self.config.flow_steps

    def field(self, obs: Tensor) -> Field:
        """The agents' vector fields at these observations."""
        return lambda x, t: self.nets["flow"](obs, x, t)
