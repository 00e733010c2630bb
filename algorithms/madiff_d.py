"""MADiff-D: every agent imagines the whole team's future from its own observations, and follows its own part.

Paper: MADiff: Offline Multi-agent Learning with Diffusion Models (NeurIPS 2024), decentralised execution. Official
code: zbzhu99/madiff (`SharedConvAttentionDeconv` with the "single" mask). The differences are in `planner`. MAC-Flow's
MADiff is this one (Appendix F.1).
"""

import torch
from torch import Tensor

from offmarl.algorithms.parts.planner import SMALL, Planner


class MADiffD(Planner):
    """One view an agent, which holds that agent's observations alone."""

    name = "madiff_d"
    title = "MADiff"
    paper = "MADiff: Offline Multi-agent Learning with Diffusion Models, NeurIPS 2024"
    source_code = "https://github.com/zbzhu99/madiff"
    attention = True
    variants = {"quick": SMALL}

    def views(self) -> Tensor:
        """[I, I]: of view i, agent i."""
        return torch.eye(self.spec.agents, dtype=torch.bool)
