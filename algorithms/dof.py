"""DoF: every agent denoises its own future; their noise is joined by one weight an agent.

Paper: DoF: A Diffusion Factorization Framework for Offline Multi-Agent RL (ICLR 2025), DoF-Trajectory with W-concat.
Official code: xmu-rl-3dv/DoF, which does not import as published. Differences are in `planner`, and these:

* every row is conditioned on its own agent; the code conditions one random row a sample and trains the others, which
  acting never uses, without;
* the unconditioned pass of guidance hides the return; the code hides it with training's dropout, one time in four;
* an agent denoises its own row; the code's evaluation denoises all of them for each, and keeps one.

The variant `released` does as the code does in all three.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts import planner
from offmarl.algorithms.parts.config import choice
from offmarl.algorithms.parts.planner import SMALL, Planner
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.algorithms.parts.unet import UNet


@dataclass(frozen=True)
class Config(planner.Config):
    """Settings of DoF."""

    rows: str = choice("own", "all")  # that an agent denoises; "all": each sample and each decision as MADiff's views
    null_pass: str = choice("hidden", "dropout")  # of guidance: without the return, or with training's dropout


class WeightedUNet(UNet):
    """W-concat: the noise of agent i is scaled by w_i / (w_1 + ... + w_I), weights that are learnt."""

    def __init__(self, streams: SeedStreams, slot: int, config: Config, agents: int):
        super().__init__(streams, slot, config.width, config.multipliers, config.norm_groups)
        self.weights = nn.Parameter(torch.ones(self.seeds, agents))
        self.kept = slice(None)  # agents whose rows come in

    def keep_agent(self, agent: int) -> None:
        """Only this agent's rows come in from now on."""
        self.kept = slice(agent, agent + 1)

    def forward(self, x: Tensor, time: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        """As the U-Net's; agents lie in neighbouring rows."""
        noise = super().forward(x, time, returns, keep)
        share = (self.weights / self.weights.sum(1, keepdim=True))[:, self.kept]
        return noise * share.repeat(1, x.shape[1] // share.shape[1])[..., None, None]


class DoF(Planner):
    """Rows that never meet."""

    name = "dof"
    title = "DoF"
    paper = "DoF: A Diffusion Factorization Framework for Offline Multi-Agent RL, ICLR 2025"
    source_code = "https://github.com/xmu-rl-3dv/DoF"
    attention = False
    Config = Config
    variants = {
        "released": {"rows": "all", "null_pass": "dropout"},
        "quick": SMALL,
    }

    def views(self) -> Tensor:
        """One with everybody's observations, each in a row of its own; released: one an agent."""
        if self.config.rows == "all":
            return torch.eye(self.spec.agents, dtype=torch.bool)
        return torch.ones(1, self.spec.agents, dtype=torch.bool)

    def denoiser(self, slot: int) -> UNet:
        """With the agents' weights."""
        return WeightedUNet(self.init_streams, slot, self.config, self.spec.agents)

    def null_keep(self, wanted: Tensor) -> Tensor:
        """Nowhere; released: wherever training's dropout would not hide the return."""
        if self.config.null_pass == "hidden":
            return super().null_keep(wanted)
        draws = torch.special.ndtr(self.acting_noise(wanted.shape[1], call=len(self.chain.time) + 1))
        return (draws >= self.config.condition_dropout).float()
