"""MADiff-D: every agent plans for the whole team from its own observations, and follows its own part.

Paper: MADiff: Offline Multi-agent Learning with Diffusion Models (NeurIPS 2024), decentralised execution. Official
code: zbzhu99/madiff (`SharedConvAttentionDeconv` with the "single" mask). Differences: those of `planner`. It is
MAC-Flow's MADiff (Appendix F.1).
"""

import torch
from torch import Tensor

from offmarl.algorithms.parts.planner import Planner


class MADiffD(Planner):
    """One view per agent, with that agent's observations, and attention between agents."""

    name = "madiff_d"
    title = "MADiff"
    paper = "MADiff: Offline Multi-agent Learning with Diffusion Models, NeurIPS 2024"
    source_code = "https://github.com/zbzhu99/madiff"
    attention = True

    def views(self) -> Tensor:
        """[I, I]: agent i in view i."""
        return torch.eye(self.spec.agents, dtype=torch.bool)
