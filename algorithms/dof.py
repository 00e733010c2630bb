"""DoF: every agent denoises its own future; the noise of each agent has a learnt weight.

Paper: DoF: A Diffusion Factorization Framework for Offline Multi-Agent RL (ICLR 2025), DoF-Trajectory with W-concat.
Official code: xmu-rl-3dv/DoF, which cannot be imported as published. Differences: those of `planner`, and

* every row is conditioned on its own agent's observations; the code conditions one random row per sample and trains the
  others unconditioned, although acting never uses them;
* the unconditioned pass of guidance hides the return; the code hides it by the dropout of training, one time in four;
* an agent denoises its own row; the code's evaluation denoises all rows for each agent and keeps one.

The `released` variant follows the code in all three.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts import planner
from offmarl.algorithms.parts.config import choice
from offmarl.algorithms.parts.planner import Planner
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.algorithms.parts.unet import UNet


@dataclass(frozen=True)
class Config(planner.Config):
    """Settings of DoF."""

    rows: str = choice("own", "all")  # that an agent denoises; all: views as in MADiff
    null_pass: str = choice("hidden", "dropout")  # of guidance: the return hidden, or by training's dropout


class WeightedUNet(UNet):
    """W-concat: what agent i predicts is scaled by w_i / (w_1 + ... + w_I), with learnt weights w."""

    def __init__(self, streams: SeedStreams, slot: int, config: Config, agents: int):
        super().__init__(streams, slot, config.width, config.multipliers, config.norm_groups)
        self.weights = nn.Parameter(torch.ones(self.seeds, agents))
        self.kept = slice(None)  # agents whose rows are the input

    def keep_agent(self, agent: int) -> None:
        """The input is this agent's rows only, from now on."""
        self.kept = slice(agent, agent + 1)

    def forward(self, x: Tensor, time: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        """As the U-Net; agents are in neighbouring rows."""
        found = super().forward(x, time, returns, keep)
        share = (self.weights / self.weights.sum(1, keepdim=True))[:, self.kept]
        return found * share.repeat(1, x.shape[1] // share.shape[1])[..., None, None]


class DoF(Planner):
    """One row per agent, without attention between rows."""

    name = "dof"
    title = "DoF"
    paper = "DoF: A Diffusion Factorization Framework for Offline Multi-Agent RL, ICLR 2025"
    source_code = "https://github.com/xmu-rl-3dv/DoF"
    attention = False
    Config = Config
    variants = {"released": {"rows": "all", "null_pass": "dropout"}}

    def views(self) -> Tensor:
        """[1, I], every agent's observations, each in its own row; released: [I, I], one view per agent."""
        if self.config.rows == "all":
            return torch.eye(self.spec.agents, dtype=torch.bool)
        return torch.ones(1, self.spec.agents, dtype=torch.bool)

    def denoiser(self, slot: int) -> UNet:
        """The U-Net with a weight for each agent."""
        return WeightedUNet(self.init_streams, slot, self.config, self.spec.agents)

    def null_keep(self, returns: Tensor) -> Tensor:
        """0, without the return; released: 1 where training's dropout would keep the return."""
        if self.config.null_pass == "hidden":
            return super().null_keep(returns)
        draws = torch.special.ndtr(self.acting_noise(returns.shape[1], call=len(self.chain.time) + 1))
        return (draws >= self.config.condition_dropout).float()
